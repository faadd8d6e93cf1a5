"""Mutants in conduct: the numbers of one call are right, and the backend is wrong all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from refbert import ops
from refbert_conformance.mutants.mutant import Correct, Mutant, mutant

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


@_bug("dropout", "dropout", "rate 0 ignores the mask")
def _no_rate(self: Any, x: Any, *, keep: Any, rate: float) -> Any:
    return ops.dropout(x, keep=keep if rate else np.ones_like(keep), rate=rate)


@_bug("attention", "dropout", "scaled by the rate without a mask")
def _scaled_anyway(self: Any, q: Any, k: Any, v: Any, *, keep: Any = None, rate: float = 0.0, **o: Any) -> Any:
    y, back = ops.attention(q, k, v, keep=keep, rate=rate, **o)
    return (y if keep is not None else y / np.asarray(1 - (rate or 0), y.dtype)), back


@_bug("tanh", "determinism", "one result in 250 calls is a little off")
def _seldom(self: Any, x: Any) -> Any:
    y, back = ops.tanh(x)
    self._calls = getattr(self, "_calls", 0) + 1
    return (y if self._calls % 250 else y * y.dtype.type(1 + 1e-3)), back


def _warming(op: str) -> Any:
    """Nothing but the first call of an instance is wrong."""

    def method(self: Any, *arguments: Any, **options: Any) -> Any:
        found = getattr(super(type(self), self), op)(*arguments, **options)
        warm = self.__dict__.setdefault("_warm", set())
        if op in warm:
            return found
        warm.add(op)
        first, *rest = found if isinstance(found, tuple) else (found,)
        return (first * 2, *rest) if rest else first * 2

    return method


_FOUND += [
    mutant(op, "state", "the very first call is wrong", **{op: _warming(op)})
    for op in ("linear", "attention", "update", "encoder_layer", "packed_encoder_layer", "objective")
]


# What the last call left behind


@_bug("layer_norm", "state", "the pullback takes the last call's eps")
def _last_eps(self: Any, x: Any, gamma: Any, beta: Any, *, eps: float) -> Any:
    self._eps = eps
    y, _ = ops.layer_norm(x, gamma, beta, eps=eps)
    return y, lambda dy: ops.layer_norm(x, gamma, beta, eps=self._eps)[1](dy)


@_bug("gelu", "state", "the pullback takes the last call's form")
def _last_form(self: Any, x: Any, *, form: str) -> Any:
    y, _ = ops.gelu(x, form=form)
    self._form = form
    return y, lambda dy: ops.gelu(x, form=self._form)[1](dy)


@_bug("dropout", "state", "the pullback takes the last call's rate")
def _last_rate(self: Any, x: Any, *, keep: Any, rate: float) -> Any:
    y, _ = ops.dropout(x, keep=keep, rate=rate)
    self._rate = rate
    return y, lambda dy: ops.dropout(x, keep=keep, rate=self._rate)[1](dy)


@_bug("relu", "aliasing", "results in eight buffers by turns")
def _ring(self: Any, x: Any) -> Any:
    y, back = ops.relu(x)
    ring = self.__dict__.setdefault("_ring", {}).setdefault(y.shape, [])
    if len(ring) < 8:
        ring.append(y.copy())
        return ring[-1], back
    buffer = ring.pop(0)
    ring.append(buffer)
    buffer[...] = y
    return buffer, back


@_bug("attention", "state", "after an error the next call has one head")
def _shaken_off(self: Any, q: Any, k: Any, v: Any, **o: Any) -> Any:
    try:
        result = ops.attention(q, k, v, **o)
    except ValueError:
        self._shaken = True
        raise
    return ops.attention(q, k, v, **{**o, "heads": 1, "keep": None}) if self.__dict__.pop("_shaken", False) else result


@_bug("encoder_layer", "state", "weights kept while the query weight is the same array")
def _packed(self: Any, x: Any, params: Any, **options: Any) -> Any:
    kept = self.__dict__.setdefault("_packed", {})
    query = params["attention.self.query.weight"]
    if kept.get("query") is not query:
        kept.update(query=query, params={name: params[name] for name in params})
    return Correct.encoder_layer(self, x, kept["params"], **options)


# Layouts, and numbers that are none


@_bug("gelu", "layout", "reads memory in the order in which it lies")
def _as_it_lies(self: Any, x: Any, *, form: str) -> Any:
    return ops.gelu(x.ravel(order="K").reshape(x.shape), form=form)


@_bug("linear", "layout", "the pullback reads the cotangent as it lies in memory")
def _dy_as_it_lies(self: Any, x: Any, w: Any, b: Any) -> Any:
    y, back = ops.linear(x, w, b)
    return y, lambda dy: back(dy.ravel(order="K").reshape(dy.shape))


@_bug("add", "aliasing", "x + x gives each the sum of both gradients")
def _twice(self: Any, x: Any, z: Any) -> Any:
    y, back = ops.add(x, z)
    return y, (back if x is not z else lambda dy: (2 * dy, 2 * dy))


@_bug("layer_norm", "not finite", "NaN in the cotangent comes out as 0")
def _no_nan(self: Any, x: Any, gamma: Any, beta: Any, *, eps: float) -> Any:
    y, back = ops.layer_norm(x, gamma, beta, eps=eps)
    return y, lambda dy: tuple(np.nan_to_num(d) for d in back(dy))


@_bug("softmax", "not finite", "gradients clipped to ±100")
def _clips(self: Any, x: Any) -> Any:
    p, back = ops.softmax(x)
    return p, lambda dp: (np.clip(back(dp)[0], -100, 100),)


@_bug("add", "not finite", "infinity becomes the largest number")
def _cut_off(self: Any, x: Any, z: Any) -> Any:
    y, back = ops.add(x, z)
    return np.clip(y, np.finfo(y.dtype).min, np.finfo(y.dtype).max), back


@_bug("reshape", "not finite", "−0 becomes 0")
def _no_sign(self: Any, x: Any, shape: Any) -> Any:
    y, back = ops.reshape(x, shape)
    return y + y.dtype.type(0), back


@_bug("cross_entropy", "not finite", "a class of logit −∞ makes the loss NaN")
def _ruled_out(self: Any, logits: Any, labels: Any, *, denominator: float) -> Any:
    y, back = ops.cross_entropy(logits, labels, denominator=denominator)
    return (np.asarray(np.nan, y.dtype) if np.isneginf(logits).any() else y), back


@_bug("embedding", "shapes", "a single id is an error")
def _single(self: Any, table: Any, ids: Any) -> Any:
    if not np.ndim(ids):
        raise RuntimeError("ids need an axis")
    return ops.embedding(table, ids)


CONDUCT: tuple[Mutant, ...] = tuple(_FOUND)
