"""What is found of a backend's arithmetic, and the tightest declaration that explains it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from refbert.backend import Host
from refbert_conformance.engine import runner
from refbert_conformance.engine.property import Property
from refbert_conformance.engine.subject import Subject
from refbert_conformance.probe import rounding, sums
from refbert_conformance.probe.functions import Measured, measured, upward
from refbert_conformance.probe.operations import FORWARD, OPERANDS, SUMS, Operations
from refbert_conformance.properties.table import matching
from refbert_conformance.tolerances.arithmetic import FORMATS, Arithmetic
from refbert_conformance.tolerances.presets import PRESETS, Preset

TERMS = 32  # of the sums whose order is looked for
_REPEATS = 20
# The functions that an operation's bounds are made of.
USED: Mapping[str, tuple[str, ...]] = {
    "tanh": ("tanh",), "gelu": ("erf", "tanh", "exp"), "softmax": ("exp", "division"),
    "attention_probabilities": ("exp", "division"), "attention": ("exp", "division"),
    "cross_entropy": ("log", "exp"), "layer_norm": ("rsqrt", "sqrt", "division"),
}  # fmt: skip
_MOST = 1 << 13
_HIDDEN = "does not show"
Tell = Callable[[str], object]


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


def datasheet(subject: Subject, tell: Tell = lambda what: None) -> Datasheet:
    """Ask everything; ``tell`` is told what is being asked."""
    facts, declared, functions = examined(subject, tell)
    tell("the declaration")
    declared, unexplained = explaining(subject, declared)
    return Datasheet(facts, declared, presets(declared, functions), unexplained)


def examined(
    subject: Subject, tell: Tell = lambda what: None
) -> tuple[list[Fact], dict[str, Any], list[Measured]]:  # fmt: skip
    """The facts, the declaration that they come to, and what was measured of functions."""
    o, dtype = Operations(subject), subject.dtype
    facts: list[Fact] = []
    tell("results")
    facts.append(Fact("results", "addition", rounding.stored(o), f"of {dtype}"))
    accumulators = {}
    for site in filter(partial(_there, subject), SUMS):
        tell(f"sums: {site}")
        accumulators[site], order = _sum(o, site)
        facts.append(Fact("sums", site, str(accumulators[site] or _HIDDEN), order))
    tell("products")
    widest = min((one.bits for one in accumulators.values() if one and one.bits), default=53)
    operands = {site: rounding.operand(o, site, widest) for site in OPERANDS if _there(subject, site)}
    facts += [Fact("operands of products", site, str(one or _HIDDEN)) for site, one in operands.items()]
    found = rounding.subnormals(o, products=not any(one and one.name for one in operands.values()))
    flush = not all(all(kept) for kept in found.values())
    facts += [Fact("subnormal numbers", op, _subnormal(*kept)) for op, kept in found.items()]
    tell("functions")
    functions = measured(o, widest)
    for one in functions:
        ulps, at = one.worst
        how = "every argument" if one.every else f"{len(one.x):,} arguments"
        said = f"{ulps:.3g} ULP" if ulps > 0.5 else "0.5 ULP or less"
        facts.append(Fact("functions", one.name, said, f"at {at:.9g}, of {how}" if ulps > 0.5 else f"at {how}"))
    if not any(one.name == "exp" for one in functions):
        facts.append(
            Fact("functions", "exp, tanh, erf, log", "unavailable", "float64 needs mpmath: pip install mpmath")
        )
    tell("determinism")
    random = nondeterministic(o)
    facts.append(Fact("determinism", "bits of a call", "differ" if random else "the same",
                      ", ".join(random) or f"{_REPEATS} calls of every operation"))  # fmt: skip
    declared = _declared(dtype, operands.values(), accumulators.values(), functions, flush=flush, random=random)
    return facts, declared, functions


def _sum(o: Operations, site: str) -> tuple[sums.Accumulator | None, str]:
    """What a sum is added up in, and the order; None, and why, where that does not show."""
    add: sums.Add = partial(SUMS[site], o)
    if not all(add(row) == 1 for row in np.eye(8)):
        return None, "a number among zeros does not come out as it is"
    # Attention over S places makes S² scores.
    longest = 1 << 9 if site.startswith("attention") else sums.LONGEST
    return sums.accumulator(add, longest), sums.described(sums.order(add, TERMS), TERMS)


def _there(subject: Subject, site: str) -> bool:
    """Whether the backend offers what a place is in: gradients, or the forward alone."""
    return subject.gradients or site.startswith(FORWARD)


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
    accumulation = max(((one and one.name) or wide for one in accumulators), key=lambda name: FORMATS[name][0])
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


def explaining(subject: Subject, declared: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The declaration, loosened until it explains every operation, and what it cannot be made to explain.

    In a 16-bit dtype steps are taken for float32's where that explains all that the dtype's own would.
    """
    declared = dict(declared)
    properties = [p for p in matching("accuracy") if p.level in ("forward", "backward")]
    if subject.dtype in ("float16", "bfloat16"):
        wide = {**declared, "intermediates": "float32"}
        failing = {p.id for p in properties if not explains(subject, wide, p)}
        if not failing or failing == {p.id for p in properties if not explains(subject, declared, p)}:
            declared = wide
    unexplained = []
    for p in properties:
        if explains(subject, declared, p):
            continue
        loosened = _loosened(subject, declared, p)
        if loosened is None:
            unexplained.append(p.id)
        else:
            declared["functions"] = loosened
    return declared, unexplained


def explains(subject: Subject, declared: Mapping[str, Any], property: Property) -> bool:
    """Whether a property holds under a declaration, or is not for this backend."""
    other = copy.copy(subject)
    other.arithmetic = Arithmetic.of(subject.dtype, declared)
    return runner.run(property, other, effort="quick", shrinking=0.0).outcome != "failed"


def _loosened(subject: Subject, declared: Mapping[str, Any], property: Property) -> dict[str, Any] | None:
    """The functions, with one of those that the operation uses raised by the smallest factor that explains it, or all
    of them where no one does: an operation may have two forms, each with functions of its own."""
    functions = declared["functions"]
    used = USED.get(property.op, ())

    def raised(names: Sequence[str], factor: float) -> dict[str, Any]:
        said = {name: functions.get(name, 0.5) for name in names}
        return {**functions, **{
            name: f"{factor:g}*({one})" if isinstance(one, str) else upward(factor * one) for name, one in said.items()
        }}  # fmt: skip

    for choice in ([(name,) for name in used], [used] if len(used) > 1 else []):
        factor = 2.0
        while choice and factor <= _MOST:
            for names in choice:
                if explains(subject, {**declared, "functions": raised(names, factor)}, property):
                    return raised(names, factor)
            factor *= 1.5
    return None


def nondeterministic(o: Operations) -> list[str]:
    """Operations of which one call in twenty has other bits than another, forward or backward."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Host:
        return np.asarray(np.float32(rng.standard_normal(shape)), np.float64)

    mask, how = np.ones((2, 48), np.int64), {"heads": 4, "mask_value": -10000.0}
    ids = rng.integers(0, 8, (4, 512))
    calls: dict[str, tuple[list[Host], dict[str, Any], Host]] = {
        "linear": ([normal(128, 192), normal(96, 192), normal(96)], {}, normal(128, 96)),
        "layer_norm": ([normal(512, 96), normal(96), normal(96)], {"eps": 1e-12}, normal(512, 96)),
        "gelu": ([normal(64, 128)], {"form": "erf"}, normal(64, 128)),
        "attention": ([normal(2, 48, 64) for _ in "qkv"], {"mask": mask, **how}, normal(2, 48, 64)),
        "embedding": ([normal(8, 32)], {"ids": ids}, normal(4, 512, 32)),
        "cross_entropy": ([normal(64, 200)], {"labels": rng.integers(0, 200, 64), "denominator": 64.0}, np.ones(())),
    }  # fmt: skip
    found = []
    for op, (arrays, options, dy) in calls.items():
        if not o.subject.has(op) or (op == "cross_entropy" and not o.subject.gradients):
            continue
        results = {
            b"".join(x.tobytes() for x in o(op, arrays, dy if o.subject.gradients else None, **options))
            for _ in range(_REPEATS)
        }
        if len(results) > 1:
            found.append(op)
    return found
