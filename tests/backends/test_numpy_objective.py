"""The numpy backend's training step: rows left out, threads, memory used again; against the spec on the reference."""

from __future__ import annotations

import gc
import math
import sys

import numpy as np
import pytest

import refbert
from refbert.backend import registry
from refbert.config.parameters import initialize, shapes
from refbert.config.profiles import HF
from refbert.spec.choices import Choices
from refbert_conformance.engine.measure import Record
from refbert_conformance.engine.subject import Subject
from refbert_conformance.properties.objective import properties
from refbert_numpy import attention, objective, partition, rows, threads

HEADS = ("masked_lm", "next_sentence")
V, H, A, F, L, S = 29, 24, 3, 40, 3, 11


def case(B, *, padded=False, rate=0.0, activation="gelu", layers=L):
    """(config, weights, batch, labels): 20 % of the tokens labelled, every vector of weights away from 0 and 1."""
    rng = np.random.default_rng(B)
    config = refbert.BertConfig(
        vocab_size=V, hidden_size=H, num_hidden_layers=layers, num_attention_heads=A, intermediate_size=F,
        max_position_embeddings=S, hidden_dropout_prob=rate, attention_probs_dropout_prob=rate, hidden_act=activation,
    )  # fmt: skip
    weights = initialize(shapes(config, HEADS), config, seed=0)
    for name, w in weights.items():
        weights[name] = (w + 0.3 * rng.standard_normal(w.shape)).astype("float32")
    mask = np.arange(S) < (rng.integers(3, S + 1, (B, 1)) if padded else np.full((B, 1), S))
    batch = refbert.Batch(rng.integers(0, V, (B, S)), rng.integers(0, 2, (B, S)), mask)
    labels = np.where((rng.random((B, S)) < 0.2) & mask, rng.integers(0, V, (B, S)), -100)
    return config, weights, batch, {"labels": labels, "next_sentence_label": rng.integers(0, 2, B)}


def with_threads(monkeypatch, count):
    """Three threads or so, however few cores there are, and blocks so small that there are several."""
    monkeypatch.setattr(threads, "threads", lambda: count)
    monkeypatch.setattr(objective, "ENOUGH", 1)
    monkeypatch.setattr(rows, "BLOCK", 7 * H)
    monkeypatch.setattr(attention, "BLOCK", 2 * S * S)


def gradients(call, weights, batch, labels, c, draws, dtype, **options):
    p = {name: w.astype(dtype) for name, w in weights.items()}
    loss, terms, pullback = call(p, batch, labels, HEADS, c, draws=draws, **options)
    return {"loss": loss} | terms | pullback(np.ones((), dtype))


@pytest.mark.parametrize(("count", "dtype"), [(2, "float32"), (3, "float64")])
def test_it_is_the_specs_composition(monkeypatch, count, dtype):
    """The conformance suite's own corpus (heads, masks, activations, dropout, parts), with threads and small blocks."""
    with_threads(monkeypatch, count)
    subject = Subject("numpy", lambda: registry.create("numpy", dtype=dtype))
    accuracy = next(one for one in properties() if one.name == "accuracy")
    for recipe in accuracy.always(subject, "quick"):
        accuracy.check(subject, recipe, Record(subject.arithmetic))


def test_the_longest_sequence_is_not_always_the_largest_item():
    """Of 148 tokens 11 of 12 heads fit a block, of 147 all 12, which is more in all: scratch is for the most."""
    config = refbert.BertConfig(
        vocab_size=20, hidden_size=24, num_hidden_layers=2, num_attention_heads=12, intermediate_size=8,
        max_position_embeddings=148, hidden_dropout_prob=0.0,
    )  # fmt: skip
    mask = np.arange(148) < np.array([[148], [147]])
    batch = refbert.Batch(np.random.default_rng(0).integers(0, 20, (2, 148)), attention_mask=mask)
    labels = np.where(mask & (np.arange(148) % 7 == 0), 1, -100)
    losses = []
    for backend in ("numpy", "reference"):
        model = refbert.from_config(config, heads=("masked_lm",), backend=backend, profile="hf", seed=1)
        losses.append(model.loss_and_gradients(batch, labels, dropout=refbert.Dropout(3, 0))[0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("count", [1, 3])
def test_parts_of_a_batch_draw_the_batchs_masks(monkeypatch, count):
    with_threads(monkeypatch, count)
    config, weights, batch, labels = case(6, rate=0.3, padded=True)
    c, backend = Choices.of(config, HF), registry.create("numpy")
    whole = {"masked_lm": float((labels["labels"] != -100).sum()), "next_sentence": 6.0}
    total = gradients(backend.objective, weights, batch, labels, c, refbert.Dropout(3, 1), "float32")
    summed = dict.fromkeys(total, 0.0)
    for cut in (slice(0, 2), slice(2, 6)):
        some = {name: x[cut] for name, x in labels.items()}
        draws = refbert.Dropout(3, 1, (cut.start, cut.stop, 6))
        part = gradients(
            backend.objective, weights, batch.rows(cut), some, c, draws, "float32", denominators=whole
        )  # fmt: skip
        summed = {name: summed[name] + x for name, x in part.items()}
    for name, x in total.items():
        if "key.bias" not in name:
            assert np.abs(summed[name] - x).max() <= 1e-5 * np.abs(x).max(), name  # other masks: 1e-1


def test_every_run_gives_the_same_bits_however_threads_interleave(monkeypatch):
    with_threads(monkeypatch, 3)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for B in (3, 5):  # whole sequences, rows
            config, weights, batch, labels = case(B, rate=0.1)
            c, draws = Choices.of(config, HF), refbert.Dropout(0)
            first = None
            for _ in range(30):
                got = gradients(registry.create("numpy").objective, weights, batch, labels, c, draws, "float32")
                first = first or got
                assert all(np.array_equal(got[name], x) for name, x in first.items())
    finally:
        sys.setswitchinterval(before)


def test_a_pullback_may_be_called_again_and_nothing_returned_is_overwritten():
    config, weights, batch, labels = case(4, rate=0.1)
    c, backend = Choices.of(config, HF), registry.create("numpy")
    _, _, pullback = backend.objective(weights, batch, labels, HEADS, c, draws=refbert.Dropout(0))
    first = pullback(np.float32(1))
    kept = {name: x.copy() for name, x in first.items()}
    for other in (case(2), case(5, padded=True)):
        backend.objective(other[1], *other[2:], HEADS, c)[2](np.float32(1))
    again, doubled = pullback(np.float32(1)), pullback(np.float32(2))
    for name, x in kept.items():
        assert np.array_equal(first[name], x), name
        assert np.array_equal(again[name], x), name
        assert np.allclose(doubled[name], 2 * x, rtol=1e-5, atol=1e-5 * np.abs(x).max()), name
    arrays = [*first.values(), *again.values(), *doubled.values()]
    assert not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i])


def test_steps_after_the_second_need_no_new_memory():
    _, weights, batch, labels = case(4)
    c, backend = Choices.of(case(4)[0], HF), registry.create("numpy")

    def blocks():
        backend.objective(weights, batch, labels, HEADS, c)[2](np.float32(1))
        gc.collect()
        return {block.ctypes.data for block in backend._memory._free.values()}

    blocks()
    assert blocks() == blocks()


def test_what_is_left_out():
    """Padding under −∞ if no loss reads it, and in the last layer all that no loss reads."""
    _, _, batch, labels = case(4, padded=True)
    visible = batch.attention_mask.astype(bool)

    def rows_of(heads, labels=labels, batch=batch, layers=2, mask_value=-math.inf):
        found = partition.rows_to_compute(batch, heads, labels, layers, mask_value)
        return [set(one.index.tolist()) for one in found]

    everything, tokens = set(range(4 * S)), set(np.flatnonzero(visible).tolist())
    read = set(np.flatnonzero(labels["labels"] != -100).tolist())
    first = {b * S for b in range(4)}
    assert rows_of(["masked_lm"]) == [tokens, read]
    assert rows_of(HEADS) == [tokens, read | first]
    assert rows_of(["next_sentence"]) == [tokens, first]
    assert rows_of(["next_sentence"], mask_value=-10000.0) == [everything, first]
    assert rows_of(["next_sentence"], layers=0) == [tokens, tokens]
    assert rows_of(["question_answering"]) == [everything, everything]
    assert rows_of(["token_classification"]) == [everything, everything]
    padding = {"labels": np.where(visible, -100, 1)}
    assert rows_of(["masked_lm"], padding) == [everything, everything - tokens]
    blind = refbert.Batch(batch.input_ids, attention_mask=np.where(np.arange(4)[:, None] == 2, 0, 1) * visible)
    assert rows_of(["next_sentence"], batch=blind) == [everything, first]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_partitions_are_all_the_rows_once(count):
    for lengths in ([4, 4, 4, 4, 4, 4], [9, 1, 2], [5], [3, 3]):
        chosen = np.arange(9) < np.array(lengths)[:, None]
        tokens, queries = partition.Rows.of(chosen), partition.Rows.of(chosen & (np.arange(9) % 2 == 0))
        own = partition.partitions(tokens, queries, count)
        for kind, total in (("sequences", len(lengths)), ("tokens", len(tokens)), ("queries", len(queries))):
            taken = [i for one in own for i in range(total)[getattr(one, kind)]]
            assert taken == list(range(total))
        assert own[0].aligned == ((len(lengths) % count == 0 and len(set(lengths)) == 1) or count == 1)
