"""A backend that computes nothing: it knows what it is asked, and somebody else gives the numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from refbert import ops
from refbert.backend import VERSION, Host
from refbert.backend.reference import ReferenceBackend
from refbert_conformance.engine.divergence import composed_layer
from refbert_conformance.tolerances.arithmetic import Arithmetic
from refbert_conformance.tolerances.bounds import ARRAYS, OUTPUTS, Expected, expected
from refbert_conformance.tolerances.noise import by_name, tolerances

# Of the optional blocks, the one that follows from its arguments alone and is judged by its numbers. Its arrays are x
# and the layer's weights by name.
LAYER = "encoder_layer"
OPS = (*ARRAYS, LAYER)


@dataclass(frozen=True)
class Call:
    """An op, its arrays in float64 by name, and all else that it is given."""

    op: str
    arrays: Mapping[str, Host]
    options: Mapping[str, Any]

    @cached_property
    def digest(self) -> str:
        """What it is found by: calls of the same content have the same."""
        named = dict(self.arrays) | dict(sorted(self.options.items()))
        return digest(self.op, *(part for pair in named.items() for part in pair))

    @cached_property
    def reference(self) -> tuple[Host, Callable[[Host], tuple[Host, ...]]]:
        """What refbert.ops makes of it; a layer has no pullback."""
        with np.errstate(all="ignore"):
            if self.op == LAYER:
                return self.layer(ReferenceBackend()), lambda dy: ()
            found: tuple[Host, Callable[[Host], tuple[Host, ...]]]
            found = getattr(ops, self.op)(*self.arrays.values(), **self.options)
            return found

    def layer(self, backend: Any) -> Host:
        """What the layer is on the ops of a backend."""
        weights = dict(self.arrays)
        return composed_layer(backend, weights.pop("x"), weights, self.options)

    def due(self, arithmetic: Arithmetic, dy: Host | None) -> list[Expected]:
        """Its outputs, and how far off they may be: each entry, of a layer the norm of each row."""
        if self.op == LAYER:
            return tolerances(lambda backend: {"y": self.layer(backend)}, arithmetic)
        return expected(self.op, tuple(self.arrays.values()), self.options, arithmetic, dy)


def outputs_of(op: str) -> tuple[str, ...]:
    """What comes of it, the result first."""
    return OUTPUTS.get(op, ("y",))


def digest(*parts: Any) -> str:
    """Of arrays (any floating point as float64) and of what has a repr."""
    whole = hashlib.blake2b(digest_size=12)
    for part in parts:
        if isinstance(part, np.ndarray):
            array = np.ascontiguousarray(part, np.float64 if part.dtype.kind == "f" else None)
            whole.update(f"{array.dtype} {part.shape} ".encode() + array.tobytes())
        else:
            whole.update(f"{part!r} ".encode())
    return whole.hexdigest()


# (call, the pullback's cotangent or None, "y" or "d" and an array's name) -> what is there.
Give = Callable[[Call, Host | None, str], Host]


class Output:
    """What stands for an array of the backend. It is asked for when somebody looks at it."""

    def __init__(self, numbers: Callable[[], Host]) -> None:
        self._numbers = numbers

    @cached_property
    def numbers(self) -> Host:
        """The array itself."""
        return self._numbers()

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's."""
        return self.numbers.shape


class Asking:
    """The backend. offers: the ops that it has."""

    library, device = "unknown library", "unknown device"

    def __init__(
        self, name: str, dtype: str, arithmetic: Mapping[str, Any], give: Give, *,
        offers: Any = OPS, gradients: bool = True,
    ) -> None:  # fmt: skip
        self.name, self.dtype, self.dtypes = name, dtype, (dtype,)
        self.contract, self.arithmetic, self.gradients = VERSION, arithmetic, gradients
        self._give, self._offers = give, offers

    def asarray(self, x: Host) -> Host:
        """x, which is exact in the dtype."""
        return np.asarray(x, np.float64)

    def to_numpy(self, x: Any) -> Host:
        """The numbers of an output."""
        return x.numbers if isinstance(x, Output) else np.asarray(x)

    def __getattr__(self, name: str) -> Any:
        if name not in self._offers:
            raise AttributeError(name)
        return self._layer if name == LAYER else partial(self._call, name)

    def _call(self, op: str, *arguments: Any, **options: Any) -> Any:
        arrays, others = by_name(op, arguments, options)
        call = Call(op, dict(zip(ARRAYS[op], arrays, strict=True)), others)
        y, *cotangents = outputs_of(op)

        def pullback(dy: Host) -> tuple[Output, ...]:
            return tuple(Output(partial(self._give, call, dy, name)) for name in cotangents)

        return Output(partial(self._give, call, None, y)), pullback

    def _layer(self, x: Host, params: Mapping[str, Host], **options: Any) -> Output:
        return Output(partial(self._give, Call(LAYER, {"x": x} | dict(params), options), None, "y"))
