"""Mutants in the operations: (op, area, what is wrong, the reference's text, the bug's text)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from refbert_conformance.mutants.mutant import Correct, Mutant, mutant, patched
from refbert_conformance.tolerances.bounds import UPDATES

_TABLE: tuple[tuple[str, str, str, str, str], ...] = (
    # forward
    ("add", "forward", "subtracts where z is negative", "y = x + z", "y = x + np.where(z < 0, z * (1 - 1e-5), z)"),
    ("linear", "forward", "bias left out for the last output", "+ b  # [..., O]", "+ np.append(b[:-1], 0 * b[-1:])"),
    ("linear", "forward", "drops the tail of a row longer than 16", "y = x @ w.T + b",
     "k = w.shape[1] if w.shape[1] < 16 else w.shape[1] // 16 * 16; y = x[..., :k] @ w[:, :k].T + b"),
    ("linear", "forward", "operands rounded to TF32", "y = x @ w.T + b", "y = (_tf32(x) @ _tf32(w).T + b).astype(x.dtype)"),
    ("linear", "forward", "accumulates in float16", "y = x @ w.T + b",
     "y = (x.astype(np.float16) @ w.T.astype(np.float16)).astype(x.dtype) + b"),
    ("embedding", "forward", "the last row is read as the first", "y = table[ids]", "y = table[np.where(ids == len(table) - 1, 0, ids)]"),
    ("embedding", "forward", "scaled by √H, as in the Transformer", "y = table[ids]", "y = table[ids] * np.sqrt(table.shape[1]).astype(table.dtype)"),
    ("gather", "forward", "positions within the first sequence", "y = rows[positions]", "y = rows[positions % max(x.shape[-2], 1)]"),
    ("layer_norm", "forward", "eps outside the square root", "np.sqrt(variance + eps)", "(np.sqrt(variance) + eps)"),
    ("layer_norm", "forward", "eps 1e-5, whatever is asked for", "np.sqrt(variance + eps)", "np.sqrt(variance + 1e-5)"),
    ("layer_norm", "forward", "eps left out", "np.sqrt(variance + eps)", "np.sqrt(np.maximum(variance, 1e-30))"),
    ("layer_norm", "forward", "unbiased variance", "(d * d).mean(axis=-1, keepdims=True)",
     "(d * d).sum(axis=-1, keepdims=True) / max(x.shape[-1] - 1, 1)"),
    ("layer_norm", "forward", "one-pass variance", "(d * d).mean(axis=-1, keepdims=True)",
     "np.maximum((x * x).mean(axis=-1, keepdims=True) - mu * mu, 0)"),
    ("layer_norm", "forward", "gamma + 1", "y = gamma * xhat", "y = (gamma + 1) * xhat"),
    ("gelu", "forward", "the tanh form for erf", "return _gelu_erf(x)", "return _gelu_tanh(x)"),
    ("gelu", "forward", "erf by a polynomial good to 2.5e-5", "Phi = 0.5 * erfc(-x / math.sqrt(2))", "Phi = _abramowitz(x)"),
    ("gelu", "forward", "coefficient 0.0447", "0.044715\n", "0.0447\n"),
    ("gelu", "forward", "cut off at -5", "y = x * Phi", "y = np.where(x < -3, 0 * x, x * Phi)"),
    ("relu", "forward", "leaky by 1e-6", "np.maximum(x, 0)", "np.where(x > 0, x, x * x.dtype.type(1e-6))"),
    ("tanh", "forward", "clipped to ±4 first", "np.tanh(x)", "np.tanh(np.clip(x, -4, 4))"),
    ("tanh", "forward", "a rational approximation", "np.tanh(x)", "(lambda c: c * (27 + c * c) / (27 + 9 * c * c))(np.clip(x, -3, 3))"),
    ("softmax", "forward", "without the maximum", "x - x.max(axis=-1, keepdims=True)", "x"),
    ("softmax", "forward", "denominator + 1e-6", "e / e.sum(axis=-1, keepdims=True)", "e / (e.sum(axis=-1, keepdims=True) + 1e-6)"),
    ("softmax", "forward", "over the second-last axis of square arrays", "p = e / e.sum(axis=-1, keepdims=True)",
     "p = e / e.sum(axis=-2 if e.ndim > 1 and e.shape[-1] == e.shape[-2] > 1 else -1, keepdims=True)"),
    ("attention_probabilities", "forward", "scaled by √H", "1 / math.sqrt(Q.shape[-1])", "1 / math.sqrt(q.shape[-1])"),
    ("attention_probabilities", "forward", "heads interleaved", "x.reshape(B, S, heads, H // heads).swapaxes(1, 2)",
     "x.reshape(B, S, H // heads, heads).transpose(0, 3, 1, 2)"),
    ("attention", "forward", "probabilities transposed", "merge_heads(p_dropped @ V)", "merge_heads(p_dropped.swapaxes(-1, -2) @ V)"),
    ("attention", "forward", "heads merged in another order", "merge_heads(p_dropped @ V)", "merge_heads((p_dropped @ V)[:, ::-1])"),
    ("reshape", "forward", "column-major", "x.reshape(shape).copy()", 'x.reshape(shape, order="F").copy()'),
    ("transpose", "forward", "the inverse permutation", "y = x.transpose(axes).copy()", "y = x.transpose(np.argsort(axes)).copy()"),
    # backward
    ("add", "backward", "dz halved", "return dy.copy(), dy.copy()", "return dy.copy(), dy / 2"),
    ("linear", "backward", "dw transposed where w is square", "dw = rows.T @ x.reshape(-1, w.shape[1])",
     "dw = rows.T @ x.reshape(-1, w.shape[1]); dw = dw.T if dw.shape[0] == dw.shape[1] else dw"),
    ("linear", "backward", "db averaged over the rows", "db = rows.sum(axis=0)", "db = rows.sum(axis=0) / max(len(rows), 1)"),
    ("linear", "backward", "db of the last leading axis only", "db = rows.sum(axis=0)", "db = dy.reshape(-1, *dy.shape[-2:])[-1:].sum(axis=(0, 1)) if dy.size and dy.ndim > 1 else rows.sum(axis=0)"),
    ("linear", "backward", "dx through TF32", "dx = dy @ w", "dx = _tf32(dy) @ _tf32(w)"),
    ("embedding", "backward", "repeated ids overwrite each other", "np.add.at(dtable, ids, dy)", "dtable[ids] = dy"),
    ("embedding", "backward", "row 0 gets no gradient, as if it were padding", "np.add.at(dtable, ids, dy)", "np.add.at(dtable, ids, dy); dtable[:1] = 0"),
    ("gather", "backward", "repeated rows overwrite each other", "np.add.at(drows, positions, dy)", "drows[positions] = dy"),
    ("layer_norm", "backward", "without the mean term", "r * (q - mean_q - xhat * mean_qx)", "r * (q - xhat * mean_qx)"),
    ("layer_norm", "backward", "without the x̂ term", "r * (q - mean_q - xhat * mean_qx)", "r * (q - mean_q)"),
    ("layer_norm", "backward", "dγ from x instead of x̂", "(dy * xhat).sum(axis=rows)", "(dy * x).sum(axis=rows)"),
    ("layer_norm", "backward", "γ left out of dx", "q = dy * gamma", "q = dy * 1"),
    ("layer_norm", "backward", "dβ of the first axis only", "dy.sum(axis=rows)\n", "(dy.sum(axis=rows) if dy.ndim < 3 else dy[:, -1].sum(axis=tuple(range(dy.ndim - 2))))\n"),
    ("layer_norm", "backward", "another eps than the forward's", "q = dy * gamma", "r = 1 / np.sqrt(variance + 1e-5); q = dy * gamma"),
    ("gelu", "backward", "slope Φ, without xφ", "(Phi + x * phi)", "(Phi + 0 * x * phi)"),
    ("gelu", "backward", "slope with 2·0.044715x²", "c * (1 + 3 * a * x * x)", "c * (1 + 2 * a * x * x)"),
    ("relu", "backward", "slope 1 at 0", "(x > 0)", "(x >= 0)"),
    ("tanh", "backward", "slope 1 − y", "dy * (1 - y) * (1 + y)", "dy * (1 - y) * (1 + 0 * y)"),
    ("softmax", "backward", "without the sum over the row", "p * (dp - t)", "p * (dp - 0 * t)"),
    ("softmax", "backward", "mean for the weighted mean", "t = (p * dp).sum(axis=-1, keepdims=True)", "t = dp.mean(axis=-1, keepdims=True)"),
    ("attention_probabilities", "backward", "dk without the scale", "ds.swapaxes(-1, -2) @ Q * scale", "ds.swapaxes(-1, -2) @ Q"),
    ("attention_probabilities", "backward", "dq and dk exchanged", "return merge_heads(dQ), merge_heads(dK)", "return merge_heads(dK), merge_heads(dQ)"),
    ("attention", "backward", "dv from the transposed probabilities", "dV = p_dropped.swapaxes(-1, -2) @ dY", "dV = p_dropped @ dY"),
    ("attention", "dropout", "dv without dropout", "dV = p_dropped.swapaxes(-1, -2) @ dY", "dV = p.swapaxes(-1, -2) @ dY"),
    ("attention", "dropout", "no dropout in the backward of the probabilities", "(dp,) = dropout_back(dp)", "dp = dp * 1"),
    ("attention", "dropout", "dropout on the output instead of the probabilities", "y = merge_heads(p_dropped @ V)",
     "y = merge_heads(p_dropped @ V) if keep is None else merge_heads((p @ V) * keep.astype(bool).any(axis=-1, keepdims=True) / (1 - rate))"),
    ("reshape", "backward", "cotangent column-major", "dy.reshape(x.shape).copy()", 'dy.reshape(x.shape, order="F").copy()'),
    ("transpose", "backward", "cotangent permuted forwards again", "dy.transpose(inverse).copy()", "dy.transpose(axes).copy().reshape(x.shape)"),
    # masking
    ("attention_probabilities", "masking", "the mask on queries", "visible[:, None, None, :]  # [B, 1, 1, S]: the same", "visible[:, None, :, None]  # the same"),
    ("attention_probabilities", "masking", "−10000 for −∞", "np.where(visible, scores, -math.inf)", "np.where(visible, scores, scores - 10000.0)"),
    ("attention_probabilities", "masking", "−∞ for −10000", "if mask_value != -math.inf:", "if False:"),
    ("attention_probabilities", "masking", "the first sequence's mask for all", "visible[:, None, None, :]  #", "visible[:1, None, None, :]  #"),
    ("attention_probabilities", "masking", "masked keys leak by e⁻²⁰", "np.where(visible, scores, -math.inf)", "np.where(visible, scores, scores.min(initial=0) - 20)"),
    ("attention_probabilities", "masking", "a row that sees nothing looks at the first key", "np.zeros_like(scores)",
     "np.where(np.arange(scores.shape[-1]) == 0, 0.0, -math.inf).astype(scores.dtype) + np.zeros_like(scores)"),
    ("attention_probabilities", "masking", "a row that sees nothing attends as if unmasked", "np.zeros_like(scores)", "scores"),
    ("attention_probabilities", "masking", "the last visible key is masked", "visible = visible[:, None, None, :]",
     "visible = visible & ~(visible & (np.cumsum(visible, axis=1) == visible.sum(axis=1, keepdims=True)) & (visible.sum(axis=1, keepdims=True) > 2)); visible = visible[:, None, None, :]"),
    # dropout
    ("dropout", "dropout", "unscaled", "y = x * kept / (1 - rate)", "y = x * kept"),
    ("dropout", "dropout", "divided by the rate", "y = x * kept / (1 - rate)", "y = x * kept / (rate or 1)"),
    ("dropout", "dropout", "the backward unscaled", "return (dy * kept / (1 - rate),)", "return (dy * kept,)"),
    ("dropout", "dropout", "the backward draws another mask", "return (dy * kept / (1 - rate),)", "return (dy * np.roll(kept, 1) / (1 - rate),)"),
    ("dropout", "dropout", "dropped entries keep a hundredth", "y = x * kept / (1 - rate)", "y = x * np.where(kept, 1, 0.01) / (1 - rate)"),
    # losses
    ("cross_entropy", "losses", "mean over all rows, labelled or not", "per_row = 1 / denominator if denominator else 0.0",
     "per_row = 1 / max(labels.size, 1)"),
    ("cross_entropy", "losses", "ignored rows count as class 0", "labelled = labels.reshape(-1) != IGNORE  # [N]",
     "labels = np.where(labels == IGNORE, 0, labels); labelled = labels.reshape(-1) != IGNORE"),
    ("cross_entropy", "losses", "no denominator is NaN", "if denominator else 0.0", "if denominator else float('nan')"),
    ("cross_entropy", "losses", "the cotangent of the loss ignored", "p * (dloss * per_row)", "p * (1 * per_row) + 0 * dloss"),
    ("cross_entropy", "losses", "label smoothing of 1e-4", "losses = np.log(s[:, 0]) - shifted[rows, c]", "losses = np.log(s[:, 0]) - (1 - 1e-4) * shifted[rows, c] - 1e-4 * shifted.mean(axis=-1)"),
    ("cross_entropy", "losses", "the gradient without the one-hot for class 0", "p[rows, c] -= 1", "p[rows[c > 0], c[c > 0]] -= 1"),
    ("cross_entropy", "losses", "the gradient divided by the number of rows", "p * (dloss * per_row)", "p * (dloss / max(len(c), 1))"),
    ("mean_squared_error", "losses", "the gradient without the 2", "difference * (2 * dloss * per_row)", "difference * (dloss * per_row)"),
    ("mean_squared_error", "losses", "mean whatever the denominator", "per_row = 1 / denominator if denominator else 0.0", "per_row = 1 / max(x.size, 1)"),
    # optimizers
    ("bert_adam", "optimizers", "eps inside the root", "(np.sqrt(v) + eps)", "np.sqrt(v + eps)"),
    ("bert_adam", "optimizers", "bias correction of a first step", "update = m / (np.sqrt(v) + eps)", "update = (m / (1 - beta1)) / (np.sqrt(v / (1 - beta2)) + eps)"),
    ("bert_adam", "optimizers", "L2 in the gradient for decoupled decay", "    m = beta1 * m", "    g = g + weight_decay * p; weight_decay = 0.0\n    m = beta1 * m"),
    ("bert_adam", "optimizers", "no decay", "+ weight_decay * p", "+ 0 * p"),
    ("adamw", "optimizers", "step off by one", "    m = beta1 * m", "    step = step + 1\n    m = beta1 * m"),
    ("adamw", "optimizers", "no bias correction of v", "v_hat = v / (1 - beta2**step)", "v_hat = v"),
    ("adamw", "optimizers", "eps inside the root", "(np.sqrt(v_hat) + eps)", "np.sqrt(v_hat + eps)"),
    ("adamw", "optimizers", "decay not scaled by the rate", "p - lr * update", "p - lr * (update - weight_decay * p) - weight_decay * p"),
    ("adamw", "optimizers", "1 − β₂ in float32 as 0.001 of 0.999", "(1 - beta2) * g * g", "(1 - np.float32(beta2)) * g * g"),
    ("adamw", "optimizers", "v with |g|", "(1 - beta2) * g * g", "(1 - beta2) * abs(g)"),
    ("lamb", "optimizers", "trust ratio inverted", "p_norm / u_norm if", "u_norm / p_norm if"),
    ("lamb", "optimizers", "norms row by row", "np.sqrt((p * p).sum()), np.sqrt((u * u).sum())",
     "(np.sqrt((p * p).sum()), np.sqrt((u * u).sum())) if p.ndim < 2 else (np.sqrt((p[:1] * p[:1]).sum()), np.sqrt((u[:1] * u[:1]).sum()))"),
    ("lamb", "optimizers", "ratio 0 for zero weights", "else 1.0", "else 0.0"),
    ("global_norm", "optimizers", "of the largest tensor", "sum(float((g * g).sum()) for g in gradients.values())", "max((float((g * g).sum()) for g in gradients.values()), default=0.0)"),
    ("global_norm", "optimizers", "of the first 16 tensors", "in gradients.values()))", "in list(gradients.values())[:16]))"),
    ("global_norm", "optimizers", "as it is after clipping to 1", "return math.sqrt(sum(float((g * g).sum()) for g in gradients.values()))", "return min(1.0, math.sqrt(sum(float((g * g).sum()) for g in gradients.values())))"),
    ("global_norm", "optimizers", "1e-6 more, as a divisor", "return math.sqrt(sum(float((g * g).sum()) for g in gradients.values()))", "return 1e-6 + math.sqrt(sum(float((g * g).sum()) for g in gradients.values()))"),
    ("cross_entropy", "losses", "denominator 0 means 1", "if denominator else 0.0", "if denominator else 1.0"),
    ("attention_probabilities", "masking", "any finite mask value counts as −10000", "scores + mask_value)", "scores - 10000.0)"),
    ("relu", "backward", "no slope below 1e-30", "dy * (x > 0)", "dy * (x > 1e-30)"),
)  # fmt: skip

_HELPERS = '''

def _tf32(a):
    import numpy
    return (numpy.ascontiguousarray(a, numpy.float32).view(numpy.uint32) + 0x1000 & 0xFFFFE000).view(numpy.float32).astype(a.dtype)


def _abramowitz(x):
    """Abramowitz & Stegun 7.1.25."""
    z = abs(x) / math.sqrt(2)
    t = 1 / (1 + 0.47047 * z)
    e = t * (0.3480242 + t * (-0.0958798 + t * 0.7478556)) * np.exp(-z * z)
    return np.where(x < 0, 0.5 * e, 1 - 0.5 * e)


import numpy as np
import math
'''
_FILES = {
    "reshape": "shape", "transpose": "shape", "attention_probabilities": "attention",
    "global_norm": "clip_by_global_norm",
}  # fmt: skip


def substituted(op: str, area: str, what: str, old: str, new: str) -> Mutant:
    """A mutant with one piece of the op's source replaced."""
    # The helpers go below the code, so that the file's first statement stays its first.
    names = patched(f"refbert.ops.{_FILES.get(op, op)}", old, new)
    exec(compile(_HELPERS, "<helpers of mutants>", "exec"), names)
    members = {"update": _ruled(op, names[op])} if op in UPDATES else {op: staticmethod(names[op])}
    if op == "attention_probabilities":  # a bug in the scores is a bug in attention, too
        members["attention"] = staticmethod(names["attention"])
    return mutant(op, area, what, **members)


def _ruled(rule: str, function: Callable[..., Any]) -> Any:
    """The backend's update with another function for one rule."""

    def update(name: str, p: Any, g: Any, m: Any, v: Any, *, scale: float, step: int, **rates: float) -> Any:
        if name != rule:
            return Correct.update(name, p, g, m, v, scale=scale, step=step, **rates)
        return function(p, g * scale, m, v, **rates, **({} if rule == "bert_adam" else {"step": step}))

    return staticmethod(update)


OPERATIONS: tuple[Mutant, ...] = tuple(substituted(*row) for row in _TABLE)
