"""NumpyBackend: refbert.ops, with the hot operations rewritten for speed and held to the originals by the tests."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np

from refbert import ops
from refbert.backend import Host
from refbert.backend.reference import ReferenceBackend
from refbert.ops.gelu import FORMS
from refbert.ops.types import Array, Pullback
from refbert_numpy.activations import gelu_in_place
from refbert_numpy.attention import KeyMask
from refbert_numpy.layer import Form, encoder_layer
from refbert_numpy.memory import Recycler, Workspace
from refbert_numpy.rows import layer_norm, norm_back
from refbert_numpy.threads import alone, product
from refbert_numpy.updates import global_norm, update

if TYPE_CHECKING:
    from refbert.backend import KeepMasks
    from refbert.spec.choices import Choices
    from refbert.text.batching import Batch

Out = tuple[Array, Pullback]
P = ParamSpec("P")


def _in_turn(op: Callable[P, Out]) -> Callable[P, Out]:
    """The op, and its pullback, alone with BLAS's threads (refbert_numpy.threads)."""

    @wraps(op)
    def run(*args: P.args, **options: P.kwargs) -> Out:
        with alone(each=False):
            y, back = op(*args, **options)

        def pullback(dy: Array) -> tuple[Array, ...]:
            with alone(each=False):
                return back(dy)

        return y, pullback

    return run


class NumpyBackend(ReferenceBackend):
    """float32 (default) or float64, on the CPU, with nothing but NumPy (float64 GELU also needs SciPy).

    Threads that share one take turns where a call uses several cores; see refbert_numpy.threads.
    """

    name = "numpy"
    dtypes: tuple[str, ...] = ("float32", "float64")
    threads = "OPENBLAS_NUM_THREADS"

    def __init__(self, dtype: str | None = None, device: str | None = None) -> None:
        super().__init__(dtype, device)
        self.library = f"NumPy {np.__version__}, {_blas()}"
        self._idle: list[Workspace] = []
        self._memory = Recycler(self.dtype)

    def encoder_layer(
        self, x: Array, params: Mapping[str, Array], *, mask: Host, heads: int, mask_value: float, activation: str,
        eps: float,
    ) -> Array:  # fmt: skip
        """A whole layer, without gradients; see refbert_numpy.layer."""
        B, S, H = x.shape
        form = Form((S,) * B, KeyMask.of(mask, mask_value, x.dtype), heads, activation, eps)
        return self._layer(x.reshape(B * S, H), params, form).reshape(x.shape)

    def packed_encoder_layer(
        self, x: Array, params: Mapping[str, Array], *, lengths: Host, heads: int, activation: str, eps: float
    ) -> Array:
        """A whole layer over sequences end to end, without gradients; see refbert_numpy.layer."""
        return self._layer(x, params, Form(tuple(lengths.tolist()), None, heads, activation, eps))

    def _layer(self, rows: Array, params: Mapping[str, Array], form: Form) -> Array:
        with alone(each=False):
            work = self._workspace()
            y = encoder_layer(rows, params, work, form)
            self._idle.append(work)
        return y

    def _workspace(self) -> Workspace:
        """One that is this call's alone. Taken within the turn, so that who waits for his holds none; not given back
        where the call fails, since after an interrupt a thread may still be writing to it."""
        try:
            return self._idle.pop()
        except IndexError:
            return Workspace(np.dtype(self.dtype))

    def objective(
        self, params: Mapping[str, Array], batch: Batch, labels: Mapping[str, Host], heads: Collection[str],
        choices: Choices, *, draws: KeepMasks | None = None, denominators: Mapping[str, float] | None = None,
    ) -> tuple[Array, dict[str, Array], Callable[[Array], dict[str, Array]]]:  # fmt: skip
        """A whole model's loss and gradients; see refbert_numpy.objective."""
        from refbert_numpy.objective import objective  # here: inference has no use for it

        return objective(
            self, self._memory, params, batch, labels, heads, choices, draws=draws, denominators=denominators
        )

    update = staticmethod(update)
    global_norm = staticmethod(global_norm)

    @staticmethod
    def linear(x: Array, w: Array, b: Array) -> Out:
        """Two-dimensional products (a batched one runs slower) on threads of our own, the bias added in place."""
        rows = x.reshape(-1, w.shape[1])  # [N, I]
        flat = product(rows, w.T)  # [N, O]
        flat += b

        def pullback(dy: Array) -> tuple[Array, Array, Array]:
            drows = dy.reshape(-1, w.shape[0])  # [N, O]
            return product(drows, w).reshape(x.shape), product(drows.T, rows), drows.sum(axis=0)

        return flat.reshape(*x.shape[:-1], w.shape[0]), pullback

    @staticmethod
    @_in_turn
    def layer_norm(x: Array, gamma: Array, beta: Array, *, eps: float) -> Out:
        """One copy of x, normalised in place, and one of the cotangent; see refbert_numpy.rows."""
        H = x.shape[-1]
        xhat = np.array(x, order="C").reshape(-1, H)  # [N, H]
        y, r = np.empty_like(xhat), np.empty((len(xhat), 1), x.dtype)
        layer_norm(xhat, gamma, beta, eps, y, r=r)

        def pullback(dy: Array) -> tuple[Array, Array, Array]:
            dx, sums = np.array(dy, order="C").reshape(-1, H), dict[str, Array]()
            norm_back(dx, xhat, r, gamma, "norm", sums)
            return dx.reshape(x.shape), sums["norm.weight"], sums["norm.bias"]

        return y.reshape(x.shape), pullback

    attention = staticmethod(_in_turn(ops.attention))
    attention_probabilities = staticmethod(_in_turn(ops.attention_probabilities))

    @staticmethod
    def gelu(x: Array, *, form: str) -> Out:
        """Through exp, keeping the slope instead of x (refbert_numpy.activations); "erf" in float64 is the reference's.

        The slope shares the forward's Φ and its block in the cache: for [1024, 3072] that adds 4.4 ms to the
        forward and leaves 1.3 to the backward, which took 13 when it computed Φ and φ again.
        """
        if form not in FORMS or (form == "erf" and x.dtype != np.float32):
            return ops.gelu(x, form=form)
        y = np.array(x, order="C")
        slope = np.empty(x.shape, x.dtype)
        gelu_in_place(y, form, slope=slope)

        def pullback(dy: Array) -> tuple[Array]:
            return (dy * slope,)

        return y, pullback


def _blas() -> str:
    """The library behind NumPy's matrix products, where most of the time goes, as NumPy was built."""
    built: Any = np.show_config(mode="dicts")
    blas = built.get("Build Dependencies", {}).get("blas", {})
    name = blas.get("name", "own BLAS")
    return f"{'OpenBLAS' if 'openblas' in name else name} {blas.get('version', '')}".strip()
