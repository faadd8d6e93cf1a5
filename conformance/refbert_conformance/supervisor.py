"""Running the worker, watching it, and going on when it dies: every property gets a verdict.

Limits, all stated in the message of the property that meets them: an example that takes longer than `Limits.seconds`;
more memory than `Limits.memory`; more printed than `Limits.output` in one property.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from refbert.errors import BackendUnavailable

# A backend that dies this often is not asked any more.
CRASHES = 20
DEATHS = 2  # of one op


@dataclass(frozen=True)
class Limits:
    """seconds: for one example. memory: bytes of the worker, resident. output: bytes printed during one property."""

    seconds: float = 30.0
    memory: int = field(default_factory=lambda: int(0.75 * _machine_memory()))
    output: int = 64 << 20


@dataclass
class Run:
    """What is known so far. results: id -> data, in the order of the properties. backend, versions, offers (the
    contract's methods that are there): from the worker."""

    backend: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    offers: list[str] = field(default_factory=list)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)


def supervise(
    job: dict[str, Any],
    ids: Sequence[str],
    limits: Limits,
    watch: Callable[[str, str], None] = lambda kind, id: None,
    needs: Mapping[str, Sequence[str]] | None = None,
) -> Run:
    """Try every property; ``watch("start" | "result" | "try", id)`` is told as it goes.

    ``needs``: id -> ops; what needs an op that has killed its worker twice is not tried any more.

    Raises `BackendUnavailable` if the backend cannot be made.
    """
    run, needs = Run(), needs or {}
    remaining = list(ids)
    crashes = 0
    deaths: dict[str, list[str]] = {}  # op -> the properties in which it killed its worker
    while remaining:
        current, reason = _one_worker({**job, "ids": remaining}, limits, run, watch)
        remaining = [i for i in remaining if i not in run.results]
        if not reason:
            for missing in remaining:
                run.results[missing] = failed(missing, "the worker ended without a word about this property")
            break
        if not run.backend:
            raise BackendUnavailable(f'backend "{job["given"]}" {reason} while it was being made')
        crashes += 1
        if current is not None and current not in run.results:
            run.results[current] = failed(current, f"the backend {reason}", run.results.pop("trying", None))
            watch("result", current)
            remaining = [i for i in remaining if i != current]
            op = current.split("/")[1]
            deaths.setdefault(op, []).append(current)
            if len(deaths[op]) == DEATHS:
                for other in [i for i in remaining if op in needs.get(i, ()) and set(needs[i]) <= set(run.offers)]:
                    run.results[other] = failed(other, f"not tried: {op} {reason} in {' and in '.join(deaths[op])}")
                    remaining.remove(other)
        if crashes >= CRASHES:
            for missing in remaining:
                run.results[missing] = failed(missing, f"not tried: the backend has died {crashes} times")
            break
    run.results = {i: run.results[i] for i in ids}
    return run


def failed(id: str, message: str, example: Any = None) -> dict[str, Any]:
    """A failure that the worker did not live to report."""
    failure: dict[str, Any] = {
        "case": str(example or ""), "script": None, "worst": None, "looks_like": None,
        "first_divergence": None, "growth": [],
    }  # fmt: skip
    return {
        "id": id, "outcome": "failed", "examples": 0, "seconds": 0.0, "rho": None, "ulps": None, "unjudged": 0.0,
        "message": message, "failure": failure,
    }  # fmt: skip


def _one_worker(
    job: dict[str, Any], limits: Limits, run: Run, watch: Callable[[str, str], None]
) -> tuple[str | None, str]:
    """(the property that was running, why the worker had to end or "")."""
    process = subprocess.Popen(
        [sys.executable, "-m", "refbert_conformance.worker", json.dumps(job)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=_environment(),
        start_new_session=True,
    )  # fmt: skip
    printed = _Drain(process)
    events: queue.Queue[dict[str, Any] | None] = queue.Queue()
    reader = threading.Thread(target=_read, args=(process, events), daemon=True)
    reader.start()
    current: str | None = None
    trying, last, done, reason, printed_before = "", time.monotonic(), False, "", 0
    try:
        while True:
            try:
                event = events.get(timeout=0.2)
            except queue.Empty:
                event = {}
            if event is None:
                break
            kind = event.pop("event", "")
            if kind:
                last = time.monotonic()
            if kind == "unavailable":
                raise BackendUnavailable(" ".join(str(event["message"]).split()))
            if kind == "ready":
                run.backend, run.versions, run.offers = event["backend"], event["versions"], event["offers"]
            elif kind == "start":
                current, trying, printed_before = event["id"], "", printed.size
                watch("start", event["id"])
            elif kind == "try":
                trying = event["example"]
                watch("try", current or "")
            elif kind == "result":
                run.results[event["id"]] = event
                watch("result", event["id"])
            elif kind == "detail":
                row = run.results[event["id"]]
                row["message"] = event["failure"].pop("message", row["message"])
                row["failure"].update(event["failure"])
            elif kind == "done":
                done = True
            if time.monotonic() - last > limits.seconds:
                reason = f"hung: no answer within the limit of {limits.seconds:g} seconds"
            elif printed.size - printed_before > limits.output:
                reason = f"printed more than the limit of {limits.output >> 20} MiB"
            elif resident(process.pid) > limits.memory:
                reason = f"used more memory than the limit of {limits.memory / 2**30:.1f} GiB"
            if reason:
                break
    finally:
        _kill(process)
        reader.join()
        printed.close()
    if not reason and not done:
        reason = _death(process.wait(), printed.head)
    if reason and trying:
        run.results["trying"] = trying  # type: ignore[assignment]
    return current, reason


def _death(status: int, head: bytes) -> str:
    said = head.decode("utf-8", "replace").strip().splitlines()
    words = f" (it said: {said[-1][:200]})" if said else ""
    if status < 0:
        return f"crashed the interpreter ({signal.Signals(-status).name}){words}"
    return f"ended the interpreter with status {status}{words}"


class _Drain:
    """Reads what the worker prints, keeps the last few lines, and counts."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.size, self.head = 0, b""
        self._stream = process.stderr
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        assert self._stream is not None
        while chunk := os.read(self._stream.fileno(), 1 << 16):
            self.size += len(chunk)
            self.head = (self.head + chunk)[-4096:]

    def close(self) -> None:
        """Once the process is gone."""
        assert self._stream is not None
        self._thread.join()
        self._stream.close()


def _read(process: subprocess.Popen[bytes], events: queue.Queue[dict[str, Any] | None]) -> None:
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            try:
                events.put(json.loads(line))
            except ValueError:
                continue  # half a line of a process that died
    events.put(None)


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        if process.poll() is None:
            try:
                process.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()
    process.wait()


def _environment() -> dict[str, str]:
    """The worker finds what this process finds, and is not the first to compile it."""
    paths = [p for p in sys.path if p]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "0"}


def resident(pid: int) -> int:
    """Resident memory of a process in bytes; 0 where the system does not say."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _machine_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 16 << 30
