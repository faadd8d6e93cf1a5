"""What explains a failure: a mutant that does the same, or an arithmetic that the backend has not declared.

Nothing is said on a likeness. A mutant explains a failure if it fails on the same cases with the same numbers, each
within the bound of the backend's, and passes what the backend passes. A narrower format explains it if the failing
cases pass under its declaration, with errors as large as it allows (under a loose enough one everything passes) and, as
rounding errs, of either sign. A less accurate function explains it likewise, with the fewest ULPs under which all pass.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from refbert.backend import Host
from refbert_conformance.cases.operations import OpCase, Recipe
from refbert_conformance.cases.pools import sampled
from refbert_conformance.engine import runner
from refbert_conformance.engine.measure import Record, Unsupported
from refbert_conformance.engine.property import Property
from refbert_conformance.engine.subject import Subject
from refbert_conformance.properties.numerics import due, judged
from refbert_conformance.properties.table import all_properties
from refbert_conformance.tolerances.arithmetic import FORMATS, Arithmetic
from refbert_conformance.tolerances.bounds import Expected

# Seconds for all of it; cases to compare on, and entries of the largest of them.
SECONDS = 8.0
CASES, ENTRIES = 40, 50_000
# Who computes in a format uses more than this share of its bound in the worst case.
_SHARE = 0.1
# Of a property whose examples take more than so many times an ordinary one's no more are tried than those that fail,
# which is enough for flush-to-zero, and for nothing else.
_CHEAP = 3.0
# The functions that ops call, and how many ULPs the worst published one is off.
CALLED: Mapping[str, tuple[str, ...]] = {
    "tanh": ("tanh",), "gelu": ("erf", "tanh", "exp"), "softmax": ("exp", "division"),
    "attention_probabilities": ("exp", "division"), "attention": ("exp", "division"),
    "cross_entropy": ("log", "exp"), "layer_norm": ("rsqrt", "division"),
}  # fmt: skip
_MOST_ULPS = 4096
# Of errors beyond the bound, at least this share is on either side where rounding is to blame.
_EITHER = 0.1


@dataclass
class Trial:
    """A property that fails, the cases in which it does, the smallest first, and what the backend is known to pass:
    ids of other properties. alive() is called now and then."""

    property: Property
    subject: Subject
    failing: Sequence[Any]
    passed: Sequence[str] = ()
    alive: Callable[[], None] = lambda: None


def explained(trial: Trial) -> dict[str, str | None]:
    """ "looks_like" (a mutant) and "hint" (what to declare), or None."""
    flushes = _declaration(trial, [{"flush_to_zero": True}])
    if flushes:
        return {"looks_like": None, "hint": flushes}
    # Only where what fails are an operation's numbers can another's be compared with them.
    measured = trial.property.name == "accuracy" and trial.property.level in ("forward", "backward")
    if trial.property.cost > _CHEAP or not measured:
        return {"looks_like": None, "hint": None}
    cases = _Cases(trial)
    bug = _mutant(trial, cases)
    if not cases.scattered():
        return {"looks_like": bug, "hint": None}
    candidates: Iterable[dict[str, Any]] = _narrower(trial.subject.dtype)
    if bug:  # one of them is an operand rounded, which is more than a likeness; a sum may be anything
        candidates = (one for one in candidates if "matmul_inputs" in one)
    return {"looks_like": bug, "hint": (None if bug else _function(trial)) or _declaration(trial, candidates)}


def _narrower(dtype: str) -> Iterator[dict[str, Any]]:
    """Declarations of less than the dtype's own precision, the one that says least first."""
    u = FORMATS[dtype][0]
    wide = "float32" if dtype in ("float16", "bfloat16") else dtype
    # TF32 before float16, whose digits it has: what overflows there fails elsewhere.
    names = (
        "float32", "float32-truncated", "bfloat16x3", "tensorfloat32", "float16", "bfloat16", "float8_e4m3",
        "float8_e5m2",
    )  # fmt: skip
    formats = [name for name in names if FORMATS[name][0] >= u]
    for name in formats:
        kinds = [key for key in ("matmul_inputs", "intermediates") if FORMATS[name][0] > u]
        if name.startswith("float8") or name == "bfloat16x3":  # formats of operands alone
            kinds = kinds[:1]
        elif FORMATS[name][0] > FORMATS[wide][0]:
            kinds.insert(1, "accumulation")
        yield from ({kind: name} for kind in kinds)


def _function(trial: Trial) -> str | None:
    """A function that is as far off as its vendor may say: the fewest ULPs of one that explain it."""
    before = dict(trial.subject.arithmetic.declared)

    def passes(name: str, ulps: int) -> bool:
        said = {**before, "functions": {**before.get("functions", {}), name: ulps}}
        return _holds(trial, said)

    for name in CALLED.get(trial.property.op, ()):
        if name in before.get("functions", {}):
            continue
        low, high = 5, 8
        while high <= _MOST_ULPS and not passes(name, high):
            low, high = high, 2 * high
        if high > _MOST_ULPS:
            continue
        while high - low > max(1, low // 16):
            middle = (low + high) // 2
            low, high = (low, middle) if passes(name, middle) else (middle, high)
        article = "an" if name in ("exp", "erf") else "a"
        return (
            f"explained by {article} {name} of {high} ULP: if that is what yours does, declare "
            f'arithmetic = {{"functions": {{"{name}": {high}}}}}'
        )
    return None


def _under(trial: Trial, declared: dict[str, Any]) -> Subject | None:
    """The backend under a declaration, if the failing cases pass so."""
    other = copy.copy(trial.subject)
    other.arithmetic = Arithmetic.of(trial.subject.dtype, declared)
    if not all(_passes(trial.property, other, example) for example in trial.failing):
        return None
    trial.alive()
    return other


def _holds(trial: Trial, declared: dict[str, Any]) -> bool:
    """Whether the failing cases pass under a declaration, and others that are like them."""
    other = _under(trial, declared)
    if other is None:
        return False
    return runner.run(trial.property, other, effort="quick", shrinking=0.0).outcome == "passed"


def _declaration(trial: Trial, candidates: Iterable[dict[str, Any]]) -> str | None:
    subject, property = trial.subject, trial.property
    before = dict(subject.arithmetic.declared)
    for candidate in candidates:
        if candidate.items() <= before.items():
            continue
        other = _under(trial, before | candidate)
        if other is None:
            continue
        if property.cost > _CHEAP:
            return _said(candidate)
        result = runner.run(property, other, effort="quick")
        used = "flush_to_zero" in candidate or result.record.rho is None or result.record.rho >= _SHARE
        if result.outcome == "passed" and used:
            return _said(candidate)
    return None


def _said(declared: dict[str, Any]) -> str:
    what = "subnormal numbers are flushed to zero" if "flush_to_zero" in declared else "narrower than declared"
    return f"{what}: it passes if the backend declares arithmetic = {declared!r}"


def _passes(property: Property, subject: Subject, example: Any) -> bool:
    try:
        return not runner.attempt(property, subject, example, Record(subject.arithmetic))[0]
    except Unsupported:
        return False


def _mutant(trial: Trial, cases: _Cases) -> str | None:
    from refbert_conformance.mutants import MUTANTS

    property, subject = trial.property, trial.subject
    dtype = "float64" if subject.dtype == "float64" else "float32"
    until = time.monotonic() + SECONDS
    others = [p for p in all_properties() if p.id in trial.passed and p.id != property.id]
    best: tuple[float, str] | None = None
    for mutant in MUTANTS:
        if mutant.op != property.op or time.monotonic() > until:
            continue
        trial.alive()
        with contextlib.suppress(Exception):
            other = Subject(mutant.name, partial(mutant.make, dtype=dtype))
            distance = cases.distance(other)
            if distance <= 1 and (best is None or distance < best[0]) and all(
                runner.run(p, other, effort="quick").outcome == "passed" for p in others
            ):  # fmt: skip
                best = distance, mutant.name
    return best[1] if best is not None else None


class _Cases:
    """The failing cases and some more, with what the backend makes of each."""

    def __init__(self, trial: Trial) -> None:
        self._property, self._subject = trial.property, trial.subject
        examples = [*trial.failing, *self._drawn()]
        self._known = [(one, self._message(self._subject, one), self._outputs(self._subject, one)) for one in examples]

    def _drawn(self) -> list[Any]:
        property, subject = self._property, self._subject
        found = list(property.always(subject, "quick")[: CASES // 2])
        strategy = property.strategy(subject)
        if strategy is not None:
            found += sampled(strategy, property.op, CASES // 2)
        return [one for one in found if not isinstance(one, Recipe) or _entries(one.build(subject.dtype)) <= ENTRIES]

    def distance(self, other: Subject) -> float:
        """How far the other's numbers are from the backend's, in bounds, on all cases; infinite if it does not fail on
        the smallest, or that one gives no numbers, or says something else where others give none."""
        worst = 0.0
        for number, (example, message, outputs) in enumerate(self._known):
            if outputs is None and not number:
                return float("inf")
            if outputs is None or not number:
                theirs = self._message(other, example)
                if bool(theirs) != bool(message) or (outputs is None and theirs != message):
                    return float("inf")
            if outputs is not None:
                numbers = self._outputs(other, example)
                worst = max(worst, _apart(outputs, numbers, self._expected(example)) if numbers else float("inf"))
            if worst > 1:
                return worst
        return worst

    def scattered(self) -> bool:
        """Whether the failing numbers lie on both sides of the reference: too large as well as too small."""
        larger = smaller = 0
        for example, message, outputs in self._known:
            if message and outputs:
                for got, one in zip(outputs, self._expected(example), strict=True):
                    with np.errstate(all="ignore"):
                        error = np.where(abs(got - one.y) > one.bound, (got - one.y) * one.y, 0)
                    larger, smaller = larger + int((error > 0).sum()), smaller + int((error < 0).sum())
        return min(larger, smaller) > _EITHER * (larger + smaller)

    def _message(self, subject: Subject, example: Any) -> str:
        return runner.attempt(self._property, subject, example, Record(self._subject.arithmetic))[0]

    def _case(self, example: Any) -> OpCase | None:
        return example.build(self._subject.dtype) if isinstance(example, Recipe | OpCase) else None

    def _outputs(self, subject: Subject, example: Any) -> list[Host] | None:
        """What the property judges of an operation; None where it judges something else."""
        case = self._case(example)
        if case is None:
            return None
        with contextlib.suppress(Exception):
            found = judged(self._property.level, subject, case)
            return [np.asarray(one, np.float64) for one in subject.hosts(found)]
        return None

    def _expected(self, example: Any) -> list[Expected]:
        case = self._case(example)
        assert case is not None
        return due(self._property.level, case, self._subject.arithmetic)


def _entries(case: OpCase) -> int:
    return sum(a.size for a in case.arrays)


def _apart(ours: Sequence[Host], theirs: Sequence[Host], wanted: Sequence[Expected]) -> float:
    worst = 0.0
    for a, b, one in zip(ours, theirs, wanted, strict=True):
        if a.shape != b.shape:
            return float("inf")
        with np.errstate(all="ignore"):
            judged = np.isfinite(one.bound)
            same = (a == b) | (np.isnan(a) & np.isnan(b)) | ~judged
            # Larger numbers than the reference's have larger errors: the share that the reference's largest may have.
            largest = float(np.max(abs(one.y), where=judged, initial=0.0))
            share = float(np.max(one.bound, where=judged, initial=0.0)) / largest if largest else 0.0
            rho = np.where(same, 0, abs(a - b) / (one.bound + share * abs(a)))
        worst = max(worst, float(np.max(np.where(np.isnan(rho), np.inf, rho), initial=0.0)))
    return worst
