"""Hub names, against a local server that answers as the hub does; each look-up in a process of its own.

huggingface_hub reads HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE when it is imported, hence the processes.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from checkpoint_files import GOLDEN, TINY, assert_bitwise, weights
from hostile import refused

from refbert.checkpoint import hub, read, resolve, write
from refbert.errors import CheckpointError, RefbertWarning
from refbert.models import shipped

COMMIT = "0123456789abcdef0123456789abcdef01234567"

RESOLVE = """
import json, sys, time, warnings
warnings.simplefilter("error")
from refbert.checkpoint import resolve
from refbert.errors import CheckpointError
start = time.monotonic()
try:
    found = {"path": str(resolve(sys.argv[1], revision=sys.argv[2] or None))}
except CheckpointError as error:
    found = {"error": str(error)}
print(json.dumps(found | {"seconds": time.monotonic() - start}))
"""


class Hub(BaseHTTPRequestHandler):
    """/{repository}/resolve/{revision}/{file}, with the headers that the client asks for."""

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, *, body):
        self.server.log.append((self.path, self.headers.get("Authorization")))
        repository, _, rest = self.path.lstrip("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        error = self.server.refusals.get(repository)
        files = self.server.repositories.get(repository)
        if error:
            return self.refuse(*error)
        if files is None:
            return self.refuse(404, "RepoNotFound")
        if revision not in ("main", COMMIT):
            return self.refuse(404, "RevisionNotFound")
        if file not in files:
            return self.refuse(404, "EntryNotFound")
        data = files[file]
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)
        return None

    def refuse(self, status, code):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.log, server.repositories, server.refusals = [], {}, {}
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def look_up(tmp_path):
    def run(name, endpoint, *, revision="", **environment):
        kept = {key: value for key, value in os.environ.items() if not key.upper().endswith("_PROXY")}
        for key in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HUGGING_FACE_HUB_TOKEN"):
            kept.pop(key, None)
        kept |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), **environment}
        done = subprocess.run(
            [sys.executable, "-c", RESOLVE, name, revision], env=kept, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("model")
    write(directory, weights(), TINY, heads=("masked_lm", "next_sentence"), pooler=True)
    out = {file.name: file.read_bytes() for file in directory.iterdir()}
    return out | {"vocab.txt": b"[PAD]\n", "pytorch_model.bin": b"not wanted", "README.md": b"not wanted"}


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


# The hub answers


@pytest.mark.parametrize("name", ["google-bert/bert-base-uncased", "bert-base-uncased"])
def test_a_name_is_downloaded_once_and_then_cached(server, files, look_up, name):
    server.repositories["google-bert/bert-base-uncased"] = files
    found = Path(look_up(name, server.url)["path"])
    assert {file.name for file in found.iterdir()} == {"config.json", "model.safetensors", "vocab.txt"}
    assert_bitwise(read(found).tensors, weights())

    # The branch is resolved once; a commit pushed during the download cannot mix into it.
    asked = {path.split("/resolve/")[1] for path, _ in server.log if "/resolve/" in path}
    assert {path for path in asked if not path.startswith(COMMIT)} == {"main/config.json"}

    server.log.clear()
    assert look_up(name, server.url)["path"] == str(found)
    # Only whether the branch has moved is asked; all else is fixed by the commit.
    asked = [path for path, _ in server.log if "/resolve/" in path]
    assert asked == ["/google-bert/bert-base-uncased/resolve/main/config.json"]

    server.log.clear()
    assert look_up(name, server.url, HF_HUB_OFFLINE="1")["path"] == str(found)
    assert server.log == []
    assert look_up(name, closed_port())["path"] == str(found)


def test_a_name_from_before_there_were_owners_may_be_cached_as_such(server, files, look_up):
    server.repositories["bert-tiny"] = files
    found = look_up("bert-tiny", server.url)["path"]
    assert look_up("bert-tiny", server.url, HF_HUB_OFFLINE="1")["path"] == found


def test_a_revision(server, files, look_up):
    server.repositories["some/model"] = files
    assert look_up("some/model", server.url, revision=COMMIT)["path"].endswith(COMMIT)
    assert 'some/model: has no revision "old"' in look_up("some/model", server.url, revision="old")["error"]


def test_shards_and_a_tensorflow_checkpoint(server, files, look_up):
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    server.repositories["some/sharded"] = {
        "config.json": files["config.json"],
        "model.safetensors.index.json": json.dumps(index).encode(),
        "model-1.safetensors": b"1",
        "model-2.safetensors": b"2",
        "model-3.safetensors": b"not wanted",
    }
    found = Path(look_up("some/sharded", server.url)["path"])
    assert {file.name for file in found.glob("model*")} == {
        "model.safetensors.index.json",
        "model-1.safetensors",
        "model-2.safetensors",
    }
    server.repositories["some/google"] = {
        file.name: file.read_bytes() for file in GOLDEN.iterdir() if file.name.startswith("bert_")
    }
    found = Path(look_up("some/google", server.url)["path"])
    assert_bitwise(read(found).tensors, read(GOLDEN).tensors)


@pytest.mark.parametrize("below", ["", "0_Transformer/"])
def test_a_sentence_transformers_model_comes_with_its_modules(server, files, look_up, below):
    types = [("Transformer", below.strip("/")), ("Pooling", "1_Pooling"), ("Dense", "2_Dense")]
    modules = [{"type": f"sentence_transformers.models.{name}", "path": path} for name, path in types]
    server.repositories["some/sentences"] = {f"{below}{name}": data for name, data in files.items()} | {
        "modules.json": json.dumps(modules).encode(),
        "config_sentence_transformers.json": b"{}",
        f"{below}sentence_bert_config.json": b"{}",
        "1_Pooling/config.json": b"{}",
        "2_Dense/config.json": b"{}",
        "2_Dense/pytorch_model.bin": b"",
        "3_Other/config.json": b"not wanted",
    }
    found = Path(look_up("some/sentences", server.url)["path"])
    assert_bitwise(read(found).tensors, weights())
    root = found.parent if below else found
    assert {str(file.relative_to(root)) for file in root.rglob("*") if file.is_file()} == {
        "modules.json", "config_sentence_transformers.json", "1_Pooling/config.json", "2_Dense/config.json",
        "2_Dense/pytorch_model.bin", f"{below}sentence_bert_config.json", f"{below}config.json",
        f"{below}model.safetensors", f"{below}vocab.txt",
    }  # fmt: skip
    assert look_up("some/sentences", server.url, HF_HUB_OFFLINE="1")["path"] == str(found)


def test_the_token_is_sent(server, files, look_up):
    server.repositories["some/model"] = files
    look_up("some/model", server.url, HF_TOKEN="hf_secret")
    assert ("/some/model/resolve/main/config.json", "Bearer hf_secret") in server.log


# The hub refuses


def test_what_the_hub_does_not_give(server, files, look_up):
    server.refusals["some/gated"] = (403, "GatedRepo")
    server.repositories["some/thing"] = {"README.md": b""}
    server.repositories["some/flax"] = {"config.json": files["config.json"], "flax_model.msgpack": b""}
    server.repositories["some/half"] = {
        "config.json": files["config.json"],
        "model.safetensors.index.json": b'{"weight_map": {"a": "model-1.safetensors"}}',
    }
    expected = {
        "some/gated": f"some/gated: gated; accept its terms at {server.url}/some/gated and set HF_TOKEN",
        "some/nothing": f"some/nothing: neither a local directory nor a model at {server.url}",
        "bert-nothing": "google-bert/bert-nothing: neither a local directory nor a model",
        "some/thing": "some/thing: has no config.json",
        "some/flax": "some/flax: has no weights (looked for model.safetensors",
        "some/half": "some/half: model-1.safetensors is missing",
    }
    for name, message in expected.items():
        error = look_up(name, server.url)["error"]
        assert message in error
        assert "\n" not in error


# No hub


def test_offline_without_a_cached_copy(server, look_up):
    found = look_up("some/model", server.url, HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE is set; load it once with a network, or name a directory" in found["error"]
    assert server.log == []


def test_a_hub_that_cannot_be_reached_fails_fast(look_up):
    found = look_up("some/model", closed_port())
    assert "cannot be reached; load it once with a network, or name a directory" in found["error"]
    assert found["seconds"] < 2 * hub.PROBE_SECONDS


def test_a_hub_that_does_not_answer_fails_fast(look_up):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        found = look_up("some/model", f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert "cannot be reached" in found["error"]
    # The probe's limit, and as much again for importing huggingface_hub on a busy machine.
    assert found["seconds"] < 2 * hub.PROBE_SECONDS


def test_a_partial_download_is_not_a_cached_copy(server, files, look_up):
    server.repositories["some/model"] = {"config.json": files["config.json"]}
    look_up("some/model", server.url)
    assert "not (wholly) in the cache" in look_up("some/model", server.url, HF_HUB_OFFLINE="1")["error"]


# No name


def test_a_local_directory_never_touches_the_network(server, look_up, tmp_path):
    (tmp_path / "model").mkdir()
    assert look_up(str(tmp_path / "model"), server.url)["path"] == str(tmp_path / "model")
    assert server.log == []


def test_a_local_directory_does_not_even_import_the_client(tmp_path):
    code = (
        "import sys; from refbert.checkpoint import resolve; "
        f"resolve({str(tmp_path)!r}); assert 'huggingface_hub' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "a/b/c", "~nobody/x", "a b", "models\\bert"])
def test_a_path_that_is_not_there_is_not_asked_of_the_hub(name):
    start = time.monotonic()
    with pytest.raises(CheckpointError, match="no such directory"):
        resolve(name)
    assert time.monotonic() - start < 1


def test_no_name_is_not_the_current_directory():
    with pytest.raises(CheckpointError, match="no model named"):
        resolve("")


def test_a_path_object_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="some/model: no such directory"):
        resolve(Path("some/model"))
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="file: a file; name the directory"):
        resolve(tmp_path / "file")


# Names and paths


def test_a_directory_of_a_shipped_models_name_does_not_take_its_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small-english").mkdir()
    with pytest.warns(RefbertWarning, match=r"say \./small-english for the directory"):
        assert resolve("small-english") == shipped("small-english")
    for path in ("./small-english", "small-english/", str(tmp_path / "small-english"), Path("small-english")):
        assert resolve(path).absolute() == tmp_path / "small-english"


def test_another_directory_comes_before_the_hub(tmp_path, monkeypatch):
    """As in transformers."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bert-base-uncased").mkdir()
    assert resolve("bert-base-uncased") == Path("bert-base-uncased")


@pytest.mark.parametrize(
    "name",
    ["~nobody-of-this-name/x", "a" * 300, "a/" + "b" * 300, "nul\0byte", "half\ud800pair", "x" * 5000, "../" * 2000],
)
def test_names_that_no_file_has(name):
    refused(CheckpointError, ".", resolve, name)
    refused(CheckpointError, ".", resolve, Path(name))
