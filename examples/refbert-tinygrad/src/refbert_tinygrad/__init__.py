"""The backend "tinygrad": every gradient from Tensor.gradient. An example of a plugin; it imports nothing of refbert.

What each operation means is in refbert.ops; what tinygrad does otherwise than the contract asks is said where it is
mended.
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
    from tinygrad import Device, Tensor, dtypes
except ImportError as error:
    raise ImportError(f"tinygrad is not installed ({error}); install it with: pip install tinygrad") from error

Host = npt.NDArray[Any]
Pullback = Callable[[Tensor], tuple[Tensor, ...]]
Out = tuple[Tensor, Pullback]

IGNORE = -100  # the label that does not count
_ALONE = threading.RLock()  # tinygrad plans and compiles for one thread at a time


# The mathematics: lazy graphs, which become kernels when they are realized.


def _wide(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """f in float32 where its arrays are float16, for which ε, x³, 1/denominator and scores may be too much."""

    def computed(*arrays: Tensor, **options: Any) -> Tensor:
        dtype = arrays[0].dtype
        if dtype != dtypes.float16:
            return f(*arrays, **options)
        return f(*(x.cast(dtypes.float32) for x in arrays), **options).cast(dtype)

    return computed


def _softmax(x: Tensor) -> Tensor:
    return x.softmax()


@_wide
def _gelu_erf(x: Tensor) -> Tensor:
    return x.gelu(approximate="none")


@_wide
def _gelu_tanh(x: Tensor) -> Tensor:
    return x.gelu(approximate="tanh")


def _relu(x: Tensor) -> Tensor:
    return ((x < 0) | (x == 0)).where(0, x)  # of NaN, Tensor.relu makes 0, and NaN <= 0 holds


_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu_erf": _gelu_erf,
    "gelu_tanh": _gelu_tanh,
    "relu": _relu,
    "tanh": Tensor.tanh,
    "linear": lambda x: x,
}


def _linear(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return x @ w.T + b


@_wide
def _layer_norm(x: Tensor, gamma: Tensor, beta: Tensor, *, eps: float) -> Tensor:
    return x.layernorm(eps=eps) * gamma + beta


def _dropout(x: Tensor, kept: Tensor, rate: float) -> Tensor:
    return x * kept / (1 - rate)


def _split_heads(x: Tensor, heads: int) -> Tensor:
    B, S, H = x.shape
    if H % heads:
        raise ValueError(f"{H} features do not divide into {heads} heads")
    return x.reshape(B, S, heads, H // heads).transpose(1, 2)


@_wide  # float16 holds no products of two hundreds
def _probabilities(q: Tensor, k: Tensor, *, visible: Tensor, heads: int, mask_value: float) -> Tensor:
    Q, K = _split_heads(q, heads), _split_heads(k, heads)
    scores = Q @ K.transpose(-1, -2) / math.sqrt(Q.shape[-1])
    seen = visible[:, None, None, :]  # [B, 1, 1, S]
    if mask_value != -math.inf:
        return _softmax(seen.where(scores, scores + mask_value))
    # A row that sees nothing: all scores 0, but with the gradient that adding a constant would leave them.
    blind = scores - scores.detach()
    some = seen.any(axis=-1, keepdim=True)
    return _softmax(some.where(seen.where(scores, -math.inf), blind))


@_wide
def _attention(
    q: Tensor, k: Tensor, v: Tensor, *, visible: Tensor, kept: Tensor | None, rate: float, heads: int, mask_value: float
) -> Tensor:  # fmt: skip
    p = _probabilities(q, k, visible=visible, heads=heads, mask_value=mask_value)
    if kept is not None:
        p = _dropout(p, kept, rate)
    return (p @ _split_heads(v, heads)).transpose(1, 2).reshape(q.shape)


def _encoder_layer(
    x: Tensor, params: Mapping[str, Tensor], visible: Tensor, eps: float, heads: int, mask_value: float, activation: str
) -> Tensor:  # fmt: skip
    def linear(x: Tensor, name: str) -> Tensor:
        return _linear(x, params[f"{name}.weight"], params[f"{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        return _layer_norm(x, params[f"{name}.LayerNorm.weight"], params[f"{name}.LayerNorm.bias"], eps=eps)

    q, k, v = (linear(x, f"attention.self.{name}") for name in ("query", "key", "value"))
    context = _attention(q, k, v, visible=visible, kept=None, rate=0.0, heads=heads, mask_value=mask_value)
    attended = norm(x + linear(context, "attention.output.dense"), "attention.output")
    active = _ACTIVATIONS[activation](linear(attended, "intermediate.dense"))
    return norm(attended + linear(active, "output.dense"), "output")


@_wide
def _cross_entropy(logits: Tensor, *, labels: Tensor, scale: float) -> Tensor:
    labelled = (labels != IGNORE).unsqueeze(-1)
    z = labelled.where(logits, 0)  # here, not on the losses: 0 times a NaN from an ignored row would be NaN
    picked = z.gather(-1, labelled.where(labels.unsqueeze(-1), 0))
    return labelled.where(z.logsumexp(-1, keepdim=True) - picked, 0).sum() * scale


@_wide
def _squared_error(x: Tensor, targets: Tensor, *, scale: float) -> Tensor:
    return ((x - targets) ** 2).sum() * scale


def _updated(p: Tensor, g: Tensor, m: Tensor, v: Tensor, r: Mapping[str, float], scaled: bool) -> tuple[Tensor, ...]:
    g = g * r["scale"]
    m = r["beta1"] * m + r["rest1"] * g
    v = r["beta2"] * v + r["rest2"] * g * g
    u = m / r["bias1"] / ((v / r["bias2"]).sqrt() + r["eps"]) + r["weight_decay"] * p
    if scaled:
        p_norm, u_norm = (p * p).sum().sqrt(), (u * u).sum().sqrt()
        u = ((p_norm > 0) & (u_norm > 0)).where(p_norm / u_norm, 1) * u
    return p - r["lr"] * u, m, v


class TinygradBackend:
    """float32 (default), float64 or float16, on "cpu", or where tinygrad has them "cuda", "metal", "amd" …"""

    name = "tinygrad"
    contract = 1  # the version of refbert's plugin contract
    dtypes: tuple[str, ...] = ("float32", "float64", "float16")  # bfloat16 kernels do not always link
    compiles = True  # every new shape

    def __init__(self, dtype: str | None = None, device: str | None = None) -> None:
        self.dtype, self.device = dtype or self.dtypes[0], device or "cpu"
        self._dtype, self._device = getattr(dtypes, self.dtype), self.device.upper()
        try:
            with _ALONE:
                Device[self._device]
                Tensor.ones(1, dtype=self._dtype, device=self._device).contiguous().realize()
        except Exception as error:  # noqa: BLE001 (each device raises its own)
            raise RuntimeError(
                f'tinygrad cannot compute in {self.dtype} on "{self.device}" here ({type(error).__name__}); '
                'try "cpu", for which it needs clang: apt install clang'
            ) from None
        self.library = f"tinygrad {importlib.metadata.version('tinygrad')}"

    def _run(self, f: Callable[..., Any], *arguments: Any) -> Any:
        """f(*arguments), with its Tensors computed before they are returned."""
        with _ALONE:
            result = f(*arguments)
            tensors = result if isinstance(result, tuple) else (result,)
            for one in tensors:
                one.realize()
            return result

    def _out(self, f: Callable[..., Tensor], *arrays: Tensor) -> Out:
        """A realized Tensor has forgotten its graph: the pullback makes it again, and runs what the gradients need."""

        def pullback(dy: Tensor) -> tuple[Tensor, ...]:
            def gradients() -> tuple[Tensor, ...]:
                # An argument given twice is one node, with one gradient for both: the second is computed as a copy.
                twice = [any(a.uop is b.uop for b in arrays[:i]) for i, a in enumerate(arrays)]
                leaves = [a.clone().realize() if again else a for a, again in zip(arrays, twice, strict=True)]
                return tuple(g.contiguous() for g in f(*leaves).gradient(*leaves, gradient=dy))

            return tuple(self._run(gradients))

        return self._run(f, *arrays), pullback

    def _put(self, x: Host, dtype: Any) -> Tensor:
        """A copy."""
        return self._run(lambda: Tensor(np.array(x, dtype, order="C"), device=self._device))  # type: ignore[no-any-return]

    def asarray(self, x: Host, /) -> Tensor:
        """A Tensor in this backend's dtype on its device."""
        return self._put(x, self.dtype)

    def to_numpy(self, x: Tensor, /) -> Host:
        """A copy."""
        with _ALONE:
            return np.array(x.cast(dtypes.float64 if self.dtype == "float64" else dtypes.float32).numpy())

    # Arrangement

    def add(self, x: Tensor, z: Tensor) -> Out:
        """x + z."""
        _equal_shapes("add", x, z)
        return self._out(Tensor.add, x, z)

    def reshape(self, x: Tensor, shape: tuple[int, ...]) -> Out:
        """The same entries in another shape."""
        return self._out(lambda x: x.reshape(tuple(shape)), x)

    def transpose(self, x: Tensor, axes: tuple[int, ...]) -> Out:
        """Axes permuted."""
        return self._out(lambda x: x.permute(tuple(axes)), x)

    def embedding(self, table: Tensor, ids: Host) -> Out:
        """Rows of the table."""
        _check_range("ids", ids, table.shape[0])
        index = self._put(ids, np.int32)
        return self._out(lambda table: table[index], table)

    def gather(self, x: Tensor, positions: Host) -> Out:
        """Rows of x, flattened."""
        _check_range("positions", positions, math.prod(x.shape[:-1]))
        index = self._put(positions, np.int32)
        return self._out(lambda x: x.reshape(math.prod(x.shape[:-1]), x.shape[-1])[index], x)

    # Arithmetic

    def linear(self, x: Tensor, w: Tensor, b: Tensor) -> Out:
        """x wᵀ + b."""
        return self._out(_linear, x, w, b)

    def layer_norm(self, x: Tensor, gamma: Tensor, beta: Tensor, *, eps: float) -> Out:
        """LayerNorm over the last axis."""
        return self._out(lambda *arrays: _layer_norm(*arrays, eps=eps), x, gamma, beta)

    def gelu(self, x: Tensor, *, form: str) -> Out:
        """GELU, form "erf" or "tanh"."""
        if form not in ("erf", "tanh"):
            raise ValueError(f'gelu has the forms "erf" and "tanh", not "{form}"')
        return self._out(_ACTIVATIONS[f"gelu_{form}"], x)

    def relu(self, x: Tensor) -> Out:
        """max(0, x)."""
        return self._out(_relu, x)

    def tanh(self, x: Tensor) -> Out:
        """tanh x."""
        return self._out(Tensor.tanh, x)

    def softmax(self, x: Tensor) -> Out:
        """Softmax over the last axis."""
        return self._out(_softmax, x)

    def dropout(self, x: Tensor, *, keep: Host, rate: float) -> Out:
        """x keep / (1 − rate)."""
        _equal_shapes("dropout", x, keep)
        kept = self._kept(keep, rate)
        return self._out(lambda x: _dropout(x, kept, rate), x)

    def _kept(self, keep: Host, rate: float) -> Tensor:
        if not 0 <= rate < 1:
            raise ValueError(f"dropout rate must be in [0, 1), got {rate}")
        return self._visible(keep)

    def _visible(self, mask: Host) -> Tensor:
        return self._put(mask, bool)

    def attention_probabilities(
        self, q: Tensor, k: Tensor, *, mask: Host, heads: int, mask_value: float
    ) -> Out:  # fmt: skip
        """softmax(q kᵀ/√D + mask) per head."""
        visible = self._visible(mask)
        return self._out(lambda q, k: _probabilities(q, k, visible=visible, heads=heads, mask_value=mask_value), q, k)

    def attention(
        self, q: Tensor, k: Tensor, v: Tensor, *, mask: Host, heads: int, mask_value: float, keep: Host | None = None,
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
        self, x: Tensor, params: Mapping[str, Tensor], *, mask: Host, heads: int, mask_value: float, activation: str,
        eps: float,
    ) -> Tensor:  # fmt: skip
        """A whole layer for inference, one graph."""
        if activation not in _ACTIVATIONS:
            raise ValueError(f'unknown activation "{activation}"')
        visible = self._visible(mask)
        return self._run(_encoder_layer, x, dict(params), visible, eps, heads, mask_value, activation)

    # Losses

    def cross_entropy(self, logits: Tensor, labels: Host, *, denominator: float) -> Out:
        """Σ over labelled rows / denominator."""
        _check_range("labels", labels[labels != IGNORE], logits.shape[-1])
        target = self._put(labels, np.int32)
        scale = 1 / denominator if denominator else 0.0
        return self._out(lambda z: _cross_entropy(z, labels=target, scale=scale), logits)

    def mean_squared_error(self, x: Tensor, targets: Host, *, denominator: float) -> Out:
        """Σ (x − targets)² / denominator."""
        _equal_shapes("mean_squared_error", x, targets)
        target, scale = self.asarray(targets), 1 / denominator if denominator else 0.0
        return self._out(lambda x: _squared_error(x, target, scale=scale), x)

    # Optimizers

    def update(
        self, rule: str, p: Tensor, g: Tensor, m: Tensor, v: Tensor, *, scale: float, step: int, **rates: float
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
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

    def global_norm(self, gradients: Mapping[str, Tensor]) -> float:
        """The norm over all gradients."""
        return math.sqrt(sum(self._run(lambda g: (g * g).sum(), g).item() for g in gradients.values()))


def _equal_shapes(what: str, x: Tensor, z: Tensor | Host) -> None:
    if tuple(x.shape) != tuple(z.shape):
        raise ValueError(f"{what} needs equal shapes, got {tuple(x.shape)} and {tuple(z.shape)}")


def _check_range(what: str, index: Host, limit: int) -> None:
    """tinygrad takes a row of zeros, or of the other end, for what is out of range."""
    if index.dtype.kind not in "iu" and index.size:
        raise IndexError(f"{what} must be integers, got {index.dtype}")
    if index.size and not (int(index.min()) >= 0 and int(index.max()) < limit):
        raise IndexError(f"{what} must be in [0, {limit}), got {int(index.min())} to {int(index.max())}")
