"""Parameters and gradients by name: a block sees its own under short names, its caller puts the prefix before them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from refbert.backend import A, Backend


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
