"""The suite under pytest, for a backend's own CI.

    pytest -p refbert_conformance.plugin --pyargs refbert_conformance --refbert-backend NAME

One test per property. Unsupported is skipped, with the reason; a waiver is a strict xfail; a backend that cannot be
made ends the session with a usage error. The tests run in pytest's own process: a crash or a hang of the backend takes
pytest with it, where ``refbert conform`` would go on.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from refbert.errors import RefbertError
from refbert_conformance import engine, reproduce, waivers
from refbert_conformance.properties import EXAMPLES, Property, matching
from refbert_conformance.subject import Subject

_SUBJECT: pytest.StashKey[Subject] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The command line of `refbert conform`, prefixed."""
    group = parser.getgroup("refbert", "refbert conformance")
    group.addoption("--refbert-backend", metavar="NAME", help="a backend's name, or package.module:Class")
    group.addoption("--refbert-dtype", metavar="DTYPE", help="what it computes in; default: its own first choice")
    group.addoption("--refbert-device", metavar="DEVICE", help="where")
    group.addoption("--refbert-profile", choices=tuple(EXAMPLES), default="default", help="how many examples")
    group.addoption("--refbert-seed", type=int, default=0, metavar="N", help="other examples; the same for the same N")
    group.addoption("--refbert-only", metavar="PATTERN", help="properties whose id holds this text or matches it")
    group.addoption("--refbert-model", metavar="PATH", help="a checkpoint: adds the level of pretrained weights")
    group.addoption("--refbert-waivers", metavar="FILE", help="strict expected failures, in TOML")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per property."""
    if "conformance_property" not in metafunc.fixturenames:
        return
    option = metafunc.config.getoption
    given = option("--refbert-backend")
    if not given:
        raise pytest.UsageError("name the backend: --refbert-backend NAME or package.module:Class")
    try:
        subject = Subject.named(given, option("--refbert-dtype"), option("--refbert-device"))
        found = matching(option("--refbert-only"), option("--refbert-model"))
        waived: Any = {}
        if option("--refbert-waivers"):
            every = [p.id for p in matching(None, option("--refbert-model"))]
            waived = waivers.read(Path(option("--refbert-waivers")), every, subject.dtype)
    except RefbertError as error:
        raise pytest.UsageError(str(error)) from None
    metafunc.config.stash[_SUBJECT] = subject
    metafunc.parametrize(
        "conformance_property",
        [
            pytest.param(
                p, id=p.id, marks=[pytest.mark.xfail(strict=True, reason=waived[p.id])] if p.id in waived else []
            )
            for p in found
        ],
    )


@pytest.fixture
def conformance_subject(request: pytest.FixtureRequest) -> Subject:
    """The backend, made once."""
    return request.config.stash[_SUBJECT]


def judge(property: Property, subject: Subject, config: pytest.Config) -> None:
    """Run one property; skip, fail, or return."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = engine.run(
            property,
            subject,
            profile=config.getoption("--refbert-profile"),
            seed_number=config.getoption("--refbert-seed"),
        )
    if result.outcome == "unsupported":
        pytest.skip(f"unsupported: {result.message}")
    if result.outcome == "failed":
        job = {
            "given": config.getoption("--refbert-backend"), "device": config.getoption("--refbert-device"),
            "model": config.getoption("--refbert-model"), "scripts": "conformance-failures",
        }  # fmt: skip
        from refbert_conformance.explain import explain

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            more = explain(result, subject, job)
        lines = [more.get("message", result.message), str(more.get("case", ""))]
        if more.get("first_divergence"):
            lines.append(f"first diverging operation: {more['first_divergence']}")
        if more.get("looks_like"):
            lines.append(f"behaves like: {more['looks_like']}")
        if more.get("hint"):
            lines.append(f"hint: {more['hint']}")
        if more.get("script"):
            lines.append(f"reproduce: python {more['script']}")
        pytest.fail("\n".join([property.says, *lines]), pytrace=False)


__all__ = ["judge", "reproduce"]
