"""A race that shows in one call of twenty, of a hundred, at a size that is shared out among threads."""

from __future__ import annotations

import numpy as np
import pytest

from refbert import ops
from refbert_conformance.engine import runner
from refbert_conformance.engine.subject import Subject
from refbert_conformance.mutants import Correct
from refbert_conformance.properties.table import all_properties

(UNDER_LOAD,) = (p for p in all_properties() if p.id == "contract/linear/repeatable under load")


class Races(Correct):
    """A tile of a large product is now and then not there yet when it is read."""

    share = 0.05

    def __init__(self, dtype=None, device=None, *, seed=0):
        super().__init__(dtype, device)
        self.rng = np.random.default_rng(seed)

    def linear(self, x, w, b):
        y, back = ops.linear(x, w, b)
        if y.size > 2**14 and self.rng.random() < self.share:
            y = y.copy()
            y[..., :16] = 0
        return y, back


class SeldomRaces(Races):
    share = 0.01


def found(make, effort, seed):
    subject = Subject("subject", lambda: make(seed=seed))
    return runner.run(UNDER_LOAD, subject, effort=effort, shrinking=0.0).outcome == "failed"


def test_a_race_in_one_call_of_twenty_is_found_at_the_default_effort():
    assert sum(found(Races, "default", seed) for seed in range(10)) >= 8


def test_a_race_in_one_call_of_a_hundred_is_found_by_a_thorough_run():
    assert all(found(SeldomRaces, "thorough", seed) for seed in range(2))


@pytest.mark.parametrize("op", ["linear", "attention", "layer_norm"])
def test_who_has_no_race_passes(op):
    (property,) = (p for p in all_properties() if p.id == f"contract/{op}/repeatable under load")
    assert runner.run(property, Subject("subject", Correct), effort="default").outcome == "passed"
