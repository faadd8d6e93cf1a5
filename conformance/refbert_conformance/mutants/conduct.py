"""Mutants in conduct: the numbers of one call are right, and the backend is wrong all the same."""

from __future__ import annotations

from typing import Any

import numpy as np

from refbert import ops
from refbert_conformance.mutants.mutant import Change, Mutant, count, in_buffer, kept, mutants, right

# Writing where nothing may be written


def _softmax_in_place(self: Any, p: Any, x: Any) -> Any:
    if x.flags.writeable:
        x[...] = p
    return p


def _accumulates(self: Any, y: Any, x: Any, z: Any) -> Any:
    if x.flags.writeable and x.ndim > 2:
        x += z
    return y


def _overwrites(self: Any, back: Any, dy: Any, **_: Any) -> Any:
    found = back(dy)
    if dy.flags.writeable:
        dy *= 0
    return found


def _zeroes(self: Any, y: Any, v: Any, mask: Any, **_: Any) -> Any:
    seen = np.asarray(mask).astype(bool)
    if v.flags.writeable and seen.any(axis=-1).all():
        v[~seen] = 0
    return y


def _relabels(self: Any, logits: Any, labels: Any, *, denominator: float) -> Any:
    result = ops.cross_entropy(logits, labels.copy(), denominator=denominator)
    if labels.flags.writeable:
        labels[labels == ops.IGNORE] = 0
    return result


def _ring(self: Any, y: Any, **_: Any) -> Any:
    ring = kept(self, "_rings", y.shape, [])
    if len(ring) < 8:
        ring.append(y.copy())
        return ring[-1]
    ring.append(ring.pop(0))
    ring[-1][...] = y
    return ring[-1]


# State


def _stale(self: Any, x: Any, w: Any, b: Any) -> Any:
    self._last = mine = (x, w, b)
    return ops.linear(*mine)[0], lambda dy: ops.linear(*(self._last if self._last[0].shape == x.shape else mine))[1](dy)


def _once(self: Any, x: Any, gamma: Any, beta: Any, *, eps: float) -> Any:
    y, back = ops.layer_norm(x, gamma, beta, eps=eps)
    factors = [1]

    def pullback(dy: Any) -> Any:
        dx, dgamma, dbeta = back(dy)
        return dx, (factors.pop() if factors else 2) * dgamma, dbeta

    return y, pullback


def _last(op: str, option: str) -> Change:
    """The pullback takes an option of the last call."""

    def given(self: Any, **named: Any) -> Any:
        self._option = named[option]
        return {}

    def pullback(self: Any, back: Any, dy: Any, **named: Any) -> Any:
        return right(self, op)(**named | {option: self._option})[1](dy)

    return {"given": given, "pullback": pullback}


def _shaken_off(self: Any, q: Any, k: Any, v: Any, **o: Any) -> Any:
    try:
        result = ops.attention(q, k, v, **o)
    except ValueError:
        self._shaken = True
        raise
    return ops.attention(q, k, v, **{**o, "heads": 1, "keep": None}) if self.__dict__.pop("_shaken", False) else result


def weights_kept(self: Any, params: Any, **_: Any) -> Any:
    """A layer's weights kept while the query weight is the same array."""
    query, found = getattr(self, "_weights", (None, {}))
    if query is not params["attention.self.query.weight"]:
        found = {name: params[name] for name in params}
        self._weights = found["attention.self.query.weight"], found
    return {"params": found}


# Determinism


def _nudged(y: Any) -> Any:
    """One entry moved by one unit in the last place."""
    y = np.array(y)
    if y.size:
        flat = y.reshape(-1)
        flat[-1] = np.nextafter(flat[-1], flat[-1] + 1, dtype=y.dtype)
    return y


def _noise(self: Any, p: Any, **_: Any) -> Any:
    rng = self.__dict__.setdefault("_rng", np.random.default_rng())
    return _nudged(p) if rng.random() < 0.3 else p


# Dtypes and layouts


def _half(self: Any, x: Any, targets: Any, *, denominator: float) -> Any:
    y, back = ops.mean_squared_error(x.astype(np.float16), targets, denominator=denominator)
    return y.astype(x.dtype), lambda dy: tuple(d.astype(x.dtype) for d in back(dy))


def _other(self: Any, y: Any, **_: Any) -> Any:
    return y.astype(np.float64 if self.dtype == "float32" else np.float32)


def _cuts(self: Any, y: Any, x: Any) -> Any:
    if self.dtype == "float64" or not y.size:
        return y
    with np.errstate(all="ignore"):
        larger = np.isfinite(y) & (abs(y.astype(np.float64)) > abs(np.asarray(x, np.float64)))
        return np.where(larger, np.nextafter(y, np.float32(0)), y).astype(self.dtype)


def _endian(self: Any, x: Any) -> Any:
    swapped = x.dtype.kind == "f" and not x.dtype.isnative
    return {"x": x.view(x.dtype.newbyteorder("=")) if swapped else x}


def _fortran(self: Any, x: Any) -> Any:
    if x.ndim > 1 and x.flags.f_contiguous and not x.flags.c_contiguous:
        x = x.T.reshape(x.shape)
    return {"x": np.array(x, order="C")}


def as_it_lies(x: Any) -> Any:
    """Its memory in the order in which it lies, read as rows."""
    return x.ravel(order="K").reshape(x.shape)


# Errors


def _broadcasts(self: Any, x: Any, z: Any) -> Any:
    return ops.add(x, z) if x.shape == z.shape else (x + z, lambda dy: (dy.copy(), dy.copy()))


def _rate_one(self: Any, x: Any, *, keep: Any, rate: float) -> Any:
    return ops.dropout(x, keep=keep, rate=rate) if rate < 1 else (x * np.inf, lambda dy: (dy * np.inf,))


def _wraps(self: Any, x: Any, positions: Any) -> Any:
    n = int(np.prod(x.shape[:-1]))
    return {"positions": np.where((positions < 0) & (positions >= -n), positions + n, positions)}


def _lenient(self: Any, logits: Any, labels: Any, **_: Any) -> Any:
    return {"labels": np.where((labels < 0) | (labels >= logits.shape[-1]), ops.IGNORE, labels)}


def _empty(self: Any, x: Any, **_: Any) -> Any:
    if not x.size:
        raise RuntimeError("launch failed: grid of size 0")
    return {}


def _single(self: Any, ids: Any, **_: Any) -> Any:
    if not np.ndim(ids):
        raise RuntimeError("ids need an axis")
    return {}


_TABLE: tuple[tuple[str, str, str, Change], ...] = (
    ("gelu", "aliasing", "the output buffer is used again by the next call of that shape", {"y": in_buffer}),
    ("linear", "aliasing", "the pullback reads the last call's input", _stale),
    ("layer_norm", "aliasing", "the pullback frees what it saved: a second call gives something else", _once),
    ("softmax", "aliasing", "the result is written over the input", {"y": _softmax_in_place}),
    ("add", "aliasing", "accumulates into its first argument", {"y": _accumulates}),
    ("tanh", "aliasing", "the pullback writes into the cotangent", {"pullback": _overwrites}),
    ("attention", "aliasing", "masked entries of v are zeroed in place", {"y": _zeroes}),
    ("cross_entropy", "aliasing", "ignored labels are overwritten by 0 on the host", _relabels),
    ("to_numpy", "aliasing", "every result in one buffer of the host", {"y": in_buffer}),
    ("attention_probabilities", "aliasing", "the mask of the first call of that shape is kept",
     {"given": lambda self, mask, **_: {"mask": kept(self, "_masks", (mask.shape, mask.dtype), np.array(mask))}}),
    ("linear", "determinism", "one ULP more in every second call", {"y": lambda self, y, **_: y if count(self) % 2 else _nudged(y)}),
    ("gather", "determinism", "one ULP more in every fifth pullback",
     {"pullback": lambda self, back, dy, **_: back(dy) if count(self) % 5 else tuple(map(_nudged, back(dy)))}),
    ("softmax", "determinism", "noise of one ULP", {"y": _noise}),
    ("mean_squared_error", "dtype", "computes in float16", _half),
    ("tanh", "dtype", "results of another dtype than the backend's", {"y": _other}),
    ("to_numpy", "dtype", "always float64", {"y": _other}),
    ("asarray", "dtype", "cuts instead of rounding", {"y": _cuts}),
    ("asarray", "dtype", "subnormal numbers flushed to zero, undeclared",
     {"y": lambda self, y, **_: np.where(abs(y) < np.finfo(y.dtype).tiny, 0 * y, y)}),
    ("asarray", "dtype", "big-endian arrays read as they lie", {"given": _endian}),
    ("asarray", "dtype", "Fortran order read as rows", {"given": _fortran}),
    ("embedding", "dtype", "ids of 32 bits read in pairs",
     {"given": lambda self, ids, **_: {"ids": np.roll(ids, 1) if ids.dtype == np.int32 else ids}}),
    ("dropout", "dtype", "a mask of floats counts as all ones",
     {"given": lambda self, keep, **_: {"keep": np.ones_like(keep) if keep.dtype.kind == "f" else keep}}),
    ("embedding", "errors", "ids out of range are clamped",
     {"given": lambda self, table, ids: {"ids": np.clip(ids, 0, max(len(table) - 1, 0))}}),
    ("gather", "errors", "negative positions count from the end", {"given": _wraps}),
    ("cross_entropy", "errors", "a label out of range counts as ignored", {"given": _lenient}),
    ("gelu", "errors", "an unknown form is taken for erf",
     {"given": lambda self, form, **_: {"form": form if form == "tanh" else "erf"}}),
    ("add", "errors", "broadcasts", _broadcasts),
    ("dropout", "errors", "rate 1 gives infinities", _rate_one),
    ("attention", "errors", "heads that do not divide the features are rounded down",
     {"given": lambda self, q, heads, **_: {"heads": next(n for n in range(heads, 0, -1) if q.shape[-1] % n == 0)}}),
    ("layer_norm", "shapes", "an empty batch is an error", {"given": _empty}),
    ("mean_squared_error", "shapes", "a loss of shape [1]", {"y": lambda self, y, **_: y.reshape(1)}),
    ("encoder_layer", "aliasing", "the workspace of a shape is handed out as the result", {"y": in_buffer}),
    ("encoder_layer", "determinism", "one ULP more in every third call",
     {"y": lambda self, y, **_: y if count(self) % 3 else _nudged(y)}),
    ("dropout", "dropout", "rate 0 ignores the mask",
     {"given": lambda self, keep, rate, **_: {"keep": keep if rate else np.ones_like(keep)}}),
    ("attention", "dropout", "scaled by the rate without a mask",
     {"y": lambda self, y, keep, rate, **_: y if keep is not None else y / np.asarray(1 - (rate or 0), y.dtype)}),
    ("tanh", "determinism", "one result in 250 calls is a little off",
     {"y": lambda self, y, **_: y if count(self) % 250 else y * y.dtype.type(1 + 1e-3)}),
    *(
        (op, "state", "the very first call is wrong", {"y": lambda self, y, **_: y if count(self) > 1 else 2 * y})
        for op in ("linear", "attention", "update", "encoder_layer", "packed_encoder_layer", "objective")
    ),
    ("layer_norm", "state", "the pullback takes the last call's eps", _last("layer_norm", "eps")),
    ("gelu", "state", "the pullback takes the last call's form", _last("gelu", "form")),
    ("dropout", "state", "the pullback takes the last call's rate", _last("dropout", "rate")),
    ("relu", "aliasing", "results in eight buffers by turns", {"y": _ring}),
    ("attention", "state", "after an error the next call has one head", _shaken_off),
    ("encoder_layer", "state", "weights kept while the query weight is the same array", {"given": weights_kept}),
    ("gelu", "layout", "reads memory in the order in which it lies", {"given": lambda self, x, **_: {"x": as_it_lies(x)}}),
    ("linear", "layout", "the pullback reads the cotangent as it lies in memory",
     {"pullback": lambda self, back, dy, **_: back(as_it_lies(dy))}),
    ("add", "aliasing", "x + x gives each the sum of both gradients",
     {"pullback": lambda self, back, dy, x, z: back(dy) if x is not z else (2 * dy, 2 * dy)}),
    ("layer_norm", "not finite", "NaN in the cotangent comes out as 0",
     {"pullback": lambda self, back, dy, **_: tuple(map(np.nan_to_num, back(dy)))}),
    ("softmax", "not finite", "gradients clipped to ±100",
     {"pullback": lambda self, back, dy, **_: tuple(np.clip(d, -100, 100) for d in back(dy))}),
    ("add", "not finite", "infinity becomes the largest number",
     {"y": lambda self, y, **_: np.clip(y, np.finfo(y.dtype).min, np.finfo(y.dtype).max)}),
    ("reshape", "not finite", "−0 becomes 0", {"y": lambda self, y, **_: y + y.dtype.type(0)}),
    ("cross_entropy", "not finite", "a class of logit −∞ makes the loss NaN",
     {"y": lambda self, y, logits, **_: np.asarray(np.nan, y.dtype) if np.isneginf(logits).any() else y}),
    ("embedding", "shapes", "a single id is an error", {"given": _single}),
)  # fmt: skip

CONDUCT: tuple[Mutant, ...] = mutants(_TABLE)
