"""Mutants in the optimizer's step: what the backend's ``update`` does around a rule that is right."""

from __future__ import annotations

from typing import Any

from refbert_conformance.mutants.mutant import Correct, Mutant, mutant
from refbert_conformance.tolerances.bounds import UPDATES


def _moments(self: Any, rule: str, p: Any, g: Any, m: Any, v: Any, **options: Any) -> Any:
    kept = self.__dict__.setdefault("_moments", {})
    result = Correct.update(rule, p, g, kept["m"] if kept.get("p") is p else m, v, **options)
    kept.update(p=result[0], m=result[1])
    return result


def _over(self: Any, rule: str, p: Any, *arrays: Any, **options: Any) -> Any:
    p[...], m, v = Correct.update(rule, p, *arrays, **options)
    return p, m, v


def _unscaled(self: Any, *arguments: Any, scale: float, **options: Any) -> Any:
    return Correct.update(*arguments, scale=1.0 if scale == scale else scale, **options)


def _half_scaled(self: Any, *arguments: Any, scale: float, **options: Any) -> Any:
    p, m, _ = Correct.update(*arguments, scale=scale, **options)
    return p, m, Correct.update(*arguments, scale=1.0, **options)[2]


def _rate_scaled(self: Any, *arguments: Any, scale: float, lr: float, **options: Any) -> Any:
    return Correct.update(*arguments, scale=1.0, lr=lr * scale, **options)


def _nothing(self: Any, *arguments: Any, scale: float, **options: Any) -> Any:
    return Correct.update(*arguments, scale=scale if scale == scale else 0.0, **options)


def _any_rule(self: Any, rule: str, *arrays: Any, **options: Any) -> Any:
    return Correct.update(rule if rule in UPDATES else "bert_adam", *arrays, **options)


def _any_step(self: Any, *arguments: Any, step: int, **options: Any) -> Any:
    return Correct.update(*arguments, step=max(step, 1), **options)


UPDATING: tuple[Mutant, ...] = tuple(
    mutant("update", area, what, update=method)
    for area, what, method in (
        ("state", "the moments kept with the parameters, not those given", _moments),
        ("aliasing", "the new parameters written over the old", _over),
        ("optimizers", "the scale ignored", _unscaled),
        ("optimizers", "the scale in m alone", _half_scaled),
        ("optimizers", "the rate scaled for the gradient", _rate_scaled),
        ("not finite", "a scale of NaN is taken for 0", _nothing),
        ("errors", "an unknown rule is bert_adam", _any_rule),
        ("errors", "a step below 1 is the first", _any_step),
    )
)
