"""A process that does one contender's work when told to, and times it there.

One process a contender: libraries neither share thread pools nor settings (a backend that gives BLAS one thread would
slow down the bare products beside it), and peak memory is its own. While it is not its turn it waits for a message.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from speed.cases import Contender, Missing

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# Nothing is downloaded, and tokenizers does not start threads of its own behind a fork.
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "true",
}


@dataclass
class Prepared:
    """What a side hands over: ``run`` does the work once; ``compare`` makes arrays to compare of what it returned."""

    run: Callable[[], Any]
    compare: Callable[[Any], dict[str, np.ndarray]]


class Failed(Exception):
    """The contender is there, but its work ended in an error."""


class Worker:
    """The parent's end. Raises `Missing` or `Failed` for what the child reports."""

    def __init__(self, contender: Contender, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, child = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(child, contender.side, dict(contender.options), threads), daemon=True
        )
        with _environment(QUIET | dict.fromkeys(THREADS, str(threads)) | dict(contender.env)):
            self._process.start()
        child.close()

    def prepare(self, work: Mapping[str, Any]) -> None:
        self._ask("prepare", dict(work))

    def result(self) -> dict[str, np.ndarray]:
        """Do the work once; what came out of it."""
        return self._ask("result", None)

    def time(self, times: int) -> list[tuple[float, float]]:
        """(wall seconds, CPU seconds of all threads) of so many runs in a row."""
        return self._ask("time", times)

    def peak(self) -> int:
        """The largest resident size that the process has had, in bytes."""
        return self._ask("peak", None)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.send(("stop", None))
        self._process.join(5)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()
        self._connection.close()

    def _ask(self, what: str, argument: Any) -> Any:
        try:
            self._connection.send((what, argument))
            kind, answer = self._connection.recv()
        except (EOFError, OSError) as error:
            self._process.join(5)
            raise Failed(f"the process ended ({self._process.exitcode})") from error
        if kind == "missing":
            raise Missing(answer)
        if kind == "failed":
            raise Failed(answer)
        return answer


@contextlib.contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _serve(connection: Connection, side: str, options: dict[str, Any], threads: int) -> None:
    prepared: Prepared | None = None
    while True:
        try:
            what, argument = connection.recv()
        except (EOFError, KeyboardInterrupt):
            return
        if what == "stop":
            return
        try:
            if what == "prepare":
                prepared = None
                gc.collect()
                prepared = importlib.import_module(f"speed.work_{side}").prepare(
                    argument, options | {"threads": threads}
                )
                answer: Any = None
            else:
                answer = _do(what, argument, prepared)
        except Missing as error:
            connection.send(("missing", str(error)))
        except KeyboardInterrupt:
            return
        except Exception as error:  # noqa: BLE001  # whatever a library raises is a result here, not the end of the run
            connection.send(("failed", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"))
        else:
            connection.send(("done", answer))


def _do(what: str, argument: Any, prepared: Prepared | None) -> Any:
    from refbert.benchmark import peak_process_bytes

    if what == "peak":
        return peak_process_bytes()
    assert prepared is not None
    if what == "result":
        return prepared.compare(prepared.run())
    out = []
    gc.disable()
    for _ in range(argument):
        wall, cpu = time.perf_counter(), time.process_time()
        prepared.run()
        out.append((time.perf_counter() - wall, time.process_time() - cpu))
    gc.enable()
    gc.collect()
    return out
