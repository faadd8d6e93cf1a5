"""NumpyBackend: refbert.ops, with the hot operations rewritten for speed and held to the originals by the tests."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import wraps
from typing import Any, ParamSpec

import numpy as np
import numpy.typing as npt

from refbert import ops
from refbert.backend.reference import ReferenceBackend
from refbert.ops.gelu import FORMS
from refbert.ops.types import Array, Ids, Pullback
from refbert_numpy.attention import attention
from refbert_numpy.gelu import gelu_in_place
from refbert_numpy.layer import Workspace, encoder_layer, packed_encoder_layer
from refbert_numpy.memory import Recycler
from refbert_numpy.rows import normalize_in_place, sums_by_id
from refbert_numpy.threads import alone, product
from refbert_numpy.updates import gradient_norm, update_in_place

Host = npt.NDArray[Any]
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

    def __init__(self, dtype: str | None = None, device: str | None = None) -> None:
        super().__init__(dtype, device)
        self.library = f"NumPy {np.__version__}, {_blas()}"
        self._idle: list[Workspace] = []
        self._memory = Recycler(self.dtype)

    def encoder_layer(
        self,
        x: Array,
        params: Mapping[str, Array],
        *,
        mask: Host,
        heads: int,
        mask_value: float,
        activation: str,
        eps: float,
    ) -> Array:
        """A whole layer, without gradients; see refbert_numpy.layer."""
        with alone(each=False):
            work = self._workspace()
            y = encoder_layer(
                x, params, work, mask=mask, heads=heads, mask_value=mask_value, activation=activation, eps=eps
            )
            self._idle.append(work)
        return y

    def packed_encoder_layer(
        self, x: Array, params: Mapping[str, Array], *, lengths: Host, heads: int, activation: str, eps: float
    ) -> Array:
        """A whole layer over sequences end to end, without gradients; see refbert_numpy.layer."""
        with alone(each=False):
            work = self._workspace()
            y = packed_encoder_layer(x, params, work, lengths=lengths, heads=heads, activation=activation, eps=eps)
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
        self,
        params: Mapping[str, Array],
        batch: Any,
        labels: Mapping[str, Host],
        heads: Collection[str],
        c: Any,
        *,
        draws: Any = None,
        denominators: Mapping[str, float] | None = None,
    ) -> tuple[Array, dict[str, Array], Callable[[Array], dict[str, Array]]]:
        """A whole model's loss and gradients; see refbert_numpy.objective."""
        from refbert_numpy.objective import objective  # here: inference has no use for it

        return objective(self, self._memory, params, batch, labels, heads, c, draws=draws, denominators=denominators)

    gradient_norm = staticmethod(gradient_norm)

    def update_in_place(
        self, rule: str, p: Array, g: Array, m: Array, v: Array, *, scale: float, **options: Any
    ) -> tuple[Array, Array, Array]:
        """An optimizer's update in the memory of g, m and v; see refbert_numpy.updates."""
        return update_in_place(getattr(self, rule), rule, p, g, m, v, scale=scale, **options)

    @staticmethod
    def embedding(table: Array, ids: Ids) -> Out:
        """The reference's forward; backward by sorting, which adds up repeated ids without `np.add.at`."""
        y, _ = ops.embedding(table, ids)

        def pullback(dy: Array) -> tuple[Array]:
            return (_scatter_add(table.shape, ids.reshape(-1), dy.reshape(-1, table.shape[1]), table.dtype),)

        return y, pullback

    @staticmethod
    def gather(x: Array, positions: Ids) -> Out:
        """The reference's forward; backward like `embedding`'s."""
        y, _ = ops.gather(x, positions)
        H = x.shape[-1]

        def pullback(dy: Array) -> tuple[Array]:
            shape = (x.size // H if H else 0, H)
            return (_scatter_add(shape, positions, dy, x.dtype).reshape(x.shape),)

        return y, pullback

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
        """One copy of x, normalised in place; the backward has one temporary of its size."""
        H = x.shape[-1]
        xhat = np.array(x).reshape(-1, H)  # [N, H]
        r = normalize_in_place(xhat, eps)  # [N, 1]
        y = xhat * gamma
        y += beta

        def pullback(dy: Array) -> tuple[Array, Array, Array]:
            rows = dy.reshape(-1, H)
            dx = rows * gamma  # q
            mean_q = dx.mean(axis=1, keepdims=True)
            mean_qx = np.vecdot(dx, xhat)[:, None] / H
            dx -= mean_q
            dx -= xhat * mean_qx
            dx *= r
            return dx.reshape(x.shape), np.einsum("nh,nh->h", rows, xhat), rows.sum(axis=0)

        return y.reshape(x.shape), pullback

    attention = staticmethod(attention)
    attention_probabilities = staticmethod(_in_turn(ops.attention_probabilities))

    @staticmethod
    def gelu(x: Array, *, form: str) -> Out:
        """Through exp (refbert_numpy.gelu), which keeps the slope instead of x; "erf" in float64 is the reference's.

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

    @staticmethod
    @_in_turn
    def softmax(x: Array) -> Out:
        """In place on one copy."""
        p = x - x.max(axis=-1, keepdims=True)
        np.exp(p, out=p)
        p /= p.sum(axis=-1, keepdims=True)

        def pullback(dp: Array) -> tuple[Array]:
            dx = dp - np.vecdot(p, dp)[..., None]
            dx *= p
            return (dx,)

        return p, pullback


def _blas() -> str:
    """The library behind NumPy's matrix products, where most of the time goes, as NumPy was built."""
    built: Any = np.show_config(mode="dicts")
    blas = built.get("Build Dependencies", {}).get("blas", {})
    name = blas.get("name", "own BLAS")
    return f"{'OpenBLAS' if 'openblas' in name else name} {blas.get('version', '')}".strip()


def _scatter_add(shape: tuple[int, ...], ids: Ids, rows: Array, dtype: Any) -> Array:
    """[V, H] of zeros, plus each row at its id."""
    out = np.zeros(shape, dtype)
    if ids.size:
        at, sums = sums_by_id(ids, rows)
        out[at] = sums
    return out
