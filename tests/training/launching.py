"""Processes as torchrun starts them, without torchrun's own seconds."""

from __future__ import annotations

import os
import socket
import subprocess


def launch(command, *, count=2, odd=None, **environment):
    """``count`` processes of the same command; ``odd`` are variables of the last one alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, **environment}
    return [
        subprocess.Popen(
            list(map(str, command)),
            env={**os.environ, **{k: str(v) for k, v in {**shared, "RANK": rank, "LOCAL_RANK": rank}.items()},
                 **(odd if odd and rank == count - 1 else {})},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
        )
        for rank in range(count)
    ]  # fmt: skip


def finish(started):
    """[(what it said on stderr, its status)] of each."""
    return [(p.communicate(timeout=60)[1], p.returncode) for p in started]
