"""What is found of a backend's arithmetic, and the tightest declaration that explains it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np

from refbert.backend import Host
from refbert_conformance.engine import runner
from refbert_conformance.engine.measure import Failure, Unavailable, Unsupported, words
from refbert_conformance.engine.property import Property
from refbert_conformance.engine.subject import Subject
from refbert_conformance.failures.likeness import CALLED
from refbert_conformance.probe import rounding, sums
from refbert_conformance.probe.functions import ASKED, Measured, upward
from refbert_conformance.probe.operations import OPERANDS, SUMS, Operations
from refbert_conformance.properties.table import matching
from refbert_conformance.tolerances.arithmetic import FORMATS, Arithmetic
from refbert_conformance.tolerances.presets import PRESETS, Preset

TERMS = 32  # of the sums whose order is looked for
_REPEATS = 20
# The functions that an operation's bounds are made of; a root may be declared in either way.
_USED = {**CALLED, "layer_norm": ("rsqrt", "sqrt", "division")}
_MOST = 1 << 13
_HIDDEN = "does not show"
Tell = Callable[[str], object]
Alive = Callable[[Any], None]
T = TypeVar("T")


@dataclass(frozen=True)
class Fact:
    """One line of the datasheet: what was looked at, what was found, and how or where."""

    group: str
    what: str
    found: str
    detail: str = ""


@dataclass(frozen=True)
class Datasheet:
    """facts: in their order. declaration: what follows for ``arithmetic``. presets: those that allow all of it.
    unexplained: ids of properties that it does not explain."""

    facts: Sequence[Fact]
    declaration: Mapping[str, Any]
    presets: Sequence[str]
    unexplained: Sequence[str]


def datasheet(subject: Subject, tell: Tell = lambda what: None, alive: Alive = lambda example: None) -> Datasheet:
    """Ask everything; ``tell`` is told what is being asked about, ``alive`` is called before each question."""
    facts, declared, functions = examined(subject, tell, alive)
    tell("the declaration")
    declared, unexplained = explaining(subject, declared, alive)
    wrong = unexplained or any(fact.found == "failed" for fact in facts)
    allowing = [] if wrong else [
        name for name in presets(declared, functions)
        if all(explains(subject, {"preset": name}, p, alive) for p in _accuracy())
    ]  # fmt: skip
    return Datasheet(facts, declared, allowing, unexplained)


def _accuracy() -> list[Property]:
    return [p for p in matching("accuracy") if p.level in ("forward", "backward")]


def examined(
    subject: Subject, tell: Tell = lambda what: None, alive: Alive = lambda example: None
) -> tuple[list[Fact], dict[str, Any], list[Measured]]:  # fmt: skip
    """The facts, the declaration that they come to, and what was measured of functions."""
    o, dtype = Operations(subject, alive), subject.dtype
    facts: list[Fact] = []

    def asked(group: str, what: str, question: Callable[[], T], said: Callable[[T], tuple[str, ...]]) -> T | None:
        """What a question comes to, and the line that says it; where there is no answer, the line says why."""
        tell(f"{group}: {what}")
        try:
            found = question()
        except Unsupported as error:
            facts.append(Fact(group, what, "unsupported", str(error)))
        except Unavailable as error:
            facts.append(Fact(group, what, "unavailable", str(error)))
        except Failure as failure:
            facts.append(Fact(group, what, "failed", str(failure)))
        except Exception as error:  # noqa: BLE001  (whatever a plugin raises is its own)
            facts.append(Fact(group, what, "failed", words(error)))
        else:
            facts.append(Fact(group, what, *said(found)))
            return found
        return None

    asked("results", "addition", partial(rounding.stored, o), lambda how: (how, f"of {dtype}"))
    sums_found = [
        asked("sums", site, partial(_sum, o, site), lambda found: (str(found[0] or _HIDDEN), found[1])) for site in SUMS
    ]
    accumulators = [found[0] for found in sums_found if found is not None]
    widest = min((one.narrowest for one in accumulators if one and one.narrowest), default=53)
    operands = [
        asked("operands of products", site, partial(rounding.operand, o, site, widest),
              lambda one: (str(one or _HIDDEN),)) for site in OPERANDS
    ]  # fmt: skip
    # A wide accumulator has no subnormal numbers there, and operands may have a smaller range.
    wide = dtype in ("float32", "float64") and not any(one and one.name for one in operands)
    kept = [
        asked("subnormal numbers", op, partial(question, o), lambda both: (_subnormal(*both),))
        for op, question in rounding.SUBNORMALS.items() if wide or op != "linear"
    ]  # fmt: skip
    functions: list[Measured] = []
    division = 0.5
    for name, function in ASKED.items():
        one = asked("functions", name, partial(function, o, division, widest), _worst)
        if one is not None:
            functions.append(one)
            division = one.worst[0] if name == "division" else division
    random = [
        op for op, call in _calls().items()
        if asked("determinism", op, partial(repeats, o, op, *call),
                 lambda same: ("the same bits" if same else "other bits", f"{_REPEATS} calls")) is False
    ]  # fmt: skip
    flush = not all(all(both) for both in kept if both is not None)
    return facts, _declared(dtype, operands, accumulators, functions, flush=flush, random=random), functions


def _worst(one: Measured) -> tuple[str, str]:
    ulps, at = one.worst
    how = "every argument" if one.every else f"{len(one.x):,} arguments"
    how += f" from {one.x.min():.3g} to {one.x.max():.3g}"
    return ("0.5 ULP or less", f"at {how}") if ulps <= 0.5 else (f"{ulps:.3g} ULP", f"at {at:.9g}, of {how}")


def _sum(o: Operations, site: str) -> tuple[sums.Accumulator | None, str]:
    """What a sum is added up in, and the order; None, and why, where that does not show."""
    add: sums.Add = partial(SUMS[site], o)
    if add(np.zeros(8)) or not all(add(row) == 1 for row in np.eye(8)):
        return None, "a number among zeros does not come out as it is"
    if sums.fixed(add, rounding.bits_of(o.subject.dtype)):
        raise Failure(rounding.FIXED)
    # Attention over S places makes S² scores.
    longest = 1 << 9 if site.startswith("attention") else sums.LONGEST
    return sums.accumulator(add, longest, rounding.bits_of(o.subject.dtype)), sums.described(
        sums.order(add, TERMS), TERMS
    )


def _subnormal(taken: bool, made: bool) -> str:
    if taken and made:
        return "kept"
    return "flushed to zero" + (", as arguments" if made else ", as results" if taken else "")


def _declared(
    dtype: str, operands: Any, accumulators: Any, functions: Sequence[Measured], *, flush: bool, random: Sequence[str]
) -> dict[str, Any]:
    """What the facts come to; nothing that follows from the dtype."""
    declared: dict[str, Any] = {}
    wide = "float32" if dtype in ("float16", "bfloat16") else dtype
    accumulation = max(
        ((one and one.name) or wide for one in accumulators), key=lambda name: FORMATS[name][0], default=wide
    )
    if accumulation != wide:
        declared["accumulation"] = accumulation
    rounded = [one.name for one in operands if one is not None and one.name is not None]
    if rounded:
        declared["matmul_inputs"] = max(rounded, key=lambda name: FORMATS[name][0])
    if flush:
        declared["flush_to_zero"] = True
    if random:
        declared["nondeterministic"] = list(random)
    said = {one.name: one.declaration() for one in functions}
    declared["functions"] = said
    return declared


def presets(declared: Mapping[str, Any], functions: Sequence[Measured]) -> list[str]:
    """Names of those that allow all that was found."""
    by_name = {one.name: one for one in functions}

    def allows(preset: Preset) -> bool:
        within = {name: one.within(preset) for name, one in by_name.items()}
        if "sqrt" in within:  # one of the two, and it does not show which
            within["sqrt"] = within["rsqrt"] = within["sqrt"] or within["rsqrt"]
        return all(within.values()) and not set(declared) - {"functions", *preset.also}

    return [name for name, preset in PRESETS.items() if allows(preset)]


def explaining(
    subject: Subject, declared: Mapping[str, Any], alive: Alive = lambda example: None
) -> tuple[dict[str, Any], list[str]]:  # fmt: skip
    """The declaration, loosened until it explains every operation, and what it cannot be made to explain.

    In a 16-bit dtype steps are taken for float32's where that explains all that the dtype's own would.
    """
    declared = dict(declared)
    properties = _accuracy()
    holds = partial(explains, subject, alive=alive)
    if subject.dtype in ("float16", "bfloat16"):
        wide = {**declared, "intermediates": "float32"}
        failing = {p.id for p in properties if not holds(wide, p)}
        if not failing or failing == {p.id for p in properties if not holds(declared, p)}:
            declared = wide
    unexplained = []
    for p in properties:
        if holds(declared, p):
            continue
        loosened = _loosened(subject, declared, p, alive)
        if loosened is None:
            unexplained.append(p.id)
        else:
            declared["functions"] = loosened
    return declared, unexplained


def explains(
    subject: Subject, declared: Mapping[str, Any], property: Property, alive: Alive = lambda example: None
) -> bool:  # fmt: skip
    """Whether a property holds under a declaration, or is not for this backend."""
    other = copy.copy(subject)
    other.arithmetic = Arithmetic.of(subject.dtype, declared)
    return runner.run(property, other, effort="quick", shrinking=0.0, trying=alive).outcome != "failed"


def _loosened(
    subject: Subject, declared: Mapping[str, Any], property: Property, alive: Alive = lambda example: None
) -> dict[str, Any] | None:  # fmt: skip
    """The functions, with one of those that the operation uses raised by the smallest factor that explains it, or all
    of them where no one does: an operation may have two forms, each with functions of its own."""
    functions = declared["functions"]
    used = _USED.get(property.op, ())
    # What errs by an eighth of the result is no function of a lesser accuracy.
    most = min(_MOST, 0.125 / Arithmetic.of(subject.dtype, declared).u_step)

    def raised(names: Sequence[str], factor: float) -> dict[str, Any]:
        said = {name: functions.get(name, 0.5) for name in names}
        return {**functions, **{
            name: f"{factor:g}*({one})" if isinstance(one, str) else upward(factor * one) for name, one in said.items()
        }}  # fmt: skip

    def holds(names: Sequence[str], factor: float) -> bool:
        return explains(subject, {**declared, "functions": raised(names, factor)}, property, alive)

    if not used or not holds(used, most):
        return None
    for choice in ([(name,) for name in used], [used]):
        factor = 2.0
        while factor <= most:
            for names in choice:
                if holds(names, factor):
                    return raised(names, factor)
            factor *= 1.5
    return None


def _calls() -> dict[str, tuple[list[Host], dict[str, Any], Host]]:
    """What is repeated: op -> arrays, options, cotangent."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Host:
        return np.asarray(np.float32(rng.standard_normal(shape)), np.float64)

    mask, how = np.ones((2, 48), np.int64), {"heads": 4, "mask_value": -10000.0}
    ids = rng.integers(0, 8, (4, 512))
    return {
        "linear": ([normal(128, 192), normal(96, 192), normal(96)], {}, normal(128, 96)),
        "layer_norm": ([normal(512, 96), normal(96), normal(96)], {"eps": 1e-12}, normal(512, 96)),
        "gelu": ([normal(64, 128)], {"form": "erf"}, normal(64, 128)),
        "attention": ([normal(2, 48, 64) for _ in "qkv"], {"mask": mask, **how}, normal(2, 48, 64)),
        "embedding": ([normal(8, 32)], {"ids": ids}, normal(4, 512, 32)),
        "gather": ([normal(8, 32)], {"positions": ids.reshape(-1)}, normal(2048, 32)),
        "add": ([normal(64, 128), normal(64, 128)], {}, normal(64, 128)),
        "tanh": ([normal(64, 128)], {}, normal(64, 128)),
        "softmax": ([normal(64, 200)], {}, normal(64, 200)),
        "attention_probabilities": ([normal(2, 48, 64) for _ in "qk"], {"mask": mask, **how}, normal(2, 4, 48, 48)),
        "mean_squared_error": ([normal(512)], {"targets": normal(512), "denominator": 512.0}, np.ones(())),
        "cross_entropy": ([normal(64, 200)], {"labels": rng.integers(0, 200, 64), "denominator": 64.0}, np.ones(())),
    }  # fmt: skip


def repeats(o: Operations, op: str, arrays: Sequence[Host], options: Mapping[str, Any], dy: Host) -> bool:
    """Whether every one of twenty calls has the same bits, forward and backward."""
    results = {
        b"".join(x.tobytes() for x in o(op, arrays, dy if o.subject.gradients else None, **options))
        for _ in range(_REPEATS)
    }
    return len(results) == 1
