"""Seeded bugs in conduct: the numbers of one call are right, and the backend is wrong all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from refbert import ops
from refbert_conformance.mutants.made import Correct, Mutant, mutant

_FOUND: list[Mutant] = []


Method = TypeVar("Method", bound=Callable[..., Any])


def _bug(op: str, area: str, what: str) -> Callable[[Method], Method]:
    """Register a method of a backend as the bug."""

    def register(method: Method) -> Method:
        _FOUND.append(mutant(op, area, what, **{op: method}))
        return method

    return register


# Aliasing and state


@_bug("gelu", "aliasing", "the output buffer is used again by the next call of that shape")
def _reused(self: Any, x: Any, *, form: str) -> Any:
    y, back = ops.gelu(x, form=form)
    buffers = self.__dict__.setdefault("_buffers", {})
    buffer = buffers.setdefault(y.shape, np.empty_like(y))
    buffer[...] = y
    return buffer, back


@_bug("linear", "aliasing", "the pullback reads the last call's input")
def _stale(self: Any, x: Any, w: Any, b: Any) -> Any:
    self._last = (x, w, b)
    y, _ = ops.linear(x, w, b)
    return (
        y,
        lambda dy: ops.linear(*self._last)[1](dy) if self._last[0].shape == x.shape else ops.linear(x, w, b)[1](dy),
    )


@_bug("layer_norm", "aliasing", "the pullback frees what it saved: a second call gives something else")
def _once(self: Any, x: Any, gamma: Any, beta: Any, *, eps: float) -> Any:
    y, back = ops.layer_norm(x, gamma, beta, eps=eps)
    used: list[int] = []

    def pullback(dy: Any) -> Any:
        used.append(1)
        dx, dgamma, dbeta = back(dy)
        return (dx, dgamma, dbeta) if len(used) == 1 else (dx, 2 * dgamma, dbeta)

    return y, pullback


@_bug("softmax", "aliasing", "the result is written over the input")
def _in_place(self: Any, x: Any) -> Any:
    p, back = ops.softmax(x)
    if x.flags.writeable:
        x[...] = p
    return p, back


@_bug("add", "aliasing", "accumulates into its first argument")
def _accumulates(self: Any, x: Any, z: Any) -> Any:
    y, back = ops.add(x, z)
    if x.flags.writeable and x.ndim > 2:
        x += z
    return y, back


@_bug("tanh", "aliasing", "the pullback writes into the cotangent")
def _overwrites(self: Any, x: Any) -> Any:
    y, back = ops.tanh(x)

    def pullback(dy: Any) -> Any:
        (dx,) = back(dy)
        if dy.flags.writeable:
            dy *= 0
        return (dx,)

    return y, pullback


@_bug("attention", "aliasing", "masked entries of v are zeroed in place")
def _zeroes(self: Any, q: Any, k: Any, v: Any, *, mask: Any, **options: Any) -> Any:
    result = ops.attention(q, k, v, mask=mask, **options)
    if v.flags.writeable and np.asarray(mask).astype(bool).any(axis=-1).all():
        v[~np.asarray(mask).astype(bool)] = 0
    return result


@_bug("cross_entropy", "aliasing", "ignored labels are overwritten by 0 on the host")
def _relabels(self: Any, logits: Any, labels: Any, *, denominator: float) -> Any:
    result = ops.cross_entropy(logits, labels.copy(), denominator=denominator)
    if labels.flags.writeable:
        labels[labels == ops.IGNORE] = 0
    return result


@_bug("to_numpy", "aliasing", "every result in one buffer of the host")
def _one_buffer(self: Any, x: Any) -> Any:
    buffers = self.__dict__.setdefault("_host", {})
    buffer = buffers.setdefault(x.shape, np.empty(x.shape, self.dtype))
    buffer[...] = x
    return buffer


@_bug("attention_probabilities", "aliasing", "the mask of the first call of that shape is kept")
def _cached_mask(self: Any, q: Any, k: Any, *, mask: Any, heads: int, mask_value: float) -> Any:
    masks = self.__dict__.setdefault("_masks", {})
    mask = masks.setdefault((mask.shape, mask.dtype), np.array(mask))
    return ops.attention_probabilities(q, k, mask=mask, heads=heads, mask_value=mask_value)


# Determinism


def _nudged(y: Any, up: bool = True) -> Any:
    """One entry moved by one unit in the last place."""
    y = np.array(y)
    if y.size:
        flat = y.reshape(-1)
        flat[-1] = np.nextafter(flat[-1], flat[-1] + 1, dtype=y.dtype)
    return y


@_bug("linear", "determinism", "one ULP more in every second call")
def _flickers(self: Any, x: Any, w: Any, b: Any) -> Any:
    y, back = ops.linear(x, w, b)
    self._calls = getattr(self, "_calls", 0) + 1
    return (y if self._calls % 2 else _nudged(y)), back


@_bug("gather", "determinism", "one ULP more in every fifth pullback")
def _flickers_back(self: Any, x: Any, positions: Any) -> Any:
    y, back = ops.gather(x, positions)

    def pullback(dy: Any) -> Any:
        self._backs = getattr(self, "_backs", 0) + 1
        (dx,) = back(dy)
        return (dx if self._backs % 5 else _nudged(dx),)

    return y, pullback


@_bug("softmax", "determinism", "noise of one ULP")
def _noise(self: Any, x: Any) -> Any:
    p, back = ops.softmax(x)
    rng = self.__dict__.setdefault("_rng", np.random.default_rng())
    return (_nudged(p) if rng.random() < 0.3 else p), back


# Dtypes


@_bug("mean_squared_error", "dtype", "computes in float16")
def _half(self: Any, x: Any, targets: Any, *, denominator: float) -> Any:
    y, back = ops.mean_squared_error(x.astype(np.float16), targets, denominator=denominator)
    return y.astype(x.dtype), lambda dy: tuple(d.astype(x.dtype) for d in back(dy))


@_bug("tanh", "dtype", "results of another dtype than the backend's")
def _wider(self: Any, x: Any) -> Any:
    y, back = ops.tanh(x)
    return y.astype(np.float64 if self.dtype == "float32" else np.float32), back


@_bug("to_numpy", "dtype", "always float64")
def _double(self: Any, x: Any) -> Any:
    return np.asarray(x, np.float64 if self.dtype == "float32" else np.float32)


@_bug("asarray", "dtype", "cuts instead of rounding")
def _cuts(self: Any, x: Any) -> Any:
    y = np.asarray(x).astype(self.dtype)
    if self.dtype == "float64" or not y.size:
        return y
    wide = np.asarray(x, np.float64)
    with np.errstate(all="ignore"):
        return np.where(
            np.isfinite(y) & (abs(y.astype(np.float64)) > abs(wide)), np.nextafter(y, np.float32(0)), y
        ).astype(self.dtype)


@_bug("asarray", "dtype", "subnormal numbers flushed to zero, undeclared")
def _flushed(self: Any, x: Any) -> Any:
    y = np.asarray(x).astype(self.dtype)
    return np.where(abs(y) < np.finfo(self.dtype).tiny, 0 * y, y)


@_bug("asarray", "dtype", "big-endian arrays read as they lie")
def _endian(self: Any, x: Any) -> Any:
    x = np.asarray(x)
    if x.dtype.kind == "f" and not x.dtype.isnative:
        x = x.view(x.dtype.newbyteorder("="))
    return x.astype(self.dtype)


@_bug("asarray", "dtype", "Fortran order read as rows")
def _fortran(self: Any, x: Any) -> Any:
    x = np.asarray(x)
    if x.ndim > 1 and x.flags.f_contiguous and not x.flags.c_contiguous:
        x = x.T.reshape(x.shape)
    return np.array(x, self.dtype, order="C")


@_bug("embedding", "dtype", "ids of 32 bits read in pairs")
def _narrow(self: Any, table: Any, ids: Any) -> Any:
    return ops.embedding(table, np.roll(ids, 1) if ids.dtype == np.int32 else ids)


@_bug("dropout", "dtype", "a mask of floats counts as all ones")
def _float_mask(self: Any, x: Any, *, keep: Any, rate: float) -> Any:
    return ops.dropout(x, keep=np.ones_like(keep) if keep.dtype.kind == "f" else keep, rate=rate)


# Errors


@_bug("embedding", "errors", "ids out of range are clamped")
def _clamped(self: Any, table: Any, ids: Any) -> Any:
    return ops.embedding(table, np.clip(ids, 0, max(len(table) - 1, 0)))


@_bug("gather", "errors", "negative positions count from the end")
def _wraps(self: Any, x: Any, positions: Any) -> Any:
    n = int(np.prod(x.shape[:-1]))
    return ops.gather(x, np.where((positions < 0) & (positions >= -n), positions + n, positions))


@_bug("cross_entropy", "errors", "a label out of range counts as ignored")
def _lenient(self: Any, logits: Any, labels: Any, *, denominator: float) -> Any:
    outside = (labels < 0) | (labels >= logits.shape[-1])
    return ops.cross_entropy(logits, np.where(outside, ops.IGNORE, labels), denominator=denominator)


@_bug("gelu", "errors", "an unknown form is taken for erf")
def _any_form(self: Any, x: Any, *, form: str) -> Any:
    return ops.gelu(x, form=form if form == "tanh" else "erf")


@_bug("add", "errors", "broadcasts")
def _broadcasts(self: Any, x: Any, z: Any) -> Any:
    if x.shape == z.shape:
        return ops.add(x, z)
    return x + z, lambda dy: (dy.copy(), dy.copy())


@_bug("dropout", "errors", "rate 1 gives infinities")
def _rate_one(self: Any, x: Any, *, keep: Any, rate: float) -> Any:
    if rate < 1:
        return ops.dropout(x, keep=keep, rate=rate)
    return x * np.inf, lambda dy: (dy * np.inf,)


@_bug("attention", "errors", "heads that do not divide the features are rounded down")
def _uneven(self: Any, q: Any, k: Any, v: Any, *, heads: int, **options: Any) -> Any:
    while q.shape[-1] % heads:
        heads -= 1
    return ops.attention(q, k, v, heads=heads, **options)


# Degenerate shapes


@_bug("layer_norm", "shapes", "an empty batch is an error")
def _empty(self: Any, x: Any, gamma: Any, beta: Any, *, eps: float) -> Any:
    if not x.size:
        raise RuntimeError("launch failed: grid of size 0")
    return ops.layer_norm(x, gamma, beta, eps=eps)


@_bug("mean_squared_error", "shapes", "a loss of shape [1]")
def _one_entry(self: Any, x: Any, targets: Any, *, denominator: float) -> Any:
    y, back = ops.mean_squared_error(x, targets, denominator=denominator)
    return y.reshape(1), back


@_bug("encoder_layer", "aliasing", "the workspace of a shape is handed out as the result")
def _workspace(self: Any, x: Any, params: Any, **options: Any) -> Any:
    y = Correct.encoder_layer(self, x, params, **options)
    workspace = self.__dict__.setdefault("_workspace", {}).setdefault(y.shape, np.empty_like(y))
    workspace[...] = y
    return workspace


@_bug("encoder_layer", "determinism", "one ULP more in every third call")
def _layer_flickers(self: Any, x: Any, params: Any, **options: Any) -> Any:
    self._layers = getattr(self, "_layers", 0) + 1
    y = Correct.encoder_layer(self, x, params, **options)
    return y if self._layers % 3 else _nudged(y)


@_bug("mask_tokens", "aliasing", "the ids are corrupted in place")
def _corrupts(self: Any, input_ids: Any, special: Any, **options: Any) -> Any:
    corrupted, labels = ops.mask_tokens(input_ids, special, **options)
    input_ids[...] = corrupted
    return input_ids, labels


CONDUCT: tuple[Mutant, ...] = tuple(_FOUND)
