"""Attention as functions of q, k, v: its parts where a mask or dropout needs them, else PyTorch's fused kernel."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

Host = npt.NDArray[Any]


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B, S, H] -> [B, A, S, H/A]; raises ValueError where H does not divide."""
    B, S, H = x.shape
    if H % heads:
        raise ValueError(f"{H} features do not divide into {heads} heads")
    return x.reshape(B, S, heads, H // heads).transpose(1, 2)


class KeyMask:
    """Which keys are visible, [B, S], on the device, in the forms that scores need.

    A finite ``value`` is added to the scores of hidden keys; −∞ removes them, and a row that then sees nothing spreads
    evenly over all keys (refbert.ops.attention).
    """

    def __init__(self, mask: Host, value: float, dtype: torch.dtype, device: torch.device) -> None:
        seen = np.array(mask).astype(bool)
        self.whole = bool(seen.all())  # nothing is hidden
        self.seen_by_all = bool(seen.any(axis=-1).all())
        # The fused kernel wants the bias in the arrays' dtype; −10⁹ is none of float16's numbers.
        self.fits = value == -math.inf or abs(value) <= torch.finfo(dtype).max
        self._value, self._dtype = value, dtype
        self._visible = torch.from_numpy(seen).to(device)[:, None, None, :]  # [B, 1, 1, S]

    def bias(self) -> Tensor | None:
        """[B, 1, 1, S], added to the scores by the fused kernel; None where every key is visible."""
        if self.whole:
            return None
        zeros = torch.zeros(self._visible.shape, dtype=self._dtype, device=self._visible.device)
        return zeros.masked_fill_(~self._visible, self._value)

    def apply(self, scores: Tensor) -> Tensor:
        """What happens to scores [B, A, S, S] before the softmax."""
        visible = self._visible
        if self._value != -math.inf:
            return torch.where(visible, scores, scores + self._value)
        some = visible.any(dim=-1, keepdim=True)  # [B, 1, 1, 1]
        # A row that sees nothing: all scores 0, but with the gradient that adding a constant would leave them.
        return torch.where(some, scores.masked_fill(~visible, -math.inf), scores - scores.detach())


def probabilities(mask: KeyMask, heads: int) -> Callable[[Tensor, Tensor], Tensor]:
    """softmax(q kᵀ/√D + mask) per head: [B, S, H] twice -> [B, A, S, S].

    Scores of float16 are in float32, as in the fused kernel: else they would be infinite from 65520 on here, and not
    there. bfloat16 has float32's range.
    """

    def compute(q: Tensor, k: Tensor) -> Tensor:
        Q, K = split_heads(q, heads), split_heads(k, heads)
        if q.dtype is torch.float16:
            Q, K = Q.float(), K.float()
        scores = Q @ K.transpose(-1, -2) / math.sqrt(Q.shape[-1])
        return functional.softmax(mask.apply(scores), dim=-1).to(q.dtype)

    return compute


def packed_attention(q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], heads: int) -> Tensor:
    """[N, H] three times, sequences end to end -> [N, H]; neighbours of one length go together."""
    N, H = q.shape
    out = torch.empty_like(q)
    start = 0
    for length, group in itertools.groupby(lengths):
        shape = (len(list(group)), length, H)
        rows = slice(start, start + shape[0] * length)
        Q, K, V = (split_heads(x[rows].reshape(shape), heads) for x in (q, k, v))
        context = functional.scaled_dot_product_attention(Q, K, V)
        out[rows] = context.transpose(1, 2).reshape(-1, H)
        start = rows.stop
    if start != N:
        raise ValueError(f"the lengths add up to {start}, but x has {N} rows")
    return out


def attention(
    mask: KeyMask, heads: int, keep: Tensor | None = None, rate: float = 0.0
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """[B, S, H] three times -> [B, S, H]; ``keep`` [B, A, S, S] bool is dropout's mask of the probabilities.

    The fused kernel takes no explicit dropout mask, and its backward rebuilds the probabilities from a stored
    log-sum-exp, in which a row without any visible key has lost its scores: gradients there would be wrong. In bfloat16
    on a CPU that backward is slow: with the forward it takes 61 ms of 64 × 64 tokens, A12 H384, where products and
    softmax take 10, and 114 against 77 of 8 × 512 (two cores of a Zen 5, PyTorch 2.13).
    """
    fused = keep is None and mask.seen_by_all and mask.fits
    bias = mask.bias() if fused else None
    weigh = probabilities(mask, heads)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        V = split_heads(v, heads)
        slow = q.requires_grad and q.dtype is torch.bfloat16 and q.device.type == "cpu"
        if fused and not slow:
            context = functional.scaled_dot_product_attention(
                split_heads(q, heads), split_heads(k, heads), V, attn_mask=bias
            )
        else:
            p = weigh(q, k)
            context = (p if keep is None else p * keep / (1 - rate)) @ V
        return context.transpose(1, 2).reshape(q.shape)

    return attend
