"""What looks on while refbert runs: every call, the cost of every matrix product, every mask of dropout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from refbert.backend import Host
from refbert.backend.reference import ReferenceBackend
from refbert.backend.wrapper import Wrapper
from refbert.randomness import Dropout
from refbert_audit.models import batch, labels_for, masked_labels, model, shared


class Watching(Wrapper):
    """The reference backend, with a record of every call: its op, the shapes of its arrays, its options."""

    def __init__(self) -> None:
        super().__init__(ReferenceBackend())
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def call(self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Noted, and called."""
        if name not in ("asarray", "to_numpy"):
            self.calls.append((name, tuple(getattr(x, "shape", x) for x in arguments), options))
        return function(*arguments, **options)

    @classmethod
    def forward(cls, heads: Sequence[str] = (), **options: Any) -> Watching:
        """A record of a pass of a `model` over a `batch`."""
        watching = cls()
        model(heads, backend=watching, **options)(batch())
        return watching

    @classmethod
    def step(cls, dropout: Dropout | None = None, **options: Any) -> Watching:
        """A record of a training step of a `model` with a masked-LM head."""
        watching, rows = cls(), batch()
        one = model(("masked_lm",), backend=watching, **options)
        one.loss_and_gradients(rows, masked_labels(rows), dropout=dropout)
        return watching

    @property
    def ops(self) -> list[str]:
        """The ops in the order of their calls."""
        return [name for name, _, _ in self.calls]

    @property
    def counts(self) -> Counter[str]:
        """Op -> calls."""
        return Counter(self.ops)


class Multiplied(np.ndarray):
    """An array that tells how many operations the matrix products it takes part in cost; 2·m·k·n for [m, k] @ [k, n].

    It is NumPy's own `matmul` that is counted, as refbert.ops calls it: no formula of an op's cost is used.
    """

    flops = 0

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        plain = [np.asarray(x) if isinstance(x, np.ndarray) else x for x in inputs]
        if "out" in options:
            options["out"] = tuple(np.asarray(x) for x in options["out"])
        result = getattr(ufunc, method)(*plain, **options)
        if ufunc is np.matmul:
            Multiplied.flops += 2 * result.size * plain[0].shape[-1]
        return result.view(Multiplied) if isinstance(result, np.ndarray) else result


class Counting(ReferenceBackend):
    """The reference backend on arrays that count the operations of matrix products."""

    def asarray(self, x: Host, /) -> Any:
        """x as a counting array."""
        return np.asarray(x, dtype=self.dtype).view(Multiplied)


def flops_of(work: Callable[[], Any]) -> tuple[int, Any]:
    """(operations of the matrix products that ``work`` does on `Counting` arrays, what it returns)."""
    before = Multiplied.flops
    result = work()
    return Multiplied.flops - before, result


@shared
def dropout_sites(heads: tuple[str, ...]) -> dict[str, float]:
    """Site -> rate of every mask that a training step of a model with these heads draws, in order."""
    seen: dict[str, float] = {}

    class Sites(Dropout):
        def keep(self, site: str, shape: tuple[int, ...], rate: float, **rows: Any) -> Any:
            seen[site] = rate
            return super().keep(site, shape, rate, **rows)

    rows = batch(4, 16)
    model(heads).loss_and_gradients(rows, labels_for(heads, rows), dropout=Sites(0))
    return seen
