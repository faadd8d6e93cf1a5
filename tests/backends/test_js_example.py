"""The backend in JavaScript, examples/refbert-js: its operations against the reference, and how it takes what is no
message. Unavailable without Node.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from op_cases import BAD_ARGUMENTS, CASES, RATES, check
from scipy.special import erfc

import refbert
from refbert import ops
from refbert.backend import OPTIONAL, UNIT_ROUNDOFF, missing_ops
from refbert.backend.registry import create
from refbert.tasks.fill_mask import fill_mask

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "refbert-js"
MAIN = EXAMPLE / "main.js"
NAME = f"exec:node {MAIN}"
pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="unavailable: Node is not installed")


@pytest.fixture(scope="module")
def js():
    return create(NAME)


@pytest.mark.parametrize("case", CASES)
def test_op(js, case):
    check(js, case)


@pytest.mark.parametrize(("op", "shapes", "options", "error"), BAD_ARGUMENTS)
def test_bad_arguments_raise_what_the_reference_raises(js, op, shapes, options, error):
    with pytest.raises(error):
        getattr(js, op)(*(js.asarray(np.ones(shape)) for shape in shapes), **options)


def test_gelu_is_the_nearest_float32_everywhere(js):
    """Φ is good to 10⁻¹² of itself: after rounding, half an ULP and a little, down to the smallest numbers."""
    sizes = np.concatenate([np.geomspace(1e-38, 1e-3, 200), np.linspace(1e-3, 14.5, 3000)]).astype(np.float32)
    x = np.concatenate([sizes, -sizes]).astype(np.float64)
    y, _ = js.gelu(js.asarray(x), form="erf")
    exact = x * 0.5 * erfc(-x / np.sqrt(2))
    half_a_step = np.maximum(2.0**-24 * abs(exact), 2.0**-150)
    assert (abs(js.to_numpy(y) - exact) <= half_a_step * (1 + 1e-4)).all()


@pytest.mark.parametrize("rule", ["bert_adam", "adamw", "lamb"])
def test_updates(js, rule):
    rng = np.random.default_rng(0)
    p, g, m, v = (
        x.astype(np.float32).astype(np.float64) for x in (*rng.standard_normal((3, 5, 4)), rng.random((5, 4)))
    )
    got = js.update(rule, *map(js.asarray, (p, g, m, v)), scale=0.5, step=3, **RATES)
    wanted = getattr(ops, rule)(p, g / 2, m, v, **RATES, **({} if rule == "bert_adam" else {"step": 3}))
    for ours, reference in zip(got, wanted, strict=True):
        assert (abs(js.to_numpy(ours) - reference) <= 1.001 * UNIT_ROUNDOFF["float32"] * abs(reference)).all()


def test_what_it_offers(js):
    assert missing_ops(js) == ()
    assert {name for name in OPTIONAL if not hasattr(js, name)} == {"objective", "cast", "recomputed"}


def test_predictions_are_numpys():
    texts = ["Paris is the [MASK] of France.", "A [MASK] is a large animal."]
    theirs, ours = (
        [filled.masks[0].predictions for filled in fill_mask(refbert.load("small-english", backend=backend), texts)]
        for backend in ("numpy", NAME)
    )
    for a, b in zip(sum(theirs, ()), sum(ours, ()), strict=True):
        assert a.token == b.token
        assert abs(a.score - b.score) < 1e-5


def test_some_properties_of_every_op():
    """What `check` does not see: NaN in an argument and in a cotangent."""
    command = [sys.executable, "-m", "refbert", "conform", "--backend", NAME, "--effort", "quick"]
    done = subprocess.run(
        [*command, "--only", "not a number"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "32 of 32" in done.stdout


def frame(header, payload=b"", *, magic=b"refbert1", h=None, p=None):
    """A message, or one that lies about its lengths."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    lengths = len(text) if h is None else h, len(payload) if p is None else p
    return struct.pack("<8sQQ", magic, *lengths) + text + payload


def answers(data):
    found = []
    while data:
        _, h, p = struct.unpack("<8sQQ", data[:24])
        found.append(json.loads(data[24 : 24 + h]))
        data = data[24 + h + p :]
    return found


def talk(data):
    return subprocess.run(["node", str(MAIN)], input=data, capture_output=True, timeout=60, check=False)


HELLO = {"id": 1, "do": "hello", "wire": [1], "contract": [1]}


def put(*, dtype="float32", shape=(2, 3)):
    return {"id": 2, "do": "put", "value": {"tensor": 0}, "tensors": [{"dtype": dtype, "shape": shape}]}


NO_MESSAGES = {
    "another protocol": (frame(HELLO, magic=b"GET / HT"), "begins with"),
    "a prefix cut off": (frame(HELLO)[:10], "ends after 10 of 24 bytes of its prefix"),
    "a header cut off": (frame(HELLO)[:40], "ends after 16 of 54 bytes of its header"),
    "a payload cut off": (frame(put(), bytes(24))[:-1], "ends after 23 of 24 bytes of its payload"),
    "a header of 4 GiB": (frame(HELLO, h=1 << 32), "longer than there can be"),
    "a payload of 4 GiB": (frame(HELLO, p=1 << 32), "its tensors have 0"),
    "a tensor of 4 GiB": (frame(put(shape=[1 << 30]), p=1 << 32), "ends after 0 of 4294967296 bytes"),
    "a tensor of 16 TiB": (frame(put(shape=[1 << 42]), p=1 << 44), "no memory"),
    "a shape beyond numbers": (frame(put(shape=[1 << 52] * 2), p=1 << 63), "its tensors have"),
    "a payload too short": (frame(put(), bytes(16)), "its tensors have 24"),
    "no JSON": (frame(b"{]"), "not a JSON object"),
    "no UTF-8": (frame(b'{"id":"\xff"}'), "not a JSON object"),
    "a list": (frame(b"[]"), "not a JSON object"),
    "deep brackets": (frame(b"[" * (1 << 20)), "not a JSON object"),
    "no list of tensors": (frame({**HELLO, "tensors": 5}), '"tensors"'),
    "an unknown dtype": (frame(put(dtype="complex")), '"tensors"'),
    "a negative shape": (frame(put(shape=[-1])), '"tensors"'),
}


@pytest.mark.parametrize(("data", "why"), NO_MESSAGES.values(), ids=NO_MESSAGES)
def test_what_is_no_message_ends_it_with_one_line(data, why):
    done = talk(data)
    assert done.returncode == 1
    assert re.fullmatch(r"refbert-js: [^\n]*\n", done.stderr.decode())
    assert why in done.stderr.decode()
    assert done.stdout == b""


def test_requests_that_make_no_sense_are_answered():
    requests = [
        ({"do": "hello", "wire": [2]}, "unsupported"),
        ({}, "invalid"),
        ({"do": "toString"}, "invalid"),
        ({"do": "open", "dtype": "float16"}, "unsupported"),
        ({"do": "open", "device": "cuda"}, "unavailable"),
        ({"do": "get", "value": {"array": 5}}, "invalid"),
        ({"do": "put", "value": {"tensor": 0}}, "invalid"),
        ({"do": "put", "value": {"tensor": "length"}}, "invalid"),
        ({"do": "call", "op": "constructor", "args": []}, "unsupported"),
        ({"do": "call", "op": "need", "args": [True]}, "unsupported"),
        ({"do": "call", "op": "linear", "args": []}, "invalid"),
        ({"do": "pull", "pullback": 3, "args": []}, "invalid"),
        ({"do": "open", "free": [7, "x"]}, None),
    ]
    done = talk(b"".join(frame({"id": number} | request) for number, (request, _) in enumerate(requests)))
    assert done.returncode == 0
    for number, (answer, (request, kind)) in enumerate(zip(answers(done.stdout), requests, strict=True)):
        assert answer["id"] == number
        assert answer.get("error", {}).get("kind") == kind, (request, answer)


def test_every_dtype_of_the_host(js):
    for dtype in ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16"):
        x = np.array([0, 1, 0, 1, 1], dtype)
        np.testing.assert_array_equal(js.to_numpy(js.asarray(x)), x.astype(np.float32))
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    np.testing.assert_array_equal(js.to_numpy(js.asarray(halves)), halves.astype(np.float32))
    # Twice to nearest, by way of float64, would lose the one that decides the tie.
    large = np.array([2**60 + 2**36 + 1, 2**60 + 2**36, -(2**62) - 2**38 - 1, 2**53 + 1])
    np.testing.assert_array_equal(js.to_numpy(js.asarray(large)), [2**60 + 2**37, 2**60, -(2**62) - 2**39, 2**53])


def test_descriptors_that_do_not_block():
    """It waits for a request that is late, and with an answer that is larger than a pipe."""
    n = 300_000
    theirs, ours = os.pipe()
    back, answering = os.pipe()
    for fd in (theirs, answering):
        os.set_blocking(fd, False)
    wire = {**os.environ, "REFBERT_WIRE": f"{theirs},{answering}"}
    with subprocess.Popen(["node", str(MAIN)], pass_fds=(theirs, answering), env=wire) as process:
        os.close(theirs)
        os.close(answering)
        with open(ours, "wb", 0) as out, open(back, "rb") as answered:
            out.write(frame(HELLO))
            first = answered.read(24)
            answered.read(struct.unpack("<8sQQ", first)[1])
            time.sleep(0.2)  # by now it waits for the next one
            out.write(frame(put(shape=[n]), bytes(4 * n)) + frame({"id": 3, "do": "get", "value": {"array": 1}}))
            out.close()
            time.sleep(0.2)  # by now the pipe is full
            found = answers(answered.read())
        assert process.wait(30) == 0
    assert found[1]["tensors"] == [{"dtype": "float32", "shape": [n]}]


def test_the_operations_need_nothing_but_the_language():
    assert not re.findall(
        r"\b(?:import|require|process|Buffer|console|window|document)\b", (EXAMPLE / "ops.js").read_text()
    )


def test_the_example_of_the_readme(tmp_path):
    (code,) = re.findall(r"```js\n(.*?)```", (EXAMPLE / "README.md").read_text(), flags=re.DOTALL)
    (said,) = re.findall(r"console\.log\(.*?\); // (.*)", code)
    shutil.copy(EXAMPLE / "ops.js", tmp_path)
    (tmp_path / "example.mjs").write_text(code)
    done = subprocess.run(["node", "example.mjs"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == said
