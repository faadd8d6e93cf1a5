"""Mutants of size: right on small arrays, wrong from the sizes on where kernels, tiles and index types change.

A row: the op, what is wrong, when (of its arrays and options), and what is done then: ``given`` changes what the op is
given, ``y`` its result, ``dy`` the cotangent that its pullback is given for arguments beyond the first (parameters),
``dx`` the first argument's gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from refbert import ops
from refbert.text.batching import Batch
from refbert_conformance.mutants.mutant import Change, Mutant, mutants

Hook = Callable[..., Any]


def rows(x: Any) -> int:
    """Of the last axis."""
    return int(np.prod(x.shape[:-1]))


def _zero(x: Any, chosen: Any) -> Any:
    y = np.array(x)
    flat = y.reshape(-1, y.shape[-1]) if y.ndim > 1 else y
    flat[chosen] = 0
    return y


def _tail(tile: int) -> Hook:
    """Without the rows behind the last whole tile."""
    return lambda x: _zero(x, slice(rows(x) // tile * tile, None) if rows(x) % tile else slice(0, 0))


def _last(x: Any) -> Any:
    return _zero(x, slice(-1, None))


def _wrapped(x: Any) -> Any:
    """As if rows were counted in 16 bits."""
    y = np.array(x)
    flat = y.reshape(-1, y.shape[-1])
    flat[2**16 :] = flat[: len(flat) - 2**16]
    return y


def _column(x: Any) -> Any:
    y = np.array(x)
    y[..., -1] = y[..., 0]
    return y


def _see(first: int) -> Hook:
    """The mask forgotten from a key on."""
    return lambda mask, **_: {"mask": np.where(np.arange(np.shape(mask)[1]) < first, mask, 1)}


def _ids(bits: int, name: str) -> Hook:
    return lambda **o: {name: np.asarray(o[name]) % (1 << bits)}


_TABLE: tuple[tuple[str, str, Hook, dict[str, Hook]], ...] = (
    ("linear", "the last row left out where rows and dimensions are 128 or more",
     lambda x, w, b: rows(x) >= 128 and min(w.shape) >= 128, {"y": _last}),
    ("linear", "dx of the last row left out where rows and dimensions are 128 or more",
     lambda x, w, b: rows(x) >= 128 and min(w.shape) >= 128, {"dx": _last}),
    ("linear", "the last output is the first for weights of 3072 x 768", lambda x, w, b: w.shape == (3072, 768), {"y": _column}),
    ("linear", "the last output is the first for weights of 768 x 3072", lambda x, w, b: w.shape == (768, 3072), {"y": _column}),
    ("linear", "the last output is the first for a vocabulary", lambda x, w, b: len(w) >= 30_522, {"y": _column}),
    ("linear", "rows counted in 16 bits", lambda x, w, b: rows(x) > 2**16, {"y": _wrapped}),
    ("linear", "terms counted in 16 bits", lambda x, w, b: w.shape[1] > 2**16, {"dx": _last}),
    ("linear", "dw and db without the last part of a tile of 64 rows, beyond 1024", lambda x, w, b: rows(x) > 1024, {"dy": _tail(64)}),
    ("linear", "dw and db without the rows of a second chunk of 640", lambda x, w, b: rows(x) > 640, {"dy": lambda dy: _zero(dy, slice(640, None))}),
    ("gelu", "the last row left out beyond 2^20 entries", lambda x, form: x.size > 2**20, {"y": _last}),
    ("gelu", "dx of the last row left out beyond 2^20 entries", lambda x, form: x.size > 2**20, {"dx": _last}),
    ("tanh", "rows counted in 16 bits", lambda x: rows(x) > 2**16, {"y": _wrapped}),
    ("relu", "dx of the last row left out beyond 2^20 entries", lambda x: x.size > 2**20, {"dx": _last}),
    ("add", "the last row left out beyond 2^20 entries", lambda x, z: x.size > 2**20, {"y": _last}),
    ("dropout", "nothing dropped beyond 2^20 entries", lambda x, keep, rate: x.size > 2**20,
     {"given": lambda keep, **_: {"keep": np.ones_like(keep)}}),
    ("softmax", "rows counted in 16 bits", lambda x: rows(x) > 2**16, {"y": _wrapped}),
    ("softmax", "the last column is the first in rows of 512 and longer", lambda x: x.shape[-1] >= 512 and rows(x) > 64, {"y": _column}),
    ("cross_entropy", "dz of the last row left out where there are 64 of a vocabulary",
     lambda logits, labels, denominator: logits.shape[-1] >= 30_522 and rows(logits) >= 64, {"dx": _last}),
    ("cross_entropy", "labels in 16 bits", lambda logits, labels, denominator: logits.shape[-1] > 2**16,
     {"given": lambda labels, **_: {"labels": np.where(labels == ops.IGNORE, ops.IGNORE, labels % 2**16)}}),
    ("cross_entropy", "rows beyond 2^16 do not count", lambda logits, labels, denominator: rows(logits) > 2**16,
     {"given": lambda labels, **_: {"labels": np.where(np.arange(labels.size).reshape(labels.shape) < 2**16, labels, ops.IGNORE)}}),
    ("layer_norm", "dγ and dβ without the last part of a tile of 64 rows, beyond 1024", lambda x, gamma, beta, eps: rows(x) > 1024, {"dy": _tail(64)}),
    ("layer_norm", "dγ and dβ without the last part of a tile of 32 rows in rows of 768", lambda x, gamma, beta, eps: x.shape[-1] == 768, {"dy": _tail(32)}),
    ("layer_norm", "rows counted in 16 bits", lambda x, gamma, beta, eps: rows(x) > 2**16, {"y": _wrapped}),
    ("embedding", "ids in 16 bits", lambda table, ids: len(table) > 2**16, {"given": _ids(16, "ids")}),
    ("embedding", "the gradient of places beyond 2^16 lost", lambda table, ids: ids.size > 2**16, {"all dy": lambda dy: _zero(dy, slice(2**16, None))}),
    ("gather", "positions in 16 bits", lambda x, positions: rows(x) > 2**16, {"given": _ids(16, "positions")}),
    ("attention", "the mask forgotten beyond key 256", lambda q, k, v, **o: q.shape[1] > 256, {"given": _see(256)}),
    ("attention", "the mask forgotten from 128 tokens on with several sequences", lambda q, k, v, **o: q.shape[1] >= 128 and len(q) > 1, {"given": _see(0)}),
    ("attention", "no dropout beyond 64 tokens", lambda q, k, v, **o: q.shape[1] > 64, {"given": lambda **_: {"keep": None, "rate": 0.0}}),
    ("attention", "the last row left out of 768 features and 512 rows", lambda q, k, v, **o: q.shape[2] == 768 and rows(q) > 512, {"y": _last}),
    ("attention", "dv of the last row left out beyond 128 tokens", lambda q, k, v, **o: q.shape[1] > 128, {"dv": _last}),
    ("attention_probabilities", "the last key is the first beyond 128 tokens", lambda q, k, **o: q.shape[1] > 128, {"y": _column}),
    ("transpose", "the last row left out beyond 2^16", lambda x, axes: rows(x) > 2**12 and x.ndim == 4, {"y": _last}),
)  # fmt: skip


def _sized(op: str, what: str, when: Hook, damage: dict[str, Hook]) -> tuple[str, str, str, Change]:
    def given(self: Any, **named: Any) -> Any:
        return damage["given"](**named) if when(**named) else {}

    def y(self: Any, y: Any, **named: Any) -> Any:
        return damage["y"](y) if when(**named) else y

    def pullback(self: Any, back: Any, dy: Any, **named: Any) -> Any:
        if not when(**named):
            return back(dy)
        found = list(back(damage["all dy"](dy) if "all dy" in damage else dy))
        if "dy" in damage:
            found[1:] = back(damage["dy"](dy))[1:]
        for i, name in enumerate(("dx", "dk", "dv")):
            if name in damage:
                found[i] = damage[name](found[i])
        return tuple(found)

    hooks: dict[str, Hook] = {"given": given, "y": y}
    return op, "sizes", what, {name if name in hooks else "pullback": hooks.get(name, pullback) for name in damage}


# The blocks that a backend has of its own.


def _masked_to(tokens: int) -> Change:
    return {"given": lambda self, x, mask, **_: {"mask": np.ones_like(mask) if x.shape[1] >= tokens else mask}}


def _without(part: str, when: Hook) -> Change:
    """Weights of that name are 0, where that is so of x."""

    def given(self: Any, x: Any, params: Any, **_: Any) -> Any:
        return {"params": {n: (0 if part in n else 1) * params[n] for n in params}} if when(x) else {}

    return {"given": given}


def _last_sequence(self: Any, y: Any, **_: Any) -> Any:
    y = np.array(y)
    y[64:] = y[:1]
    return y


def _packed_to(tokens: int, sequences: int) -> Change:
    """Longer ones are cut in two, and those beyond a number are one."""

    def given(self: Any, lengths: Any, **_: Any) -> Any:
        found: list[int] = []
        for n in (int(n) for n in lengths):
            found += [tokens, n - tokens] if n > tokens else [n]
        if len(found) > sequences:
            found = [*found[:sequences], sum(found[sequences:])]
        return {"lengths": np.array(found)}

    return {"given": given}


def _unmasked(self: Any, batch: Batch, **_: Any) -> Any:
    long = batch.shape[1] >= 10
    return {"batch": replace(batch, attention_mask=np.ones_like(batch.attention_mask)) if long else batch}


def _first_predictions(self: Any, labels: Any, **_: Any) -> Any:
    words = labels.get("labels", np.zeros(0))
    if words.ndim != 2 or words.size <= 512:
        return {}
    counted = np.arange(words.size).reshape(words.shape) < 512
    return {"labels": {**labels, "labels": np.where(counted, words, ops.IGNORE)}}


_BLOCKS: tuple[tuple[str, str, Change], ...] = (
    ("encoder_layer", "the mask forgotten from 10 tokens on", _masked_to(10)),
    ("encoder_layer", "the mask forgotten from 200 tokens on", _masked_to(200)),
    ("encoder_layer", "attention left out from 640 rows on", _without("value", lambda x: rows(x) >= 640)),
    ("encoder_layer", "the feed-forward bias left out where a layer has 768 features",
     _without("intermediate.dense.bias", lambda x: x.shape[2] == 768)),
    ("encoder_layer", "sequences beyond 64 are the first", {"y": _last_sequence}),
    ("packed_encoder_layer", "sequences cut after 128 tokens", _packed_to(128, 1 << 30)),
    ("packed_encoder_layer", "sequences beyond 64 are one", _packed_to(1 << 30, 64)),
    ("objective", "the mask forgotten from 10 tokens on", {"given": _unmasked}),
    ("objective", "no dropout beyond 64 tokens",
     {"given": lambda self, batch, draws, **_: {"draws": draws if batch.shape[1] <= 64 else None}}),
    ("objective", "predictions beyond 512 tokens do not count", {"given": _first_predictions}),
)  # fmt: skip

SIZES: tuple[Mutant, ...] = mutants(
    [*(_sized(*row) for row in _TABLE), *((op, "sizes", what, how) for op, what, how in _BLOCKS)]
)
