"""The suite under pytest, for a backend's own CI.

    pytest -p refbert_conformance.plugin --pyargs refbert_conformance --refbert-backend NAME

One test per property. Unsupported and inconclusive ones are skipped, with the reason; a waiver is a strict xfail; a
backend that cannot be made ends the session with a usage error. The backend runs in a process of its own, as with
``refbert conform``: it may crash or hang, and the session goes on.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import pytest

from refbert.errors import RefbertError, RefbertWarning
from refbert_conformance import waivers
from refbert_conformance.engine.property import EXAMPLES, Property
from refbert_conformance.process.records import Diagnosis
from refbert_conformance.process.supervisor import Limits, Supervisor
from refbert_conformance.properties.table import matching

_SUPERVISOR: pytest.StashKey[Supervisor] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The command line of `refbert conform`, prefixed."""
    group = parser.getgroup("refbert", "refbert conformance")
    group.addoption("--refbert-backend", metavar="NAME", help="a backend's name, or package.module:Class")
    group.addoption("--refbert-dtype", metavar="DTYPE", help="what it computes in; default: its own first choice")
    group.addoption("--refbert-device", metavar="DEVICE", help="where")
    group.addoption("--refbert-effort", choices=tuple(EXAMPLES), default="default", help="how many examples")
    group.addoption(  # its former name
        "--refbert-profile", dest="refbert_effort", choices=tuple(EXAMPLES), default="default", help=argparse.SUPPRESS
    )
    group.addoption("--refbert-seed", type=int, default=0, metavar="N", help="other examples; the same for the same N")
    group.addoption("--refbert-only", metavar="PATTERN", help="properties whose id holds this text or matches it")
    group.addoption("--refbert-model", metavar="PATH", help="a checkpoint: adds the level of pretrained weights")
    group.addoption("--refbert-timeout", type=float, default=30.0, metavar="SECONDS", help="what one example may take")
    group.addoption("--refbert-waivers", metavar="FILE", help="strict expected failures, in TOML")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per property."""
    if "conformance_property" not in metafunc.fixturenames:
        return
    option = metafunc.config.getoption
    given, model = option("--refbert-backend"), option("--refbert-model")
    if not given:
        raise pytest.UsageError("name the backend: --refbert-backend NAME or package.module:Class")
    job = {
        "given": given, "dtype": option("--refbert-dtype"), "device": option("--refbert-device"), "model": model,
        "effort": option("--refbert-effort"), "seed": option("--refbert-seed"), "scripts": "conformance-failures",
        "explain": True,
    }  # fmt: skip
    try:
        found = matching(option("--refbert-only"), model)
        file = option("--refbert-waivers")
        excused = waivers.read(Path(file), [p.id for p in matching(None, model)]) if file else ()
        supervisor = Supervisor(job, Limits(option("--refbert-timeout")), needs={p.id: p.needs for p in found})
        supervisor.make()
        waived = supervisor.excuse(excused)
    except RefbertError as error:
        raise pytest.UsageError(str(error)) from None
    metafunc.config.stash[_SUPERVISOR] = supervisor
    metafunc.parametrize(
        "conformance_property",
        [
            pytest.param(
                p, id=p.id, marks=[pytest.mark.xfail(strict=True, reason=waived[p.id])] if p.id in waived else []
            )
            for p in found
        ],
    )


def pytest_unconfigure(config: pytest.Config) -> None:
    """Let the backend's process end."""
    supervisor = config.stash.get(_SUPERVISOR, None)
    if supervisor is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("default", RefbertWarning)
            supervisor.close()


@pytest.fixture
def conformance_supervisor(request: pytest.FixtureRequest) -> Supervisor:
    """The backend's, started once."""
    return request.config.stash[_SUPERVISOR]


def judge(property: Property, supervisor: Supervisor) -> None:
    """Try one property; skip, fail, or return."""
    row = supervisor.judge(property.id)
    if row.outcome in ("unsupported", "inconclusive"):
        pytest.skip(f"{row.outcome}: {row.message}")
    if row.waived:
        pytest.xfail(row.waived)
    if row.outcome == "failed":
        failure = row.failure or Diagnosis()
        pytest.fail("\n".join([property.says, row.message, failure.case or "", *failure.clues()]), pytrace=False)
