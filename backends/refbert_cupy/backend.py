"""CupyBackend: refbert.ops on CuPy arrays through NumPy's dispatch protocols, fused kernels where BERT spends its time.

Shared with refbert.ops, unchanged: add, reshape, transpose, embedding, gather, linear, relu, tanh, dropout, squared
error, the optimizers. They call NumPy functions and array methods, and NumPy hands those to CuPy.

Own kernels (refbert_cupy.kernels): GELU, LayerNorm, softmax with its mask, cross-entropy.

float16 is a storage format here: outside the matrix products all arithmetic is in float32 and rounded once at the end;
the products take float16 operands and add up in float32 (CuPy's cuBLAS calls ask for CUBLAS_COMPUTE_32F), and so do
CuPy's sums of float16.

What differs from the reference besides rounding: the sums behind the gradients of `embedding` and `gather` use atomic
additions, so where an id repeats, their order, and with it the last bits, may change from run to run.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, Concatenate, ParamSpec

import cupy
import numpy as np

from refbert import ops
from refbert.backend import Host, host_dtype
from refbert.backend.reference import rule_of
from refbert.errors import Unsupported
from refbert.ops.attention import merge_heads, split_heads
from refbert_cupy.device import open_device
from refbert_cupy.kernels import WIDE, per_entry, per_row

Array = Any  # cupy.ndarray; CuPy comes without type stubs
Pullback = Callable[[Array], tuple[Array, ...]]
Out = tuple[Array, Pullback]
P = ParamSpec("P")


def _on_device(method: Callable[Concatenate[CupyBackend, P], Out]) -> Callable[Concatenate[CupyBackend, P], Out]:
    """The op and its pullback with the backend's device current: CuPy allocates and launches on the current one."""

    @functools.wraps(method)
    def run(self: CupyBackend, /, *args: P.args, **options: P.kwargs) -> Out:
        with self._device:
            y, back = method(self, *args, **options)

        def pullback(dy: Array) -> tuple[Array, ...]:
            with self._device:
                return back(dy)

        return y, pullback

    return run


class CupyBackend:
    """float32 (default), float64 or float16 on "cuda" (the first GPU) or "cuda:n".

    float32 products are true float32: TF32 only if the environment says CUPY_TF32=1, and then ``library`` says so.
    Threads may share one, as long as their current stream is the same (CuPy's default; not with
    CUPY_CUDA_PER_THREAD_DEFAULT_STREAM=1, where who passes an array to another thread synchronises first).
    Raises `Unsupported` for another dtype or kind of device, RuntimeError where the device is missing or unusable.
    """

    name = "cupy"
    contract = 1
    dtypes: tuple[str, ...] = ("float32", "float64", "float16")

    def __init__(self, dtype: str | None = None, device: str | None = None) -> None:
        self.dtype = dtype or self.dtypes[0]
        if self.dtype not in self.dtypes:
            raise Unsupported(
                f'backend "{self.name}" does not offer dtype "{self.dtype}" (it offers {", ".join(self.dtypes)})'
            )
        self._device, self.library = open_device(device)
        self.device = f"cuda:{self._device.id}"
        self._wide = WIDE[self.dtype]

    # Arrays

    def asarray(self, x: Host, /) -> Array:
        """A CuPy array in this backend's dtype on its device."""
        with self._device:
            return cupy.asarray(np.asarray(x, dtype=self.dtype))

    def to_numpy(self, x: Array, /) -> Host:
        """float64 for float64, float32 for all others."""
        with self._device:
            return np.asarray(cupy.asnumpy(x), dtype=host_dtype(self.dtype))

    def cast(self, x: Array, /) -> Array:
        """An array of another dtype or device in this backend's own, in new memory."""
        with self._device:
            return cupy.array(x, dtype=self.dtype)

    def _put(self, x: Host, dtype: str) -> Array:
        # Row-major, whatever x is: the kernels walk it as such. (ascontiguousarray gives 0-d arrays an axis.)
        return cupy.asarray(np.ascontiguousarray(x, dtype=dtype).reshape(x.shape))

    def _widened(self, op: Callable[..., Out], *arrays: Array, **options: Any) -> Out:
        """The op in the wide dtype, its result and its cotangents rounded to the backend's."""
        y, back = op(*(a.astype(self._wide, copy=False) for a in arrays), **options)

        def pullback(dy: Array) -> tuple[Array, ...]:
            return self._rounded(*back(dy.astype(self._wide, copy=False)))

        return y.astype(self.dtype, copy=False), pullback

    def _rounded(self, *arrays: Array) -> tuple[Array, ...]:
        return tuple(a.astype(self.dtype, copy=False) for a in arrays)

    # Arrangement

    @_on_device
    def add(self, x: Array, z: Array) -> Out:
        """x + z."""
        return ops.add(x, z)

    @_on_device
    def reshape(self, x: Array, shape: tuple[int, ...]) -> Out:
        """The same entries in another shape."""
        return ops.reshape(x, shape)

    @_on_device
    def transpose(self, x: Array, axes: tuple[int, ...]) -> Out:
        """Axes permuted."""
        return ops.transpose(x, axes)

    @_on_device
    def embedding(self, table: Array, ids: Host) -> Out:
        """Rows of the table."""
        return self._lookup(ops.embedding, table, ids)

    @_on_device
    def gather(self, x: Array, positions: Host) -> Out:
        """Rows of x, flattened."""
        return self._lookup(ops.gather, x, positions)

    def _lookup(self, op: Callable[..., Out], x: Array, index: Host) -> Out:
        # The index stays on the host: refbert.ops looks at its range, which would cost a wait for the device, and
        # CuPy copies NumPy arrays that index its own.
        y, back = op(x, index)
        if self.dtype == self._wide:
            return y, back
        shape = x.shape

        def pullback(dy: Array) -> tuple[Array, ...]:
            _, wide_back = op(cupy.empty(shape, dtype=self._wide), index)  # only the shape and the dtype matter
            return self._rounded(*wide_back(dy.astype(self._wide)))

        return y, pullback

    # Arithmetic

    @_on_device
    def linear(self, x: Array, w: Array, b: Array) -> Out:
        """x wᵀ + b, as one product of two matrices (CuPy makes a batch of small ones from more axes)."""
        rows = x.reshape(-1, w.shape[1])
        if rows.shape[0] * w.shape[0] == 1:
            # CuPy multiplies these entry by entry and adds up: in float16, every term would be rounded.
            y, back = self._widened(ops.linear, rows, w, b)
        else:
            y, back = ops.linear(rows, w, b)

        def pullback(dy: Array) -> tuple[Array, ...]:
            dx, dw, db = back(dy.reshape(-1, w.shape[0]))
            return dx.reshape(x.shape), dw, db

        return y.reshape(*x.shape[:-1], w.shape[0]), pullback

    @_on_device
    def layer_norm(self, x: Array, gamma: Array, beta: Array, *, eps: float) -> Out:
        """LayerNorm over the last axis."""
        H = x.shape[-1]
        N = math.prod(x.shape[:-1])
        x, gamma, beta = (cupy.ascontiguousarray(a) for a in (x, gamma, beta))
        y = cupy.empty(x.shape, dtype=self.dtype)
        mean, r = cupy.empty(N, dtype=self._wide), cupy.empty(N, dtype=self._wide)
        per_row("layer_norm", (x, gamma, beta, y, mean, r), N, H, float(eps))

        def pullback(dy: Array) -> tuple[Array, Array, Array]:
            dy = cupy.ascontiguousarray(dy)
            dx = cupy.empty(x.shape, dtype=self.dtype)
            dgammas = cupy.empty((N, H), dtype=self._wide)
            per_row("layer_norm_back", (x, gamma, dy, mean, r, dx, dgammas), N, H)
            dbeta = dy.reshape(N, H).astype(self._wide, copy=False).sum(axis=0)
            return dx, *self._rounded(dgammas.sum(axis=0), dbeta)

        return y, pullback

    @_on_device
    def gelu(self, x: Array, *, form: str) -> Out:
        """GELU, form "erf" or "tanh"."""
        if form not in ("erf", "tanh"):
            raise ValueError(f'gelu has the forms "erf" and "tanh", not "{form}"')
        x = cupy.ascontiguousarray(x)
        y = cupy.empty(x.shape, dtype=self.dtype)
        per_entry(f"gelu_{form}", (x, y), x.size)

        def pullback(dy: Array) -> tuple[Array]:
            dx = cupy.empty(x.shape, dtype=self.dtype)
            per_entry(f"gelu_{form}_back", (x, cupy.ascontiguousarray(dy), dx), x.size)
            return (dx,)

        return y, pullback

    @_on_device
    def relu(self, x: Array) -> Out:
        """max(0, x)."""
        return ops.relu(x)

    @_on_device
    def tanh(self, x: Array) -> Out:
        """tanh x."""
        return self._widened(ops.tanh, x)

    @_on_device
    def softmax(self, x: Array) -> Out:
        """Softmax over the last axis."""
        every = cupy.ones((1, x.shape[-1]), dtype="uint8")
        return _softmax(x, every, scale=1.0, mask_value=0.0)

    @_on_device
    def dropout(self, x: Array, *, keep: Host, rate: float) -> Out:
        """x keep / (1 − rate)."""
        return self._widened(ops.dropout, x, keep=self._put(keep, "bool"), rate=float(rate))

    # Attention

    @_on_device
    def attention_probabilities(self, q: Array, k: Array, *, mask: Host, heads: int, mask_value: float) -> Out:
        """softmax(q kᵀ/√D + mask) per head."""
        codes = self._put(mask_codes(mask, mask_value), "uint8")
        return self._widened(_probabilities, q, k, codes=codes, heads=heads, mask_value=mask_value)

    @_on_device
    def attention(
        self, q: Array, k: Array, v: Array, *, mask: Host, heads: int, mask_value: float, keep: Host | None = None,
        rate: float = 0.0,
    ) -> Out:  # fmt: skip
        """Multi-head attention; in float32 for float16, in which CuPy has no batched product anyway."""
        codes = self._put(mask_codes(mask, mask_value), "uint8")
        kept = None if keep is None else self._put(keep, "bool")
        return self._widened(
            _attention, q, k, v, codes=codes, heads=heads, mask_value=mask_value, keep=kept, rate=float(rate)
        )

    # Losses

    @_on_device
    def cross_entropy(self, logits: Array, labels: Host, *, denominator: float) -> Out:
        """Σ over labelled rows / denominator."""
        C = logits.shape[-1]
        flat = labels.reshape(-1)
        counted = flat[flat != ops.IGNORE]
        low, high = (int(counted.min()), int(counted.max())) if counted.size else (0, C - 1)
        if low < 0 or high >= C:
            raise IndexError(f"labels must be {ops.IGNORE} or in [0, {C}), got {low} to {high}")
        scale = 1 / float(denominator) if denominator else 0.0
        N = flat.size
        z, c = cupy.ascontiguousarray(logits), self._put(flat, "int64")
        losses, maxima, sums = (cupy.empty(N, dtype=self._wide) for _ in range(3))
        per_row("cross_entropy", (z, c, losses, maxima, sums), N, C)
        loss = (losses.sum() * scale).astype(self.dtype)

        def pullback(dloss: Array) -> tuple[Array]:
            dz = cupy.empty(z.shape, dtype=self.dtype)
            per_row("cross_entropy_back", (z, c, maxima, sums, dloss, dz), N, C, scale)
            return (dz,)

        return loss, pullback

    @_on_device
    def mean_squared_error(self, x: Array, targets: Host, *, denominator: float) -> Out:
        """Σ (x − targets)² / denominator."""
        on_device = self._put(targets, self._wide)
        return self._widened(ops.mean_squared_error, x, targets=on_device, denominator=float(denominator))

    # Optimizers

    def update(
        self, rule: str, p: Array, g: Array, m: Array, v: Array, *, scale: float, step: int, **rates: float
    ) -> tuple[Array, Array, Array]:
        """Tensor by tensor, so that no step holds a clipped copy of all gradients."""
        function = rule_of(rule, int(step))
        # Python numbers: a NumPy scalar would turn float32 into float64 in some versions of CuPy and not in others.
        plain = {name: float(value) for name, value in rates.items()}
        with self._device:
            p, g, m, v = (a.astype(self._wide, copy=False) for a in (p, g, m, v))
            p, m, v = self._rounded(*function(p, g if scale == 1 else g * float(scale), m, v, **plain))
            return p, m, v

    def global_norm(self, gradients: Mapping[str, Array]) -> float:
        """The norm over all gradients: one wait for the device, no copy of them all."""
        with self._device:
            wide = (g.astype(self._wide, copy=False) for g in gradients.values())
            squares = [(g * g).sum() for g in wide]
            return math.sqrt(sum(cupy.asnumpy(cupy.stack(squares)).tolist())) if squares else 0.0


def mask_codes(mask: Host, mask_value: float) -> Host:
    """What the softmax kernel takes for each key's score, uint8 [B, S].

    0: score + mask_value    1: the score    2: mask_value, whatever the score    3: 0, whatever the score

    A row without a visible key: under −∞ every score counts as 0, which is the uniform 1/S of refbert.ops; under a
    finite value all scores shift together, which softmax does not see, so its keys are visible as they stand.
    """
    infinite = mask_value == -math.inf
    visible = np.asarray(mask).astype(bool)
    codes = np.where(visible, 1, 2 if infinite else 0).astype(np.uint8)
    codes[~visible.any(axis=-1)] = 3 if infinite else 1
    return codes


def _softmax(x: Array, codes: Array, *, scale: float, mask_value: float) -> Out:
    """softmax(scale x, masked by codes [G, C]) over the last axis; the rows of x fall into G equal groups."""
    C, N = x.shape[-1], math.prod(x.shape[:-1])
    x = cupy.ascontiguousarray(x)
    p = cupy.empty(x.shape, dtype=x.dtype)
    per_row("softmax", (x, codes, p), N, C, N // max(len(codes), 1), scale, float(mask_value))

    def pullback(dp: Array) -> tuple[Array]:
        dx = cupy.empty(p.shape, dtype=p.dtype)
        per_row("softmax_back", (p, cupy.ascontiguousarray(dp), dx), N, C, scale)
        return (dx,)

    return p, pullback


def _probabilities(q: Array, k: Array, *, codes: Array, heads: int, mask_value: float) -> Out:
    """refbert.ops.attention_probabilities with the scale, the mask and the softmax in one kernel."""
    Q, K = split_heads(q, heads), split_heads(k, heads)  # [B, A, S, D]
    scale = 1 / math.sqrt(Q.shape[-1])
    p, softmax_back = _softmax(Q @ K.swapaxes(-1, -2), codes, scale=scale, mask_value=mask_value)  # [B, A, S, S]

    def pullback(dp: Array) -> tuple[Array, Array]:
        (ds,) = softmax_back(dp)  # [B, A, S, S], the scale included
        return merge_heads(ds @ K), merge_heads(ds.swapaxes(-1, -2) @ Q)

    return p, pullback


def _attention(
    q: Array, k: Array, v: Array, *, codes: Array, heads: int, mask_value: float, keep: Array | None, rate: float
) -> Out:
    """refbert.ops.attention on these probabilities."""
    p, probabilities_back = _probabilities(q, k, codes=codes, heads=heads, mask_value=mask_value)
    p_dropped, dropout_back = (p, None) if keep is None else ops.dropout(p, keep=keep, rate=rate)
    V = split_heads(v, heads)  # [B, A, S, D]
    y = merge_heads(p_dropped @ V)  # [B, S, H]

    def pullback(dy: Array) -> tuple[Array, Array, Array]:
        dY = split_heads(dy, heads)  # [B, A, S, D]
        dp: Array = dY @ V.swapaxes(-1, -2)  # [B, A, S, S]
        dV = p_dropped.swapaxes(-1, -2) @ dY  # [B, A, S, D]
        if dropout_back is not None:
            (dp,) = dropout_back(dp)
        dq, dk = probabilities_back(dp)
        return dq, dk, merge_heads(dV)

    return y, pullback
