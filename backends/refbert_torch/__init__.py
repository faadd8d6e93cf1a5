"""The backend "torch": PyTorch's kernels, and PyTorch's autograd for every gradient.

Nothing here comes from refbert's derivations: the forward calls torch.nn.functional, and a pullback asks autograd. That
makes it an independent witness of refbert.ops as well as a fast backend.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

try:
    import torch
    from torch.nn import functional
    from torch.optim.adamw import adamw
except ImportError as error:
    raise ImportError(f'PyTorch is not installed ({error}); install it with: pip install "refbert[torch]"') from error

Tensor = torch.Tensor
Host = npt.NDArray[Any]
Pullback = Callable[[Tensor], tuple[Tensor, ...]]
Out = tuple[Tensor, Pullback]

_GELU = {"erf": "none", "tanh": "tanh"}  # refbert's word: PyTorch's
_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu_erf": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "relu": functional.relu,
    "tanh": torch.tanh,
    "linear": lambda x: x,
}
_DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def differentiable(f: Callable[..., Tensor], *arrays: Tensor) -> Out:
    """(f(*arrays), pullback through autograd): one cotangent per array."""
    leaves = [a.detach().requires_grad_() for a in arrays]
    with torch.enable_grad():
        y = f(*leaves)

    def pullback(dy: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(y, leaves, dy, retain_graph=True, materialize_grads=True)

    return y.detach(), pullback


class TorchBackend:
    """float32 (default), float64, bfloat16 or float16, on "cpu" or "cuda[:n]"."""

    name = "torch"
    dtypes: tuple[str, ...] = tuple(_DTYPES)

    def __init__(self, dtype: str | None = None, device: str | None = None) -> None:
        self.dtype = dtype or self.dtypes[0]
        self._dtype = _DTYPES[self.dtype]
        try:
            self._device = torch.device(device or "cpu")
        except RuntimeError:
            raise RuntimeError(f'PyTorch knows no device "{device}"; use "cpu" or "cuda"') from None
        self.device = str(self._device)
        self.library = f"PyTorch {torch.__version__}"
        if self._device.type == "cuda":
            if not torch.cuda.is_available():
                raise RuntimeError("PyTorch sees no CUDA device; use --device cpu, or install a CUDA build of PyTorch")
            index = self._device.index or 0
            if index >= torch.cuda.device_count():
                raise RuntimeError(f"there is no CUDA device {index}: PyTorch sees {torch.cuda.device_count()}")
            self.library += f", {torch.cuda.get_device_name(index)}"
        elif self._device.type != "cpu":
            raise RuntimeError(f'the torch backend runs on "cpu" and "cuda", not on "{device}"')

    # Arrays

    def asarray(self, x: Host, /) -> Tensor:
        """A tensor in this backend's dtype on its device; the same memory where nothing has to change."""
        if x.dtype not in (np.float64, np.float32, np.float16):
            x = x.astype(np.float64)
        if not x.flags.writeable or any(stride < 0 for stride in x.strides) or not x.dtype.isnative:
            x = np.array(x, dtype=x.dtype.newbyteorder("="))  # what torch.from_numpy refuses or warns of
        return torch.from_numpy(x).to(self._device, self._dtype)

    def to_numpy(self, x: Tensor, /) -> Host:
        """float64 for float64, float32 for all others."""
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        return np.asarray(x.detach().to("cpu", wide).numpy())

    def cast(self, x: Tensor, /) -> Tensor:
        """A tensor of another dtype or device in this backend's own, in new memory."""
        return x.detach().to(self._device, self._dtype, copy=True)

    def _host(self, x: Host) -> Tensor:
        return torch.from_numpy(np.array(x)).to(self._device)

    # Arrangement

    def add(self, x: Tensor, z: Tensor) -> Out:
        """x + z."""
        if x.shape != z.shape:
            raise ValueError(f"add needs equal shapes, got {tuple(x.shape)} and {tuple(z.shape)}")
        return x + z, lambda dy: (dy.clone(), dy.clone())

    def reshape(self, x: Tensor, shape: tuple[int, ...]) -> Out:
        """The same entries in another shape."""
        return differentiable(lambda x: x.reshape(shape).clone(), x)

    def transpose(self, x: Tensor, axes: tuple[int, ...]) -> Out:
        """Axes permuted."""
        return differentiable(lambda x: x.permute(axes).clone(), x)

    def embedding(self, table: Tensor, ids: Host) -> Out:
        """Rows of the table."""
        _check_range("ids", ids, table.shape[0])
        index = self._host(ids.astype(np.int64))
        return differentiable(lambda table: functional.embedding(index, table), table)

    def gather(self, x: Tensor, positions: Host) -> Out:
        """Rows of x, flattened."""
        _check_range("positions", positions, math.prod(x.shape[:-1]))
        index = self._host(positions.astype(np.int64))
        return differentiable(lambda x: x.reshape(-1, x.shape[-1]).index_select(0, index), x)

    # Arithmetic

    def linear(self, x: Tensor, w: Tensor, b: Tensor) -> Out:
        """x wᵀ + b."""
        return differentiable(functional.linear, x, w, b)

    def layer_norm(self, x: Tensor, gamma: Tensor, beta: Tensor, *, eps: float) -> Out:
        """LayerNorm over the last axis.

        In float16 and bfloat16 on the CPU, PyTorch's kernel adds up dγ and dβ in the narrow type: over six rows they
        are two ULPs off, over hundreds they stop growing. There the whole op runs in float32.
        """
        narrow = x.device.type == "cpu" and x.dtype in (torch.float16, torch.bfloat16)

        def norm(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
            if narrow:
                y = functional.layer_norm(x.float(), gamma.shape, gamma.float(), beta.float(), eps)
                return y.to(x.dtype)
            return functional.layer_norm(x, gamma.shape, gamma, beta, eps)

        return differentiable(norm, x, gamma, beta)

    def gelu(self, x: Tensor, *, form: str) -> Out:
        """GELU, form "erf" or "tanh"."""
        if form not in _GELU:
            raise ValueError(f'gelu has the forms {tuple(_GELU)}, not "{form}"')
        return differentiable(lambda x: functional.gelu(x, approximate=_GELU[form]), x)

    def relu(self, x: Tensor) -> Out:
        """max(0, x)."""
        return differentiable(functional.relu, x)

    def tanh(self, x: Tensor) -> Out:
        """tanh x."""
        return differentiable(torch.tanh, x)

    def softmax(self, x: Tensor) -> Out:
        """Softmax over the last axis."""
        return differentiable(lambda x: functional.softmax(x, dim=-1), x)

    def dropout(self, x: Tensor, *, keep: Host, rate: float) -> Out:
        """x keep / (1 − rate)."""
        if not 0 <= rate < 1:
            raise ValueError(f"dropout rate must be in [0, 1), got {rate}")
        if tuple(keep.shape) != tuple(x.shape):
            raise ValueError(f"the keep mask must have the shape of x, {tuple(x.shape)}, got {keep.shape}")
        kept = self._host(keep.astype(bool))
        return differentiable(lambda x: x * kept / (1 - rate), x)

    # Attention

    def attention_probabilities(self, q: Tensor, k: Tensor, *, mask: Host, heads: int, mask_value: float) -> Out:
        """softmax(q kᵀ/√D + mask) per head."""
        masked = self._masking(mask, mask_value)

        def probabilities(q: Tensor, k: Tensor) -> Tensor:
            Q, K = _split_heads(q, heads), _split_heads(k, heads)
            scores = Q @ K.transpose(-1, -2) / math.sqrt(Q.shape[-1])
            return functional.softmax(masked(scores), dim=-1)

        return differentiable(probabilities, q, k)

    def attention(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        mask: Host,
        heads: int,
        mask_value: float,
        keep: Host | None = None,
        rate: float = 0.0,
    ) -> Out:
        """Multi-head attention: PyTorch's fused kernel where it serves, else its parts."""
        attend = self._attention(mask, heads, mask_value, keep, rate)
        return differentiable(attend, q, k, v)

    def _attention(
        self, mask: Host, heads: int, mask_value: float, keep: Host | None = None, rate: float = 0.0
    ) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """Attention as a function of q, k, v.

        The fused kernel takes no explicit dropout mask, and its backward rebuilds the probabilities from a stored
        log-sum-exp, in which a row without any visible key has lost its scores: gradients there would be wrong.
        """
        fused = keep is None and bool(np.asarray(mask).any(axis=-1).all())
        bias = self._bias(mask, mask_value) if fused else None
        masked = self._masking(mask, mask_value)
        due = (len(mask), heads, mask.shape[1], mask.shape[1])
        if keep is not None and keep.shape != due:
            raise ValueError(f"the keep mask must have the shape {due}, got {keep.shape}")
        kept = None if keep is None else self._host(keep.astype(bool))

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            Q, K, V = (_split_heads(x, heads) for x in (q, k, v))
            if fused:
                context = functional.scaled_dot_product_attention(Q, K, V, attn_mask=bias)
            else:
                scores = Q @ K.transpose(-1, -2) / math.sqrt(Q.shape[-1])
                p = functional.softmax(masked(scores), dim=-1)
                context = (p if kept is None else p * kept / (1 - rate)) @ V
            return context.transpose(1, 2).reshape(q.shape)

        return attend

    def _bias(self, mask: Host, mask_value: float) -> Tensor | None:
        """[B, 1, 1, S], added to the scores by the fused kernel; None where every key is visible."""
        visible = np.asarray(mask).astype(bool)
        if visible.all():
            return None
        bias = torch.zeros(visible.shape, dtype=self._dtype).masked_fill_(torch.from_numpy(~visible), mask_value)
        return bias[:, None, None, :].to(self._device)

    def _masking(self, mask: Host, mask_value: float) -> Callable[[Tensor], Tensor]:
        """What happens to scores [B, A, S, S] before the softmax."""
        visible = self._host(np.asarray(mask).astype(bool))[:, None, None, :]  # [B, 1, 1, S]
        if mask_value != -math.inf:
            return lambda scores: torch.where(visible, scores, scores + mask_value)
        some = visible.any(dim=-1, keepdim=True)  # [B, 1, 1, 1]

        def masked(scores: Tensor) -> Tensor:
            # A row that sees nothing: all scores 0, but with the gradient that adding a constant would leave them.
            return torch.where(some, scores.masked_fill(~visible, -math.inf), scores - scores.detach())

        return masked

    @torch.no_grad()
    def encoder_layer(
        self,
        x: Tensor,
        params: Mapping[str, Tensor],
        *,
        mask: Host,
        heads: int,
        mask_value: float,
        activation: str,
        eps: float,
    ) -> Tensor:
        """A whole layer for inference: the same kernels without autograd's bookkeeping."""
        if activation not in _ACTIVATIONS:
            raise ValueError(f'unknown activation "{activation}"')

        def linear(x: Tensor, name: str) -> Tensor:
            return functional.linear(x, params[f"{name}.weight"], params[f"{name}.bias"])

        def norm(x: Tensor, name: str) -> Tensor:
            gamma, beta = params[f"{name}.LayerNorm.weight"], params[f"{name}.LayerNorm.bias"]
            return functional.layer_norm(x, gamma.shape, gamma, beta, eps)

        q, k, v = (linear(x, f"attention.self.{name}") for name in ("query", "key", "value"))
        context = self._attention(mask, heads, mask_value)(q, k, v)
        attended = norm(x + linear(context, "attention.output.dense"), "attention.output")
        active = _ACTIVATIONS[activation](linear(attended, "intermediate.dense"))
        return norm(attended + linear(active, "output.dense"), "output")

    # Losses

    def cross_entropy(self, logits: Tensor, labels: Host, *, denominator: float) -> Out:
        """Σ over labelled rows / denominator."""
        _check_range("labels", labels[labels != -100], logits.shape[-1])
        target = self._host(labels.reshape(-1).astype(np.int64))
        scale = 1 / denominator if denominator else 0.0

        def loss(logits: Tensor) -> Tensor:
            rows = logits.reshape(-1, logits.shape[-1])
            return functional.cross_entropy(rows, target, ignore_index=-100, reduction="sum") * scale

        return differentiable(loss, logits)

    def mean_squared_error(self, x: Tensor, targets: Host, *, denominator: float) -> Out:
        """Σ (x − targets)² / denominator."""
        if tuple(x.shape) != tuple(targets.shape):
            raise ValueError(f"mean_squared_error needs equal shapes, got {tuple(x.shape)} and {targets.shape}")
        target = self.asarray(targets)
        scale = 1 / denominator if denominator else 0.0
        return differentiable(lambda x: functional.mse_loss(x, target, reduction="sum") * scale, x)

    # Optimizers

    def bert_adam(
        self, p: Tensor, g: Tensor, m: Tensor, v: Tensor, *, lr: float, beta1: float, beta2: float, eps: float,
        weight_decay: float,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Google's BERT Adam."""
        m = torch.lerp(g, m, beta1)
        v = v.mul(beta2).addcmul_(g, g, value=1 - beta2)
        update = m.div(v.sqrt().add_(eps)).add_(p, alpha=weight_decay)
        return p.sub(update, alpha=lr), m, v

    def adamw(
        self, p: Tensor, g: Tensor, m: Tensor, v: Tensor, *, lr: float, beta1: float, beta2: float, eps: float,
        weight_decay: float, step: int,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """PyTorch's own AdamW kernel."""
        if step < 1:
            raise ValueError(f"step counts from 1, got {step}")
        p, m, v = p.clone(), m.clone(), v.clone()
        adamw(  # the function behind torch.optim.AdamW: updates its arguments in place
            [p], [g], [m], [v], [], [torch.tensor(float(step - 1))],
            amsgrad=False, beta1=beta1, beta2=beta2, lr=lr, weight_decay=weight_decay, eps=eps, maximize=False,
        )  # fmt: skip
        return p, m, v

    def lamb(
        self, p: Tensor, g: Tensor, m: Tensor, v: Tensor, *, lr: float, beta1: float, beta2: float, eps: float,
        weight_decay: float, step: int,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """LAMB."""
        if step < 1:
            raise ValueError(f"step counts from 1, got {step}")
        m = torch.lerp(g, m, beta1)
        v = v.mul(beta2).addcmul_(g, g, value=1 - beta2)
        u = m.div(1 - beta1**step).div_(v.div(1 - beta2**step).sqrt_().add_(eps)).add_(p, alpha=weight_decay)
        p_norm, u_norm = torch.linalg.vector_norm(p), torch.linalg.vector_norm(u)
        ratio = torch.where((p_norm > 0) & (u_norm > 0), p_norm / u_norm, torch.ones_like(p_norm))
        return p - lr * ratio * u, m, v

    def clip_by_global_norm(
        self, gradients: Mapping[str, Tensor], *, max_norm: float, epsilon: float = 0.0
    ) -> tuple[dict[str, Tensor], float]:
        """(clipped gradients, the norm before)."""
        norms = [torch.linalg.vector_norm(g) for g in gradients.values()]
        norm = float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0
        scale = max_norm / (norm + epsilon) if norm + epsilon > max_norm else 1.0
        if not math.isfinite(norm):
            scale = math.nan
        return {name: g * scale for name, g in gradients.items()}, norm


def _split_heads(x: Tensor, heads: int) -> Tensor:
    B, S, H = x.shape
    if H % heads:
        raise ValueError(f"{H} features do not divide into {heads} heads")
    return x.reshape(B, S, heads, H // heads).transpose(1, 2)


def _check_range(what: str, index: Host, limit: int) -> None:
    if index.dtype.kind not in "iu" and index.size:
        raise IndexError(f"{what} must be integers, got {index.dtype}")
    if index.size and not (int(index.min()) >= 0 and int(index.max()) < limit):
        raise IndexError(f"{what} must be in [0, {limit}), got {int(index.min())} to {int(index.max())}")
