"""The process in which a backend is tried: it may crash, hang or fill the screen without taking the verdict with it.

Started by `supervisor` as ``python -m refbert_conformance.worker JOB``; JOB is JSON. Events leave as JSON lines on what
was stdout; everything that the backend prints, from C as well, goes to stderr, which the supervisor reads and mostly
drops.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

Send = Callable[..., None]


def main() -> None:
    """Try the properties of the job one after the other."""
    job = json.loads(sys.argv[1])
    send = _private_channel()
    sys.path.insert(0, job["cwd"])
    warnings.simplefilter("ignore")
    from refbert.errors import RefbertError
    from refbert_conformance.subject import Subject

    try:
        subject = Subject.named(job["given"], job["dtype"], job["device"])
    except RefbertError as error:
        send(event="unavailable", message=str(error))
        return
    except Exception as error:  # noqa: BLE001  (a plugin's constructor may raise anything)
        send(event="unavailable", message=f'backend "{job["given"]}": {type(error).__name__}: {error}')
        return
    from refbert.backend import OPTIONAL, REQUIRED

    offers = [name for name in (*REQUIRED, *OPTIONAL) if subject.has(name)]
    send(event="ready", backend=described(subject), versions=versions(), offers=offers)

    from refbert_conformance import engine
    from refbert_conformance.properties import selected

    for property in selected(job["ids"], job["model"]):
        send(event="start", id=property.id)
        result = engine.run(
            property, subject, profile=job["profile"], seed_number=job["seed"],
            trying=lambda example: send(event="try", example=repr(example)[:2000]),
        )  # fmt: skip
        send(event="result", **as_data(result))
        if result.outcome == "failed" and job["explain"]:
            from refbert_conformance.explain import explain

            send(event="detail", id=property.id, failure=explain(result, subject, job))
    send(event="done")


def _private_channel() -> Send:
    """A function that sends one event; from now on whatever else is written to stdout lands on stderr."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(**event: Any) -> None:
        channel.write(json.dumps(event, default=str) + "\n")
        channel.flush()

    return send


def described(subject: Any) -> dict[str, Any]:
    """The backend, for the report. shapes: how many per op were tried where that is limited."""
    from refbert_conformance.pools import SHAPES

    backend = subject.backend
    return {
        "given": subject.given,
        **{name: str(getattr(backend, name, "")) for name in ("name", "library", "dtype", "device")},
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


def as_data(result: Any) -> dict[str, Any]:
    """A property's result as JSON holds it."""
    from refbert_conformance.measure import as_number

    record = result.record
    judged = record.judged + record.unjudged
    return {
        "id": result.property.id,
        "outcome": result.outcome,
        "examples": result.examples,
        "seconds": round(result.seconds, 4),
        "rho": as_number(record.rho),
        "ulps": dict(record.ulps) or None,
        "unjudged": record.unjudged / judged if judged else 0.0,
        "message": result.message,
        "failure": None
        if result.outcome != "failed"
        else {
            "case": repr(result.example)[:2000],
            "script": None,
            "worst": worst_as_data(result.worst),
            "looks_like": None,
            "first_divergence": None,
            "growth": [],
        },
    }


def worst_as_data(worst: Any) -> dict[str, Any] | None:
    """The worst element as JSON holds it."""
    from refbert_conformance.measure import as_number

    if worst is None:
        return None
    return {name: as_number(value) if isinstance(value, float) else value for name, value in vars(worst).items()}


if __name__ == "__main__":
    main()
