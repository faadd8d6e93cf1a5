"""TorchBackend: every op through torch.nn.functional, every pullback through autograd."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from refbert_torch.attention import KeyMask, attention, packed_attention, probabilities
from refbert_torch.layer import PrepackedLinears, available, encoder_layer, most_rows
from refbert_torch.objective import LinearOfGelu, Losses, no_pullback, objective
from refbert_torch.optimizers import global_norm, update

if TYPE_CHECKING:
    from refbert.backend import KeepMasks, ModelChoices, TokenBatch

Host = npt.NDArray[Any]
Pullback = Callable[[Tensor], tuple[Tensor, ...]]
Out = tuple[Tensor, Pullback]

_GELU = {"erf": "none", "tanh": "tanh"}  # refbert's word: PyTorch's
_DTYPES = {
    "float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16,
}  # fmt: skip


if hasattr(os, "register_at_fork"):
    # OpenMP's threads do not survive a fork, and the child would wait for them forever.
    os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))


class TorchBackend:
    """float32 (default), float64, bfloat16 or float16, on "cpu" or "cuda[:n]".

    Threads may share one. A forked child computes on one thread of the CPU; CUDA does not work there at all.
    """

    name = "torch"
    contract = 1
    dtypes: tuple[str, ...] = tuple(_DTYPES)
    threads = "OMP_NUM_THREADS"

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
        pack = available(self._device, self._dtype)
        self._linear = PrepackedLinears(pack=pack, most=most_rows())

    def _op(self, f: Callable[..., Tensor], *arrays: Tensor) -> Out:
        """(f(*arrays), pullback through autograd): one cotangent per array."""
        leaves = [a.detach().requires_grad_() for a in arrays]
        with torch.enable_grad():
            y = f(*leaves)

        def pullback(dy: Tensor) -> tuple[Tensor, ...]:
            return torch.autograd.grad(y, leaves, dy, retain_graph=True, materialize_grads=True)

        return y.detach(), pullback

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
        return self._op(torch.add, x, z)

    def reshape(self, x: Tensor, shape: tuple[int, ...]) -> Out:
        """The same entries in another shape."""
        return self._op(lambda x: x.reshape(shape).clone(), x)

    def transpose(self, x: Tensor, axes: tuple[int, ...]) -> Out:
        """Axes permuted."""
        return self._op(lambda x: x.permute(axes).clone(), x)

    def embedding(self, table: Tensor, ids: Host) -> Out:
        """Rows of the table."""
        _check_range("ids", ids, table.shape[0])
        return self._op(self._lookup(ids), table)

    def gather(self, x: Tensor, positions: Host) -> Out:
        """Rows of x, flattened."""
        _check_range("positions", positions, math.prod(x.shape[:-1]))
        look_up = self._lookup(positions)
        return self._op(lambda x: look_up(x.reshape(-1, x.shape[-1])), x)

    def _lookup(self, index: Host) -> Callable[[Tensor], Tensor]:
        """Rows of a table, as a function of it.

        PyTorch adds up the gradients of a row that repeats in the table's dtype: in bfloat16, 1000 ones are 256. A
        narrow table's rows are therefore taken once each, and repeated in float32.
        """
        if self._dtype not in (torch.float16, torch.bfloat16):
            places = self._host(index.astype(np.int64))
            return lambda table: functional.embedding(places, table)
        rows, each = np.unique(index, return_inverse=True)
        once, again = self._host(rows.astype(np.int64)), self._host(each.reshape(index.shape))
        return lambda table: functional.embedding(again, table.index_select(0, once).float()).to(table.dtype)

    # Arithmetic

    def linear(self, x: Tensor, w: Tensor, b: Tensor) -> Out:
        """x wᵀ + b."""
        return self._op(functional.linear, x, w, b)

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

        return self._op(norm, x, gamma, beta)

    def gelu(self, x: Tensor, *, form: str) -> Out:
        """GELU, form "erf" or "tanh"."""
        if form not in _GELU:
            raise ValueError(f'gelu has the forms {tuple(_GELU)}, not "{form}"')
        return self._op(lambda x: functional.gelu(x, approximate=_GELU[form]), x)

    def relu(self, x: Tensor) -> Out:
        """max(0, x)."""
        return self._op(functional.relu, x)

    def tanh(self, x: Tensor) -> Out:
        """tanh x."""
        return self._op(torch.tanh, x)

    def softmax(self, x: Tensor) -> Out:
        """Softmax over the last axis."""
        return self._op(lambda x: functional.softmax(x, dim=-1), x)

    def dropout(self, x: Tensor, *, keep: Host, rate: float) -> Out:
        """x keep / (1 − rate)."""
        if not 0 <= rate < 1:
            raise ValueError(f"dropout rate must be in [0, 1), got {rate}")
        if tuple(keep.shape) != tuple(x.shape):
            raise ValueError(f"the keep mask must have the shape of x, {tuple(x.shape)}, got {keep.shape}")
        kept = self._host(keep.astype(bool))
        return self._op(lambda x: x * kept / (1 - rate), x)

    # Attention

    def attention_probabilities(self, q: Tensor, k: Tensor, *, mask: Host, heads: int, mask_value: float) -> Out:
        """softmax(q kᵀ/√D + mask) per head."""
        return self._op(probabilities(self._mask(mask, mask_value), heads), q, k)

    def attention(
        self, q: Tensor, k: Tensor, v: Tensor, *, mask: Host, heads: int, mask_value: float, keep: Host | None = None,
        rate: float = 0.0,
    ) -> Out:  # fmt: skip
        """Multi-head attention: PyTorch's fused kernel where it serves, else its parts."""
        due = (len(mask), heads, mask.shape[1], mask.shape[1])
        if keep is not None and keep.shape != due:
            raise ValueError(f"the keep mask must have the shape {due}, got {keep.shape}")
        kept = None if keep is None else self._host(keep.astype(bool))
        return self._op(attention(self._mask(mask, mask_value), heads, kept, rate), q, k, v)

    def _mask(self, mask: Host, mask_value: float) -> KeyMask:
        return KeyMask(mask, mask_value, self._dtype, self._device)

    @torch.no_grad()
    def encoder_layer(
        self, x: Tensor, params: Mapping[str, Tensor], *, mask: Host, heads: int, mask_value: float, activation: str,
        eps: float,
    ) -> Tensor:  # fmt: skip
        """A whole layer for inference; see refbert_torch.layer."""
        attend = attention(self._mask(mask, mask_value), heads)
        return encoder_layer(x, params, self._linear, attend, activation=activation, eps=eps)

    @torch.no_grad()
    def packed_encoder_layer(
        self, x: Tensor, params: Mapping[str, Tensor], *, lengths: Host, heads: int, activation: str, eps: float
    ) -> Tensor:
        """The same on sequences end to end: only attention goes by sequence."""
        attend = partial(packed_attention, lengths=[int(length) for length in lengths], heads=heads)
        return encoder_layer(x, params, self._linear, attend, activation=activation, eps=eps)

    def objective(
        self, params: Mapping[str, Tensor], batch: TokenBatch, labels: Mapping[str, Host], heads: Collection[str],
        choices: ModelChoices, *, draws: KeepMasks | None = None, denominators: Mapping[str, float] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor], Callable[[Tensor], dict[str, Tensor]]]:  # fmt: skip
        """The spec's objective as one graph; see refbert_torch.objective."""
        from refbert.spec import bert  # here: a backend is loaded without refbert's model too

        composed: Callable[..., Losses] = bert.objective

        def compute(p: Mapping[str, Tensor]) -> Losses:
            ops = TracedBackend(self.dtype, self.device)
            return composed(ops, p, batch, labels, heads, choices, draws=draws, denominators=denominators)

        return objective(compute, params)

    update = staticmethod(update)
    global_norm = staticmethod(global_norm)

    # Losses

    def cross_entropy(self, logits: Tensor, labels: Host, *, denominator: float) -> Out:
        """Σ over labelled rows / denominator."""
        _check_range("labels", labels[labels != -100], logits.shape[-1])
        target = self._host(labels.reshape(-1).astype(np.int64))
        scale = 1 / denominator if denominator else 0.0

        def loss(logits: Tensor) -> Tensor:
            rows = logits.reshape(-1, logits.shape[-1])
            return functional.cross_entropy(rows, target, ignore_index=-100, reduction="sum") * scale

        return self._op(loss, logits)

    def mean_squared_error(self, x: Tensor, targets: Host, *, denominator: float) -> Out:
        """Σ (x − targets)² / denominator."""
        if tuple(x.shape) != tuple(targets.shape):
            raise ValueError(f"mean_squared_error needs equal shapes, got {tuple(x.shape)} and {targets.shape}")
        target = self.asarray(targets)
        scale = 1 / denominator if denominator else 0.0
        return self._op(lambda x: functional.mse_loss(x, target, reduction="sum") * scale, x)


class TracedBackend(TorchBackend):
    """The same ops inside a larger graph: what they return stays attached to it, and has no pullback of its own.

    One for each graph: it remembers an op for the next one.
    """

    _last_gelu: tuple[Tensor, Tensor, str] | None = None  # what the last GELU returned, its argument, its form

    def _op(self, f: Callable[..., Tensor], *arrays: Tensor) -> Out:
        return f(*arrays), no_pullback

    def gelu(self, x: Tensor, *, form: str) -> Out:
        """GELU, of which a product that follows at once keeps the argument alone; see LinearOfGelu."""
        y, pullback = super().gelu(x, form=form)
        self._last_gelu = (y, x.detach(), _GELU[form])
        return y, pullback

    def linear(self, x: Tensor, w: Tensor, b: Tensor) -> Out:
        """x wᵀ + b."""
        last, self._last_gelu = self._last_gelu, None
        if last is not None and last[0] is x:
            y: Tensor = LinearOfGelu.apply(x, last[1], last[2], w, b)  # type: ignore[no-untyped-call]
            return y, no_pullback
        return super().linear(x, w, b)

    def recomputed(self, block: Callable[[Tensor], tuple[Tensor, Any]], x: Tensor) -> tuple[Tensor, Any]:
        """A block of which the graph keeps the input alone. Dropout's masks are arguments: no generator is set back."""
        y: Tensor = checkpoint(lambda x: block(x)[0], x, use_reentrant=False, preserve_rng_state=False)
        return y, no_pullback


def _check_range(what: str, index: Host, limit: int) -> None:
    if index.dtype.kind not in "iu" and index.size:
        raise IndexError(f"{what} must be integers, got {index.dtype}")
    if index.size and not (int(index.min()) >= 0 and int(index.max()) < limit):
        raise IndexError(f"{what} must be in [0, {limit}), got {int(index.min())} to {int(index.max())}")
