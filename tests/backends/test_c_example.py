"""The backend in C, examples/refbert-c, compiled here: its operations, and how it takes what is no message."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from op_cases import BAD_ARGUMENTS, CASES, check

from refbert.backend.registry import create

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "refbert-c"
SOURCE = EXAMPLE / "refbert.c"
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
compiled_here = pytest.mark.skipif(COMPILER is None, reason="unavailable: there is no C compiler")
SENTENCE = "Paris is the [MASK] of France."
# LayerNorm's backward without its last term: the projection on x̂.
TERM = " - (x[j] - mean) * r * qx"


def built(source, program):
    subprocess.run([COMPILER, "-O2", "-o", program, source, "-lm"], check=True, timeout=120)
    return program


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return built(SOURCE, tmp_path_factory.mktemp("c") / "refbert-c")


def refbert(*arguments, folder):
    return subprocess.run(
        [sys.executable, "-m", "refbert", *arguments], capture_output=True, text=True, timeout=250, cwd=folder
    )


def message(header, payload=b"", length=None):
    text = json.dumps(header).encode()
    return b"refbert1" + struct.pack("<QQ", len(text), len(payload) if length is None else length) + text + payload


def told(program, *messages):
    """The exit status, what was said on stderr, and the answers' headers."""
    environment = {name: value for name, value in os.environ.items() if name != "REFBERT_WIRE"}
    done = subprocess.run([program], input=b"".join(messages), capture_output=True, env=environment, timeout=60)
    out, answers = done.stdout, []
    while out:
        h, p = struct.unpack("<QQ", out[8:24])
        answers.append(json.loads(out[24 : 24 + h]))
        out = out[24 + h + p :]
    return done.returncode, done.stderr.decode(), answers


@pytest.fixture(scope="module")
def backend(program):
    return create(f"exec:{program}")


@compiled_here
@pytest.mark.parametrize("case", CASES)
def test_op(backend, case):
    check(backend, case)


@compiled_here
@pytest.mark.parametrize(("op", "shapes", "options", "error"), BAD_ARGUMENTS)
def test_bad_arguments_raise_what_the_reference_raises(backend, op, shapes, options, error):
    with pytest.raises(error):
        getattr(backend, op)(*(backend.asarray(np.ones(shape)) for shape in shapes), **options)


@compiled_here
def test_every_operation_and_gradient_passes(program, tmp_path):
    """A few properties of each; `refbert conform` without --only tries them all."""
    report = tmp_path / "report.json"
    done = refbert(
        "conform", "--backend", f"exec:{program}", "--effort", "quick", "--only", "*ward/*/accuracy", "--json", report,
        folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(report.read_text(encoding="utf-8"))["properties"]
    assert [one["outcome"] for one in rows] == ["passed"] * 32  # 16 operations, forward and backward


@compiled_here
def test_the_predictions_are_numpys(program, tmp_path):
    by_backend = [
        refbert("run", "--backend", backend, SENTENCE, folder=tmp_path) for backend in (f"exec:{program}", "numpy")
    ]
    assert all(done.returncode == 0 for done in by_backend), by_backend
    assert by_backend[0].stdout == by_backend[1].stdout != ""


@compiled_here
def test_a_planted_fault_is_found_and_shrunk(tmp_path):
    text = SOURCE.read_text(encoding="utf-8")
    assert text.count(TERM) == 1
    (tmp_path / "wrong.c").write_text(text.replace(TERM, ""), encoding="utf-8")
    wrong = built(tmp_path / "wrong.c", tmp_path / "wrong")
    done = refbert("conform", "--backend", f"exec:{wrong}", "--effort", "quick", "--only", "*/layer_norm/accuracy",
                   folder=tmp_path)  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED  backward/layer_norm/accuracy" in done.stdout
    assert "behaves like: layer_norm: without the x̂ term" in done.stdout
    (x,) = re.findall(r"\| x = (.*)", done.stdout)
    assert len(re.findall(r"[\d.]+", x)) <= 4


@compiled_here
def test_what_is_no_request_is_an_error_and_the_connection_goes_on(program):
    hello = message({"id": 9, "do": "hello", "wire": [1], "contract": [1]})
    requests = (
        {"id": 1, "do": "dance"}, {"id": 2}, {"id": 3, "do": "get", "value": {"array": 7}},
        {"id": 4, "do": "pull", "pullback": 7, "args": [{"array": 7}]}, {"id": 5, "do": "call", "op": "fly"},
        {"id": 6, "do": "call", "op": "linear", "args": [{"array": 7}]}, {"id": 7, "do": "put", "value": {"tensor": 0}},
    )  # fmt: skip
    status, said, answers = told(program, *map(message, requests), hello)
    assert (status, said) == (0, "")
    assert [answer["id"] for answer in answers] == [1, 2, 3, 4, 5, 6, 7, 9]
    assert [answer["error"]["kind"] for answer in answers[:-1]] == ["invalid"] * 7
    assert answers[-1]["ok"]["name"] == "refbert-c"


@compiled_here
@pytest.mark.parametrize(
    "bad",
    [
        b"refb",
        b"what is this, then, please?",
        message({"id": 1, "do": "hello"})[:-3],
        message({"id": 1, "do": "hello"}, length=1 << 32),
        message({"id": 1, "do": "put", "tensors": [{"dtype": "float32", "shape": [4]}]}, b"\0" * 8),
        message({"id": 1, "do": "put", "tensors": [{"dtype": "float32", "shape": [4]}]}, b"\0" * 8, 16),
        message({"id": 1, "do": "put", "tensors": [{"dtype": "float32", "shape": [1 << 40, 1 << 40]}]}, length=1 << 42),
        message({"id": 1, "do": "put", "tensors": [{"dtype": "float32", "shape": [-1]}]}),
        b"refbert1" + struct.pack("<QQ", 1 << 32, 0) + b"{}",
        b"refbert1" + struct.pack("<QQ", 4, 0) + b"nope",
    ],
)  # fmt: skip
def test_what_is_no_message_ends_it_with_one_line(program, bad):
    status, said, answers = told(program, bad)
    assert (status, answers) == (1, [])
    assert len(said.splitlines()) == 1
    assert said.startswith("refbert-c: ")


def test_its_length():
    lines = SOURCE.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 400
    assert max(map(len, lines)) <= 120
    for document in (EXAMPLE / "README.md", ROOT / "docs" / "writing-a-backend.md"):
        assert f"{len(lines)} lines" in " ".join(document.read_text(encoding="utf-8").split()), document


def test_the_links_of_its_readme_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", (EXAMPLE / "README.md").read_text(encoding="utf-8")):
        assert (EXAMPLE / target).exists(), target
