"""Few shapes for a backend that compiles every new one (its attribute ``compiles``).

A compilation takes some hundred times as long as a small example, and drawn sizes seldom repeat. Such a backend sees
`SHAPES` configurations of each op, drawn once, on numbers that are drawn freely; the corpus runs in full. What goes
wrong at one size only is found where that size is among them, so its verdict says less: it is reported with it.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

SHAPES = 24


def few_shapes(strategy: st.SearchStrategy[Any], op: str) -> st.SearchStrategy[Any]:
    """Configurations from a pool of `SHAPES`, the same for every property of the op; seeds and regimes as before."""
    pool = sampled(strategy, op, SHAPES)
    if not all(hasattr(example, "seed") for example in pool):
        return strategy  # drawn numbers, or what has no sizes
    return st.builds(_on_numbers_of, st.sampled_from(pool), strategy)


def _on_numbers_of(configuration: Any, other: Any) -> Any:
    recipe = getattr(configuration, "recipe", None)
    if recipe is not None:  # in copies
        return dataclasses.replace(configuration, recipe=_on_numbers_of(recipe, other.recipe))
    values = {name: getattr(other, name) for name in ("seed", "regimes", "regime") if hasattr(other, name)}
    return dataclasses.replace(configuration, **values)


def sampled(strategy: st.SearchStrategy[Any], op: str, count: int) -> list[Any]:
    """So many examples of a strategy, the smallest first; the same ones for the same op."""
    found: list[Any] = []

    @settings(max_examples=count, phases=(Phase.generate,), database=None, suppress_health_check=list(HealthCheck))
    @seed(int.from_bytes(hashlib.blake2b(op.encode(), digest_size=8).digest(), "big"))
    @given(strategy)
    def collect(example: Any) -> None:
        found.append(example)

    collect()
    return found
