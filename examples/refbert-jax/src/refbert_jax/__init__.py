"""The backend "jax": XLA's kernels, every gradient from jax.vjp. An example of a plugin; it imports nothing of refbert.

What each operation means is in refbert.ops; what JAX does otherwise than the contract asks is said where it is mended.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

try:
    import jax
    import jax.numpy as jnp
except ImportError as error:
    raise ImportError(f"JAX is not installed ({error}); install it with: pip install jax") from error

Host = npt.NDArray[Any]
Pullback = Callable[[jax.Array], tuple[jax.Array, ...]]
Out = tuple[jax.Array, Pullback]
Update = tuple[jax.Array, jax.Array, jax.Array]

IGNORE = -100  # the label that does not count
_ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "gelu_erf": partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "linear": lambda x: x,
}


# The mathematics: pure functions of arrays, compiled once for every shape.

_reshape = jax.jit(jnp.reshape, static_argnames="shape")
_transpose = jax.jit(jnp.transpose, static_argnames="axes")
_softmax = jax.jit(jax.nn.softmax)
_active = jax.jit(lambda x, kind: _ACTIVATIONS[kind](x), static_argnames="kind")


@jax.jit
def _add(x: jax.Array, z: jax.Array) -> jax.Array:
    return x + z


@jax.jit
def _rows(x: jax.Array, index: jax.Array) -> jax.Array:
    return x.reshape(-1, x.shape[-1])[index]


@jax.jit
def _linear(x: jax.Array, w: jax.Array, b: jax.Array) -> jax.Array:
    return x @ w.T + b


@jax.jit
def _layer_norm(x: jax.Array, gamma: jax.Array, beta: jax.Array, eps: float) -> jax.Array:
    d = x - x.mean(axis=-1, keepdims=True)
    return gamma * (d / jnp.sqrt((d * d).mean(axis=-1, keepdims=True) + eps)) + beta


@jax.jit
def _dropout(x: jax.Array, kept: jax.Array, scale: float) -> jax.Array:
    return x * jnp.where(kept, scale, 0)  # one product each way: XLA rounds a quotient's transpose otherwise


def _split_heads(x: jax.Array, heads: int) -> jax.Array:
    B, S, H = x.shape
    if H % heads:
        raise ValueError(f"{H} features do not divide into {heads} heads")
    return x.reshape(B, S, heads, H // heads)


@partial(jax.jit, static_argnames=("heads", "mask_value"))
def _probabilities(q: jax.Array, k: jax.Array, visible: jax.Array, heads: int, mask_value: float) -> jax.Array:
    Q, K = _split_heads(q, heads), _split_heads(k, heads)
    scores = jnp.einsum("bqad,bkad->baqk", Q, K) / math.sqrt(Q.shape[-1])
    seen = visible[:, None, None, :]  # [B, 1, 1, S]
    if mask_value != -math.inf:
        return jax.nn.softmax(jnp.where(seen, scores, scores + mask_value))
    # A row that sees nothing: all scores 0, but with the gradient that adding a constant would leave them.
    blind = scores - jax.lax.stop_gradient(scores)
    some = seen.any(axis=-1, keepdims=True)
    return jax.nn.softmax(jnp.where(some, jnp.where(seen, scores, -jnp.inf), blind))


@partial(jax.jit, static_argnames=("heads", "mask_value"))
def _attention(
    q: jax.Array, k: jax.Array, v: jax.Array, visible: jax.Array, kept: jax.Array | None, scale: float, heads: int,
    mask_value: float,
) -> jax.Array:  # fmt: skip
    p = _probabilities(q, k, visible, heads, mask_value)
    if kept is not None:
        p = _dropout(p, kept, scale)
    return jnp.einsum("baqk,bkad->bqad", p, _split_heads(v, heads)).reshape(q.shape)


@partial(jax.jit, static_argnames=("heads", "mask_value", "activation"))
def _encoder_layer(
    x: jax.Array, params: Mapping[str, jax.Array], visible: jax.Array, eps: float, heads: int, mask_value: float,
    activation: str,
) -> Any:  # fmt: skip
    def linear(x: Any, name: str) -> Any:
        return _linear(x, params[f"{name}.weight"], params[f"{name}.bias"])

    def norm(x: Any, name: str) -> Any:
        return _layer_norm(x, params[f"{name}.LayerNorm.weight"], params[f"{name}.LayerNorm.bias"], eps)

    q, k, v = (linear(x, f"attention.self.{name}") for name in ("query", "key", "value"))
    context = _attention(q, k, v, visible, None, 0.0, heads, mask_value)
    attended = norm(x + linear(context, "attention.output.dense"), "attention.output")
    active = _ACTIVATIONS[activation](linear(attended, "intermediate.dense"))
    return norm(attended + linear(active, "output.dense"), "output")


@jax.jit
def _cross_entropy(logits: jax.Array, labels: jax.Array, scale: float) -> jax.Array:
    labelled = (labels != IGNORE)[..., None]
    z = jnp.where(labelled, logits, 0)  # here, not on the losses: 0 times a NaN from an ignored row would be NaN
    picked = jnp.take_along_axis(z, jnp.where(labelled, labels[..., None], 0), axis=-1)
    losses = jax.nn.logsumexp(z, axis=-1, keepdims=True) - picked
    return jnp.where(labelled, losses, 0).sum() * scale


@jax.jit
def _squared_error(x: jax.Array, targets: jax.Array, scale: float) -> jax.Array:
    return ((x - targets) ** 2).sum() * scale


@partial(jax.jit, static_argnames="scaled")
def _updated(p: Any, g: Any, m: Any, v: Any, r: Mapping[str, float], scaled: bool) -> Update:
    g = g * r["scale"]
    m = r["beta1"] * m + r["rest1"] * g
    v = r["beta2"] * v + r["rest2"] * g * g
    u = m / r["bias1"] / (jnp.sqrt(v / r["bias2"]) + r["eps"]) + r["weight_decay"] * p
    if scaled:
        p_norm, u_norm = jnp.linalg.vector_norm(p), jnp.linalg.vector_norm(u)
        u = jnp.where((p_norm > 0) & (u_norm > 0), p_norm / u_norm, 1) * u
    return p - r["lr"] * u, m, v


class JaxBackend:
    """float32 (default) or float64, on "cpu", or where JAX has them "gpu[:n]" and "tpu[:n]"."""

    name = "jax"
    contract = 1  # the version of refbert's plugin contract
    dtypes: tuple[str, ...] = ("float32", "float64")
    compiles = True  # every new shape

    def __init__(self, dtype: str | None = None, device: str | None = None) -> None:
        self.dtype, self.device = dtype or self.dtypes[0], device or "cpu"
        platform, _, index = self.device.partition(":")
        try:
            self._device = jax.devices(platform)[int(index or 0)]
        except (RuntimeError, ValueError, IndexError):
            raise RuntimeError(f'JAX finds no device "{device}" here, only {jax.devices()}; use "cpu"') from None
        self.library = f"JAX {jax.__version__}"
        gpu = self._device.platform == "gpu"
        # XLA runs CPUs (and TPUs) with subnormals off; on GPUs it scatters with atomic additions.
        self.arithmetic = {
            "flush_to_zero": not gpu,
            "nondeterministic": ("embedding", "gather") if gpu else (),
        }

    def _run(self, f: Callable[..., Any], *arguments: Any) -> Any:
        """f(*arguments) with 64 bits where they are wanted, and matrix products in full precision (TPUs and GPUs round
        their operands otherwise). Both are settings of a thread, so the process keeps its own."""
        with jax.enable_x64(self.dtype == "float64"), jax.default_matmul_precision("highest"):
            try:
                return f(*arguments)
            except TypeError as error:  # JAX's word for shapes that do not fit
                raise ValueError(str(error)) from None

    def _out(self, f: Callable[..., jax.Array], *arrays: jax.Array) -> Out:
        y, back = self._run(jax.vjp, f, *arrays)
        return y, lambda dy: self._run(back, dy)

    def _put(self, x: Host, dtype: Any) -> jax.Array:
        """A copy: JAX may go on reading the memory of a NumPy array that it was given, whoever writes there."""
        return self._run(jax.device_put, np.array(x, dtype, order="C"), self._device)  # type: ignore[no-any-return]

    def asarray(self, x: Host, /) -> jax.Array:
        """A JAX array in this backend's dtype on its device."""
        return self._put(x, self.dtype)

    def to_numpy(self, x: jax.Array, /) -> Host:
        """The same memory where it is the host's; read-only."""
        return np.asarray(x)

    # Arrangement

    def add(self, x: jax.Array, z: jax.Array) -> Out:
        """x + z."""
        _equal_shapes("add", x, z)
        return self._out(_add, x, z)

    def reshape(self, x: jax.Array, shape: tuple[int, ...]) -> Out:
        """The same entries in another shape."""
        return self._out(lambda x: _reshape(x, shape=tuple(shape)), x)

    def transpose(self, x: jax.Array, axes: tuple[int, ...]) -> Out:
        """Axes permuted."""
        return self._out(lambda x: _transpose(x, axes=tuple(axes)), x)

    def embedding(self, table: jax.Array, ids: Host) -> Out:
        """Rows of the table."""
        _check_range("ids", ids, table.shape[0])
        index = self._put(ids, np.int32)
        return self._out(lambda table: _rows(table, index), table)

    def gather(self, x: jax.Array, positions: Host) -> Out:
        """Rows of x, flattened."""
        _check_range("positions", positions, math.prod(x.shape[:-1]))
        index = self._put(positions, np.int32)
        return self._out(lambda x: _rows(x, index), x)

    # Arithmetic

    def linear(self, x: jax.Array, w: jax.Array, b: jax.Array) -> Out:
        """x wᵀ + b."""
        return self._out(_linear, x, w, b)

    def layer_norm(self, x: jax.Array, gamma: jax.Array, beta: jax.Array, *, eps: float) -> Out:
        """LayerNorm over the last axis."""
        return self._out(lambda *arrays: _layer_norm(*arrays, eps), x, gamma, beta)

    def gelu(self, x: jax.Array, *, form: str) -> Out:
        """GELU, form "erf" or "tanh"."""
        if form not in ("erf", "tanh"):
            raise ValueError(f'gelu has the forms "erf" and "tanh", not "{form}"')
        return self._out(lambda x: _active(x, kind=f"gelu_{form}"), x)

    def relu(self, x: jax.Array) -> Out:
        """max(0, x)."""
        return self._out(lambda x: _active(x, kind="relu"), x)

    def tanh(self, x: jax.Array) -> Out:
        """tanh x."""
        return self._out(lambda x: _active(x, kind="tanh"), x)

    def softmax(self, x: jax.Array) -> Out:
        """Softmax over the last axis."""
        return self._out(_softmax, x)

    def dropout(self, x: jax.Array, *, keep: Host, rate: float) -> Out:
        """x keep / (1 − rate)."""
        _equal_shapes("dropout", x, keep)
        kept = self._kept(keep, rate)
        return self._out(lambda x: _dropout(x, kept, 1 / (1 - rate)), x)

    def _kept(self, keep: Host, rate: float) -> jax.Array:
        if not 0 <= rate < 1:
            raise ValueError(f"dropout rate must be in [0, 1), got {rate}")
        return self._put(keep, bool)

    def attention_probabilities(
        self, q: jax.Array, k: jax.Array, *, mask: Host, heads: int, mask_value: float
    ) -> Out:  # fmt: skip
        """softmax(q kᵀ/√D + mask) per head."""
        visible = self._put(mask, bool)
        return self._out(lambda q, k: _probabilities(q, k, visible, heads, mask_value), q, k)

    def attention(
        self, q: jax.Array, k: jax.Array, v: jax.Array, *, mask: Host, heads: int, mask_value: float,
        keep: Host | None = None, rate: float = 0.0,
    ) -> Out:  # fmt: skip
        """Multi-head attention."""
        due = (len(mask), heads, mask.shape[1], mask.shape[1])
        if keep is not None and keep.shape != due:
            raise ValueError(f"the keep mask must have the shape {due}, got {keep.shape}")
        visible, kept = self._put(mask, bool), None if keep is None else self._kept(keep, rate)
        return self._out(lambda q, k, v: _attention(q, k, v, visible, kept, 1 / (1 - rate), heads, mask_value), q, k, v)

    def encoder_layer(
        self, x: jax.Array, params: Mapping[str, jax.Array], *, mask: Host, heads: int, mask_value: float,
        activation: str, eps: float,
    ) -> jax.Array:  # fmt: skip
        """A whole layer for inference, compiled as one."""
        if activation not in _ACTIVATIONS:
            raise ValueError(f'unknown activation "{activation}"')
        visible = self._put(mask, bool)
        y: jax.Array = self._run(_encoder_layer, x, dict(params), visible, eps, heads, mask_value, activation)
        return y

    # Losses

    def cross_entropy(self, logits: jax.Array, labels: Host, *, denominator: float) -> Out:
        """Σ over labelled rows / denominator."""
        _check_range("labels", labels[labels != IGNORE], logits.shape[-1])
        target, scale = self._put(labels, np.int32), 1 / denominator if denominator else 0.0
        return self._out(lambda z: _cross_entropy(z, target, scale), logits)

    def mean_squared_error(self, x: jax.Array, targets: Host, *, denominator: float) -> Out:
        """Σ (x − targets)² / denominator."""
        _equal_shapes("mean_squared_error", x, targets)
        target, scale = self.asarray(targets), 1 / denominator if denominator else 0.0
        return self._out(lambda x: _squared_error(x, target, scale), x)

    # Optimizers

    def update(
        self, rule: str, p: jax.Array, g: jax.Array, m: jax.Array, v: jax.Array, *, scale: float, step: int,
        **rates: float,
    ) -> Update:  # fmt: skip
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

    def global_norm(self, gradients: Mapping[str, jax.Array]) -> float:
        """The norm over all gradients."""
        return math.sqrt(sum(float(self._run(_square, g)) for g in gradients.values()))


_square = jax.jit(lambda g: (g * g).sum())


def _equal_shapes(what: str, x: jax.Array, z: jax.Array | Host) -> None:
    if tuple(x.shape) != tuple(z.shape):
        raise ValueError(f"{what} needs equal shapes, got {tuple(x.shape)} and {tuple(z.shape)}")


def _check_range(what: str, index: Host, limit: int) -> None:
    """JAX clamps, or drops, what is out of range, and cuts fractions."""
    if index.dtype.kind not in "iu" and index.size:
        raise IndexError(f"{what} must be integers, got {index.dtype}")
    if index.size and not (int(index.min()) >= 0 and int(index.max()) < limit):
        raise IndexError(f"{what} must be in [0, {limit}), got {int(index.min())} to {int(index.max())}")
