"""Every op is a pure function: nothing is changed, shared or remembered, and the dtype that comes in goes out."""

from __future__ import annotations

import inspect
import itertools

import numpy as np
import pytest
from op_oracles import CASES, make
from oracles import agree

from refbert import ops

SIZES = (2, 3, 4, 5)
LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "negative strides": lambda x: np.flip(np.flip(x).copy()),
    "every other entry": lambda x: np.repeat(x, 2, axis=-1)[..., ::2] if x.ndim else x,
}


@pytest.fixture(params=CASES)
def case_and_cotangent(request):
    return make(request.param, "normal", SIZES, seed=1)


def _read_only(x):
    x = x.view()
    x.flags.writeable = False
    return x


def test_every_op_has_a_case():
    covered = " ".join(name.split(",")[0] for name in CASES)
    no_pullback = {"bert_adam", "adamw", "lamb", "clip_by_global_norm", "mask_tokens"}  # have tests of their own
    public = {name for name in ops.__all__ if inspect.isfunction(getattr(ops, name))}
    assert {name for name in public if name not in covered} == no_pullback


def test_changes_nothing_and_accepts_what_cannot_be_changed(case_and_cotangent):
    case, dy = case_and_cotangent
    before = [x.tobytes() for x in (*case.arrays, *case.host, dy)]
    for x in case.host:
        x.flags.writeable = False
    y, pullback = case(*(_read_only(x) for x in case.arrays))
    y_before = np.array(y)
    pullback(_read_only(dy))
    assert [x.tobytes() for x in (*case.arrays, *case.host, dy)] == before
    assert np.array_equal(y, y_before)


def test_pullback_may_be_called_again(case_and_cotangent):
    case, dy = case_and_cotangent
    _, pullback = case()
    first = pullback(dy)
    kept = [g.copy() for g in first]
    pullback(-3 * dy)
    for g, before in zip(first, kept, strict=True):
        assert np.array_equal(g, before), "the second call wrote into the first one's result"
        g[...] = np.nan  # the caller's to spoil
    for again, before in zip(pullback(dy), kept, strict=True):
        assert np.array_equal(again, before)
    for again, before in zip(case()[1](dy), kept, strict=True):
        assert np.array_equal(again, before), "a second forward gives another function"


def test_nothing_is_shared(case_and_cotangent):
    case, dy = case_and_cotangent
    y, pullback = case()
    everything = [*case.arrays, *case.host, dy, y, *pullback(dy), *pullback(dy)]
    for a, b in itertools.combinations(everything, 2):
        assert not np.shares_memory(a, b)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_one_cotangent_per_argument_in_its_shape_and_dtype(case_and_cotangent, dtype):
    case, dy = case_and_cotangent
    arrays = [x.astype(dtype) for x in case.arrays]
    y, pullback = case(*arrays)
    assert y.dtype == dtype
    cotangents = pullback(dy.astype(dtype))
    assert isinstance(cotangents, tuple)
    assert [(g.shape, g.dtype) for g in cotangents] == [(x.shape, x.dtype) for x in arrays]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_layout_does_not_matter(case_and_cotangent, layout):
    """Sums may run in another order, so up to twice the rounding."""
    case, dy = case_and_cotangent
    lay = LAYOUTS[layout]
    y, pullback = case()
    E, cotangent_E = case.bound(*case.arrays, dy)
    other_y, other_pullback = case(*(lay(x) for x in case.arrays))
    agree(other_y, y, 2 * E.error, "y")
    for g, other, e in zip(pullback(dy), other_pullback(lay(dy)), cotangent_E, strict=True):
        agree(other, g, 2 * e.error, "cotangent")


@pytest.mark.parametrize("name", CASES)
def test_an_empty_batch_gives_an_empty_result(name):
    case, dy = make(name, "normal", (0, 3, 4, 5), seed=2)
    if name.startswith(("gelu", "tanh", "relu")):
        case, dy = type(case)(**(vars(case) | {"arrays": (np.zeros((0, 3)),)})), np.zeros((0, 3))
    y, pullback = case()
    assert np.isfinite(y).all()
    for x, g in zip(case.arrays, pullback(dy), strict=True):
        assert g.shape == x.shape
        assert not g.any(), "weights and tables have entries, but acted on nothing"
