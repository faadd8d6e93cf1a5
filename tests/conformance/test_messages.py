"""What a failure says is for people: plain numbers, and sizes that are those of the arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from refbert import ops
from refbert.backend.reference import ReferenceBackend
from refbert_conformance.cases.corpus import corpus
from refbert_conformance.cases.operations import DRAWN, recipes
from refbert_conformance.engine import runner
from refbert_conformance.engine.subject import Subject
from refbert_conformance.properties.table import selected


class Coarse(ReferenceBackend):
    """Loses digits on the way in."""

    def asarray(self, x):
        x = super().asarray(x)
        with np.errstate(all="ignore"):
            return x.astype(np.float16).astype(x.dtype) if x.dtype.kind == "f" else x


class Counts(ReferenceBackend):
    """Adds the number of the call to what it gives."""

    calls = 0

    def softmax(self, x):
        self.calls += 1
        return (ops.softmax(x)[0] + self.calls).astype(x.dtype), lambda dy: (dy,)

    def global_norm(self, gradients):
        self.calls += 1
        return np.float32(self.calls)


class Hides(ReferenceBackend):
    """Numbers in place of NaN and infinities; no zero is the other's mirror image."""

    def relu(self, x):
        y, _ = ops.relu(np.nan_to_num(x))
        return y.astype(x.dtype), lambda dy: (np.nan_to_num(dy),)

    def tanh(self, x):
        return (x + 2).astype(x.dtype), lambda dy: (dy,)


@pytest.mark.parametrize(
    ("make", "id"),
    [
        (Coarse, "contract/asarray/round trip"),
        (Coarse, "contract/asarray/rounds to nearest"),
        (Counts, "contract/softmax/repeatable"),
        (Counts, "training/global_norm/calls"),
        (Hides, "forward/relu/not a number"),
        (Hides, "forward/relu/infinities"),
        (Hides, "backward/relu/not a number"),
        (Hides, "forward/tanh/odd"),
    ],
)
def test_numbers_are_plain(make, id):
    (property,) = selected([id])
    result = runner.run(property, Subject(make.__name__, lambda: make("float32")), effort="default", shrinking=0.0)
    assert result.outcome == "failed"
    assert any(c.isdigit() for c in result.message), result.message
    assert "np." not in result.message


class Drops(ReferenceBackend):
    """A zero for every NaN on the way in."""

    def asarray(self, x):
        return np.where(np.isnan(x), np.zeros((), self.dtype), super().asarray(x))


def test_a_nan_that_does_not_come_back_is_named():
    (property,) = selected(["contract/asarray/round trip"])
    result = runner.run(property, Subject("Drops", lambda: Drops("float32")), effort="quick", shrinking=0.0)
    assert (result.outcome, result.message) == ("failed", "nan came back as 0.0")


# Where the sizes are, in order, the axes of the first array.
WHOLE = ("add", "gather", "layer_norm", "gelu", "relu", "tanh", "softmax", "dropout", "cross_entropy", "transpose",
         "mean_squared_error")  # fmt: skip


def check_sizes(recipe):
    case = recipe.build("float64")
    if recipe.op in WHOLE:
        assert case.arrays[0].shape == tuple(recipe.sizes.values()), recipe
    else:
        leading = tuple(size for letter, size in recipe.sizes.items() if letter in "BSE")
        x = case.options["ids"] if recipe.op == "embedding" else case.arrays[0]
        assert x.shape[: len(leading)] == leading, recipe
        own = {"embedding": "VH", "linear": "IO", "reshape": "H"}.get(recipe.op, "AD")
        assert [letter for letter in recipe.sizes if letter not in "BSE"] == list(own)


@pytest.mark.parametrize("op", DRAWN)
def test_the_sizes_of_an_example_are_those_of_its_arrays(op):
    for recipe in corpus(op):
        if max(recipe.sizes.values(), default=0) < 1000:
            check_sizes(recipe)

    @settings(max_examples=100, suppress_health_check=list(HealthCheck))
    @given(recipes(op))
    def drawn(recipe):
        check_sizes(recipe)

    drawn()
