"""`refbert diff`: the same pass twice, tensor by tensor; where the two first part, and how the error grows.

Two questions, two answers:

    is an op right by itself?     every op of either side against refbert.ops on its own inputs (`judging`)
    are the two sides the same?   every tensor of one against that of the other, row by row, within what rounding may
                                  do to it on its way (`refbert_conformance.tolerances.noise`);
                                  the tolerances of both sides add up as independent errors do, √(a² + b²)

An op that is wrong by itself is where a bug sits. Where all are right and the sides differ all the same, they do not
compute the same thing (another GELU, another mask, other weights), and the first tensor beyond its tolerance shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from refbert.backend import Host
from refbert.backend.reference import ReferenceBackend
from refbert_conformance.engine.measure import row_worst
from refbert_conformance.tolerances.arithmetic import Arithmetic
from refbert_conformance.tolerances.bounds import Expected
from refbert_conformance.tolerances.noise import tolerances
from refbert_inspection.tracing.judging import Judgement, fused_layers, judged, own_objective
from refbert_inspection.tracing.passes import GRADIENT, Pass
from refbert_inspection.tracing.setting import Setting

# Told what is being done, and how much of it has been.
Told = Callable[[str, str], object]


@dataclass
class Side:
    """One of the two: its name, how it rounds, its tensors by name, and, for a backend, the pass that made them.

    exact: it is the reference itself, which is not judged and has no tolerance. setting: what the pass was of.
    """

    label: str
    arithmetic: Arithmetic
    setting: Setting
    arrays: Mapping[str, Host]
    run: Pass | None = None
    exact: bool = False

    @property
    def name(self) -> str:
        """The label's first word."""
        return self.label.partition(" ")[0]


@dataclass(frozen=True)
class Row:
    """One tensor on both sides. direction: "forward" or "backward" (a gradient; ``op`` is then what it is of).

    distance: ‖x − y‖/‖y‖. allowed: the tolerance on the same scale. rho: the worst row's error in tolerances, above 1
    beyond what rounding explains. own: for each side, the op's own error in bounds (None where it is not judged).
    """

    name: str
    direction: str
    op: str
    shape: tuple[int, ...]
    distance: float
    allowed: float
    rho: float
    own: tuple[float | None, float | None]


@dataclass(frozen=True)
class Difference:
    """rows: every tensor that both sides have, in the order in which they are made.

    wrong: for each side, the ops (and fused blocks) beyond their bounds, the first first. different: what the sides
    are asked to do differently, in words. unlike: the tensors that have another shape on the other side, and so no row.
    """

    sides: tuple[Side, Side]
    rows: tuple[Row, ...]
    wrong: tuple[tuple[Judgement, ...], tuple[Judgement, ...]]
    different: tuple[str, ...] = field(default=())
    unlike: tuple[str, ...] = field(default=())

    @property
    def parted(self) -> Row | None:
        """The first tensor beyond its tolerance."""
        return next((row for row in self.rows if row.rho > 1), None)

    @property
    def within(self) -> bool:
        """Whether everything is within its bound, and there is something."""
        return bool(self.rows) and not self.unlike and self.parted is None and not any(self.wrong)


def side_of(backend: Any, setting: Setting, *, label: str | None = None) -> Side:
    """Run the pass on a backend; the setting's weights are to be exact in its dtype (`Setting.in_dtype`)."""
    arithmetic = Arithmetic.of(str(backend.dtype), getattr(backend, "arithmetic", None))
    run = setting.run(backend, keep_inputs=True)
    exact = type(backend) is ReferenceBackend and backend.dtype == "float64"
    return Side(label or f"{backend.name} ({backend.dtype})", arithmetic, setting, run.arrays(), run, exact)


def compared(one: Side, other: Side, told: Told = lambda *_: None) -> Difference:
    """The two sides, tensor by tensor."""
    wanted = _wanted(one, told), _wanted(other, told)
    judgements = _judged(one, told), _judged(other, told)
    rows, unlike = [], []
    for name, direction, op in _order(one, other):
        x, y = one.arrays[name], other.arrays[name]
        if x.shape != y.shape:
            unlike.append(name)
            continue
        squares = [np.square(side[name].bound) for side in wanted if name in side]
        allowed = np.sqrt(sum(squares, np.zeros(np.shape(y)[:-1])))
        rows.append(_row(name, direction, op, x, y, allowed, judgements))
    wrong = tuple(
        tuple(j for j in found if j.rho > 1) + tuple(j for j in _blocks(side, expected, told) if j.rho > 1)
        for side, found, expected in zip((one, other), judgements, wanted, strict=True)
    )
    different = one.setting.differs_from(other.setting)
    return Difference((one, other), tuple(rows), (wrong[0], wrong[1]), different, tuple(unlike))


def _judged(side: Side, told: Told) -> list[Judgement]:
    if side.run is None or side.exact:
        return []
    calls = side.run.calls
    return judged(calls, side.arithmetic, lambda k: told(f"{side.label}: ops by themselves", f"{k} of {len(calls)}"))


def _blocks(side: Side, wanted: Mapping[str, Expected], told: Told) -> list[Judgement]:
    if side.run is None or side.exact:
        return []
    told(f"{side.label}: fused blocks", "")
    return fused_layers(side.run, side.setting, side.arithmetic) + own_objective(side.run, side.setting, wanted)


def _wanted(side: Side, told: Told) -> dict[str, Expected]:
    """What every tensor should be and may be off by, row by row; nothing for the reference itself."""
    if side.exact:
        return {}
    told(f"{side.label}: what rounding may do", "")
    return _tolerated(side.setting, side.arithmetic)


@lru_cache(maxsize=2)
def _tolerated(setting: Setting, arithmetic: Arithmetic) -> dict[str, Expected]:
    return {one.name: one for one in tolerances(lambda b: setting.run(b).arrays(), arithmetic)}


def _row(
    name: str, direction: str, op: str, x: Host, y: Host, allowed: Host,
    judgements: tuple[Sequence[Judgement], Sequence[Judgement]],
) -> Row:  # fmt: skip
    wide = np.asarray(x, np.float64), np.asarray(y, np.float64)
    worst = row_worst(wide[0], Expected(name, wide[1], allowed))
    size = float(np.linalg.norm(wide[1])) or 1.0
    own = tuple(
        max((j.rho for j in found if (j.name, j.direction) == (name.removeprefix(GRADIENT), direction)), default=None)
        for found in judgements
    )
    with np.errstate(all="ignore"):
        return Row(
            name, direction, op, tuple(x.shape), float(np.linalg.norm(wide[0] - wide[1])) / size,
            float(np.linalg.norm(allowed)) / size, 0.0 if worst is None else worst.rho, (own[0], own[1]),
        )  # fmt: skip


def _order(one: Side, other: Side) -> list[tuple[str, str, str]]:
    """(name, direction, op) of what both sides have, as the first side that is a backend's made it."""
    run = one.run or other.run
    assert run is not None, "one side must be a backend's"
    found: list[tuple[float, str, str, str]] = []
    last_use: dict[str, tuple[int, str]] = {}
    for name, op, _, call in run.made():
        found.append((call.order if name == call.name else call.order - 0.5, name, "forward", op))
    for call in run.backward:
        found.append((call.back_order, GRADIENT + call.name, "backward", call.op))
        last_use |= dict.fromkeys(call.inputs, (call.back_order, call.op))
    for name in run.gradients:
        order, op = last_use[name]
        found.append((order + 0.5, GRADIENT + name, "backward", op))
    return [(name, way, op) for _, name, way, op in sorted(found) if name in one.arrays and name in other.arrays]


def verdict(found: Difference) -> list[str]:
    """What was found, the most telling first."""
    compared = f"{len(found.rows)} tensors compared"
    if found.within:
        worst = max(row.rho for row in found.rows)
        return [f"within the bounds: {compared}, the worst row at {number(worst)} of what rounding may do"]
    beyond = sum(row.rho > 1 for row in found.rows)
    lines = [
        f"beyond the bounds: {compared}, {beyond} beyond their tolerance; operations wrong by themselves: "
        f"{sum(map(len, found.wrong))}"
    ]
    if found.unlike:
        more = f" ({len(found.unlike) - 1} more)" if len(found.unlike) > 1 else ""
        lines.append(f"not compared, since its shape differs: {found.unlike[0]}{more}")
    for side, wrong in zip(found.sides, found.wrong, strict=True):
        if wrong:
            more = f" ({len(wrong) - 1} more)" if len(wrong) > 1 else ""
            lines.append(f"{side.label}: first wrong operation: {described(wrong[0])}{more}")
    row = found.parted
    if row is not None:
        lines.append(
            f"first tensor beyond its tolerance: {row.name} ({row.op}, {row.direction}), ρ = {number(row.rho)}, "
            f"distance {number(row.distance)}"
        )
        if not any(found.wrong):
            why = ", and are asked for different things" if found.different else ""
            lines.append(f"every operation is right by itself: the sides do not compute the same thing{why}")
    return lines


def described(one: Judgement) -> str:
    """An op that is wrong, in one line."""
    said = f": {one.message}" if one.message else ""
    return f"{one.op} ({one.direction}) at {one.name}, ρ = {number(one.rho)}{said}"


def number(x: float) -> str:
    """Three digits."""
    return "0" if x == 0 else f"{x:.3g}"
