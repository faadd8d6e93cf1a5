"""Level "training": ten steps of pretraining, forward, backward, clipping and update, and where they lead.

A wrong update rule that is right for one step (a step count off by one, moments that are not handed on) shows here.
Norm and update are judged one by one in `updates`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from refbert.backend import Host
from refbert.randomness import Dropout
from refbert.training.optimizer import Optimizer
from refbert.training.schedule import learning_rate
from refbert_conformance.cases.model_cases import ModelRecipe, on, to_hosts
from refbert_conformance.engine.measure import Record
from refbert_conformance.engine.property import Property
from refbert_conformance.engine.subject import Subject
from refbert_conformance.properties.blocks import SPEC, compare
from refbert_conformance.properties.updates import require_rule
from refbert_conformance.tolerances.bounds import UPDATES
from refbert_conformance.tolerances.noise import FEW

STEPS = 10


@dataclass(frozen=True)
class Course:
    """A model and how it is trained."""

    model: ModelRecipe
    rule: str


def properties() -> list[Property]:
    """One trajectory per rule."""
    return [
        Property(
            "training", rule, "trajectory", f"Loss and parameters after {STEPS} steps are the reference's.",
            check=_trajectory,
            draw=_courses(rule),
            needs=(*SPEC, "update", "global_norm"), cost=60, low=False,
        )
        for rule in UPDATES
    ]  # fmt: skip


def _courses(rule: str) -> Callable[[Subject], Any]:
    model = st.builds(ModelRecipe, st.integers(0, 2**20), rate=st.sampled_from([0.0, 0.2]), layers=st.just(1))
    return lambda subject: st.builds(Course, model, st.just(rule))


def trajectory(course: Course, dtype: str) -> Callable[[Any], dict[str, Host]]:
    """Losses of every step, and the parameters in the end."""
    from refbert.spec.bert import objective

    recipe = course.model
    parameters, batch, labels = recipe.parameters(dtype), recipe.batch(), recipe.labels()

    def run(backend: Any) -> dict[str, Host]:
        p = on(backend, parameters)
        # ε large enough that Adam's division does not amplify the rounding of gradients that ought to be 0 into steps
        # of the full rate (the key bias has none): with 1e-6 those parameters wander at random on every machine.
        optimizer = Optimizer(rule=course.rule, eps=1e-3)
        losses = []
        for step in range(STEPS):
            draws = Dropout(recipe.seed, step) if recipe.rate else None
            loss, _, pullback = objective(backend, p, batch, labels, recipe.heads, recipe.choices, draws=draws)
            losses.append(np.asarray(backend.to_numpy(loss), np.float64))
            rate = learning_rate(step, peak=1e-2, warmup=3, total=STEPS + 2, from_zero=course.rule == "bert_adam")
            p, _ = optimizer.step(backend, p, pullback(backend.asarray(np.ones(()))), lr=rate)
        return {f"loss {i}": x for i, x in enumerate(losses)} | to_hosts(backend, p)

    return run


def _trajectory(subject: Subject, course: Course, record: Record) -> None:
    require_rule(subject, course.rule)
    run = trajectory(course, subject.dtype)
    compare(subject, run, run(subject.backend), record, samples=FEW)
