"""What the optimizer updates are tried on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st

from refbert.backend import Host
from refbert_conformance.cases.inputs import REGIMES, fill, rounded

_SHAPES = ((3,), (1,), (2, 3), (5, 7), (130,), (40, 33), (2, 3, 5), (), (0, 3))


@dataclass(frozen=True)
class UpdateCase:
    """One update of one tensor: (p, g, m, v) and the rule's options."""

    op: str
    arrays: tuple[Host, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True)
class ClipCase:
    """Gradients by name, and the options of clip_by_global_norm."""

    gradients: Mapping[str, Host]
    options: Mapping[str, Any]


def _update(
    op: str, dtype: str, shape: tuple[int, ...], regimes: tuple[str, str, str], seed: int, v_scale: float,
    options: Mapping[str, Any], step: int,
) -> UpdateCase:  # fmt: skip
    p = fill(shape, regimes[0], seed, dtype)
    g = fill(shape, regimes[1], seed + 1, dtype)
    m = fill(shape, regimes[2], seed + 2, dtype)
    v = rounded(v_scale * np.random.default_rng(seed + 3).random(shape), dtype)  # a mean of squares: never negative
    return UpdateCase(op, (p, g, m, v), dict(options) | ({} if op == "bert_adam" else {"step": step}))


def update_cases(op: str, dtype: str) -> st.SearchStrategy[UpdateCase]:
    """v from 0 over ε² to 10⁴; steps from the first to beyond where 1 − βᵗ is 1."""
    regime = st.sampled_from(tuple(REGIMES))
    return st.builds(
        _update,
        st.just(op),
        st.just(dtype),
        st.sampled_from(_SHAPES),
        st.tuples(regime, regime, regime),
        st.integers(0, 2**20),
        st.sampled_from([1.0, 0.0, 1e-12, 1e-6, 1e4]),
        st.fixed_dictionaries(
            {
                "lr": st.sampled_from([0.125, 1e-3, 0.0, 5e-5]),
                "beta1": st.sampled_from([0.9, 0.5, 0.0]),
                "beta2": st.sampled_from([0.999, 0.98, 0.75]),
                "eps": st.sampled_from([1e-6, 1e-8, 1e-3]),
                "weight_decay": st.sampled_from([0.01, 0.0, 0.5]),
            }
        ),
        st.sampled_from([1, 2, 3, 12, 1000, 100_000]),
    )


def update_corpus(op: str, dtype: str) -> tuple[UpdateCase, ...]:
    """No gradient (pure decay), a first step, zero parameters, ε at work."""
    usual = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-6, "weight_decay": 0.01}
    zero = np.zeros((2, 3))
    some = [fill((2, 3), "normal", seed, dtype) for seed in (1, 2)]
    step = {} if op == "bert_adam" else {"step": 1}
    return (
        UpdateCase(op, (some[0], zero, zero, zero), usual | step),
        UpdateCase(op, (some[0], some[1], zero, zero), usual | step),
        UpdateCase(op, (zero, some[1], zero, zero), usual | step),
        UpdateCase(op, (some[0], rounded(1e-6 * some[1], dtype), zero, zero), usual | step | {"lr": 0.5}),
        UpdateCase(op, (zero, zero, zero, zero), usual | step),
        # No gradient, but moments that go on; no rate, but moments all the same.
        UpdateCase(op, (some[0], zero, some[1], abs(some[1])), usual | step),
        UpdateCase(op, (some[0], some[1], some[0], abs(some[1])), usual | step | {"lr": 0.0}),
        *(
            _update(op, dtype, (3, 4), ("normal", "normal", "normal"), 7, 1.0, usual | {"lr": 0.25}, s)
            for s in (1, 2, 10)
        ),
        # More entries than one block of threads, more axes than a matrix.
        _update(op, dtype, (3, 11, 149), ("normal", "normal", "normal"), 7, 1.0, usual | {"lr": 0.25}, 3),
        # Weights much larger, and much smaller, than the step.
        _update(op, dtype, (3, 4), ("huge", "tiny", "tiny"), 7, 1e4, usual | {"weight_decay": 0.0}, 3),
        _update(op, dtype, (3, 4), ("tiny", "large", "large"), 7, 1e-6, usual | {"weight_decay": 0.0}, 3),
    )


def large_updates(op: str, dtype: str) -> tuple[UpdateCase, ...]:
    """More than 2²⁰ entries, and no multiple of a block; as many as a vocabulary has rows."""
    options = {"lr": 0.125, "beta1": 0.9, "beta2": 0.999, "eps": 1e-6, "weight_decay": 0.01}
    return tuple(
        _update(op, dtype, shape, ("normal",) * 3, 7, 1.0, options, 3) for shape in ((1031, 1021), (30_522, 7))
    )


def large_clips(dtype: str) -> tuple[ClipCase, ...]:
    """Gradients as large, and a limit that scales them."""
    return (_clip(dtype, [((1031, 1021), "normal", 1), ((768,), "normal", 2)], 1.0, 3),)


def clip_cases(dtype: str) -> st.SearchStrategy[ClipCase]:
    """None to many tensors of different sizes; norms below, above and next to the limit, and ε given or not."""
    regime = st.sampled_from(tuple(REGIMES))
    tensor = st.tuples(st.sampled_from(_SHAPES), regime, st.integers(0, 2**20))
    several = st.lists(tensor, max_size=12)
    return st.builds(
        partial(_clip, dtype),
        several
        | several.map(lambda tensors: [(shape, kind, seed + i) for i in range(5) for shape, kind, seed in tensors]),
        st.sampled_from([1.0, 0.125, 1e6]),
        st.integers(0, 2**20),
    )


def clip_corpus(dtype: str) -> tuple[ClipCase, ...]:
    """Every ε with the norm well below, a little below, a little above and well above the limit; and norms so small
    that an ε which nobody gave shows."""
    return (
        *(_clip(dtype, [((3,), "normal", 1), ((2, 3), "normal", 2)], 1.0, number) for number in range(20)),
        *(_clip(dtype, [((3,), "tiny", 1), ((2, 3), "tiny", 2)], 1.0, number) for number in range(5)),
    )


def _clip(dtype: str, tensors: list[tuple[tuple[int, ...], str, int]], max_norm: float, number: int) -> ClipCase:
    """The number chooses ε, and whether the limit is where the norm is a little below or above it."""
    gradients = {f"g{i}": fill(shape, kind, seed, dtype) for i, (shape, kind, seed) in enumerate(tensors)}
    norm = math.sqrt(sum(float((g * g).sum()) for g in gradients.values()))
    share = (None, 0.6, 0.995, 1.005, 1.5)[number % 5]
    epsilon = (None, 0.0, 1e-6, 0.5)[number // 5 % 4]
    limit = norm / share if share is not None and norm else max_norm
    return ClipCase(gradients, {"max_norm": limit} | ({} if epsilon is None else {"epsilon": epsilon}))
