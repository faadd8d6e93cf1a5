"""The transcript in docs/wire-protocol.md: written by ``python tests/wire/transcript.py COMMAND``, read by its test."""

from __future__ import annotations

import json
import os
import re
import shlex
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "wire-protocol.md"
MARK = "<!-- transcript -->\n"
FLOAT = "float32"


def asked() -> list[tuple[dict, list[float]]]:
    """What refbert asks: one linear and its gradients."""

    def put(id, shape, numbers):
        header = {"id": id, "do": "put", "instance": 1, "value": {"tensor": 0}}
        return {**header, "tensors": [{"dtype": FLOAT, "shape": shape}]}, numbers

    def get(id, array):
        return {"id": id, "do": "get", "instance": 1, "value": {"array": array}}, []

    args = [{"array": "x"}, {"array": "w"}, {"array": "b"}]
    return [
        ({"id": 1, "do": "hello", "wire": [1], "contract": [1]}, []),
        ({"id": 2, "do": "open", "dtype": None, "device": None}, []),
        put(3, [1, 2], [1, 2]),
        put(4, [3, 2], [3, 4, 5, 6, 7, 8]),
        put(5, [3], [0.5, 0, -1]),
        ({"id": 6, "do": "call", "instance": 1, "op": "linear", "args": args, "options": {}}, []),
        get(7, "y"),
        put(8, [1, 3], [1, 0, 2]),
        ({"id": 9, "do": "pull", "instance": 1, "pullback": "pullback", "args": [{"array": "dy"}]}, []),
        get(10, "dx"),
        get(11, "dw"),
        get(12, "db"),
    ]


# Answer -> what its numbers are called from then on.
NAMES = {3: ["x"], 4: ["w"], 5: ["b"], 6: ["y", "pullback"], 8: ["dy"], 9: ["dx", "dw", "db"]}


def numbered(value, known):
    """The header with the numbers that the backend has chosen in place of names."""
    if isinstance(value, list):
        return [numbered(one, known) for one in value]
    if isinstance(value, dict):
        return {
            key: known.get(one, one) if key in ("array", "pullback") and isinstance(one, str) else numbered(one, known)
            for key, one in value.items()
        }
    return value


def learn(answer, known):
    """Remember the numbers in an answer."""
    names = NAMES.get(answer["id"], [])
    result = answer["ok"].get("result")
    for name, one in zip(names, result if isinstance(result, list) else [result], strict=bool(names)):
        known[name] = one.get("array", one.get("pullback"))


class Peer:
    """A backend's command, spoken to in bytes."""

    def __init__(self, command: list[str]) -> None:
        theirs, self._to = os.pipe()
        self._from, ours = os.pipe()
        environment = {**os.environ, "REFBERT_WIRE": f"{theirs},{ours}"}
        self.process = subprocess.Popen(command, pass_fds=(theirs, ours), env=environment, stdin=subprocess.DEVNULL)
        os.close(theirs)
        os.close(ours)

    def write(self, data: bytes) -> None:
        """Send it as it is."""
        os.write(self._to, data)

    def message(self) -> tuple[dict, bytes]:
        """The next answer."""
        magic, h, p = struct.unpack("<8sQQ", self._read(24))
        assert magic == b"refbert1"
        return json.loads(self._read(h)), self._read(p)

    def _read(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            chunk = os.read(self._from, count - len(found))
            assert chunk, "it has closed its end"
            found += chunk
        return found

    def close_requests(self) -> None:
        """Nothing more is asked."""
        os.close(self._to)

    def rest(self) -> bytes:
        """All that is still to be read, when it has ended."""
        found = b""
        while chunk := os.read(self._from, 1 << 16):
            found += chunk
        return found

    def close(self) -> int:
        """Ask nothing more; its exit status."""
        os.close(self._to)
        try:
            return self.process.wait(10)
        finally:
            self.process.kill()
            os.close(self._from)


def packed(header: dict, numbers: list[float]) -> bytes:
    """A message's payload: the tensor, filled up."""
    data = struct.pack(f"<{len(numbers)}f", *numbers)
    return data + bytes(-len(data) % 8)


def framed(text: bytes, payload: bytes) -> bytes:
    """A message."""
    return struct.pack("<8sQQ", b"refbert1", len(text), len(payload)) + text + payload


def shown(mark: str, text: bytes, payload: bytes) -> Iterator[str]:
    """A message as the document has it: the prefix in hexadecimal, the header, the payload in hexadecimal."""
    prefix = framed(text, payload)[:24].hex()
    yield f"{mark} {prefix[:16]} {prefix[16:32]} {prefix[32:]}"
    yield f"  {text.decode()}"
    for at in range(0, len(payload), 16):
        row = payload[at : at + 16]
        numbers = ", ".join(f"{n:g}" for n in struct.unpack(f"<{len(row) // 4}f", row))
        yield f"  {' '.join(row[i : i + 4].hex() for i in range(0, len(row), 4)):38}# {numbers}"


def read() -> Iterator[tuple[str, dict, bytes]]:
    """(mark, header, payload) of every message in the document, whose prefix is checked."""
    block = DOCUMENT.read_text(encoding="utf-8").partition(MARK)[2].split("```")[1].strip("\n")
    for one in re.split(r"\n(?=[<>])", block.partition("\n")[2] if not block.startswith((">", "<")) else block):
        first, text, *rows = one.split("\n")
        payload = b"".join(bytes.fromhex(row.partition("#")[0].replace(" ", "")) for row in rows if row.strip())
        header = text[2:].encode()
        assert bytes.fromhex(first[2:].replace(" ", "")) == framed(header, payload)[:24], one
        yield first[0], json.loads(header), payload


def main() -> None:
    """Write the document's block."""
    peer, known, lines = Peer(shlex.split(sys.argv[1])), {}, []
    for header, numbers in asked():
        text, payload = json.dumps(numbered(header, known)).encode(), packed(header, numbers)
        lines += shown(">", text, payload)
        peer.write(framed(text, payload))
        answer, payload = peer.message()
        learn(answer, known)
        if "offers" in answer["ok"]:
            answer["ok"]["offers"] = ["asarray", "to_numpy", "linear"]  # what the transcript is about
            answer["ok"].pop("extensions", None)
        lines += shown("<", json.dumps(answer).encode(), payload)
    peer.close()
    before = DOCUMENT.read_text(encoding="utf-8").partition(MARK)[0]
    DOCUMENT.write_text(f"{before}{MARK}```text\n" + "\n".join(lines) + "\n```\n", encoding="utf-8")


if __name__ == "__main__":
    main()
