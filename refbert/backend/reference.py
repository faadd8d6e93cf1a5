"""The backend "reference": refbert.ops as they are, in float64."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from refbert import ops
from refbert.backend import Host
from refbert.errors import Unsupported
from refbert.ops.clip_by_global_norm import global_norm
from refbert.ops.types import Array


class ReferenceBackend:
    """The reference behind the plugin contract. float64 by default; float32 shows what the textbook formulas lose."""

    name = "reference"
    contract = 1
    dtypes: tuple[str, ...] = ("float64", "float32")
    threads = "OPENBLAS_NUM_THREADS"  # of NumPy's products, where its BLAS is OpenBLAS

    def __init__(self, dtype: str | None = None, device: str | None = None) -> None:
        self.dtype = dtype or self.dtypes[0]
        self.device = device or "cpu"
        if self.dtype not in self.dtypes:
            raise Unsupported(f'backend "{self.name}" does not offer dtype "{self.dtype}"')
        if self.device != "cpu":
            raise Unsupported(f'backend "{self.name}" runs on "cpu" only, not on "{self.device}"')
        self.library = f"NumPy {np.__version__}"

    def asarray(self, x: Host, /) -> Array:
        """x in this backend's dtype; the same memory if it already is."""
        return np.asarray(x, dtype=self.dtype)

    def to_numpy(self, x: Array, /) -> Host:
        """x itself."""
        return np.asarray(x)

    add = staticmethod(ops.add)
    reshape = staticmethod(ops.reshape)
    transpose = staticmethod(ops.transpose)
    embedding = staticmethod(ops.embedding)
    gather = staticmethod(ops.gather)
    linear = staticmethod(ops.linear)
    layer_norm = staticmethod(ops.layer_norm)
    gelu = staticmethod(ops.gelu)
    relu = staticmethod(ops.relu)
    tanh = staticmethod(ops.tanh)
    softmax = staticmethod(ops.softmax)
    attention_probabilities = staticmethod(ops.attention_probabilities)
    attention = staticmethod(ops.attention)
    dropout = staticmethod(ops.dropout)
    cross_entropy = staticmethod(ops.cross_entropy)
    mean_squared_error = staticmethod(ops.mean_squared_error)

    @staticmethod
    def update(
        rule: str, p: Array, g: Array, m: Array, v: Array, *, scale: float, step: int, **rates: float
    ) -> tuple[Array, Array, Array]:
        """refbert.ops' function of that name."""
        return rule_of(rule, step)(p, g * scale, m, v, **rates)

    global_norm = staticmethod(global_norm)


def rule_of(name: str, step: int) -> Callable[..., tuple[Array, Array, Array]]:
    """refbert.ops' update of that name, as that step's; raises NotImplementedError for an unknown one."""
    match name:
        case "bert_adam":
            return ops.bert_adam
        case "adamw":
            return partial(ops.adamw, step=step)
        case "lamb":
            return partial(ops.lamb, step=step)
    raise NotImplementedError(f'there is no update "{name}"')
