"""The contract's operations as functions of host arrays, and places in them where one step shows by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from refbert.backend import Host
from refbert_conformance.engine.subject import Subject, backward, forward

Sum = Callable[["Operations", Host], float]
Copy = Callable[["Operations", Host], Host]

_ROWS = 16


class Operations:
    """A backend's operations on host arrays; results are float64."""

    def __init__(self, subject: Subject, alive: Callable[[Any], None] = lambda example: None) -> None:
        """``alive`` is called before each question."""
        self.subject, self._alive = subject, alive

    def __call__(self, op: str, arrays: Sequence[Any], dy: Any = None, **options: Any) -> list[Host]:
        """The result, and with ``dy`` the cotangents of the arrays."""
        self._alive(None)
        device = self.subject.devices([np.asarray(x, np.float64) for x in arrays])
        y, pullback = forward(self.subject, op, device, options)
        found = [y]
        if dy is not None:
            found += backward(pullback, self.subject.device(np.asarray(dy, np.float64)), len(arrays))
        return [np.asarray(x, np.float64) for x in self.subject.hosts(found)]

    def softmax(self, rows: Host) -> Host:
        """Of [N, C]: the backend's own, or attention's with one query of size 1, whose scores are the keys.

        Attention's keys are operands of a product: rows must be numbers that those are not rounded by.
        """
        if self.subject.has("softmax"):
            return self("softmax", [rows])[0]
        N, C = rows.shape
        mask = np.ones((N, C), np.int64)
        q = np.ones((N, C, 1))
        p = self("attention_probabilities", [q, rows[..., None]], mask=mask, heads=1, mask_value=-10000.0)[0]
        return p[:, 0, 0]


def _linear(o: Operations, x: Host, w: Host, dy: Any = None) -> list[Host]:
    return o("linear", [x, w, np.zeros(len(w))], dy)


def _product(v: Host, *, down: bool = False) -> tuple[Host, Host]:
    """v in _ROWS rows, and ones of that shape; ``down``: in columns. One row alone may take another way."""
    x = np.tile(v, (_ROWS, 1))
    return (x.T, np.ones(x.T.shape)) if down else (x, np.ones(x.shape))


def _of_w(o: Operations, v: Host, which: int) -> float:
    dy, ones = _product(v, down=True)
    return float(_linear(o, ones, np.zeros((_ROWS, _ROWS)), dy)[which].flat[0])


def _norm_sum(which: int) -> Sum:
    """dγ or dβ of rows (1, −1), of which x̂ is ±1."""

    def total(o: Operations, v: Host) -> float:
        x, dy = np.tile([1.0, -1.0], (len(v), 1)), np.stack([v, v], -1)
        return float(o("layer_norm", [x, np.ones(2), np.zeros(2)], dy, eps=1e-30)[which][0])

    return total


def _attention(o: Operations, v: Host, at: int) -> float:
    """Over keys (0) or queries (3) that all have the probability 1/S, with S a power of 2."""
    S = 1 << (len(v) - 1).bit_length()
    values, zero = np.zeros((1, S, 1)), np.zeros((1, S, 1))
    values[0, : len(v), 0] = v
    how = {"mask": np.ones((1, S), np.int64), "heads": 1, "mask_value": -10000.0}
    given, dy = ([zero, zero, values], None) if at == 0 else ([zero, zero, zero], values)
    return float(o("attention", given, dy, **how)[at][0, 0, 0]) * S


# Where n numbers are added up and nothing else is done -> how to ask for it.
SUMS: Mapping[str, Sum] = {
    "linear y": lambda o, v: float(_linear(o, *_product(v))[0][0, 0]),
    "linear y, one row": lambda o, v: float(_linear(o, v[None], np.ones((1, len(v))))[0][0, 0]),
    "attention y": lambda o, v: _attention(o, v, 0),
    "linear dx": lambda o, v: float(
        _linear(o, np.zeros((_ROWS, _ROWS)), np.ones((len(v), _ROWS)), _product(v)[0])[1][0, 0]
    ),
    "linear dw": lambda o, v: _of_w(o, v, 2),
    "linear db": lambda o, v: _of_w(o, v, 3),
    "layer_norm dgamma": _norm_sum(2),
    "layer_norm dbeta": _norm_sum(3),
    "attention dv": lambda o, v: _attention(o, v, 3),
    "embedding dtable": lambda o, v: float(
        o("embedding", [np.zeros((2, 1))], v[:, None], ids=np.zeros(len(v), np.int64))[1][0, 0]
    ),
}  # fmt: skip


def _value(o: Operations, v: Host) -> Host:
    """Attention to the one key that there is: y is v."""
    how = {"mask": np.ones((len(v), 1), np.int64), "heads": 1, "mask_value": -10000.0}
    return o("attention", [np.zeros((len(v), 1, 1)), np.zeros((len(v), 1, 1)), v[:, None, None]], **how)[0][:, 0, 0]


# Where a number is multiplied by 1 as an operand of a product -> how to ask for it, for each of [N].
OPERANDS: Mapping[str, Copy] = {
    "linear y, x": lambda o, v: _linear(o, v[:, None], np.ones((1, 1)))[0][:, 0],
    "linear y, w": lambda o, v: _linear(o, np.ones((1, 1)), v[:, None])[0][0],
    "linear dx, dy": lambda o, v: _linear(o, np.zeros((len(v), 1)), np.ones((1, 1)), v[:, None])[1][:, 0],
    "linear dx, w": lambda o, v: _linear(o, np.zeros((1, len(v))), v[None], np.ones((1, 1)))[1][0],
    "linear dw, dy": lambda o, v: _linear(o, np.ones((1, 1)), np.zeros((len(v), 1)), v[None])[2][:, 0],
    "linear dw, x": lambda o, v: _linear(o, v[None], np.zeros((1, len(v))), np.ones((1, 1)))[2][0],
    "attention y, v": _value,
}
