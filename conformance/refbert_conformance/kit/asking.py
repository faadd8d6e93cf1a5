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
from refbert_conformance.tolerances.bounds import ARRAYS, OUTPUTS
from refbert_conformance.tolerances.noise import by_name


@dataclass(frozen=True)
class Call:
    """An op, its arrays in float64, and all else that it is given, by name."""

    op: str
    arrays: tuple[Host, ...]
    options: Mapping[str, Any]

    @cached_property
    def digest(self) -> str:
        """What it is found by: calls of the same content have the same."""
        named = dict(zip(ARRAYS[self.op], self.arrays, strict=True)) | dict(sorted(self.options.items()))
        return digest(self.op, *(part for pair in named.items() for part in pair))

    @cached_property
    def reference(self) -> tuple[Host, Callable[[Host], tuple[Host, ...]]]:
        """What refbert.ops makes of it."""
        with np.errstate(all="ignore"):
            found: tuple[Host, Callable[[Host], tuple[Host, ...]]] = getattr(ops, self.op)(*self.arrays, **self.options)
        return found


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
        offers: Any = tuple(ARRAYS), gradients: bool = True,
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
        return partial(self._call, name)

    def _call(self, op: str, *arguments: Any, **options: Any) -> Any:
        arrays, others = by_name(op, arguments, options)
        call = Call(op, arrays, others)
        y, *cotangents = OUTPUTS[op]

        def pullback(dy: Host) -> tuple[Output, ...]:
            return tuple(Output(partial(self._give, call, dy, name)) for name in cotangents)

        return Output(partial(self._give, call, None, y)), pullback
