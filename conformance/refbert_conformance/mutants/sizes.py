"""Mutants of size: right on small arrays, wrong from the sizes on where kernels, tiles and index types change.

A row: the op, what is wrong, when (of its arrays and options), and what is done then: ``given`` changes what the op is
given, ``y`` its result, ``dy`` the cotangent that its pullback is given for arguments beyond the first (parameters),
``dx`` the first argument's gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from refbert import ops
from refbert.text.batching import Batch
from refbert_conformance.mutants.mutant import Correct, Mutant, mutant

Change = Callable[..., Any]


def rows(x: Any) -> int:
    """Of the last axis."""
    return int(np.prod(x.shape[:-1]))


def _zero(x: Any, chosen: Any) -> Any:
    y = np.array(x)
    flat = y.reshape(-1, y.shape[-1]) if y.ndim > 1 else y
    flat[chosen] = 0
    return y


def _tail(tile: int) -> Change:
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


def _see(first: int) -> Change:
    """The mask forgotten from a key on."""

    def given(options: dict[str, Any]) -> dict[str, Any]:
        mask = np.array(options["mask"])
        mask[:, first:] = 1
        return {**options, "mask": mask}

    return given


def _undropped(options: dict[str, Any]) -> dict[str, Any]:
    return {**options, "keep": None, "rate": 0.0}


def _ids(bits: int, name: str) -> Change:
    return lambda options: {**options, name: np.asarray(options[name]) % (1 << bits)}


_TABLE: tuple[tuple[str, str, Change, dict[str, Change]], ...] = (
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
     {"given": lambda o: {**o, "keep": np.ones_like(o["keep"])}}),
    ("softmax", "rows counted in 16 bits", lambda x: rows(x) > 2**16, {"y": _wrapped}),
    ("softmax", "the last column is the first in rows of 512 and longer", lambda x: x.shape[-1] >= 512 and rows(x) > 64, {"y": _column}),
    ("cross_entropy", "dz of the last row left out where there are 64 of a vocabulary",
     lambda z, labels, denominator: z.shape[-1] >= 30_522 and rows(z) >= 64, {"dx": _last}),
    ("cross_entropy", "labels in 16 bits", lambda z, labels, denominator: z.shape[-1] > 2**16,
     {"given": lambda o: {**o, "labels": np.where(o["labels"] == ops.IGNORE, ops.IGNORE, o["labels"] % 2**16)}}),
    ("cross_entropy", "rows beyond 2^16 do not count", lambda z, labels, denominator: rows(z) > 2**16,
     {"given": lambda o: {**o, "labels": np.where(np.arange(o["labels"].size).reshape(o["labels"].shape) < 2**16, o["labels"], ops.IGNORE)}}),
    ("layer_norm", "dγ and dβ without the last part of a tile of 64 rows, beyond 1024", lambda x, gamma, beta, eps: rows(x) > 1024, {"dy": _tail(64)}),
    ("layer_norm", "dγ and dβ without the last part of a tile of 32 rows in rows of 768", lambda x, gamma, beta, eps: x.shape[-1] == 768, {"dy": _tail(32)}),
    ("layer_norm", "rows counted in 16 bits", lambda x, gamma, beta, eps: rows(x) > 2**16, {"y": _wrapped}),
    ("embedding", "ids in 16 bits", lambda table, ids: len(table) > 2**16, {"given": _ids(16, "ids")}),
    ("embedding", "the gradient of places beyond 2^16 lost", lambda table, ids: ids.size > 2**16, {"all dy": lambda dy: _zero(dy, slice(2**16, None))}),
    ("gather", "positions in 16 bits", lambda x, positions: rows(x) > 2**16, {"given": _ids(16, "positions")}),
    ("attention", "the mask forgotten beyond key 256", lambda q, k, v, **o: q.shape[1] > 256, {"given": _see(256)}),
    ("attention", "the mask forgotten from 128 tokens on with several sequences", lambda q, k, v, **o: q.shape[1] >= 128 and len(q) > 1, {"given": _see(0)}),
    ("attention", "no dropout beyond 64 tokens", lambda q, k, v, **o: q.shape[1] > 64, {"given": _undropped}),
    ("attention", "the last row left out of 768 features and 512 rows", lambda q, k, v, **o: q.shape[2] == 768 and rows(q) > 512, {"y": _last}),
    ("attention", "dv of the last row left out beyond 128 tokens", lambda q, k, v, **o: q.shape[1] > 128, {"dv": _last}),
    ("attention_probabilities", "the last key is the first beyond 128 tokens", lambda q, k, **o: q.shape[1] > 128, {"y": _column}),
    ("transpose", "the last row left out beyond 2^16", lambda x, axes: rows(x) > 2**12 and x.ndim == 4, {"y": _last}),
)  # fmt: skip
# Host arguments that the spec gives by position.
_NAMED = {"embedding": "ids", "gather": "positions", "cross_entropy": "labels", "transpose": "axes"}


def _sized(op: str, what: str, when: Change, damage: dict[str, Change]) -> Mutant:
    def method(self: Any, *arrays: Any, **options: Any) -> Any:
        if op in _NAMED and _NAMED[op] not in options:
            *arrays, options[_NAMED[op]] = arrays  # type: ignore[assignment]
        if not when(*arrays, **options):
            return getattr(ops, op)(*arrays, **options)
        y, back = getattr(ops, op)(*arrays, **(damage["given"](options) if "given" in damage else options))
        if "y" in damage:
            y = damage["y"](y)

        def pullback(dy: Any) -> Any:
            found = list(back(damage["all dy"](dy) if "all dy" in damage else dy))
            if "dy" in damage:
                found[1:] = back(damage["dy"](dy))[1:]
            if "dx" in damage:
                found[0] = damage["dx"](found[0])
            if "dv" in damage:
                found[2] = damage["dv"](found[2])
            return tuple(found)

        return y, pullback

    return mutant(op, "sizes", what, **{op: method})


# The blocks that a backend has of its own.


def _masked_to(tokens: int) -> Change:
    def layer(self: Any, x: Any, params: Any, *, mask: Any, **options: Any) -> Any:
        seen = np.ones_like(np.asarray(mask)) if x.shape[1] >= tokens else mask
        return Correct.encoder_layer(self, x, params, mask=seen, **options)

    return layer


def _no_attention(self: Any, x: Any, params: Any, **options: Any) -> Any:
    if rows(x) >= 640:
        params = {n: w * (0 if "value" in n else 1) for n, w in ((n, params[n]) for n in params)}
    return Correct.encoder_layer(self, x, params, **options)


def _no_bias(self: Any, x: Any, params: Any, **options: Any) -> Any:
    if x.shape[2] == 768:
        params = {n: w * (0 if n == "intermediate.dense.bias" else 1) for n, w in ((n, params[n]) for n in params)}
    return Correct.encoder_layer(self, x, params, **options)


def _last_sequence(self: Any, x: Any, params: Any, **options: Any) -> Any:
    y = np.array(Correct.encoder_layer(self, x, params, **options))
    if len(y) > 64:
        y[64:] = y[:1]
    return y


def _packed_to(tokens: int, sequences: int) -> Change:
    """Longer ones are cut in two, and those beyond a number are one."""

    def layer(self: Any, x: Any, params: Any, *, lengths: Any, **options: Any) -> Any:
        found: list[int] = []
        for n in (int(n) for n in lengths):
            found += [tokens, n - tokens] if n > tokens else [n]
        if len(found) > sequences:
            found = [*found[:sequences], sum(found[sequences:])]
        return Correct.packed_encoder_layer(self, x, params, lengths=np.array(found), **options)

    return layer


def _step(change: Callable[[Batch, Any, Any], tuple[Batch, Any, Any]]) -> Change:
    def objective(self: Any, params: Any, batch: Any, labels: Any, heads: Any, c: Any, *, draws: Any = None,
                  denominators: Any = None) -> Any:  # fmt: skip
        batch, labels, draws = change(batch, labels, draws)
        return Correct.objective(self, params, batch, labels, heads, c, draws=draws, denominators=denominators)

    return objective


def _unmasked(batch: Batch, labels: Any, draws: Any) -> Any:
    if batch.shape[1] >= 10:
        batch = Batch(batch.input_ids, batch.token_type_ids, np.ones_like(batch.attention_mask))
    return batch, labels, draws


def _evaluated(batch: Batch, labels: Any, draws: Any) -> Any:
    return batch, labels, draws if batch.shape[1] <= 64 else None


def _first_predictions(batch: Batch, labels: Any, draws: Any) -> Any:
    if "labels" in labels and labels["labels"].ndim == 2 and labels["labels"].size > 512:
        kept = labels["labels"].copy()
        kept.reshape(-1)[512:] = ops.IGNORE
        labels = {**labels, "labels": kept}
    return batch, labels, draws


SIZES: tuple[Mutant, ...] = (
    *(_sized(*row) for row in _TABLE),
    *(
        mutant(op, "sizes", what, **{op: method})
        for op, what, method in (
            ("encoder_layer", "the mask forgotten from 10 tokens on", _masked_to(10)),
            ("encoder_layer", "the mask forgotten from 200 tokens on", _masked_to(200)),
            ("encoder_layer", "attention left out from 640 rows on", _no_attention),
            ("encoder_layer", "the feed-forward bias left out where a layer has 768 features", _no_bias),
            ("encoder_layer", "sequences beyond 64 are the first", _last_sequence),
            ("packed_encoder_layer", "sequences cut after 128 tokens", _packed_to(128, 1 << 30)),
            ("packed_encoder_layer", "sequences beyond 64 are one", _packed_to(1 << 30, 64)),
            ("objective", "the mask forgotten from 10 tokens on", _step(_unmasked)),
            ("objective", "no dropout beyond 64 tokens", _step(_evaluated)),
            ("objective", "predictions beyond 512 tokens do not count", _step(_first_predictions)),
        )
    ),
)
