"""A museum of published bugs: real faults of real libraries, each rebuilt as a mutant from its public description.

A row: the project, the thread where the fault is described (OWNER/REPOSITORY/issues or pull/NUMBER), what was wrong, in
our words, the op, the fault's short name, and how: the reference's text and the bug's text, a method or its hooks (as
`mutants` takes them), or several methods by name. A seventh field tells what was added where the suite had not found it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from refbert import ops
from refbert.ops.attention import split_heads
from refbert_conformance.mutants.conduct import as_it_lies
from refbert_conformance.mutants.mutant import Correct, Mutant, around, count, in_buffer, mutant
from refbert_conformance.mutants.narrow import CorrectHalf
from refbert_conformance.mutants.operations import substituted
from refbert_conformance.mutants.sizes import rows


@dataclass(frozen=True)
class Exhibit:
    """A published fault and the mutant that has it. added: what the suite lacked to find it ("": nothing)."""

    project: str
    thread: str
    wrong: str
    mutant: Mutant
    added: str = ""

    @property
    def link(self) -> str:
        """Where it is described."""
        return f"https://github.com/{self.thread}"


def _half(x: Any) -> Any:
    """In float16's numbers."""
    with np.errstate(over="ignore"):
        return np.asarray(x, np.float16).astype(np.float32)


def _flat(x: Any) -> Any:
    return x.reshape(-1, x.shape[-1])


# Arrays and where they lie


def _pooled(self: Any, x: Any) -> Any:
    """Behind eight numbers of others in a pool."""
    a = np.asarray(x, self.dtype)
    pool = np.full(a.size + 8, 7, a.dtype)
    pool[8:] = a.reshape(-1)
    return pool[8:].reshape(a.shape)


def _from_start(self: Any, x: Any, **_: Any) -> Any:
    pool = x.base
    return {} if pool is None or pool.size <= x.size else {"x": pool.reshape(-1)[: x.size].reshape(x.shape)}


def _pitched(self: Any, x: Any) -> Any:
    """Rows two numbers apart."""
    a = np.asarray(x, self.dtype)
    if a.ndim < 2:
        return a
    wide = np.ones((*a.shape[:-1], a.shape[-1] + 2), a.dtype)
    wide[..., :-2] = a
    return wide[..., :-2]


def _innermost(self: Any, y: Any, x: Any, gamma: Any, beta: Any, eps: float) -> Any:
    """Over the axis whose entries lie side by side."""
    if x.ndim < 2 or x.flags.c_contiguous or not x.size:
        return y
    axis = int(np.argmin([s if n > 1 else math.inf for s, n in zip(x.strides, x.shape, strict=True)]))
    return gamma * (x - x.mean(axis, keepdims=True)) / np.sqrt(x.var(axis, keepdims=True) + eps) + beta


def _permuted_wide(self: Any, q: Any, heads: int, **_: Any) -> Any:
    wide = q.shape[-1] // heads >= 64 if q.shape[-1] % heads == 0 else False
    return {"q": as_it_lies(q)} if wide and not q.flags.c_contiguous else {}


def _torn_dv(self: Any, back: Any, dy: Any, v: Any, heads: int, **_: Any) -> Any:
    dq, dk, dv = back(dy)
    if v.shape[-1] == 256 * heads and not v.flags.c_contiguous:
        dv = np.where((np.arange(dv.shape[1]) % 4 == 0)[:, None], dv, np.nan).astype(dv.dtype)
    return dq, dk, dv


# LayerNorm


def _in_one_place(self: Any, x: Any, gamma: Any, beta: Any, *, eps: float) -> Any:
    """γ widened into a member of the operator, which its threads share."""
    y, _ = ops.layer_norm(x, in_buffer(self, gamma), beta, eps=eps)
    return y, ops.layer_norm(x, gamma, beta, eps=eps)[1]


def _raced(self: Any, y: Any, x: Any, gamma: Any, beta: Any, eps: float) -> Any:
    if count(self) % 101 or not y.size:
        return y
    spread = np.sqrt(x.var(axis=-1, keepdims=True) + eps)
    return gamma * (x - spread) / spread + beta


def _overwritten(every: int) -> Callable[..., Any]:
    """dβ added up from what has been written over the cotangent."""

    def pullback(self: Any, back: Any, dy: Any, **_: Any) -> Any:
        dx, dgamma, dbeta = back(dy)
        return dx, dgamma, dbeta if count(self) % every else _flat(dx).sum(axis=0)

    return pullback


def _two_axes(self: Any, back: Any, dy: Any, x: Any, gamma: Any, beta: Any, eps: float) -> Any:
    """The input as [first axis, everything else]."""
    if x.ndim < 3:
        return back(dy)
    d, rest = x - x.mean(axis=-1, keepdims=True), tuple(range(1, x.ndim))
    r = 1 / np.sqrt((d * d).mean(axis=-1, keepdims=True) + eps)
    q, xhat = dy * gamma, d * r
    dx = r * (q - q.mean(axis=rest, keepdims=True) - xhat * (q * xhat).mean(axis=rest, keepdims=True))
    first = (slice(None), *(0 for _ in rest[:-1])) if x.size else ()
    return dx, *((t[first].sum(axis=0) if x.size else 0 * gamma) for t in (dy * xhat, dy))


def _half_of_lanes(self: Any, back: Any, dy: Any, **_: Any) -> Any:
    dx, *sums = back(dy)
    return dx, *(np.where(np.arange(len(d)) % 64 < 32, d, 0 * d) for d in sums)


def _whole_blocks(self: Any, back: Any, dy: Any, x: Any, **_: Any) -> Any:
    dx, *sums = back(dy)
    if x.shape[-1] < 64 and rows(x) >= 1024:
        short = np.array(dy)
        _flat(short)[rows(x) // 8 * 8 :] = 0
        sums = list(back(short)[1:])
    return dx, *sums


def _unaligned(self: Any, y: Any, x: Any, **_: Any) -> Any:
    if rows(x) <= 2**16 or x.shape[-1] % 4 == 0:
        return y
    y = np.array(y)
    _flat(y)[2**16 :] = 0
    return y


def _narrow_norm(moments: Callable[..., tuple[Any, Any]], back_too: Callable[[Any], Any] = lambda x: x) -> Any:
    """LayerNorm in float32 on float16, with moments(x, eps) for its mean and its 1/σ; ``back_too`` rounds them for the
    pullback."""

    def layer_norm(self: Any, x: Any, gamma: Any, beta: Any, *, eps: float) -> Any:
        wide, g, b = (np.asarray(a, np.float32) for a in (x, gamma, beta))
        with np.errstate(all="ignore"):
            mu, r = moments(wide, eps)
            y = g * (wide - mu) * r + b
            mu, r = back_too(mu), back_too(r)
            xhat = (wide - mu) * r

        def pullback(dy: Any) -> Any:
            dy = np.asarray(dy, np.float32)
            with np.errstate(all="ignore"):
                q = dy * g
                dx = r * (q - q.mean(axis=-1, keepdims=True) - xhat * (q * xhat).mean(axis=-1, keepdims=True))
                return tuple(np.asarray(d, np.float16) for d in (dx, _flat(dy * xhat).sum(0), _flat(dy).sum(0)))

        return np.asarray(y, np.float16), pullback

    return layer_norm


def _mean(x: Any) -> Any:
    return x.mean(axis=-1, keepdims=True)


def _exact_moments(x: Any, eps: float) -> tuple[Any, Any]:
    mu = _mean(x)
    return mu, 1 / np.sqrt(_mean((x - mu) ** 2) + np.float32(eps))


def _lost_eps(x: Any, eps: float) -> tuple[Any, Any]:
    mu = _mean(x)
    return mu, 1 / np.sqrt(_half(_mean((x - mu) ** 2) + eps))


def _narrow_squares(x: Any, eps: float) -> tuple[Any, Any]:
    mu = _mean(x)
    return mu, 1 / np.sqrt(_mean(_half((x - mu) ** 2)) + np.float32(eps))


def _narrow_total(x: Any, eps: float) -> tuple[Any, Any]:
    mu = _half(x.sum(axis=-1, keepdims=True)) / np.float32(max(x.shape[-1], 1))
    return mu, 1 / np.sqrt(_mean((x - mu) ** 2) + np.float32(eps))


# softmax and attention


def _stale_row(self: Any, y: Any, x: Any) -> Any:
    if count(self) % 53 or rows(y) < 2:
        return y
    y = np.array(y)
    _flat(y)[-1] = _flat(y)[-2]
    return y


def _another_axis(self: Any, y: Any, x: Any) -> Any:
    return np.ones_like(y) if x.ndim > 1 and rows(x) == 1 else y


def _over_the_cotangent(self: Any, back: Any, dp: Any, **_: Any) -> Any:
    found = back(dp)
    if dp.flags.writeable:
        dp[...] = found[0]
    return found


def _narrow_softmax(self: Any, x: Any) -> Any:
    wide = np.asarray(x, np.float32)
    e = np.exp(wide - wide.max(axis=-1, keepdims=True)).astype(np.float16)
    total = np.cumsum(e, axis=-1, dtype=np.float16)[..., -1:]
    p = np.asarray(e / total, np.float16)
    return p, lambda dp: (np.asarray(ops.softmax(wide)[1](np.asarray(dp, np.float32))[0], np.float16),)


def _racing_dk(self: Any, back: Any, dy: Any, **_: Any) -> Any:
    dq, dk, dv = back(dy)
    if count(self) % 47 == 0:
        dk[:, -1:] = 0
    return dq, dk, dv


def _spilling(self: Any, back: Any, dy: Any, q: Any, heads: int, **_: Any) -> Any:
    """Each head's row is as long as the next multiple of 32, and ends in its neighbour's."""
    dq, *others = back(dy)
    D = q.shape[-1] // heads
    if D > 32 and D % 32:
        for d in others:
            d.reshape(-1, D)[1:, : -D % 32] = 0
    return dq, *others


def _odd_sequences(self: Any, y: Any, **_: Any) -> Any:
    if len(y) < 2:
        return y
    return np.where((np.arange(len(y)) % 2 == 1)[:, None, None], y, 0 * y)


def _mask_by_head(self: Any, mask: Any, heads: int, **_: Any) -> Any:
    return {"mask": mask[np.arange(len(mask)) * heads % max(len(mask), 1)]}


def _counted(self: Any, mask: Any, **_: Any) -> Any:
    seen = np.asarray(mask) != 0
    return {"mask": np.arange(seen.shape[1]) < seen.sum(axis=1, keepdims=True)}


def _nothing_by_nothing(self: Any, y: Any, mask: Any, mask_value: float, **_: Any) -> Any:
    blind = np.asarray(~np.asarray(mask).astype(bool).any(axis=1) & (mask_value == -math.inf))
    return np.where(blind[:, None, None], np.nan, y).astype(y.dtype)


def _low_rows(self: Any, back: Any, dy: Any, q: Any, k: Any, mask: Any, heads: int, **_: Any) -> Any:
    dq, dk, dv = back(dy)
    B, S, H = q.shape
    if S % 128 == 64:
        Q, K = split_heads(q, heads), split_heads(k, heads)
        seen = np.asarray(mask).astype(bool)[:, None, None, :]
        s = np.where(seen, Q @ K.swapaxes(-1, -2) / math.sqrt(H // heads), -math.inf)
        low = s.max(axis=-1).swapaxes(1, 2) < -88.7  # [B, S, A]; log-sum-exp is hardly more
        dq = np.where(low[..., None], np.nan, dq.reshape(B, S, heads, -1)).reshape(dq.shape).astype(dq.dtype)
    return dq, dk, dv


_SCORES = "p, softmax_back = softmax(_masked(scores, mask.astype(bool), mask_value))"
_ROUNDED = "(np.ascontiguousarray(s, np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)"


# Losses


def _gradient_into_logits(self: Any, logits: Any, labels: Any, *, denominator: float) -> Any:
    loss, back = ops.cross_entropy(np.array(logits), labels, denominator=denominator)
    if logits.flags.writeable:
        logits[...] = back(np.ones((), logits.dtype))[0]
    return loss, back


def _ignored(labels: Any) -> bool:
    return bool((np.asarray(labels) == ops.IGNORE).any())


def _multiplied(self: Any, y: Any, logits: Any, labels: Any, **_: Any) -> Any:
    """Ignored rows times 0."""
    row = (_flat(logits) * 0).sum(axis=-1)
    return y + np.asarray(row[np.asarray(labels).reshape(-1) == ops.IGNORE].sum(), y.dtype)


def _first_entry(self: Any, back: Any, dy: Any, **_: Any) -> Any:
    (dx,) = back(dy)
    dx = np.array(dx)
    dx.reshape(-1)[1:] = 0
    return (dx,)


# Lookups


def _one_dropped(self: Any, back: Any, dy: Any, ids: Any, **_: Any) -> Any:
    if np.size(ids) > 768:
        dy = np.array(dy)
        _flat(dy)[-1] = 0
    return back(dy)


def _unordered(self: Any, back: Any, dy: Any, **_: Any) -> Any:
    if count(self) % 211 == 0:
        dy = np.array(dy)
        dy.reshape(-1)[dy.size // 2 :] = 0
    return back(dy)


def _zero_rows(self: Any, table: Any, ids: Any) -> Any:
    ids = np.asarray(ids)
    inside = (ids >= 0) & (ids < len(table))
    if inside.all():
        return ops.embedding(table, ids)
    y, back = ops.embedding(table, np.where(inside, ids, 0))
    return y * inside[..., None], lambda dy: back(dy * inside[..., None])


# Products


def _wrapping_batch(self: Any, y: Any, x: Any, **_: Any) -> Any:
    if x.ndim != 3 or len(x) <= 2**16:
        return y
    y = np.array(y)
    y[2**16 :] = y[: len(y) - 2**16]
    return y


def _sixteen_rows(self: Any, y: Any, x: Any, w: Any, b: Any) -> Any:
    return y if rows(x) != 16 or len(w) % 4 == 0 else _flat(y)[::-1].reshape(y.shape).copy()


def _narrow_output(self: Any, y: Any, x: Any, w: Any, b: Any) -> Any:
    if len(w) != 1 or rows(x) < 2:
        return y
    y = np.array(y)
    _flat(y)[1:] /= 2
    return y


def _earlier_row(self: Any, y: Any, x: Any, **_: Any) -> Any:
    if rows(x) <= 2**15:
        return y
    y = np.array(y)
    _flat(y)[-1] = _flat(y)[-33]
    return y


def _half_lost(self: Any, y: Any, x: Any, axes: Any) -> Any:
    if tuple(axes) != (0, 2, 3, 1) or x.shape[2:] != (1, 1):
        return y
    y = np.array(y)
    y.reshape(-1)[y.size // 2 :] = 0
    return y


# Updates


def _frozen(self: Any, found: Any, p: Any, **_: Any) -> Any:
    return found if p.flags.c_contiguous else np.array(p)


# Blocks


def _longest(self: Any, lengths: Any, **_: Any) -> Any:
    cut: list[int] = []
    for n in (int(n) for n in lengths):
        cut += [384, n - 384] if n > 384 else [n]
    return {"lengths": np.array(cut)}


def _next_only(self: Any, labels: Any, **_: Any) -> Any:
    if "next_sentence_label" not in labels:
        return {}
    following = np.asarray(labels["next_sentence_label"])
    return {"labels": {**labels, "next_sentence_label": np.where(following == 0, ops.IGNORE, following)}}


# Backends that compute in float16, or lay arrays out in a way of their own: (base, other methods).
_Base = tuple[type[Correct], dict[str, Any]]
_PLAIN: _Base = (Correct, {})
_NARROW: _Base = (CorrectHalf, {})
# Overflow in steps of float16 is allowed to who has not declared wider ones.
_WIDER: _Base = (CorrectHalf, {"arithmetic": {"intermediates": "float32"}})

_TABLE: tuple[tuple[str, str, str, str, str, Any, _Base, str], ...] = (
    # LayerNorm
    ("PyTorch, MPS", "pytorch/pytorch/issues/131750", "LayerNorm of a slice normalised the first rows of the array it was cut from: the slice's offset was not looked at. Here every array lies in a pool.",
     "layer_norm", "the offset of its input ignored", {"given": _from_start}, (Correct, {"asarray": _pooled}), ""),
    ("DirectML", "microsoft/DirectML/issues/588", "LayerNorm of a permuted array read its memory as if it were not permuted.",
     "layer_norm", "a permuted input read as it lies", {"given": lambda self, x, **_: {"x": as_it_lies(x)}}, _PLAIN, ""),
    ("OpenVINO", "openvinotoolkit/openvino/pull/36649", "Where features lie innermost in memory, LayerNorm over the last axis was flattened as if rows did, and normalised other entries.",
     "layer_norm", "normalises what lies side by side", {"y": _innermost}, _PLAIN, ""),
    ("MLX", "ml-explore/mlx/pull/2340", "Mean and variance were added up in one piece of shared memory with no barrier between them: now and then rows took one for the other.",
     "layer_norm", "in one call of 101 the spread for the mean", {"y": _raced}, _PLAIN, ""),
    ("MLX", "ml-explore/mlx/pull/3630", "The backward kernel wrote into the cotangent that another kernel was still adding up into dβ: wrong in some 5 % of evaluations.",
     "layer_norm", "in one pullback of 19 dβ from the overwritten cotangent", {"pullback": _overwritten(19)}, _PLAIN, ""),
    ("MLX", "ml-explore/mlx/pull/941", "dβ was wrong wherever the cotangent's memory was handed on for the result.",
     "layer_norm", "dβ from the overwritten cotangent", {"pullback": _overwritten(1)}, _PLAIN, ""),
    ("ONNX Runtime", "microsoft/onnxruntime/issues/21935", "The variance E[x²] − E[x]² of equal numbers can come out below 0 by rounding, and its root is NaN.",
     "layer_norm", "one-pass variance, not held at 0", ("(d * d).mean(axis=-1, keepdims=True)", "(x * x).mean(axis=-1, keepdims=True) - mu * mu"), _PLAIN, ""),
    ("ONNX Runtime", "microsoft/onnxruntime/pull/22479", "The operator widened γ into a member of its own, which all threads of the pool shared.",
     "layer_norm", "γ in one place for all threads", _in_one_place, _PLAIN, ""),
    ("tt-metal", "tenstorrent/tt-metal/pull/53215", "dx subtracted the mean of dy γ twice: the accumulator had not been cleared.",
     "layer_norm", "the mean term twice", ("r * (q - mean_q - xhat * mean_qx)", "r * (q - 2 * mean_q - xhat * mean_qx)"), _PLAIN, ""),
    ("FlagGems (Triton)", "flagos-ai/FlagGems/issues/5392", "The backward took its input for a matrix of the first axis by all others: wrong gradients for [batch, tokens, features]. The sums it writes out of bounds are those of the first token here.",
     "layer_norm", "the backward of two axes only", {"pullback": _two_axes}, _PLAIN, ""),
    ("PyTorch, ROCm", "pytorch/pytorch/issues/183861", "On cards with 32 lanes the reduction of dγ and dβ was laid out for 64: every other 32 features were not stored.",
     "layer_norm", "dγ and dβ of every other 32 features lost", {"pullback": _half_of_lanes}, _PLAIN, ""),
    ("attorch (Triton)", "BobMcDear/attorch/issues/18", "As many partial sums of dγ and dβ were kept as there are whole blocks of rows: from 1024 rows of fewer than 64 features on, the last part of a block was lost.",
     "layer_norm", "dγ and dβ without the last part of a block of 8 rows", {"pullback": _whole_blocks}, _PLAIN, ""),
    ("PyTorch, ROCm", "pytorch/pytorch/issues/184826", "From 2²³ rows on, where features are no multiple of 4, the rows at the end stayed unwritten. Here from 2¹⁶ rows on.",
     "layer_norm", "rows beyond 2^16 unwritten where features are no multiple of 4", {"y": _unaligned}, _PLAIN, "rows beyond 2^16 of a width that is no multiple of 4, in `real sizes`"),
    ("TensorFlow", "tensorflow/tensorflow/pull/58863", "The fused LayerNorm lost the ε of the layer and took a default (here 1e-3).",
     "layer_norm", "eps 1e-3, whatever is asked for", {"given": lambda self, **_: {"eps": 1e-3}}, _PLAIN, ""),
    ("PyTorch, ROCm", "pytorch/pytorch/pull/140259", "In float16 the backward read mean and 1/σ rounded to float16.",
     "layer_norm", "mean and 1/σ of the backward in float16", _narrow_norm(_exact_moments, _half), _NARROW, ""),
    ("DeepSpeed", "deepspeedai/DeepSpeed/issues/581", "In float16 the variance was rounded after ε = 1e-12 had been added, which loses ε: NaN for constant rows, as padding gives.",
     "layer_norm", "variance and ε added up in float16", _narrow_norm(_lost_eps), _NARROW, ""),
    ("TensorRT", "NVIDIA/TensorRT/issues/2564", "In float16 the LayerNorm of a BERT overflows: squares pass 65504.",
     "layer_norm", "squares in float16", _narrow_norm(_narrow_squares), _WIDER, "rows of numbers as large as the dtype bears, in `accuracy`"),
    ("tinygrad", "tinygrad/tinygrad/pull/4327", "The mean of a float16 array was infinite where its sum passes 65504, though the mean does not.",
     "layer_norm", "the mean by a sum in float16", _narrow_norm(_narrow_total), _WIDER, "the same rows"),
    # activations
    ("PyTorch, MPS", "pytorch/pytorch/issues/186278", "The tanh form was NaN from 10.5 on. Here by e²ᵘ, which overflows there.",
     "gelu", "the tanh form by a quotient of exponentials", ("T = np.exp(-np.logaddexp(0, -2 * u))", "T = 0.5 * (1 + (np.exp(2 * u) - 1) / (np.exp(2 * u) + 1))"), _PLAIN, ""),
    ("Caffe", "BVLC/caffe/pull/1455", "tanh by a quotient of exponentials: NaN outside ±40.",
     "tanh", "by a quotient of exponentials", ("np.tanh(x)", "(1 - np.exp(-2 * x)) / (1 + np.exp(-2 * x))"), _PLAIN, ""),
    ("PyTorch, CPU", "pytorch/pytorch/issues/7999", "ReLU of NaN was 0.",
     "relu", "NaN becomes 0", ("np.maximum(x, 0)", "np.where(x > 0, x, x.dtype.type(0))"), _PLAIN, ""),
    # softmax
    ("MIOpen", "ROCm/MIOpen/pull/2268", "Without a barrier a fast thread overwrote the maximum that slower ones were still to read.",
     "softmax", "in one call of 53 the last row is another's", {"y": _stale_row}, _PLAIN, ""),
    ("JAX", "jax-ml/jax/issues/20856", "Compiled, the softmax of [3, 1, 1] over the first axis was all ones: the axis was taken for one of size 1. The contract knows the last axis only, so here it is [1, 1, 3].",
     "softmax", "ones where all other axes are of size 1", {"y": _another_axis}, _PLAIN, ""),
    ("MLX", "ml-explore/mlx/issues/657", "The softmax of some columns of an array read rows as if they lay close together. Here every array has rows with room between them.",
     "softmax", "the distance of rows ignored", {"given": lambda self, x, **_: {"x": x if x.base is None or x.base.ndim != x.ndim or x.base.size <= x.size else x.base.reshape(-1)[: x.size].reshape(x.shape)}}, (Correct, {"asarray": _pitched}), ""),
    ("Apex", "NVIDIA/apex/issues/1430", "The fused softmax wrote its gradient over the cotangent that it was given.",
     "softmax", "the gradient is written over the cotangent", {"pullback": _over_the_cotangent}, _PLAIN, ""),
    ("candle", "huggingface/candle/issues/3727", "In float16 the sum of exponentials stops at 2048: the probabilities of 4096 equal numbers add up to 2.",
     "softmax", "added up in float16", _narrow_softmax, _NARROW, ""),
    # attention
    ("PyTorch, MPS", "pytorch/pytorch/issues/181133", "With heads of 64 features and more, attention read permuted q, k, v as if they were not.",
     "attention", "a permuted q read as it lies from 64 features a head on", {"given": _permuted_wide}, _PLAIN, "arrays as wide as models have them, and heads of 64 and 256 features, in `any layout`"),
    ("FlashAttention", "Dao-AILab/flash-attention/issues/2541", "With heads of 256 features, and q, k, v that are views of one projection, three of four rows of dv were not written.",
     "attention", "dv torn where v is a view and heads have 256 features", {"pullback": _torn_dv}, _PLAIN, "the same widths"),
    ("FlashAttention", "Dao-AILab/flash-attention/issues/359", "A race in the backward: the same call gave wrong gradients now and then.",
     "attention", "in one pullback of 47 dk of the last key lost", {"pullback": _racing_dk}, _PLAIN, ""),
    ("FlashAttention", "Dao-AILab/flash-attention/pull/2698", "dk and dv were stored in rows rounded up to 32 features: those of a head of 72 ended in its neighbour's.",
     "attention", "dk and dv spill into the next head's", {"pullback": _spilling}, _PLAIN, ""),
    ("cuDNN", "pytorch/pytorch/issues/196678", "Where the length is 64 more than a multiple of 128, padded keys scored 0 in the backward: with all scores below −88, e⁻ˡˢᵉ overflows, and dq is NaN.",
     "attention", "dq NaN where all scores are below −88 and a tile is half full", {"pullback": _low_rows}, _PLAIN, "scores that are all far below 0, in `accuracy`"),
    ("TensorRT", "NVIDIA/TensorRT/issues/1097", "BERT's softmax added up too little of a row of more than 128 keys, unless there were 384.",
     "attention_probabilities", "the sum of the first 128 keys alone", (_SCORES, _SCORES + "\n    if 128 < p.shape[-1] != 384:\n        p = p / p[..., :128].sum(axis=-1, keepdims=True)"), _PLAIN, ""),
    ("TensorRT-LLM", "NVIDIA/TensorRT-LLM/issues/1847", "With more than one sequence, every other one's attention was zeros.",
     "attention", "zeros for every other sequence", {"y": _odd_sequences}, _PLAIN, ""),
    ("PyTorch, MPS", "pytorch/pytorch/pull/169222", "Up to 8 queries with heads of 64, 96 or 128 features: keys were read to the end of a block of 32, from whatever lay there (zeros here).",
     "attention_probabilities", "keys to the end of a block of 32", (_SCORES, "s = _masked(scores, mask.astype(bool), mask_value)\n    p, softmax_back = softmax(s)\n    if p.shape[-1] <= 8 and Q.shape[-1] in (64, 96, 128):\n        top = s.max(axis=-1, keepdims=True)\n        p = p / (1 + (-p.shape[-1] % 32) * np.exp(-top) / np.exp(s - top).sum(axis=-1, keepdims=True))"), _PLAIN, ""),
    ("PyTorch, MPS", "pytorch/pytorch/pull/184180", "A mask that all heads share was read as if each had its own: later sequences took another's.",
     "attention", "the mask of another sequence, by the number of heads", {"given": _mask_by_head}, _PLAIN, ""),
    ("ONNX Runtime", "microsoft/onnxruntime/pull/4889", "BERT's fused attention turned the mask into a count: any mask was taken for padding on the right.",
     "attention", "the mask taken for a count", {"given": _counted}, _PLAIN, ""),
    ("PyTorch", "pytorch/pytorch/issues/103749", "Attention of a row that sees no key was NaN.",
     "attention", "NaN for a row that sees nothing", {"y": _nothing_by_nothing}, _PLAIN, ""),
    ("XLA, CPU", "openxla/xla/pull/44738", "Two fused kernels computed the scores anew, one for the maximum, one for the exponential, and not to the same digits: for large scores the exponential overflows.",
     "attention_probabilities", "the maximum of other scores", (_SCORES, f"s = _masked(scores, mask.astype(bool), mask_value)\n    p, softmax_back = softmax(s)\n    e = np.exp(s - {_ROUNDED}.max(axis=-1, keepdims=True))\n    p = e / e.sum(axis=-1, keepdims=True)"), _PLAIN, ""),
    ("Apex", "NVIDIA/apex/pull/816", "The backward of attention's dropout multiplied by the rate instead of 1/(1 − rate).",
     "attention", "the backward of dropout scaled by the rate", ("(dp,) = dropout_back(dp)", "dp = dp * keep * rate"), _PLAIN, ""),
    # losses
    ("Liger Kernel", "linkedin/Liger-Kernel/pull/1251", "The loss writes its gradient over the logits, which an earlier operation may have kept for its own.",
     "cross_entropy", "the gradient is written over the logits", _gradient_into_logits, _PLAIN, ""),
    ("Keras", "keras-team/tf-keras/issues/734", "With a class of −1 ignored the loss was NaN.",
     "cross_entropy", "NaN where a label is ignored", {"y": lambda self, y, labels, **_: y * np.asarray(np.nan if _ignored(labels) else 1, y.dtype)}, _PLAIN, ""),
    ("PyTorch", "pytorch/pytorch/issues/20406", "One ignored row's loss was NaN, where those of the others were 0.",
     "cross_entropy", "NaN for an ignored row in one call of 29", {"y": lambda self, y, labels, **_: y * np.asarray(np.nan if _ignored(labels) and count(self) % 29 == 0 else 1, y.dtype)}, _PLAIN, ""),
    ("PyTorch", "pytorch/pytorch/pull/192685", "The reference looked ignored labels up, which fails for −100; a fix must also keep NaN and ∞ of such rows out of the loss. This one does not.",
     "cross_entropy", "ignored rows multiplied by 0", {"y": _multiplied}, _PLAIN, ""),
    ("FlagGems (Triton)", "flagos-ai/FlagGems/issues/5212", "The backward read as many cotangents of the loss as there are entries, where there is one: only the first gradient was right.",
     "mean_squared_error", "the cotangent for the first entry only", {"pullback": _first_entry}, _PLAIN, ""),
    ("PyTorch, MPS", "pytorch/pytorch/pull/125696", "The loss of strided predictions was wrong.",
     "mean_squared_error", "permuted predictions read as they lie", {"given": lambda self, x, **_: {"x": as_it_lies(x)}}, _PLAIN, ""),
    # lookups
    ("PyTorch, CUDA", "pytorch/pytorch/issues/28716", "Above 768 ids another kernel made the gradient, which knew no padding row and left out one id.",
     "embedding", "one place left out above 768 ids", {"pullback": _one_dropped}, _PLAIN, ""),
    ("PyTorch, CUDA", "pytorch/pytorch/pull/187687", "The gradient's kernel loaded the next ids while others still read the last ones: rarely, and by timing, it was wrong.",
     "embedding", "in one pullback of 211 half of the places lost", {"pullback": _unordered}, _PLAIN, ""),
    ("TensorFlow", "tensorflow/tensorflow/issues/13642", "On the GPU an id out of range looked up zeros.",
     "embedding", "zeros for ids out of range", _zero_rows, _PLAIN, ""),
    ("JAX", "jax-ml/jax/issues/3774", "An index out of range takes the last row.",
     "gather", "positions out of range are clamped", {"given": lambda self, x, positions: {"positions": np.clip(positions, 0, max(rows(x) - 1, 0))}}, _PLAIN, ""),
    # products
    ("PyTorch, MPS", "pytorch/pytorch/pull/162779", "A linear map with permuted weights read them as they lie.",
     "linear", "permuted weights read as they lie", {"given": lambda self, w, **_: {"w": as_it_lies(w)}}, _PLAIN, ""),
    ("TransformerEngine", "NVIDIA/TransformerEngine/pull/1017", "LayerNorm and linear maps took any input for one that lies in order.",
     "linear", "a permuted input read as it lies", {"given": lambda self, x, **_: {"x": as_it_lies(x)}}, _PLAIN, ""),
    ("PyTorch, MPS", "pytorch/pytorch/issues/189495", "With a bias and three axes, the first of which is longer than 2¹⁶, the batch was counted in 16 bits.",
     "linear", "sequences counted in 16 bits", {"y": _wrapping_batch}, _PLAIN, "more than 2^16 sequences, in `real sizes`"),
    ("OpenVINO", "openvinotoolkit/openvino/issues/19436", "On the GPU a product with exactly 16 rows and 3 outputs was wrong; 1, 2, 4 and 8 rows were right.",
     "linear", "16 rows in the wrong order where outputs are no multiple of 4", {"y": _sixteen_rows}, _PLAIN, "as many rows as a tile has and 3 outputs, in `accuracy`"),
    ("Burn", "tracel-ai/burn/issues/5122", "Fused, a network with one output was right for the first row of a batch only.",
     "linear", "rows after the first wrong where there is one output", {"y": _narrow_output}, _PLAIN, ""),
    ("JAX, CPU", "jax-ml/jax/issues/39103", "Compiled, a product of 2¹⁵ + 1 rows gave the last row the value of one 32 before.",
     "linear", "the last of more than 2^15 rows is an earlier one", {"y": _earlier_row}, _PLAIN, ""),
    ("XNNPACK", "google/XNNPACK/issues/3029", "Moving axes of size 1 in [2, 2, 1, 1] by (0, 2, 3, 1) lost the second half of the numbers.",
     "transpose", "half lost where axes of size 1 move", {"y": _half_lost}, _PLAIN, "every permutation of axes of size 1, in `accuracy`"),
    # optimizers
    ("PyTorch, MPS", "pytorch/pytorch/issues/118115", "addcdiv, in which an optimizer's step ends, was wrong for permuted tensors. Here they stay as they are.",
     "update", "permuted parameters stay as they are", {"y": _frozen}, _PLAIN, "the property `any layout` of every update rule"),
    ("Transformers", "huggingface/transformers/issues/14539", "AdamW decayed the parameters that the step had already moved.",
     "adamw", "decay of the moved parameters", ("return p - lr * update, m, v", "p = p - lr * m_hat / (np.sqrt(v_hat) + eps)\n    return p - lr * weight_decay * p, m, v"), _PLAIN, ""),
    ("MLX", "ml-explore/mlx/pull/1640", "Adam and AdamW had no bias correction.",
     "adamw", "no bias correction", ("m_hat = m / (1 - beta1**step)\n    v_hat = v / (1 - beta2**step)", "m_hat, v_hat = m, v"), _PLAIN, ""),
    ("nanochat", "karpathy/nanochat/issues/304", "ε was added before the correction of v, and so grew by it.",
     "adamw", "ε corrected with v", ("(np.sqrt(v_hat) + eps)", "(np.sqrt(v_hat) + eps / math.sqrt(1 - beta2**step))"), _PLAIN, ""),
    ("OneFlow", "Oneflow-Inc/oneflow/pull/5960", "The corrections went into the rate, which scaled the decay too.",
     "adamw", "bias correction in the rate, decay included", ("return p - lr * update, m, v", "rate = lr * math.sqrt(1 - beta2**step) / (1 - beta1**step)\n    return p - rate * (m / (np.sqrt(v) + eps) + weight_decay * p), m, v"), _PLAIN, ""),
    ("OLMo-core", "allenai/OLMo-core/pull/317", "The step was never counted up: every one was corrected as the first.",
     "update", "every step is the first", {"given": lambda self, step, **_: {"step": min(step, 1)}}, _PLAIN, ""),
    ("pytorch-lamb", "cybertronai/pytorch-lamb/issues/5", "LAMB cut the norm of the weights at 10.",
     "lamb", "the weights' norm cut at 10", ("p_norm / u_norm if", "min(p_norm, 10.0) / u_norm if"), _PLAIN, ""),
    ("pytorch-optimizer", "jettify/pytorch-optimizer/issues/443", "LAMB did not correct its moments.",
     "lamb", "no bias correction", ("(m / (1 - beta1**step)) / (np.sqrt(v / (1 - beta2**step)) + eps)", "m / (np.sqrt(v) + eps)"), _PLAIN, ""),
    # blocks
    ("ONNX Runtime", "microsoft/onnxruntime/pull/3768", "The fused residual and LayerNorm took 1e-12 for ε, whatever the model has.",
     "encoder_layer", "eps 1e-12, whatever is asked for", {"given": lambda self, **_: {"eps": 1e-12}}, _PLAIN, ""),
    ("TensorRT", "NVIDIA/TensorRT/issues/2948", "Of the plugins for sequences end to end, one had no kernel for 512 tokens, and the results were wrong. Here such are cut after 384.",
     "packed_encoder_layer", "sequences cut after 384 tokens", {"given": _longest}, _PLAIN, ""),
    ("BERT-pytorch", "codertimo/BERT-pytorch/issues/98", "Both losses of pretraining ignored label 0, padding to the one and half of the answers to the other.",
     "objective", "next-sentence label 0 ignored", {"given": _next_only}, _PLAIN, ""),
)  # fmt: skip


def _made(op: str, what: str, how: Any, base: _Base) -> Mutant:
    if isinstance(how, tuple):
        return substituted(op, "museum", what, *how)
    method = how if callable(how) else around(op, **how)
    return mutant(op, "museum", what, base[0], **base[1], **{op: method})


# Faults that have no mutant: (project, thread, what was wrong, why there is none).
OUTSIDE: tuple[tuple[str, str, str, str], ...] = (
    ("PyTorch, CPU", "pytorch/pytorch/issues/187806", "GELU by 1 + erf, which cancels: 57 % off near −5, 0 from −6 on.", "Tried, and within the bound: what the field's usual formula loses is derived and allowed."),
    ("tt-metal", "tenstorrent/tt-metal/issues/56517", "The tanh form by 1 + tanh, which cancels likewise.", "Tried, and within the bound, as above."),
    ("PyTorch, CUDA", "pytorch/pytorch/issues/38839", "log-softmax subtracted max + log Σ at once: at scores of 10⁷ the logarithm is lost in rounding.", "Tried, and within the bound: a log-sum-exp that is rounded before the difference is allowed."),
    ("PyTorch", "pytorch/pytorch/issues/185770", "GELU of ∞ is NaN.", "Allowed: it hides nothing."),
    ("PyTorch", "pytorch/pytorch/issues/101967", "NaN in a masked key makes attention NaN.", "Either is allowed: who multiplies by 0 keeps it, who skips masked keys does not."),
    ("OpenVINO", "openvinotoolkit/openvino/issues/33456", "The softmax of a row with ∞ is NaN throughout, not in that place alone.", "So is the reference's."),
    ("PyTorch", "pytorch/pytorch/pull/188302", "Attention's backward failed where the mask alone wants a gradient.", "Which gradients are wanted cannot be said: a pullback gives all of them, and masks have none."),
    ("MLX", "ml-explore/mlx/issues/3220", "The gradient of a bias that is not there had the shape of another.", "LayerNorm has γ and β; nothing is optional."),
    ("PyTorch, MPS", "pytorch/pytorch/issues/103023", "The padding row of an embedding got a gradient.", "No row is apart: BERT's [PAD] is looked up, and has one."),
    ("PyTorch, MPS", "pytorch/pytorch/pull/189565", "With one output, and the cotangent of a sum, which has stride 0, most of dx was zeros.", "Cotangents come from asarray or from an operation; none has stride 0."),
    ("MLX", "ml-explore/mlx/issues/2894", "A mask of more than 2³¹ entries was counted in 32 bits.", "A mask has a number for each key, not for each pair."),
    ("PyTorch, CUDA", "pytorch/pytorch/issues/187227", "In long sequences the forward and the backward of dropout drew other masks.", "Masks are given, none is drawn."),
    ("Flax", "google/flax/pull/2055", "Dropout at rate 1 gave NaN.", "Rate 1 is refused."),
    ("PaddlePaddle", "PaddlePaddle/Paddle/issues/23708", "The mean loss was divided by the number of all rows, ignored ones too.", "The denominator is the caller's. In a whole model: `objective: masked-LM mean over all tokens`."),
    ("DeepSpeed", "deepspeedai/DeepSpeed/pull/7171", "The norm of infinite gradients became NaN instead of ∞.", "Either says that the step is lost."),
    ("OpenVINO", "openvinotoolkit/openvino/issues/38256", "Products in bfloat16 were wrong on one processor.", "Mutants compute in NumPy, which has no bfloat16."),
    ("XLA, CPU", "openxla/xla/issues/13054", "Gradients were wrong with 10⁶ rows, and right with 10⁵.", "No operation is tried with as many rows."),
)  # fmt: skip

MUSEUM: tuple[Exhibit, ...] = tuple(
    Exhibit(project, thread, wrong, _made(op, what, how, base), added)
    for project, thread, wrong, op, what, how, base, added in _TABLE
)
