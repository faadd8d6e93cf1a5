"""A batch in pieces: loss and gradients are the batch's, whatever the pieces; dropout masks are the batch's bits."""

from __future__ import annotations

import numpy as np
import pytest
import small
from oracles import U, agree

from refbert.errors import InputError
from refbert.ops.cross_entropy import IGNORE
from refbert.randomness import Dropout
from refbert.spec.choices import Choices
from refbert.spec.head_table import denominators
from refbert.training.accumulation import loss_and_gradients

DROPOUT = Dropout(seed=3, step=4)
RNG = np.random.default_rng(5)
B, S = 6, 7
# What one row's part may be off by, in units of the largest entry of its tensor: see `_close`.
TASKS = {
    "pretraining": (small.PRETRAINING, None),
    "answers": (
        ("question_answering",),
        {"start_positions": np.array([0, 3, 9, 2, 5, 8]), "end_positions": np.array([1, 3, 9, 6, 8, 6])},
    ),
    "tags": (("token_classification",), {"labels": np.where(RNG.random((B, S)) < 0.4, 1, IGNORE)}),
    "classes": (("sequence_classification",), {"labels": np.array([0, 1, IGNORE, 1, IGNORE, IGNORE])}),
    "choices": (("multiple_choice",), {"labels": np.array([1, IGNORE, 0])}),
}


def _close(found, expected):
    """Sums of the same terms in another order: a few hundred roundings of numbers of the tensor's size."""
    assert found.keys() == expected.keys()
    for name, reference in expected.items():
        scale = np.linalg.norm(reference) + 1e-3
        assert np.linalg.norm(found[name] - reference) <= 500 * U * scale, name


@pytest.mark.parametrize("profile", ["google", "hf"])
@pytest.mark.parametrize("task", TASKS)
def test_micro_batches_sum_to_the_batch(task, profile):
    """Rows have from no to six labels: a mean of means would be another loss."""
    heads, labels = TASKS[task]
    model = small.model("reference", heads=heads, profile=profile)
    batch, ours = small.batch_and_labels(0, B=B, S=S)
    labels = ours if labels is None else labels
    whole = loss_and_gradients(model, batch, labels, dropout=DROPOUT)
    directly, _ = model.device_loss_and_gradients(batch, labels, dropout=DROPOUT)
    assert whole.loss == directly
    for size in (1, 2, 4, 5, 100):
        parts = loss_and_gradients(model, batch, labels, micro_batch=size, dropout=DROPOUT)
        agree(np.array(parts.loss), np.array(whole.loss), 100 * U * abs(whole.loss))
        _close(parts.gradients, whole.gradients)
        assert parts.losses.keys() == whole.losses.keys()
        assert sum(parts.losses.values()) == pytest.approx(parts.loss, rel=1e-14)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_micro_batches_on_other_backends(backend):
    model = small.model(backend)
    batch, labels = small.batch_and_labels(0, B=B, S=S)
    whole = loss_and_gradients(model, batch, labels, dropout=DROPOUT)
    parts = loss_and_gradients(model, batch, labels, micro_batch=2, dropout=DROPOUT)
    host = model.backend.to_numpy
    _close(*({name: host(x) for name, x in sums.gradients.items()} for sums in (parts, whole)))


@pytest.mark.parametrize("processes", [2, 3, 6])
@pytest.mark.parametrize("task", TASKS)
def test_what_processes_take_sums_to_the_batch(task, processes):
    heads, labels = TASKS[task]
    if task == "choices" and processes == 6:
        return  # three questions: refused, below
    model = small.model("reference", heads=heads)
    batch, ours = small.batch_and_labels(0, B=B, S=S)
    labels = ours if labels is None else labels
    whole = loss_and_gradients(model, batch, labels, dropout=DROPOUT)
    parts = [
        loss_and_gradients(model, batch, labels, dropout=DROPOUT, rank=rank, processes=processes)
        for rank in range(processes)
    ]
    agree(np.array(sum(p.loss for p in parts)), np.array(whole.loss), 100 * U * abs(whole.loss))
    _close({name: sum(p.gradients[name] for p in parts) for name in whole.gradients}, whole.gradients)


def test_more_processes_than_rows():
    batch, labels = small.batch_and_labels(0, B=2)
    with pytest.raises(InputError, match="a batch of 2 cannot be shared by 3 processes"):
        loss_and_gradients(small.model(), batch, labels, processes=3)


def test_an_own_objective_is_told_the_denominators():
    """A backend that computes the whole model itself gives the same sums."""
    import refbert
    from refbert_conformance.mutants.mutant import Correct

    model = refbert.from_config(small.CONFIG, heads=small.PRETRAINING, backend=Correct("float64"), seed=1)
    batch, labels = small.batch_and_labels(0)
    whole = loss_and_gradients(model, batch, labels, dropout=DROPOUT)
    _close(loss_and_gradients(model, batch, labels, micro_batch=1, dropout=DROPOUT).gradients, whole.gradients)


@pytest.mark.parametrize("profile", ["google", "hf"])
def test_denominators(profile):
    """Numbers counted by hand."""
    from refbert.config.profiles import PROFILES

    c = Choices.of(small.CONFIG, PROFILES[profile])
    google = profile == "google"
    labels = {"labels": np.array([[3, IGNORE], [4, 5]]), "next_sentence_label": np.array([0, 1])}
    found = denominators(small.PRETRAINING, labels, 2, c)
    assert found == {"masked_lm": 3 + (1e-5 if google else 0), "next_sentence": 2}
    spans = {"start_positions": np.array([0, 2, 7]), "end_positions": np.array([1, 1, 7])}
    found = denominators(("question_answering",), spans, 2, c)
    assert found == {"question_answering.start": 6 if google else 2, "question_answering.end": 6 if google else 4}
    assert denominators(("sequence_classification",), {"labels": np.ones((3, 2))}, 2, c) == {
        "sequence_classification": 6
    }


@pytest.mark.parametrize("shape", [(5, 3, 7), (6, 2, 4, 4), (9, 5), (4,), (8, 16)])
def test_rows_of_a_mask_are_slices_of_the_whole(shape):
    whole = Dropout(1, 2).keep("x", shape, 0.3)
    for start in range(shape[0] + 1):
        for stop in range(start, shape[0] + 1):
            part = Dropout(1, 2, rows=(start, stop, shape[0])).keep("x", (stop - start, *shape[1:]), 0.3)
            assert np.array_equal(part, whole[start:stop]), (start, stop)


def test_rows_must_be_those_of_the_shape():
    for rows in [(0, 2, 4), (3, 2, 4), (2, 5, 4), (-1, 2, 4)]:
        with pytest.raises(ValueError, match="is not of rows"):
            Dropout(1, rows=rows).keep("x", (3, 2), 0.5)
