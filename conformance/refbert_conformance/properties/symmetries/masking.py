"""mask_tokens, which makes masked-LM data: the numbers given decide, and nothing given is written into."""

from __future__ import annotations

from typing import Any

import numpy as np

from refbert import ops
from refbert.backend import Host
from refbert_conformance.engine.measure import Failure, Record
from refbert_conformance.engine.property import Property
from refbert_conformance.engine.subject import Subject
from refbert_conformance.properties.symmetries.common import equal, symmetry


def properties() -> list[Property]:
    """Its results, and its arguments."""
    return [
        symmetry("forward", "mask_tokens", "draws decide",
                 "Tokens and labels are refbert.ops.mask_tokens', exactly.", _mask_tokens),
        symmetry("forward", "mask_tokens", "inputs unchanged",
                 "Nothing is written into the arrays given.", _mask_tokens_pure),
    ]  # fmt: skip


def _draws(seed: int) -> tuple[tuple[Host, Host], dict[str, Any]]:
    rng = np.random.default_rng(seed)
    shape = (1 + seed % 3, (40, 7, 200, 513)[seed // 3 % 4])
    rate = (0.15, 0.15, 0.5, 1.0)[seed % 4]
    # The edges of every interval, where < and ≤ differ.
    select = np.where(rng.random(shape) < 0.2, rate, rng.random(shape))
    action = np.where(rng.random(shape) < 0.3, rng.choice([0.0, 0.8, 0.9, 0.1, 0.2], shape), rng.random(shape))
    ids = rng.integers(5, 1000, shape)
    special = rng.random(shape) < 0.2
    options = {
        "select": select, "action": action, "random_ids": rng.integers(0, 1000, shape), "rate": rate,
        "mask_id": (103, 4, 0)[seed % 3],
    }  # fmt: skip
    return (ids, special), options


def _mask_tokens(subject: Subject, seed: int, record: Record) -> None:
    arrays, options = _draws(seed)
    want = ops.mask_tokens(*arrays, **options)
    got = subject.op("mask_tokens")(*arrays, **options)
    if not isinstance(got, tuple) or len(got) != 2:
        raise Failure("mask_tokens must return (input_ids, labels)")
    for name, a, b in zip(("input_ids", "labels"), got, want, strict=True):
        if np.asarray(a).dtype.kind not in "iu":
            raise Failure(f"{name} must be integers, they are {np.asarray(a).dtype}")
        equal(np.asarray(a), b, name)


def _mask_tokens_pure(subject: Subject, seed: int, record: Record) -> None:
    arrays, options = _draws(seed)
    every = {**options, "input_ids": arrays[0], "special": arrays[1]}
    before = {name: np.array(value) for name, value in every.items()}
    first = [np.array(x) for x in subject.op("mask_tokens")(*arrays, **options)]
    for name, value in every.items():
        equal(np.asarray(value), before[name], f"after the call, {name}")
    for a, b in zip(first, subject.op("mask_tokens")(*arrays, **options), strict=True):
        equal(np.asarray(b), a, "called again, the result")
