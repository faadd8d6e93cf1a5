"""Examples that PyTorch was condemned for by a suite that asked too much: it passes, and so do others of the kind."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from refbert_conformance.cases.inputs import rounded
from refbert_conformance.cases.large import Large
from refbert_conformance.cases.model_cases import ModelRecipe
from refbert_conformance.engine.measure import Failure, Record
from refbert_conformance.engine.subject import Subject
from refbert_conformance.properties import real_sizes
from refbert_conformance.properties.blocks import _training
from refbert_torch import TorchBackend

HALF = Subject("torch", partial(TorchBackend, dtype="bfloat16"))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    ("B", "S", "n_in", "n_out"), [(1, 48, 1, 312), (1, 9, 1, 1), (2, 70, 33, 130), (1, 3, 900, 40)]
)
def test_sums_of_integers_have_room_in_8_bits(B, S, n_in, n_out, seed):
    """dw[282] of the first was −267, which bfloat16 does not have."""
    large = Large("linear", {"B": B, "S": S, "I": n_in, "O": n_out}, seed=seed)
    for back in (False, True):
        real_sizes.judged(back, HALF, large, Record(HALF.arithmetic))


def test_and_one_that_is_off_by_one_is_found():
    class OffByOne(TorchBackend):
        def linear(self, x, w, b):
            y, back = super().linear(x, w, b)

            def pullback(dy):
                dx, dw, db = back(dy)
                dw[-1, -1] += 1
                return dx, dw, db

            return y, pullback

    subject = Subject("off", partial(OffByOne, dtype="bfloat16"))
    with pytest.raises(Failure, match="dw"):
        real_sizes.judged(
            True, subject, Large("linear", {"B": 1, "S": 48, "I": 1, "O": 312}), Record(subject.arithmetic)
        )


def test_targets_are_numbers_that_every_dtype_has():
    """A backend may round what it is given: 1.2012 − 1.2344 is then off by 6 % in bfloat16."""
    for seed in range(100):
        (labels,) = ModelRecipe(seed, "numbers", B=4).labels().values()
        for dtype in ("bfloat16", "float16"):
            np.testing.assert_array_equal(rounded(labels, dtype), labels)
    recipe = ModelRecipe(1, "numbers", 1, B=3, S=4, A=1, F=2, V=3, mask="all", scale=1.5)
    _training(HALF, recipe, Record(HALF.arithmetic))
