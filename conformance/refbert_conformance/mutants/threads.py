"""Mutants of threads and instances: right in one thread, with one instance of the backend."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from refbert import ops
from refbert_conformance.mutants.mutant import Correct, Mutant, in_buffer, mutant


def _made(self: Any, dtype: str | None = None, device: str | None = None) -> None:
    """What a library sets for the thread that opens it, and for the process."""
    Correct.__init__(self, dtype, device)
    self._local = threading.local()
    self._local.opened = True
    type(self)._open = type(self)._latest = id(self)


def _gone(self: Any) -> None:
    if type(self)._latest == id(self):
        type(self)._open = None


def _by_workspace(self: Any, x: Any, w: Any, b: Any) -> Any:
    y, back = ops.linear(x, w, b)
    return in_buffer(self, y).copy(), back


def _staged(self: Any, x: Any) -> Any:
    return in_buffer(self, x).copy()


def _eps_of_thread(self: Any, x: Any, gamma: Any, beta: Any, *, eps: float) -> Any:
    return ops.layer_norm(x, gamma, beta, eps=eps if getattr(self._local, "opened", False) else 1e-2)


def _saved_by_thread(self: Any, x: Any, *, form: str) -> Any:
    saved = self._local.__dict__
    y, back = ops.gelu(x, form=form)
    saved[back] = back
    return y, lambda dy: self._local.__dict__.get(back, lambda dy: (dy.copy(),))(dy)


def _latest_only(self: Any, x: Any) -> Any:
    p, back = ops.softmax(x)
    return p, lambda dp: back(dp) if type(self)._latest == id(self) else tuple(0 * d for d in back(dp))


def _closed(self: Any, x: Any) -> Any:
    y, back = ops.tanh(x)
    return (y if type(self)._open else 0 * y), back


def _in_one_place(layer: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, x, params, **options: layer(self, in_buffer(self, x), params, **options)


def _weights(self: Any, params: Any, *arguments: Any, **options: Any) -> Any:
    mine = self.__dict__.setdefault("_weights", {})
    mine.clear()
    mine.update(params)
    return Correct.objective(self, mine, *arguments, **options)


THREADS: tuple[Mutant, ...] = tuple(
    mutant(op, "threads", what, **{op: method, "__init__": _made, "__del__": _gone})
    for op, what, method in (
        ("linear", "one workspace for all threads", _by_workspace),
        ("to_numpy", "one staging buffer for all threads", _staged),
        ("layer_norm", "another eps in threads that did not open the library", _eps_of_thread),
        ("gelu", "the pullback finds what was saved in its own thread only", _saved_by_thread),
        ("softmax", "pullbacks of the latest instance only", _latest_only),
        ("tanh", "zeros once another instance is gone", _closed),
        ("encoder_layer", "its input in one place for all threads", _in_one_place(Correct.encoder_layer)),
        ("packed_encoder_layer", "its input in one place for all threads",
         _in_one_place(Correct.packed_encoder_layer)),
        ("objective", "the weights in one place for all threads", _weights),
    )
)  # fmt: skip
