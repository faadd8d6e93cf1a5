"""What the optimizer updates are tried on."""

from __future__ import annotations

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
    """One update of one tensor: (p, g, m, v), and the options of `refbert.backend.Updates.update`."""

    rule: str
    arrays: tuple[Host, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True)
class NormCase:
    """Gradients by name."""

    gradients: Mapping[str, Host]


def _update(
    rule: str, dtype: str, shape: tuple[int, ...], regimes: tuple[str, str, str], seed: int, v_scale: float,
    options: Mapping[str, Any], step: int,
) -> UpdateCase:  # fmt: skip
    p = fill(shape, regimes[0], seed, dtype)
    g = fill(shape, regimes[1], seed + 1, dtype)
    m = fill(shape, regimes[2], seed + 2, dtype)
    v = rounded(v_scale * np.random.default_rng(seed + 3).random(shape), dtype)  # a mean of squares: never negative
    return UpdateCase(rule, (p, g, m, v), {"scale": 1.0, **options, "step": step})


def update_cases(rule: str, dtype: str) -> st.SearchStrategy[UpdateCase]:
    """v from 0 over ε² to 10⁴; steps from the first to beyond where 1 − βᵗ is 1."""
    regime = st.sampled_from(tuple(REGIMES))
    options = {
        "scale": [1.0, 0.37, 2e-3], "lr": [0.125, 1e-3, 0.0, 5e-5], "beta1": [0.9, 0.5, 0.0],
        "beta2": [0.999, 0.98, 0.75], "eps": [1e-6, 1e-8, 1e-3], "weight_decay": [0.01, 0.0, 0.5],
    }  # fmt: skip
    return st.builds(
        _update, st.just(rule), st.just(dtype), st.sampled_from(_SHAPES), st.tuples(regime, regime, regime),
        st.integers(0, 2**20), st.sampled_from([1.0, 0.0, 1e-12, 1e-6, 1e4]),
        st.fixed_dictionaries({name: st.sampled_from(values) for name, values in options.items()}),
        st.sampled_from([1, 2, 3, 12, 1000, 100_000]),
    )  # fmt: skip


def update_corpus(rule: str, dtype: str) -> tuple[UpdateCase, ...]:
    """No gradient (pure decay), a first step, a scaled one, zero parameters, ε at work."""
    usual = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-6, "weight_decay": 0.01}
    first = {**usual, "scale": 1.0, "step": 1}
    zero = np.zeros((2, 3))
    some = [fill((2, 3), "normal", seed, dtype) for seed in (1, 2)]
    return (
        UpdateCase(rule, (some[0], zero, zero, zero), first),
        UpdateCase(rule, (some[0], some[1], zero, zero), first),
        UpdateCase(rule, (some[0], some[1], some[0], abs(some[1])), first | {"scale": 0.37, "step": 3}),
        UpdateCase(rule, (zero, some[1], zero, zero), first),
        UpdateCase(rule, (some[0], rounded(1e-6 * some[1], dtype), zero, zero), first | {"lr": 0.5}),
        UpdateCase(rule, (zero, zero, zero, zero), first),
        # No gradient, but moments that go on; no rate, but moments all the same.
        UpdateCase(rule, (some[0], zero, some[1], abs(some[1])), first),
        UpdateCase(rule, (some[0], some[1], some[0], abs(some[1])), first | {"lr": 0.0}),
        *(_update(rule, dtype, (3, 4), ("normal",) * 3, 7, 1.0, usual | {"lr": 0.25}, step) for step in (1, 2, 10)),
        # More entries than one block of threads, more axes than a matrix.
        _update(rule, dtype, (3, 11, 149), ("normal",) * 3, 7, 1.0, usual | {"lr": 0.25}, 3),
        # Weights much larger, and much smaller, than the step.
        _update(rule, dtype, (3, 4), ("huge", "tiny", "tiny"), 7, 1e4, usual | {"weight_decay": 0.0}, 3),
        _update(rule, dtype, (3, 4), ("tiny", "large", "large"), 7, 1e-6, usual | {"weight_decay": 0.0}, 3),
    )


def large_updates(rule: str, dtype: str) -> tuple[UpdateCase, ...]:
    """More than 2²⁰ entries, and no multiple of a block; as many as a vocabulary has rows."""
    options = {"lr": 0.125, "beta1": 0.9, "beta2": 0.999, "eps": 1e-6, "weight_decay": 0.01}
    return tuple(
        _update(rule, dtype, shape, ("normal",) * 3, 7, 1.0, options, 3) for shape in ((1031, 1021), (30_522, 7))
    )


def norm_cases(dtype: str) -> st.SearchStrategy[NormCase]:
    """None to many tensors of different sizes."""
    regime = st.sampled_from(tuple(REGIMES))
    tensor = st.tuples(st.sampled_from(_SHAPES), regime, st.integers(0, 2**20))
    several = st.lists(tensor, max_size=12)
    return st.builds(
        partial(_norm, dtype),
        several
        | several.map(lambda tensors: [(shape, kind, seed + i) for i in range(5) for shape, kind, seed in tensors]),
    )


def norm_corpus(dtype: str) -> tuple[NormCase, ...]:
    """None, a few tensors, very small ones, and more than a block of them."""
    return (
        NormCase({}),
        *(_norm(dtype, [((3,), kind, 1), ((2, 3), kind, 2)]) for kind in ("normal", "tiny")),
        _norm(dtype, [((2, 3), "normal", seed) for seed in range(20)]),
    )


def large_norms(dtype: str) -> tuple[NormCase, ...]:
    """More than 2²⁰ entries, and no multiple of a block."""
    return (_norm(dtype, [((1031, 1021), "normal", 1), ((768,), "normal", 2)]),)


def _norm(dtype: str, tensors: list[tuple[tuple[int, ...], str, int]]) -> NormCase:
    return NormCase({f"g{i}": fill(shape, kind, seed, dtype) for i, (shape, kind, seed) in enumerate(tensors)})
