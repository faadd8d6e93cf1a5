"""The model in narrower arithmetic: numbers of fewer bits, and integers of eight as libraries make them.

What such an engine computes cannot be foretold bit for bit, since each rounding turns on the one before it. What can be
told is how far it comes from the model, and what part of the way its rounded weights alone make.

Source   int8: onnxruntime's quantize_dynamic (weights and embeddings, a scale for each matrix; DynamicQuantizeLinear of
         the ONNX operators), PyTorch's quantize_dynamic (its scale is the largest weight over 127.5; activations of
         seven bits), CTranslate2's (a scale for each row of a matrix and for each token).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from refbert.backend import Host
from refbert.backend.wrapper import OpsAlone
from refbert_conformance.tolerances.arithmetic import FORMATS
from refbert_conformance.tolerances.bounds import ARRAYS, COPIES

Parameters = Mapping[str, Any]
_ACTIVATIONS = {"linear": 1, "attention": 3}  # how many of their arrays are factors, weights apart


def rounded(x: Host, dtype: str) -> Host:
    """x to the nearest number of a format; what overflows or is below its normal range is left as it is."""
    bits = -np.log2(FORMATS[dtype][0])
    mantissa, exponent = np.frexp(x)
    return np.asarray(np.ldexp(np.rint(np.ldexp(mantissa, int(bits))), exponent - int(bits)))


def int8(x: Host, *, largest: float = 127.0, by_row: bool = False) -> Host:
    """x in steps of its largest number over ``largest``, of the whole array or of each row."""
    top = abs(x).max(axis=-1 if by_row else None, keepdims=True)
    step = np.where(top == 0, 1, top) / largest
    return np.asarray(np.clip(np.rint(x / step), -128, 127) * step)


def uint8(x: Host, levels: int) -> Host:
    """x in ``levels`` steps between its extremes, 0 among them."""
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    step = (high - low) / levels or 1.0
    zero = np.rint(-low / step)
    return np.asarray((np.clip(np.rint(x / step) + zero, 0, levels) - zero) * step)


def float8(x: Host, *, axis: Any = ()) -> Host:
    """x in float8_e4m3, its largest number being 448; axis: () as it is, None for all of x, −1 for each row."""
    top = abs(x).max(axis=axis, keepdims=True)
    scale = np.where(top == 0, 1, top) / 448 if axis != () else 1.0
    _, exponent = np.frexp(x / scale)
    step = 2.0 ** np.maximum(exponent - 4, -9)
    return np.asarray(np.clip(np.rint(x / scale / step) * step, -448, 448) * scale)


def in_format(dtype: str) -> Callable[[str, Host], Host]:
    """Every parameter in a format."""
    return lambda name, x: rounded(x, dtype)


def matrices(change: Callable[[Host], Host], *, tables: bool = False) -> Callable[[str, Host], Host]:
    """Only the weights of products, and with ``tables`` those of the embeddings."""

    def changed(name: str, x: Host) -> Host:
        table = "embeddings." in name
        return change(x) if x.ndim == 2 and (tables or not table) else x

    return changed


def parameters(of: Parameters, change: Callable[[str, Host], Host]) -> dict[str, Any]:
    """The parameters, changed one by one."""
    return {name: change(name, x) for name, x in of.items()}


class _Results(OpsAlone):
    """Every op's result in a format."""

    def __init__(self, backend: Any, dtype: str) -> None:
        super().__init__(backend)
        self._to = dtype

    def call(self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        made = function(*arguments, **options)
        return (rounded(made[0], self._to), made[1]) if name in ARRAYS and name not in COPIES else made


class _Factors(OpsAlone):
    """The activations that go into matrix products, changed; and with ``attention`` what that multiplies."""

    def __init__(self, backend: Any, change: Callable[[Host], Host], *, attention: bool) -> None:
        super().__init__(backend)
        self._change, self._in = change, ("linear", "attention") if attention else ("linear",)

    def call(self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if name in self._in:
            n = _ACTIVATIONS[name]
            arguments = (*map(self._change, arguments[:n]), *arguments[n:])
        return function(*arguments, **options)


@dataclass(frozen=True)
class Narrow:
    """A narrower arithmetic: what becomes of a parameter, and what is put around a backend that computes in it."""

    name: str
    weights: Callable[[str, Host], Host]
    wrap: Callable[[Any], Any]


def _products(dtype: str) -> Callable[[Any], Any]:
    return lambda backend: _Factors(backend, lambda x: rounded(x, dtype), attention=True)


def _int8(change: Callable[[Host], Host]) -> Callable[[Any], Any]:
    return lambda backend: _Factors(backend, change, attention=False)


def _half(x: Host) -> Host:
    return int8(x, largest=127.5)


def _row(x: Host) -> Host:
    return int8(x, by_row=True)


NARROW = (
    Narrow("bfloat16", in_format("bfloat16"), lambda backend: _Results(backend, "bfloat16")),
    Narrow("float16", in_format("float16"), lambda backend: _Results(backend, "float16")),
    Narrow("bfloat16, in matrix products alone", matrices(lambda x: rounded(x, "bfloat16")), _products("bfloat16")),
    Narrow(
        "tensorfloat32, in matrix products alone",
        matrices(lambda x: rounded(x, "tensorfloat32")),
        _products("tensorfloat32"),
    ),
    Narrow("int8 as in onnxruntime", matrices(int8, tables=True), _int8(lambda x: uint8(x, 255))),
    Narrow("int8 as in onnxruntime, embeddings in float32", matrices(int8), _int8(lambda x: uint8(x, 255))),
    Narrow("int8 as in PyTorch", matrices(_half), _int8(lambda x: uint8(x, 127))),
    Narrow("int8 as in CTranslate2", matrices(_row, tables=True), _int8(_row)),
)
# Weights alone, which are computed with as with any: this can be foretold.
STORED: Mapping[str, Callable[[str, Host], Host]] = {
    "weights in bfloat16": in_format("bfloat16"),
    "weights in float16": in_format("float16"),
    "weights in int8, a scale for each matrix": matrices(int8),
    "weights in int8, a scale for each row": matrices(_row),
    "weights and embeddings in int8, a scale for each matrix": matrices(int8, tables=True),
    "weights and embeddings in int8, a scale for each row": matrices(_row, tables=True),
    "weights in float8_e4m3": matrices(float8),
    "weights in float8_e4m3, a scale for each matrix": matrices(lambda x: float8(x, axis=None)),
    "weights in float8_e4m3, a scale for each row": matrices(lambda x: float8(x, axis=-1)),
}


def _storing(dtype: str) -> tuple[str, Callable[[Host], Host], Callable[[Host], Host]]:
    return f"stored in {dtype}", lambda x: rounded(x, dtype), lambda x: FORMATS[dtype][0] * abs(x)


def _decimals(n: int) -> tuple[str, Callable[[Host], Host], Callable[[Host], Host]]:
    return f"written with {n} decimals", lambda x: np.round(x, n), lambda x: np.full(x.shape, 10.0**-n)


# What becomes of results on their way into a file: a name, the storing, and how far it may take each number.
STORINGS = (_storing("float16"), _storing("bfloat16"), *map(_decimals, range(1, 9)))
