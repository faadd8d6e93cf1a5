"""The process in which a backend is tried: it may crash, hang or fill the screen without taking the verdict with it.

Started by `child.Worker`. Two processes: the *keeper* runs nothing of the backend's; it is the parent that a backend
sees, and may kill; it adopts what the backend leaves behind, and says how its child ended. That child, the *worker*,
makes the backend and answers requests, one property each, until they end. Requests come on what was stdin, events leave
as JSON lines on what was stdout; everything that the backend prints, from C as well, goes to stderr, which the
supervisor reads and mostly drops.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

Send = Callable[..., None]
_KEPT_APART = "its calls run in it, and refbert's own numbers do not"
LOST = 117  # the exit status of a worker whose backend has closed what its events are sent over
_SET_PDEATHSIG, _SET_CHILD_SUBREAPER = 1, 36  # of Linux's prctl


def main() -> None:
    """Keep a worker for the job in the command line."""
    job = json.loads(sys.argv[1])
    # If the supervisor is killed, nothing of this shall go on.
    _prctl(_SET_PDEATHSIG, signal.SIGKILL)
    _prctl(_SET_CHILD_SUBREAPER, 1)
    worker = os.fork()
    if worker:
        _keep(worker, job["status"])
        return
    os.close(job["status"])
    _prctl(_SET_PDEATHSIG, signal.SIGKILL)
    serve(job)


def _prctl(option: int, value: int) -> None:
    """Where there is no such thing, `child` finds processes by other means, or not at all."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _keep(worker: int, status: int) -> None:
    """Outlive the worker and whatever it has started, whoever sends which signal; say how the worker ended."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGCONT}:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):  # or the pipes would stay open when the worker has gone
        os.dup2(nothing, fd)
    with contextlib.suppress(ChildProcessError):
        while True:
            ended, how = os.waitpid(-1, 0)
            if ended == worker:
                os.write(status, str(os.waitstatus_to_exitcode(how)).encode())


def serve(job: dict[str, Any]) -> None:
    """Make the backend, then try one property for every request."""
    import warnings

    send, requests = _private_ends()
    warnings.simplefilter("ignore")
    from refbert.errors import RefbertError
    from refbert_conformance.engine.measure import words
    from refbert_conformance.engine.subject import Subject

    try:
        subject = Subject.named(job["given"], job["dtype"], job["device"])
    except RefbertError as error:
        send(event="unavailable", message=str(error))
        return
    except Exception as error:  # noqa: BLE001  (a plugin's constructor may raise anything)
        send(event="unavailable", message=f'backend "{job["given"]}": {words(error)}')
        return
    from refbert.backend import OPTIONAL, REQUIRED

    offers = [name for name in (*REQUIRED, *OPTIONAL) if subject.has(name)]
    send(event="ready", backend=described(subject), versions=versions(), offers=offers)

    from refbert_conformance.engine import runner
    from refbert_conformance.engine.conditions import Condition
    from refbert_conformance.process.records import as_data
    from refbert_conformance.properties.table import all_properties

    properties = {p.id: p for p in all_properties(job["model"])}
    noted = False
    for request in requests:
        property = properties[request["id"]]
        result = runner.run(
            property, subject, effort=job["effort"], seed_number=job["seed"],
            trying=lambda example: send(event="try", example=repr(example)[:2000]),
            excuses=[runner.Excuse(Condition(one["when"]), one["reason"]) for one in request["excuses"]],
        )  # fmt: skip
        if subject.mode and not noted:
            noted = True
            send(event="note", message=f"the backend sets {subject.mode} for the whole process; {_KEPT_APART}")
        row = row_of(result)
        send(event="result", row=as_data(row))
        if result.outcome == "failed" and job["explain"] and not (result.waived or result.stale):
            from refbert_conformance.failures.diagnosis import explain

            more = {"passed": request["passed"], "alive": lambda: send(event="try", example="")}
            message, failure = explain(result, subject, job | more, row.failure)
            send(event="detail", id=property.id, message=message, failure=as_data(failure))
        send(event="over", id=property.id)


def _private_ends() -> tuple[Send, Iterator[dict[str, Any]]]:
    """A function that sends one event, and the requests; from now on stdin is empty, and whatever else is written to
    stdout lands on stderr."""
    channel, incoming, owner = os.dup(1), os.dup(0), os.getpid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    pipe = os.fstat(channel).st_ino

    def send(**event: Any) -> None:
        with contextlib.suppress(OSError):
            if os.fstat(channel).st_ino == pipe:
                write(event)
                return
        os._exit(LOST)

    def write(event: Any) -> None:
        if os.getpid() != owner:  # a backend has forked, and this is its child, come back from the backend's code
            os.write(channel, b'{"event": "forked"}\n')
            os._exit(0)
        left = json.dumps(event, default=str, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        while left:
            left = left[os.write(channel, left) :]

    def requests() -> Iterator[dict[str, Any]]:
        with os.fdopen(incoming, "rb") as lines:
            for line in lines:
                yield json.loads(line)

    return send, requests()


def described(subject: Any) -> dict[str, Any]:
    """The backend, for the report. shapes: how many per op were tried where that is limited."""
    from refbert.backend import contract_of, says_contract
    from refbert_conformance.cases.pools import SHAPES

    backend = subject.backend
    return {
        "given": subject.given,
        **{name: str(getattr(backend, name, "")) for name in ("name", "library", "dtype", "device")},
        "dtypes": list(map(str, getattr(backend, "dtypes", None) or ())),
        "contract": contract_of(backend),
        "contract_said": says_contract(backend),
        "gradients": subject.gradients,
        "arithmetic": subject.arithmetic.described(),
        "shapes": SHAPES if subject.compiles else None,
    }


def versions() -> dict[str, str]:
    """What else a verdict may depend on."""
    import platform
    from importlib.metadata import version

    import refbert

    found = {name: version(name) for name in ("numpy", "scipy", "hypothesis")}
    return {
        "refbert": refbert.__version__,
        "python": platform.python_version(),
        **found,
        "platform": platform.platform(),
    }


def row_of(result: Any) -> Any:
    """The row of a result."""
    from refbert_conformance.process.records import Diagnosis, Row

    property, record, failure = result.property, result.record, None
    judged = record.judged + record.unchecked
    if result.outcome == "failed" and not result.stale:
        failure = Diagnosis(None if result.example is None else repr(result.example)[:2000], worst=result.worst)
    return Row(
        id=property.id, level=property.level, op=property.op, says=property.says, outcome=result.outcome,
        examples=result.examples, seconds=round(result.seconds, 4), rho=record.rho, ulps=dict(record.ulps) or None,
        unchecked=record.unchecked / judged if judged else 0.0, message=result.message, waived=result.waived,
        failure=failure,
    )  # fmt: skip
