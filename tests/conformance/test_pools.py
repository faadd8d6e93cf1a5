"""A backend that compiles every shape is tried on few of them, and on as many numbers as any other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st

from refbert.backend.reference import ReferenceBackend
from refbert_conformance.cases.model_cases import model_recipes
from refbert_conformance.cases.operations import recipes
from refbert_conformance.cases.pools import SHAPES, few_shapes
from refbert_conformance.engine import runner
from refbert_conformance.engine.subject import Subject
from refbert_conformance.properties.table import all_properties


def drawn(strategy, count=200):
    from hypothesis import HealthCheck, given, seed, settings

    found = []

    @settings(max_examples=count, database=None, suppress_health_check=list(HealthCheck))
    @seed(1)
    @given(strategy)
    def collect(example):
        found.append(example)

    collect()
    return found


def shape(recipe):
    return tuple(sorted(recipe.sizes.items())), tuple(sorted(recipe.options.items(), key=str))


@pytest.mark.parametrize("op", ["linear", "attention", "cross_entropy"])
def test_few_shapes_and_many_numbers(op):
    found = drawn(few_shapes(recipes(op), op))
    assert 5 < len({shape(recipe) for recipe in found}) <= SHAPES
    assert len({(recipe.seed, recipe.regimes) for recipe in found}) > 3 * SHAPES
    # Every property of the op has the same ones, or each would compile its own.
    again = drawn(few_shapes(recipes(op), op), 100)
    assert {shape(recipe) for recipe in again} <= {shape(recipe) for recipe in drawn(few_shapes(recipes(op), op), 600)}


def test_models_too():
    found = drawn(few_shapes(model_recipes(), "training"))
    assert len({(r.B, r.S, r.A, r.D, r.F, r.V, r.layers, r.task) for r in found}) <= SHAPES
    assert len({r.seed for r in found}) > SHAPES


def test_what_has_no_seed_is_left_alone():
    numbers = st.integers(0, 2**20)
    assert few_shapes(numbers, "softmax") is numbers


class Compiling(ReferenceBackend):
    compiles = True

    def __init__(self, dtype=None, device=None):
        super().__init__(dtype, device)
        self.shapes = set()

    def gelu(self, x, *, form):
        self.shapes.add(x.shape)
        return super().gelu(x, form=form)


def test_the_engine_asks_the_backend():
    (accuracy,) = (p for p in all_properties() if p.id == "forward/gelu/accuracy")
    few, many = Subject("few", Compiling), Subject("many", Compiling)
    many.compiles = False
    for subject in (few, many):
        assert runner.run(accuracy, subject, effort="default").outcome == "passed"
    assert len(many.backend.shapes) > len(few.backend.shapes) + 20


class Wrong(Compiling):
    def gelu(self, x, *, form):
        y, back = super().gelu(x, form=form)
        return y + np.asarray(1e-3 * (x > 1), y.dtype), back


def test_a_bug_is_found_all_the_same():
    (accuracy,) = (p for p in all_properties() if p.id == "forward/gelu/accuracy")
    assert runner.run(accuracy, Subject("wrong", Wrong), effort="quick").outcome == "failed"
