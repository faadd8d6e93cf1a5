"""An example worked through: the op run on short numbers, what it computes on the way, and its gradient checked.

The numbers on the way are the local variables of the function and of its pullback, read off when they return: they are
named as in the code, and cannot fall behind it.

The check: L = Σ dy·y over all outputs has the gradients that the pullback returns. They are compared, entry by entry,
with the central difference D(h) = (L(x + h) − L(x − h))/2h.

    D(h) = L′ + h² L‴/6 + …, so |D(2h) − D(h)| is about three times D(h)'s truncation error; its rounding error is at
    most that of two values of L over 2h. Their sum is what a right gradient may differ by.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FrameType, FunctionType
from typing import Any

import numpy as np

from refbert.backend import Host
from refbert_inspection.explain.catalogue import Entry
from refbert_inspection.explain.sources import assigned, functions, profiled, returned

H = 2.0**-17  # near u^{1/3}, where truncation and rounding are of a size
U = 2.0**-53
# Between an input and L: the longest example, the objective, is 40 operations deep, of at most 12 roundings each.
_ROUNDINGS = 40 * 12


@dataclass(frozen=True)
class Example:
    """arguments: by the function's parameter names. cotangents: what the pullback is called with; () for no gradient.

    outputs: names for what comes out, where the code's own ("y") would not do. note: what to look at.
    """

    arguments: Mapping[str, Any]
    cotangents: tuple[Host, ...] = ()
    outputs: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Gradient:
    """One input's gradient: the pullback's, the central differences, the largest distance and what is allowed there."""

    name: str
    value: Host
    differences: Host
    apart: float
    allowed: float

    @property
    def holds(self) -> bool:
        """Whether every entry is as near as it must be."""
        return self.apart <= self.allowed


@dataclass(frozen=True)
class Worked:
    """An example's numbers by name, in the order in which they come about."""

    note: str
    inputs: dict[str, Any]
    on_the_way: dict[str, Any]
    outputs: dict[str, Any]
    cotangents: dict[str, Any]
    on_the_way_back: dict[str, Any]
    gradients: tuple[Gradient, ...]

    @property
    def holds(self) -> bool:
        """Whether every gradient is what the differences say."""
        return all(g.holds for g in self.gradients)


def work(entry: Entry, example: Example) -> Worked:
    """Run the example and check its gradients."""
    # A block's helpers are blocks in all but name; an op's are where its formula stands.
    watched = functions(entry) if entry.kind == "op" else functions(entry)[:1]
    result, local = _with_locals(watched, lambda: entry.function(**example.arguments))
    outputs = _outputs(entry, example, result)
    given = {id(x) for x in _leaves(example.arguments).values()}
    forward = {k: v for k, v in _shown(local, given).items() if k not in outputs}
    back: dict[str, Any] = {}
    gradients: tuple[Gradient, ...] = ()
    if example.cotangents:
        cotangents, local = _with_locals(watched, lambda: result[-1](*example.cotangents))
        named = _named(example, cotangents)
        gradients = tuple(_checked(entry, example, name, g) for name, g in named.items())
        returned_ids = {id(g) for g in named.values()} | {id(c) for c in example.cotangents}
        back = {k: v for k, v in _shown(local, returned_ids).items() if k not in forward}
    names = [f"d{name}" for name in outputs]
    return Worked(
        example.note, _leaves(example.arguments), forward, outputs,
        dict(zip(names, example.cotangents, strict=False)), back, gradients,
    )  # fmt: skip


def _with_locals(watched: tuple[FunctionType, ...], work: Callable[[], Any]) -> tuple[Any, dict[str, dict[str, Any]]]:
    """What ``work`` returns, and the local variables that functions and their pullbacks had when they returned."""
    names: dict[Any, tuple[FunctionType, str]] = {function.__code__: (function, "") for function in watched}
    for function in watched:
        for inner in function.__code__.co_consts:
            if getattr(inner, "co_name", "") == "pullback":
                names[inner] = function, "pullback"
    local: dict[str, dict[str, Any]] = {}

    def watch(frame: FrameType, event: str, _: object) -> None:
        if event == "return" and frame.f_code in names:
            function, inside = names[frame.f_code]
            values = frame.f_locals
            found = {name: values[name] for name in assigned(function, inside) if name in values}
            local.setdefault(function.__name__ + inside, {}).update(found)

    with profiled(watch):
        return work(), local


def _shown(local: dict[str, dict[str, Any]], known: set[int]) -> dict[str, Any]:
    """The numbers among local variables, without those that are shown elsewhere."""
    out: dict[str, Any] = {}
    for values in reversed(local.values()):  # helpers return before the function that calls them
        for name, value in values.items():
            if isinstance(value, float | np.ndarray | np.floating) and id(value) not in known and name not in out:
                known = known | {id(value)}
                out[name] = value
    return out


def _outputs(entry: Entry, example: Example, result: Any) -> dict[str, Any]:
    if not example.cotangents:
        return _leaves(dict(zip(example.outputs, result, strict=True)))
    first = result[0]
    if dataclasses.is_dataclass(first):
        return {f.name: getattr(first, f.name) for f in dataclasses.fields(first)}
    names = (*example.outputs, *(name for f in functions(entry) if (name := returned(f))), "y")
    out = {names[0]: first}
    if len(result) > 2:  # the objective's losses by head
        out |= {f"{names[0]} of {head}": term for head, term in result[1].items()}
    return out


def _leaves(arguments: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Arguments by name, parameters and records entry by entry; without the ops."""
    out: dict[str, Any] = {}
    for name, value in arguments.items():
        if isinstance(value, Mapping):
            out |= _leaves(value, prefix or f"{name}: ")
        elif dataclasses.is_dataclass(value) and any(isinstance(v, np.ndarray) for v in vars(value).values()):
            out |= _leaves(vars(value), f"{name}.")
        elif name != "ops":
            out[f"{prefix}{name}"] = value
    return out


def _named(example: Example, cotangents: Any) -> dict[str, Host]:
    """What a pullback returned, by the names of `_leaves`: arrays in signature order, parameters by their names."""
    arrays = [
        name for name, value in example.arguments.items()
        if isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating)
    ]  # fmt: skip
    out: dict[str, Host] = {}
    for part in cotangents if isinstance(cotangents, tuple) else (cotangents,):
        if isinstance(part, Mapping):
            out |= {f"p: {name}": gradient for name, gradient in part.items()}
        else:
            out[arrays[len(out)]] = part
    return out


def _checked(entry: Entry, example: Example, name: str, gradient: Host) -> Gradient:
    at = np.asarray(_leaves(example.arguments)[name])
    near, far = np.empty(at.shape), np.empty(at.shape)
    size = 0.0
    for index in np.ndindex(at.shape):
        L, sizes = zip(*(_loss(entry, example, name, index, step * H) for step in (-2, -1, 1, 2)), strict=True)
        near[index] = (L[2] - L[1]) / (2 * H)
        far[index] = (L[3] - L[0]) / (4 * H)
        size = max(size, *sizes)
    apart = np.abs(gradient - near)
    allowed = np.abs(far - near) + _ROUNDINGS * U * size / H
    worst = np.unravel_index(np.argmax(apart - allowed), apart.shape) if apart.size else ()
    return Gradient(name, np.asarray(gradient), near, float(apart[worst]), float(allowed[worst]))


def _loss(entry: Entry, example: Example, name: str, index: tuple[int, ...], step: float) -> tuple[float, float]:
    """L where one entry of one input is moved by a step, and the size of the numbers that it is a sum of."""
    result = entry.function(**_moved(example.arguments, name, index, step))[0]
    parts = list(vars(result).values()) if dataclasses.is_dataclass(result) else [result]
    pairs = list(zip(example.cotangents, parts, strict=True))
    # 1 + |y|: the numbers that y came from are of size 1 in these examples, and may have cancelled.
    return sum(float((c * y).sum()) for c, y in pairs), sum(float((abs(c) * (1 + abs(y))).sum()) for c, y in pairs)


def _moved(arguments: Mapping[str, Any], name: str, index: tuple[int, ...], step: float) -> dict[str, Any]:
    if name.startswith("p: "):
        return {**arguments, "p": _moved(arguments["p"], name[3:], index, step)}
    moved = np.array(arguments[name])
    moved[index] += step
    return {**arguments, name: moved}
