"""Mutants in packing: sequences end to end that are taken apart wrongly."""

from __future__ import annotations

from typing import Any

import numpy as np

from refbert_conformance.mutants.mutant import Correct, Mutant, mutant


def _one_sequence(self: Any, x: Any, params: Any, *, lengths: Any, **options: Any) -> Any:
    return Correct.packed_encoder_layer(self, x, params, lengths=np.array([len(x)]), **options)


def _by_length(self: Any, x: Any, params: Any, *, lengths: Any, **options: Any) -> Any:
    order = np.argsort(lengths, kind="stable")
    return Correct.packed_encoder_layer(self, x, params, lengths=np.asarray(lengths)[order], **options)


def _first_lengths(self: Any, x: Any, params: Any, *, lengths: Any, **options: Any) -> Any:
    kept = self.__dict__.setdefault("_lengths", {}).setdefault((len(x), len(lengths)), np.array(lengths))
    return Correct.packed_encoder_layer(self, x, params, lengths=kept, **options)


def _one_too_far(self: Any, x: Any, params: Any, *, lengths: Any, **options: Any) -> Any:
    y = Correct.packed_encoder_layer(self, x, params, lengths=lengths, **options)
    for start in np.cumsum(lengths)[:-1]:
        y[start - 1] += x[start] * np.float32(1e-3)
    return y


def _eps(self: Any, x: Any, params: Any, *, lengths: Any, eps: float, **options: Any) -> Any:
    return Correct.packed_encoder_layer(self, x, params, lengths=lengths, eps=1e-12, **options)


def _workspace(self: Any, x: Any, params: Any, **options: Any) -> Any:
    y = Correct.packed_encoder_layer(self, x, params, **options)
    workspace = self.__dict__.setdefault("_packed_workspace", {}).setdefault(y.shape, np.empty_like(y))
    workspace[...] = y
    return workspace


def _joined(self: Any, x: Any, params: Any, **options: Any) -> Any:
    kept = self.__dict__.setdefault("_joined", {})
    if kept.get("query") is not params["attention.self.query.weight"]:
        kept.update(query=params["attention.self.query.weight"], params={name: params[name] for name in params})
    return Correct.packed_encoder_layer(self, x, kept["params"], **options)


PACKED: tuple[Mutant, ...] = tuple(
    mutant("packed_encoder_layer", area, what, packed_encoder_layer=method)
    for area, what, method in (
        ("masking", "all is one sequence", _one_sequence),
        ("shapes", "lengths taken in order of size", _by_length),
        ("state", "the lengths of the first call of a shape", _first_lengths),
        ("masking", "a sequence's last token sees the next one's first", _one_too_far),
        ("options", "eps 1e-12, whatever is asked for", _eps),
        ("aliasing", "the workspace of a shape is handed out as the result", _workspace),
        ("state", "weights kept while the query weight is the same array", _joined),
    )
)
