"""What the blocks share: parameters under a prefix, gradients by name, the activation, dropout at a site."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from refbert.backend import Backend, Out
from refbert.randomness import Dropout

A = TypeVar("A")


class Scope(Mapping[str, A]):
    """A view of the parameters whose names start with a prefix, under the rest of the name."""

    def __init__(self, params: Mapping[str, A], prefix: str) -> None:
        self._params, self._prefix = params, prefix

    def __getitem__(self, name: str) -> A:
        return self._params[self._prefix + name]

    def __iter__(self) -> Iterator[str]:
        return (name[len(self._prefix) :] for name in self._params if name.startswith(self._prefix))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def prefixed(prefix: str, gradients: Mapping[str, A]) -> dict[str, A]:
    """The same gradients [...] under their full names."""
    return {prefix + name: gradient for name, gradient in gradients.items()}


def accumulate(ops: Backend[A], *parts: Mapping[str, A]) -> dict[str, A]:
    """The union of gradients [...]; where a parameter is used in several places (tied weights), their sum."""
    total: dict[str, A] = {}
    for part in parts:
        for name, gradient in part.items():
            total[name] = ops.add(total[name], gradient)[0] if name in total else gradient
    return total


def activate(ops: Backend[A], x: A, activation: str) -> Out[A]:
    """The configured activation, [...] -> [...]: "gelu_erf", "gelu_tanh", "relu", "tanh" or "linear" (the identity).

    Raises ValueError for another name.
    """
    if activation in ("gelu_erf", "gelu_tanh"):
        return ops.gelu(x, form=activation.removeprefix("gelu_"))
    if activation == "relu":
        return ops.relu(x)
    if activation == "tanh":
        return ops.tanh(x)
    if activation == "linear":
        return x, _identity
    raise ValueError(f'unknown activation "{activation}"')


def dropout(ops: Backend[A], x: Any, *, site: str, rate: float, draws: Dropout | None) -> Out[A]:
    """Dropout at a named site, [...] -> [...]; the identity in inference (``draws`` is None) and at rate 0."""
    if draws is None or rate == 0:
        return x, _identity
    return ops.dropout(x, keep=draws.keep(site, tuple(x.shape), rate), rate=rate)


def _identity(dy: A) -> tuple[A]:
    return (dy,)
