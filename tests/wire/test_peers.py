"""Every peer speaks the protocol as its document says, whatever is sent to it: the host, and the examples."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from transcript import Peer, asked, framed, learn, numbered, packed, read

EXAMPLES = Path(__file__).parents[2] / "examples"
SECONDS = 20


@pytest.fixture(scope="session", params=["host", "c", "js"])
def command(request, tmp_path_factory):
    """How to start each."""
    if request.param == "host":
        return [sys.executable, "-m", "refbert.wire.host", "reference"]
    if request.param == "js":
        if shutil.which("node") is None:
            pytest.skip("unavailable: Node is not installed")
        return ["node", str(EXAMPLES / "refbert-js" / "main.js")]
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("unavailable: no C compiler is installed")
    program = tmp_path_factory.mktemp("c") / "refbert-c"
    source = EXAMPLES / "refbert-c" / "refbert.c"
    subprocess.run([compiler, "-O2", "-o", program, source, "-lm"], check=True)
    return [str(program)]


@pytest.fixture
def peer(command):
    """A started one."""
    one = Peer(command)
    yield one
    if one.process.poll() is None:
        one.process.kill()
        one.process.wait()


def test_the_documents_transcript(peer):
    """Requests byte for byte, but for the numbers of arrays, which are the backend's choice."""
    said = list(read())
    known: dict[str, int] = {}
    assert len(said) == 2 * len(asked())
    for (header, numbers), (mark, text, payload), (other, due, due_payload) in zip(
        asked(), said[::2], said[1::2], strict=True
    ):
        assert (mark, other) == (">", "<")
        assert payload == packed(header, numbers)
        assert {**text, "args": 0, "value": 0, "pullback": 0} == {**header, "args": 0, "value": 0, "pullback": 0}
        if "dtype" in header:
            header = {**header, "dtype": "float32"}
        peer.write(framed(json.dumps(numbered(header, known)).encode(), payload))
        answer, got = peer.message()
        assert "ok" in answer, answer
        assert answer["id"] == due["id"]
        assert got == due_payload
        assert [(x["dtype"], x["shape"]) for x in answer.get("tensors", ())] == [
            (x["dtype"], x["shape"]) for x in due.get("tensors", ())
        ]
        learn(answer, known)
    assert peer.close() == 0


def opened(peer):
    """Greeted and opened."""
    for header, _ in asked()[:2]:
        peer.write(framed(json.dumps(header | ({"dtype": "float32"} if "dtype" in header else {})).encode(), b""))
        assert "ok" in peer.message()[0]


BAD = {
    "another beginning": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + bytes(64),
    "no JSON": framed(b"{", b""),
    "no object": framed(b"[1]", b""),
    "a header of 4 GiB": struct.pack("<8sQQ", b"refbert1", 4 << 30, 0) + b"{}",
    "a payload of 4 GiB": struct.pack("<8sQQ", b"refbert1", 9, 4 << 30) + b'{"id": 3}',
    "a payload too long": framed(b'{"id": 3, "do": "put", "value": {"tensor": 0}}', bytes(8)),
    "a payload too short": framed(
        b'{"id": 3, "do": "put", "instance": 1, "value": {"tensor": 0}, "tensors": '
        b'[{"dtype": "float32", "shape": [1000000, 1000000]}]}', bytes(8),
    ),
    "sizes that overflow": framed(
        b'{"id": 3, "do": "put", "instance": 1, "value": {"tensor": 0}, "tensors": '
        b'[{"dtype": "float32", "shape": [4294967296, 4294967296]}]}', b"",
    ),
    "a truncated header": framed(b'{"id": 3, "do": "hello"}', b"")[:-4],
    "a truncated prefix": b"refbert1\1",
    "a deep nest": framed(b"[" * 200_000, b""),
}  # fmt: skip


@pytest.mark.parametrize("data", BAD.values(), ids=list(BAD))
def test_what_is_no_message_ends_it_or_is_refused(peer, data):
    """It does not hang, does not crash, and takes no memory for what is not there."""
    opened(peer)
    peer.write(data)
    peer.close_requests()
    status = peer.process.wait(SECONDS)
    assert status >= 0, f"it crashed with signal {-status}"
    assert status != 0 or peer.rest().count(b'"error"'), "it went as if nothing had happened"


WRONG = {
    "an unknown request": {"do": "dance"},
    "no request": {},
    "an unknown operation": {"do": "call", "instance": 1, "op": "dance", "args": [], "options": {}},
    "an array that is not there": {"do": "get", "instance": 1, "value": {"array": 99}},
    "a pullback that is not there": {"do": "pull", "instance": 1, "pullback": 99, "args": [{"array": 99}]},
    "a tensor that is not there": {"do": "put", "instance": 1, "value": {"tensor": 5}},
    "too few arguments": {"do": "call", "instance": 1, "op": "linear", "args": [], "options": {}},
    "another dtype": {"do": "open", "dtype": "float8", "device": None},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=list(WRONG))
def test_a_request_that_makes_no_sense_is_an_error_and_the_connection_goes_on(peer, wrong):
    opened(peer)
    peer.write(framed(json.dumps({"id": 7, **wrong}).encode(), b""))
    answer, _ = peer.message()
    assert answer["id"] == 7
    assert answer["error"]["kind"] in ("out of range", "invalid", "unsupported", "unavailable", "failed")
    assert answer["error"]["message"].isprintable()
    header, numbers = asked()[2]
    peer.write(framed(json.dumps({**header, "free": [99, 12345]}).encode(), packed(header, numbers)))
    assert "array" in peer.message()[0]["ok"]["result"]
    assert peer.close() == 0


def test_it_ends_when_nobody_asks_any_more(peer):
    assert peer.close() == 0
