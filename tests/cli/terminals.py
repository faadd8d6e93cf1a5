"""A command on a terminal of a given width: what it shows there."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from dataclasses import dataclass

WIDTHS = (200, 80, 60, 40)
STYLES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Shown:
    """returncode; lines: what is on the terminal, without its colours; errors: the other stream, which is a pipe."""

    returncode: int
    lines: list[str]
    errors: str

    def words(self) -> str:
        """Everything with one space between words, however it is folded."""
        return " ".join(" ".join(self.lines).split())


def on_a_terminal(width, *arguments, cwd=None):
    """Run ``refbert`` with its standard output on a pseudo-terminal of so many columns."""
    out, errors, status = _run(width, [sys.executable, "-m", "refbert", *map(str, arguments)], cwd, subprocess.PIPE)
    return Shown(status, STYLES.sub("", out).splitlines(), errors)


def of_a_process(width, command):
    """All that a process writes on a pseudo-terminal, on either stream, as it is."""
    return _run(width, command, None, None)[0]


def _run(width, command, cwd, errors):
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    environment = {**os.environ, "TERM": "xterm"}
    for name in ("COLUMNS", "REFBERT_MODEL", "NO_COLOR", "FORCE_COLOR"):
        environment.pop(name, None)
    process = subprocess.Popen(
        command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=its, stderr=errors or its
    )
    os.close(its)
    out = b""
    while True:
        try:
            read = os.read(ours, 1 << 16)
        except OSError:  # Linux's way to say that the other end is closed
            break
        if not read:
            break
        out += read
    os.close(ours)
    said = process.communicate()[1] or b""
    return out.decode("utf-8").replace("\r\n", "\n"), said.decode("utf-8"), process.returncode
