"""Mutants in the optimizer's step: what the backend's ``update`` does around a rule that is right."""

from __future__ import annotations

from typing import Any

from refbert_conformance.mutants.mutant import Change, Correct, Mutant, mutants
from refbert_conformance.tolerances.bounds import UPDATES


def _moments(self: Any, rule: str, p: Any, g: Any, m: Any, v: Any, **options: Any) -> Any:
    kept: Any = getattr(self, "_moments", (None, None))
    p, m, v = Correct.update(rule, p, g, kept[1] if kept[0] is p else m, v, **options)
    self._moments = p, m
    return p, m, v


def _over(self: Any, rule: str, p: Any, *arrays: Any, **options: Any) -> Any:
    p[...], m, v = Correct.update(rule, p, *arrays, **options)
    return p, m, v


def _half_scaled(self: Any, *arguments: Any, scale: float, **options: Any) -> Any:
    p, m, _ = Correct.update(*arguments, scale=scale, **options)
    return p, m, Correct.update(*arguments, scale=1.0, **options)[2]


_TABLE: tuple[tuple[str, str, Change], ...] = (
    ("state", "the moments kept with the parameters, not those given", _moments),
    ("aliasing", "the new parameters written over the old", _over),
    ("optimizers", "the scale ignored",
     {"given": lambda self, scale, **_: {"scale": 1.0 if scale == scale else scale}}),
    ("optimizers", "the scale in m alone", _half_scaled),
    ("optimizers", "the rate scaled for the gradient",
     {"given": lambda self, scale, lr, **_: {"scale": 1.0, "lr": lr * scale}}),
    ("not finite", "a scale of NaN is taken for 0",
     {"given": lambda self, scale, **_: {"scale": scale if scale == scale else 0.0}}),
    ("errors", "an unknown rule is bert_adam",
     {"given": lambda self, rule, **_: {"rule": rule if rule in UPDATES else "bert_adam"}}),
    ("errors", "a step below 1 is the first", {"given": lambda self, step, **_: {"step": max(step, 1)}}),
)  # fmt: skip
UPDATING: tuple[Mutant, ...] = mutants(("update", area, what, how) for area, what, how in _TABLE)
