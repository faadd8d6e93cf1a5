"""The backend "mlx": Apple's MLX, every gradient from mx.vjp. An example of a plugin; it imports nothing of refbert.

What each operation means is in refbert.ops; what MLX does otherwise than the contract asks is said where it is mended.
"""

from __future__ import annotations

import importlib.metadata
import math
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

try:
    import mlx.core as mx
except ImportError as error:
    raise ImportError(f"MLX is not installed ({error}); install it with: pip install mlx mlx-cpu") from error

Host = npt.NDArray[Any]
Array = Any  # mx.array
Pullback = Callable[[Array], tuple[Array, ...]]
Out = tuple[Array, Pullback]

IGNORE = -100  # the label that does not count
# One graph at a time, whichever thread and instance asks: what is evaluated together shares MLX's streams.
_ALONE = threading.RLock()


# The mathematics: functions of arrays that mx.vjp can follow.


def _wide(f: Callable[..., Array]) -> Callable[..., Array]:
    """f in float32 where its arrays are narrower; ε, x³, 1/denominator and scores may be beyond float16."""

    def computed(*arrays: Array, **options: Any) -> Array:
        dtype = arrays[0].dtype
        if dtype not in (mx.float16, mx.bfloat16):
            return f(*arrays, **options)
        return f(*(x.astype(mx.float32) for x in arrays), **options).astype(dtype)

    return computed


def _exp(x: Array) -> Array:
    """exp(x). For float64, MLX's own rounds like float32; its power does not."""
    return mx.power(math.e, x) if x.dtype == mx.float64 else mx.exp(x)


def _softmax(x: Array) -> Array:
    if x.dtype != mx.float64:
        return mx.softmax(x, axis=-1, precise=True)  # without it, float16 and bfloat16 are added up in themselves
    e = _exp(x - mx.stop_gradient(mx.max(x, axis=-1, keepdims=True)))
    return e / e.sum(axis=-1, keepdims=True)


@_wide
def _gelu_erf(x: Array) -> Array:
    return 0.5 * x * (1 + mx.erf(x * math.sqrt(0.5)))


@_wide
def _gelu_tanh(x: Array) -> Array:
    return 0.5 * x * (1 + mx.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def _relu(x: Array) -> Array:
    return mx.maximum(x, 0)  # keeps NaN; its gradient at 0 is 0


_ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "gelu_erf": _gelu_erf,
    "gelu_tanh": _gelu_tanh,
    "relu": _relu,
    "tanh": mx.tanh,
    "linear": lambda x: x,
}


@_wide  # the gradient is added up in the table's dtype: in bfloat16 a row named 1000 times gets 256
def _rows(x: Array, *, index: Array) -> Array:
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])[index]


def _linear(x: Array, w: Array, b: Array) -> Array:
    return x @ w.T + b


@_wide
def _layer_norm(x: Array, gamma: Array, beta: Array, *, eps: float) -> Array:
    d = x - x.mean(axis=-1, keepdims=True)
    return gamma * (d / mx.sqrt((d * d).mean(axis=-1, keepdims=True) + eps)) + beta


def _dropout(x: Array, kept: Array, rate: float) -> Array:
    return x * kept / (1 - rate)


def _split_heads(x: Array, heads: int) -> Array:
    B, S, H = x.shape
    if H % heads:
        raise ValueError(f"{H} features do not divide into {heads} heads")
    return x.reshape(B, S, heads, H // heads).swapaxes(1, 2)


@_wide  # float16 holds no products of two hundreds
def _probabilities(q: Array, k: Array, *, visible: Array, heads: int, mask_value: float) -> Array:
    Q, K = _split_heads(q, heads), _split_heads(k, heads)
    scores = Q @ K.swapaxes(-1, -2) / math.sqrt(Q.shape[-1])
    seen = visible[:, None, None, :]  # [B, 1, 1, S]
    if mask_value != -math.inf:
        return _softmax(mx.where(seen, scores, scores + mask_value))
    # A row that sees nothing: all scores 0, but with the gradient that adding a constant would leave them.
    blind = scores - mx.stop_gradient(scores)
    some = seen.any(axis=-1, keepdims=True)
    return _softmax(mx.where(some, mx.where(seen, scores, -math.inf), blind))


@_wide
def _attention(
    q: Array, k: Array, v: Array, *, visible: Array, kept: Array | None, rate: float, heads: int, mask_value: float
) -> Array:  # fmt: skip
    p = _probabilities(q, k, visible=visible, heads=heads, mask_value=mask_value)
    if kept is not None:
        p = _dropout(p, kept, rate)
    return (p @ _split_heads(v, heads)).swapaxes(1, 2).reshape(q.shape)


def _encoder_layer(
    x: Array, params: Mapping[str, Array], visible: Array, eps: float, heads: int, mask_value: float, activation: str
) -> Array:  # fmt: skip
    def linear(x: Array, name: str) -> Array:
        return _linear(x, params[f"{name}.weight"], params[f"{name}.bias"])

    def norm(x: Array, name: str) -> Array:
        return _layer_norm(x, params[f"{name}.LayerNorm.weight"], params[f"{name}.LayerNorm.bias"], eps=eps)

    q, k, v = (linear(x, f"attention.self.{name}") for name in ("query", "key", "value"))
    context = _attention(q, k, v, visible=visible, kept=None, rate=0.0, heads=heads, mask_value=mask_value)
    attended = norm(x + linear(context, "attention.output.dense"), "attention.output")
    active = _ACTIVATIONS[activation](linear(attended, "intermediate.dense"))
    return norm(attended + linear(active, "output.dense"), "output")


@_wide
def _cross_entropy(logits: Array, *, labels: Array, scale: float) -> Array:
    labelled = (labels != IGNORE)[..., None]
    z = mx.where(labelled, logits, 0)  # here, not on the losses: 0 times a NaN from an ignored row would be NaN
    z = z - mx.stop_gradient(mx.max(z, axis=-1, keepdims=True))
    picked = mx.take_along_axis(z, mx.where(labelled, labels[..., None], 0), axis=-1)
    losses = mx.log(_exp(z).sum(axis=-1, keepdims=True)) - picked
    return mx.where(labelled, losses, 0).sum() * scale


@_wide
def _squared_error(x: Array, targets: Array, *, scale: float) -> Array:
    return ((x - targets) ** 2).sum() * scale


def _updated(p: Array, g: Array, m: Array, v: Array, r: Mapping[str, float], scaled: bool) -> tuple[Array, ...]:
    g = g * r["scale"]
    m = r["beta1"] * m + r["rest1"] * g
    v = r["beta2"] * v + r["rest2"] * g * g
    u = m / r["bias1"] / (mx.sqrt(v / r["bias2"]) + r["eps"]) + r["weight_decay"] * p
    if scaled:
        p_norm, u_norm = mx.sqrt((p * p).sum()), mx.sqrt((u * u).sum())
        u = mx.where((p_norm > 0) & (u_norm > 0), p_norm / u_norm, 1) * u
    return p - r["lr"] * u, m, v


class MlxBackend:
    """float32 (default), float16, bfloat16, or on "cpu" float64; on "cpu" or, where MLX has one, "gpu"."""

    name = "mlx"
    contract = 1  # the version of refbert's plugin contract
    dtypes: tuple[str, ...] = ("float32", "float64", "float16", "bfloat16")

    def __init__(self, dtype: str | None = None, device: str | None = None) -> None:
        self.dtype, self.device = dtype or self.dtypes[0], device or "cpu"
        kind = {"cpu": mx.cpu, "gpu": mx.gpu}.get(self.device)
        if kind is None or not mx.is_available(mx.Device(kind)):
            raise RuntimeError(f'MLX finds no device "{self.device}" here; use "cpu"')
        if self.dtype == "float64" and self.device == "gpu":
            raise RuntimeError('MLX has float64 on the CPU only; use the device "cpu"')
        self._device, self._dtype = mx.Device(kind), getattr(mx, self.dtype)
        # MLX's exp gives 0 where float32 would be subnormal; its power, which float64 uses, does not.
        self.arithmetic = {"flush_to_zero": self.dtype != "float64"}
        self.library = f"MLX {importlib.metadata.version('mlx')}"

    def _run(self, f: Callable[..., Any], *arguments: Any) -> Any:
        """f(*arguments), computed before it is returned: a thread can only evaluate what it has asked for itself."""
        with _ALONE, mx.stream(self._device):
            result = f(*arguments)
            mx.eval(result)
            return result

    def _out(self, f: Callable[..., Array], *arrays: Array) -> Out:
        """mx.vjp has no pullback to keep: it runs f again, and of that only what the gradients need is evaluated."""

        def pullback(dy: Array) -> tuple[Array, ...]:
            return tuple(self._run(lambda: mx.vjp(f, list(arrays), [dy])[1]))

        return self._run(f, *arrays), pullback

    def _put(self, x: Host, dtype: Any) -> Array:
        if not x.size:  # with NumPy's strides, which are 0, a sum over several axes reads foreign memory
            return self._run(mx.zeros, x.shape, dtype)
        return self._run(mx.array, x, dtype)

    def asarray(self, x: Host, /) -> Array:
        """An MLX array, a copy, in this backend's dtype."""
        if self.dtype != "bfloat16":
            return self._put(np.array(x, self.dtype, order="C"), self._dtype)
        m, e = np.frexp(np.asarray(x, np.float64))  # NumPy has no bfloat16, and rounding to float32 first rounds twice
        with np.errstate(over="ignore"):
            return self._put(np.ldexp(np.rint(np.ldexp(m, 8)), e - 8).astype(np.float32, order="C"), self._dtype)

    def to_numpy(self, x: Array, /) -> Host:
        """A copy."""
        wide = mx.float64 if self.dtype == "float64" else mx.float32
        return np.array(self._run(x.astype, wide))

    # Arrangement

    def add(self, x: Array, z: Array) -> Out:
        """x + z."""
        _equal_shapes("add", x, z)
        return self._out(mx.add, x, z)

    def reshape(self, x: Array, shape: tuple[int, ...]) -> Out:
        """The same entries in another shape."""
        return self._out(lambda x: mx.reshape(x, tuple(shape)), x)

    def transpose(self, x: Array, axes: tuple[int, ...]) -> Out:
        """Axes permuted."""
        return self._out(lambda x: mx.transpose(x, tuple(axes)), x)

    def embedding(self, table: Array, ids: Host) -> Out:
        """Rows of the table."""
        _check_range("ids", ids, table.shape[0])
        index = self._put(np.array(ids, np.int32), mx.int32)
        return self._out(lambda table: _rows(table, index=index), table)

    def gather(self, x: Array, positions: Host) -> Out:
        """Rows of x, flattened."""
        _check_range("positions", positions, math.prod(x.shape[:-1]))
        index = self._put(np.array(positions, np.int32), mx.int32)
        return self._out(lambda x: _rows(x, index=index), x)

    # Arithmetic

    def linear(self, x: Array, w: Array, b: Array) -> Out:
        """x wᵀ + b."""
        return self._out(_linear, x, w, b)

    def layer_norm(self, x: Array, gamma: Array, beta: Array, *, eps: float) -> Out:
        """LayerNorm over the last axis."""
        return self._out(lambda *arrays: _layer_norm(*arrays, eps=eps), x, gamma, beta)

    def gelu(self, x: Array, *, form: str) -> Out:
        """GELU, form "erf" or "tanh"."""
        if form not in ("erf", "tanh"):
            raise ValueError(f'gelu has the forms "erf" and "tanh", not "{form}"')
        return self._out(_ACTIVATIONS[f"gelu_{form}"], x)

    def relu(self, x: Array) -> Out:
        """max(0, x)."""
        return self._out(_relu, x)

    def tanh(self, x: Array) -> Out:
        """tanh x."""
        return self._out(mx.tanh, x)

    def softmax(self, x: Array) -> Out:
        """Softmax over the last axis."""
        return self._out(_softmax, x)

    def dropout(self, x: Array, *, keep: Host, rate: float) -> Out:
        """x keep / (1 − rate)."""
        _equal_shapes("dropout", x, keep)
        kept = self._kept(keep, rate)
        return self._out(lambda x: _dropout(x, kept, rate), x)

    def _kept(self, keep: Host, rate: float) -> Array:
        if not 0 <= rate < 1:
            raise ValueError(f"dropout rate must be in [0, 1), got {rate}")
        return self._visible(keep)

    def _visible(self, mask: Host) -> Array:
        return self._put(np.array(mask, bool, order="C"), mx.bool_)

    def attention_probabilities(
        self, q: Array, k: Array, *, mask: Host, heads: int, mask_value: float
    ) -> Out:  # fmt: skip
        """softmax(q kᵀ/√D + mask) per head."""
        visible = self._visible(mask)
        return self._out(lambda q, k: _probabilities(q, k, visible=visible, heads=heads, mask_value=mask_value), q, k)

    def attention(
        self, q: Array, k: Array, v: Array, *, mask: Host, heads: int, mask_value: float, keep: Host | None = None,
        rate: float = 0.0,
    ) -> Out:  # fmt: skip
        """Multi-head attention."""
        due = (len(mask), heads, mask.shape[1], mask.shape[1])
        if keep is not None and keep.shape != due:
            raise ValueError(f"the keep mask must have the shape {due}, got {keep.shape}")
        visible, kept = self._visible(mask), None if keep is None else self._kept(keep, rate)
        options = {"visible": visible, "kept": kept, "rate": rate, "heads": heads, "mask_value": mask_value}
        return self._out(lambda *arrays: _attention(*arrays, **options), q, k, v)

    def encoder_layer(
        self, x: Array, params: Mapping[str, Array], *, mask: Host, heads: int, mask_value: float, activation: str,
        eps: float,
    ) -> Array:  # fmt: skip
        """A whole layer for inference, one graph."""
        if activation not in _ACTIVATIONS:
            raise ValueError(f'unknown activation "{activation}"')
        visible = self._visible(mask)
        return self._run(_encoder_layer, x, dict(params), visible, eps, heads, mask_value, activation)

    # Losses

    def cross_entropy(self, logits: Array, labels: Host, *, denominator: float) -> Out:
        """Σ over labelled rows / denominator."""
        _check_range("labels", labels[labels != IGNORE], logits.shape[-1])
        target = self._put(np.array(labels, np.int32), mx.int32)
        scale = 1 / denominator if denominator else 0.0
        return self._out(lambda z: _cross_entropy(z, labels=target, scale=scale), logits)

    def mean_squared_error(self, x: Array, targets: Host, *, denominator: float) -> Out:
        """Σ (x − targets)² / denominator."""
        _equal_shapes("mean_squared_error", x, targets)
        target, scale = self.asarray(targets), 1 / denominator if denominator else 0.0
        return self._out(lambda x: _squared_error(x, target, scale=scale), x)

    # Optimizers

    def update(
        self, rule: str, p: Array, g: Array, m: Array, v: Array, *, scale: float, step: int, **rates: float
    ) -> tuple[Array, Array, Array]:  # fmt: skip
        """Google's BERT Adam, AdamW or LAMB, of the gradient g·scale."""
        if rule not in ("bert_adam", "adamw", "lamb"):
            raise NotImplementedError(f'there is no update "{rule}"')
        corrected = rule != "bert_adam"
        if corrected and step < 1:
            raise ValueError(f"step counts from 1, got {step}")
        beta1, beta2 = rates["beta1"], rates["beta2"]
        more = {  # what cancels is computed here, in double precision
            "scale": scale,
            "rest1": 1 - beta1,
            "rest2": 1 - beta2,
            "bias1": 1 - beta1**step if corrected else 1.0,
            "bias2": 1 - beta2**step if corrected else 1.0,
        }
        return self._run(_updated, p, g, m, v, {**rates, **more}, rule == "lamb")  # type: ignore[no-any-return]

    def global_norm(self, gradients: Mapping[str, Array]) -> float:
        """The norm over all gradients."""
        return math.sqrt(sum(self._run(lambda g: (g * g).sum(), g).item() for g in gradients.values()))


def _equal_shapes(what: str, x: Array, z: Array | Host) -> None:
    if tuple(x.shape) != tuple(z.shape):
        raise ValueError(f"{what} needs equal shapes, got {tuple(x.shape)} and {tuple(z.shape)}")


def _check_range(what: str, index: Host, limit: int) -> None:
    """MLX reads, and in a gradient writes, whatever memory an index out of range leads to."""
    if index.dtype.kind not in "iu" and index.size:
        raise IndexError(f"{what} must be integers, got {index.dtype}")
    if index.size and not (int(index.min()) >= 0 and int(index.max()) < limit):
        raise IndexError(f"{what} must be in [0, {limit}), got {int(index.min())} to {int(index.max())}")
