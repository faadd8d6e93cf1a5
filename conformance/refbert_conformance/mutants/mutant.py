"""What a mutant is, and how one is made from the source of what it is a mutant of."""

from __future__ import annotations

import importlib
import inspect
import math
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from refbert.backend.reference import ReferenceBackend
from refbert.spec.bert import objective
from refbert.spec.choices import Choices
from refbert.spec.encoder import encoder_layer


class Correct(ReferenceBackend):
    """The base of every mutant: refbert.ops in float32, with the optional blocks, and nothing wrong."""

    name = "correct"
    dtypes: tuple[str, ...] = ("float32", "float64")
    # What the optional blocks are composed by; a wiring mutant puts its own here.
    spec_objective: Callable[..., Any] = staticmethod(objective)
    spec_layer: Callable[..., Any] = staticmethod(encoder_layer)

    def objective(
        self, params: Any, batch: Any, labels: Any, heads: Any, c: Any, *, draws: Any = None, denominators: Any = None
    ) -> Any:
        """The spec's, on itself."""
        return self.spec_objective(self, params, batch, labels, heads, c, draws=draws, denominators=denominators)

    def encoder_layer(
        self, x: Any, params: Any, *, mask: Any, heads: int, mask_value: float, activation: str, eps: float
    ) -> Any:
        """The spec's, on itself."""
        c = Choices.of_layer(heads=heads, mask_value=mask_value, activation=activation, eps=eps)
        return self.spec_layer(self, params, x, mask, c)[0]

    def packed_encoder_layer(
        self, x: Any, params: Any, *, lengths: Any, heads: int, activation: str, eps: float
    ) -> Any:
        """Sequence by sequence."""
        ends = np.cumsum(lengths)
        parts = [
            Correct.encoder_layer(
                self, x[None, end - length : end], params, mask=np.ones((1, length), int), heads=heads,
                mask_value=-math.inf, activation=activation, eps=eps,
            )[0]
            for length, end in zip(lengths, ends, strict=True)
        ]  # fmt: skip
        return np.concatenate(parts) if parts else x[:0]


@dataclass(frozen=True)
class Mutant:
    """name: "op: what is wrong". op: the method that is. area: the kind of bug. make(dtype=None, device=None)."""

    name: str
    op: str
    area: str
    make: Callable[..., Any]


def mutant(op: str, area: str, what: str, base: type[Correct] = Correct, /, **members: Any) -> Mutant:
    """A mutant whose class replaces some members of a correct one."""
    made = type("Mutant", (base,), {"name": "mutant", **members})
    return Mutant(f"{op}: {what}", op, area, made)


Hook = Callable[..., Any] | None
# A method that is wrong, or what is to be changed of the right one: the arguments of `around`.
Change = Callable[..., Any] | Mapping[str, Callable[..., Any]]


def mutants(rows: Iterable[tuple[str, str, str, Change]]) -> tuple[Mutant, ...]:
    """A mutant for each (op, area, what is wrong, how)."""
    return tuple(
        mutant(op, area, what, **{op: how if callable(how) else around(op, **how)}) for op, area, what, how in rows
    )


def around(op: str, *, given: Hook = None, y: Hook = None, pullback: Hook = None) -> Callable[..., Any]:
    """`Correct`'s method, changed before or behind: ``given`` makes those of its arguments that are to be others, by
    name, ``y`` its result of the right one, ``pullback`` the cotangents of the right pullback and dy.

    Each is called with the backend first, and with all of the method's arguments by name.
    """
    parameters = inspect.signature(getattr(Correct(), op)).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    names = [p.name for p in parameters]

    def method(self: Any, *arguments: Any, **options: Any) -> Any:
        named = defaults | dict(zip(names, arguments, strict=False)) | options
        if given is not None:
            named |= given(self, **named)
        options = dict(named)
        found = right(self, op)(*[options.pop(name) for name in names[: len(arguments)]], **options)
        first, *rest = found if isinstance(found, tuple) else (found,)
        if y is not None:
            first = y(self, first, **named)
        if pullback is not None:
            *rest, back = rest
            rest.append(lambda dy: pullback(self, back, dy, **named))
        return (first, *rest) if isinstance(found, tuple) else first

    return method


def right(backend: Any, op: str) -> Callable[..., Any]:
    """A mutant's method as `Correct` has it."""
    return getattr(super(type(backend), backend), op)  # type: ignore[no-any-return]


def kept(mutant: Any, name: str, key: Any, x: Any) -> Any:
    """What the backend has kept of that name under the key; x itself if it has nothing yet."""
    return vars(mutant).setdefault(name, {}).setdefault(key, x)


def in_buffer(mutant: Any, x: Any, /, **_: Any) -> Any:
    """x in a buffer that is used again for every array of its shape."""
    buffer = kept(mutant, "_buffers", x.shape, np.empty(x.shape, x.dtype))
    buffer[...] = x
    return buffer


def count(mutant: Any) -> int:
    """How often the backend has counted, with this time."""
    mutant._count = getattr(mutant, "_count", 0) + 1
    return int(mutant._count)


def replaced(module: str, old: str, new: str) -> str:
    """The source of a module, docstrings aside, with one piece replaced; raises ValueError unless there is exactly one."""
    code = "".join(inspect.getsource(importlib.import_module(module)).split('"""')[::2])
    if code.count(old) != 1:
        raise ValueError(f"{module}: {old!r} occurs {code.count(old)} times, a mutant needs exactly one place")
    return code.replace(old, new)


def patched(module: str, old: str, new: str) -> dict[str, Any]:
    """The names of a module of refbert with one piece of its source replaced."""
    names: dict[str, Any] = {"__name__": f"{module} (mutant)"}
    exec(compile(replaced(module, old, new), f"<mutant of {module}>", "exec"), names)
    return names


# The order in which the spec's modules import each other.
_SPEC = (
    "choices", "scope", "layers", "embeddings", "attention", "feed_forward", "encoder", "pooler", "heads", "losses",
    "head_table", "bert",
)  # fmt: skip


def patched_spec(file: str, old: str, new: str, number: int) -> types.ModuleType:
    """refbert.spec.bert of a copy of the whole spec, with one piece of one file replaced."""
    package = f"refbert_conformance_mutant_{number}"
    for name in _SPEC:
        module = f"refbert.spec.{name}"
        source = replaced(module, old, new) if name == file else inspect.getsource(importlib.import_module(module))
        for other in _SPEC:
            source = source.replace(f"refbert.spec.{other} import", f"{package}_{other} import")
        source = source.replace(
            "from refbert.spec import heads, losses", f"import {package}_heads as heads, {package}_losses as losses"
        )
        source = source.replace("from refbert.spec import head_table", f"import {package}_head_table as head_table")
        made = types.ModuleType(f"{package}_{name}")
        sys.modules[made.__name__] = made  # the copies import each other; dataclasses look their module up
        exec(compile(source, f"<mutant of refbert.spec.{name}>", "exec"), made.__dict__)
    return sys.modules[f"{package}_bert"]
