"""Running one property: Hypothesis draws and shrinks, the outcome and the measurements come back as data."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import HypothesisException

from refbert.backend import TRAINING, Updates, methods, without_updates
from refbert_conformance.cases.pools import few_shapes
from refbert_conformance.engine.conditions import Condition, facts
from refbert_conformance.engine.guards import INFERENCE
from refbert_conformance.engine.measure import Failure, Record, Unavailable, Unsupported, Worst, words
from refbert_conformance.engine.property import Property
from refbert_conformance.engine.subject import Subject

# How long a failing example is made smaller. Hypothesis itself would go on for five minutes.
SHRINKING_SECONDS = 4.0


@dataclass
class Result:
    """What came of one property. ``example``: the smallest failing one. ``stale``: it fails only because a waiver says
    that it does, or speaks of what is not there."""

    property: Property
    outcome: str
    record: Record
    examples: int = 0
    seconds: float = 0.0
    message: str = ""
    worst: Worst | None = None
    example: Any = None
    waived: str | None = None
    stale: bool = False
    excuses: Sequence[Excuse] = ()

    def excuse(self, example: Any) -> Excuse | None:
        """What excuses the example if it fails."""
        found = facts(example) if self.excuses else {}
        return next((one for one in self.excuses if one.condition.holds(found)), None)


@dataclass
class Excuse:
    """Cases of which a condition holds may fail, for the reason given. met: how many there were. failed: the first of
    them that did, as (message, worst, example). known: names that conditions may use here."""

    condition: Condition
    reason: str
    met: int = 0
    failed: tuple[str, Worst | None, Any] | None = None
    known: set[str] = field(default_factory=set)


class _Failed(Exception):
    """Any failure of a check, so that Hypothesis shrinks them all as one."""


def missing(property: Property, subject: Subject) -> str:
    """Why the subject cannot be asked this, or ""."""
    if not subject.gradients and property.level in ("backward", "training"):
        return INFERENCE
    free = TRAINING if not subject.gradients and property.op not in TRAINING else ()
    lacks = [name for name in property.needs if name not in free and not subject.has(name)]
    if lacks:
        why = without_updates(subject.backend) if set(lacks) & set(methods(Updates)) else ""
        return f"the backend has no {', '.join(lacks)}" + (f": {why}" if why.startswith("it has") else "")
    if not property.low and subject.arithmetic.low:
        return f"{subject.dtype} cannot judge this: rounding hides what it looks for"
    return ""


def run(
    property: Property, subject: Subject, *, effort: str, seed_number: int = 0,
    trying: Callable[[Any], None] = lambda example: None, excuses: Sequence[Excuse] = (),
    shrinking: float = SHRINKING_SECONDS,
) -> Result:  # fmt: skip
    """Try the property; never raises for anything that the backend does, except by being killed.

    ``trying`` is told every example before it is tried. What ``excuses`` speak of may fail, and must.
    ``shrinking``: for how many seconds a failing example is made smaller.
    """
    started = time.perf_counter()
    result = Result(property, "passed", Record(subject.arithmetic), excuses=excuses)
    if reason := missing(property, subject):
        result.outcome, result.message = "unsupported", reason
        return result
    try:
        _search(result, subject, effort, seed_number, trying, shrinking)
    except _Failed:
        result.outcome = "failed"
    except Unsupported as error:
        result.outcome, result.message = "unsupported", str(error)
    except Unavailable as error:
        result.outcome, result.message = "unavailable", str(error)
    result.seconds = time.perf_counter() - started
    if result.outcome == "passed" and not result.examples:
        result.outcome, result.message = "failed", "no example was tried"
    if result.outcome == "passed":
        for excuse in excuses:
            _settle(result, excuse)
    return result


def _settle(result: Result, excuse: Excuse) -> None:
    """What an excuse makes of a property that passes but for excused cases."""
    unknown = ", ".join(sorted(excuse.condition.names - excuse.known))
    text, reason = excuse.condition.text, excuse.reason
    if excuse.failed is not None:
        if result.outcome == "passed":
            result.outcome, result.waived = "failed", f"{reason} (where {text})"
            result.message, result.worst, result.example = excuse.failed
        return
    if unknown:
        said = f"waived where {text}, but no case here has {unknown}; they have {', '.join(sorted(excuse.known))}"
    elif excuse.met:
        said = f"waived where {text}, but it passes there: take the waiver out ({reason})"
    else:
        return  # no such case at this effort
    result.outcome, result.waived, result.message = "failed", None, said
    result.stale = True


def attempt(property: Property, subject: Subject, example: Any, record: Record) -> tuple[str, Worst | None]:
    """("", None) if the example passes, else what is wrong. An exception of the backend's is a failure too."""
    try:
        property.check(subject, example, record)
    except Failure as failure:
        return " ".join(str(failure).split()) or "failed", failure.worst
    except (Unsupported, Unavailable):
        raise
    except Exception as error:  # noqa: BLE001  (whatever a plugin raises is its own; what ends this process is not)
        return f"raised {words(error)}", None
    return "", None


def _search(
    result: Result, subject: Subject, effort: str, seed_number: int, trying: Callable[[Any], None], shrinking: float
) -> None:
    property = result.property
    failed_at: list[float] = []  # when the first example failed; from then on examples are shrinking, and not counted
    known: set[str] = set()

    def tried(example: Any) -> None:
        key = repr(example)
        if failed_at and time.perf_counter() - failed_at[0] > shrinking and key not in known:
            return  # out of time: nothing smaller counts as failing any more, so the search ends at what it has
        trying(example)
        if not failed_at:
            result.examples += 1
        message, worst = attempt(property, subject, example, result.record)
        for one in result.excuses:
            one.known |= set(facts(example))
        excuse = result.excuse(example)
        if excuse is not None:
            excuse.met += 1
            if message:
                excuse.failed = excuse.failed or (message, worst, example)
                return
        if message:
            result.message, result.worst, result.example = message, worst, example
            failed_at.append(time.perf_counter())
            known.add(key)
            raise _Failed(message)

    fixed: _Failed | None = None
    always = property.always(subject, effort)
    for example in always:
        try:
            tried(example)
        except _Failed as error:
            fixed = error
            break
    strategy = property.strategy(subject)
    if strategy is None:
        if not always:
            tried(None)
        if fixed is not None:
            raise fixed
        return
    found = (result.message, result.worst, result.example)
    failed_at.clear()

    if subject.compiles:
        strategy = few_shapes(strategy, property.op)
    search = settings(
        max_examples=property.examples(effort), database=None, deadline=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False, print_blob=False,
    )(seed(_seed(property, seed_number))(given(strategy)(tried)))  # fmt: skip
    try:
        search()
    except _Failed:
        raise
    except HypothesisException as error:  # flaky: it failed, and then did not
        result.message = f"{result.message} (and passed when tried again: the backend is not deterministic)"
        raise _Failed(result.message) from error
    if fixed is not None:  # Hypothesis found nothing smaller
        result.message, result.worst, result.example = found
        raise fixed


def _seed(property: Property, number: int) -> int:
    """A seed of its own for every property: the same backend gets the same verdict twice."""
    return int.from_bytes(hashlib.blake2b(f"{number}/{property.id}".encode(), digest_size=8).digest(), "big")
