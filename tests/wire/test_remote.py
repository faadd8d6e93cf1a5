"""A backend in another process is a backend like others: numbers, errors, threads, and what happens when it goes."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from refbert import ops
from refbert.backend import registry
from refbert.errors import BackendError, RefbertWarning, Unsupported
from refbert.wire import command, connection, frames
from refbert.wire.connection import RemoteError, connection_of
from refbert.wire.pauses import threaded

HOSTED = f"exec:{sys.executable} -m refbert.wire.host reference"
X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture(scope="module")
def remote():
    return registry.create(HOSTED, dtype="float32")


def test_what_it_says_of_itself(remote):
    local = registry.create("reference", dtype="float32")
    assert (remote.name, remote.library, remote.dtype, remote.device, remote.dtypes) == (
        local.name, local.library, local.dtype, local.device, local.dtypes,
    )  # fmt: skip
    assert not hasattr(remote, "encoder_layer")
    assert not hasattr(remote, "recomputed")


def test_numbers_come_back_bit_for_bit(remote):
    w, b = np.float32([[0.1, 0.2, 0.3]]), np.float32([0.7])
    y, pullback = remote.linear(*map(remote.asarray, (X, w, b)))
    want, back = ops.linear(X, w, b)
    assert y.shape == (2, 1)
    assert np.array_equal(remote.to_numpy(y), want)
    for got, due in zip(pullback(y), back(want), strict=True):
        assert np.array_equal(remote.to_numpy(got), due)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1 << 15,), (3, 70_001)])
def test_arrays_of_any_size(remote, shape):
    x = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
    assert np.array_equal(remote.to_numpy(remote.asarray(x)), x)


@pytest.mark.parametrize(("free", "sent"), [(None, 0), (1 << 20, 4 << 20)])
def test_large_arrays_go_through_shared_memory_where_there_is_room(monkeypatch, tmp_path, free, sent):
    monkeypatch.setattr(connection, "_places", lambda: ("/no/such/folder", tmp_path))
    if free is not None:
        monkeypatch.setattr(connection.shutil, "disk_usage", lambda place: SimpleNamespace(free=free))
    monkeypatch.setattr(command, "_running", weakref.WeakValueDictionary())  # a process that is not known yet
    backend = registry.create(HOSTED, dtype="float32")
    x, written = np.ones((1 << 20,), np.float32), []
    write = os.write
    monkeypatch.setattr(frames.os, "write", lambda fd, data: written.append(len(data)) or write(fd, data))
    y = backend.to_numpy(backend.asarray(x))
    assert np.array_equal(x, y)
    assert sent <= sum(written) < sent + 2000
    assert not list(tmp_path.iterdir()), "the file is gone as soon as both sides have it"


def test_errors_have_their_kind(remote):
    table = remote.asarray(X)
    with pytest.raises(IndexError, match=r"ids must be in \[0, 2\), got 2 to 2"):
        remote.embedding(table, np.array([2]))
    with pytest.raises(ValueError, match="form"):
        remote.gelu(table, form="sigmoid")
    with pytest.raises(Unsupported, match="does not offer dtype"):
        registry.create(HOSTED, dtype="bfloat16")
    with pytest.raises(TypeError, match="cannot be given"):
        remote.relu(object())
    assert np.array_equal(remote.to_numpy(remote.relu(table)[0]), X), "the connection goes on"


def test_what_nobody_has_any_more_is_given_up(remote):
    connection = connection_of(remote)
    for _ in range(50):
        remote.relu(remote.asarray(X))
    assert len(connection.gone) < 10


def test_calls_in_threads_run_beside_each_other():
    backend = registry.create(HOSTED, dtype="float32")
    x = backend.asarray(X)
    found = []

    def work():
        for _ in range(20):
            found.append(backend.to_numpy(backend.tanh(x)[0]))

    with threaded(backend):
        threads = [threading.Thread(target=work) for _ in range(3)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    assert len(found) == 60
    assert all(np.array_equal(one, found[0]) for one in found)
    assert np.array_equal(backend.to_numpy(backend.relu(x)[0]), X)


def test_threads_that_end_leave_the_next_message_to_others():
    """One that is late to notice that there are no threads any more once read it in the main thread's place."""
    backend = registry.create(HOSTED, dtype="float32")
    x = backend.asarray(X)
    for _ in range(150):
        with threaded(backend):
            threads = [threading.Thread(target=lambda: backend.relu(x)) for _ in range(4)]
            for one in threads:
                one.start()
            for one in threads:
                one.join()
        assert np.array_equal(backend.to_numpy(x), X)


def test_instances_share_a_process(remote):
    wide = registry.create(HOSTED, dtype="float64")
    assert connection_of(wide) is connection_of(remote)
    assert wide.to_numpy(wide.asarray(X)).dtype == np.float64


ANSWERS = """
import json, os, struct, sys
r, w = map(int, os.environ["REFBERT_WIRE"].split(","))
def message():
    magic, h, p = struct.unpack("<8sQQ", os.read(r, 24))
    header = json.loads(os.read(r, h))
    while p: p -= len(os.read(r, p))
    return header
def say(header, payload=b""):
    text = json.dumps(header).encode()
    os.write(w, struct.pack("<8sQQ", b"refbert1", len(text), len(payload)) + text + payload)
HELLO = {"wire": 1, "contract": 1, "name": "x", "library": "l", "device": "cpu", "dtypes": ["float32"],
         "offers": ["asarray", "to_numpy", "relu"]}
"""
PEERS = {
    "dies at once": ("sys.exit(3)", "has closed the connection; it ended with status 3"),
    "says nothing": ("os.close(w); message()", "has closed the connection"),
    "prints": ("os.write(w, b'hello, this is not what you are waiting for')", "sent what is no message"),
    "another version": ("message(); say({'id': 1, 'ok': HELLO | {'wire': 7}})", "speaks wire protocol 7, but this"),
    "no version": ("message(); say({'id': 1, 'ok': {}})", "speaks wire protocol None, but this refbert speaks 1"),
    "another contract": (
        "message(); say({'id': 1, 'ok': HELLO | {'contract': 9}}); message(); "
        "say({'id': 2, 'ok': {'instance': 1, 'dtype': 'float32'}})", "speaks contract 9, but this refbert",
    ),
    "half a frame": ("message(); os.write(w, b'refbert1' + bytes(7)); sys.exit(0)", "ends after 15 of 24 bytes of its"),
    "neither": ("message(); say({'id': 1, 'okay': {}})", 'an answer with neither "ok" nor "error"'),
    "a signal": ("message(); os.kill(os.getpid(), 9)", "ended with signal 9"),
    "no dtype": (
        "message(); say({'id': 1, 'ok': HELLO}); message(); say({'id': 2, 'ok': {'instance': 1}})",
        "no backend: without a dtype",
    ),
    "dies in the middle": (
        "message(); say({'id': 1, 'ok': HELLO}); message(); "
        "say({'id': 2, 'ok': {'instance': 1, 'dtype': 'float32'}}); message(); sys.exit(5)",
        "has closed the connection; it ended with status 5",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("code", "says"), PEERS.values(), ids=list(PEERS))
def test_a_peer_that_does_not_speak_it_is_one_line(code, says, tmp_path):
    (tmp_path / "peer.py").write_text(ANSWERS + code, encoding="utf-8")
    name = f"exec:{shlex.join([sys.executable, str(tmp_path / 'peer.py')])}"
    with pytest.raises(BackendError, match=re.escape(says)) as caught:
        registry.create(name).asarray(X)
    assert str(caught.value).startswith(f'backend "{name}" '[:40])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("exec:", "name a command, as in exec:./my-backend"),
        ("exec:   ", "name a command"),
        ("exec:'", "No closing quotation"),
        ("exec:/no/such/program", "cannot be started: No such file or directory"),
        ("exec:/", "cannot be started: "),
    ],
)
def test_a_command_that_is_none(name, says):
    with pytest.raises(BackendError, match=says):
        registry.create(name)


def test_the_command_line_says_it_in_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "refbert", "run", "--backend", "exec:/no/such/program", "A [MASK]."],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "cannot be started" in done.stderr.splitlines()[-1]


HOST = """
import os, sys
open(sys.argv[1], "w").write(str(os.getpid()))
sys.argv[1] = "reference"
from refbert.wire.host import main
main()
"""


def test_a_command_ends_with_its_backend(tmp_path):
    program, pid_file = tmp_path / "peer.py", tmp_path / "pid"
    program.write_text(HOST, encoding="utf-8")
    backend = registry.create(f"exec:{shlex.join([sys.executable, str(program), str(pid_file)])}")
    backend.asarray(X)
    pid = pid_file.read_text(encoding="utf-8")
    assert Path(f"/proc/{pid}").exists()
    del backend
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (
            "{'ok': {'result': [{'array': 1, 'shape': [2]}, {'array': 1, 'shape': [2]}]}}",
            "is 1, which is the number of",
        ),
        ("{'ok': {'result': {'array': 1}}}", r"none that the protocol knows \(without 'shape'\)"),
        ("{'error': {'kind': 'nonsense', 'message': 'no'}}", 'of the kind "nonsense", which the protocol does not'),
        ("{'error': {'kind': 'failed', 'message': 'no'}}", "^no$"),
    ],
)
def test_an_answer_that_is_not_understood_says_what_it_lacks(answer, says, tmp_path):
    code = (
        "message(); say({'id': 1, 'ok': HELLO}); message(); say({'id': 2, 'ok': {'instance': 1, 'dtype': 'float32'}}); "
        f"message(); say({{'id': 3}} | {answer}); message()"
    )
    (tmp_path / "peer.py").write_text(ANSWERS + code, encoding="utf-8")
    backend = registry.create(f"exec:{shlex.join([sys.executable, str(tmp_path / 'peer.py')])}")
    with pytest.raises(RemoteError, match=says):
        backend.asarray(X)


def test_an_offer_that_the_contract_does_not_have_is_said(tmp_path):
    code = (
        "message(); say({'id': 1, 'ok': HELLO | {'offers': ['asarray', 'to_numpy', 'ad']}}); message(); "
        "say({'id': 2, 'ok': {'instance': 1, 'dtype': 'float32'}}); message()"
    )
    (tmp_path / "peer.py").write_text(ANSWERS + code, encoding="utf-8")
    with pytest.warns(RefbertWarning, match="offers ad, which the contract does not have"):
        registry.create(f"exec:{shlex.join([sys.executable, str(tmp_path / 'peer.py')])}")
