"""The inference layer when several threads share it, however few rows there are: right numbers, the same bits."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import refbert
from refbert.spec.packed import packed_layer
from refbert.spec.scope import Scope
from refbert_numpy import layer, rows, threads

CONFIG = refbert.BertConfig(vocab_size=50, hidden_size=24, num_hidden_layers=2, num_attention_heads=3)
LAYER = "bert.encoder.layer.0."


@pytest.fixture(params=["alone", *(f"{size} by {what}" for what in ("heads", "rows") for size in (1, 2, 3, 5))])
def team(request, monkeypatch):
    """As many threads, by what they share, however few rows there are."""
    monkeypatch.setattr(layer, "FEW", 1000 if request.param == "alone" else 0)
    monkeypatch.setattr(layer, "MANY", 0 if "rows" in request.param else 1000)
    monkeypatch.setattr(layer, "threads", lambda: 2 if request.param == "alone" else int(request.param[0]))
    monkeypatch.setattr(threads, "threads", lambda: 2)
    monkeypatch.setattr(rows, "BLOCK", 3 * 24)


@pytest.mark.parametrize(
    ("rows", "size", "what"), [(63, 1, "heads"), (64, 2, "heads"), (639, 2, "heads"), (640, 2, "rows")]
)
@pytest.mark.parametrize("packed", [False, True])
def test_who_shares(rows, size, what, packed, monkeypatch):
    sizes, shares = [], []
    make = layer.Team
    monkeypatch.setattr(layer, "threads", lambda: 2)
    monkeypatch.setattr(layer, "Team", lambda size: (sizes.append(size), make(size))[1])
    for name in ("heads", "rows"):
        share = getattr(layer, f"_by_{name}")
        monkeypatch.setattr(
            layer, f"_by_{name}", lambda *a, name=name, share=share, **k: (shares.append(name), share(*a, **k))[1]
        )
    ours = model("numpy", "float32")
    options = {"heads": 3, "activation": "relu", "eps": 1e-12}
    p, x = Scope(ours.parameters, LAYER), np.zeros((rows, 24), np.float32)
    if packed:
        ours.backend.packed_encoder_layer(x, p, lengths=np.full(rows, 1), **options)
    else:
        ours.backend.encoder_layer(x[None], p, mask=np.ones((1, rows)), mask_value=-np.inf, **options)
    assert (sizes, shares) == ([size], [what])


def model(backend, dtype):
    return refbert.from_config(CONFIG, backend=backend, dtype=dtype, seed=1, pooler=True)


@pytest.mark.parametrize(("dtype", "most"), [("float32", 1e-5), ("float64", 1e-12)])
@pytest.mark.parametrize(("B", "S"), [(0, 3), (1, 1), (1, 9), (2, 8), (3, 5), (5, 3), (7, 1)])
def test_padded(team, dtype, most, B, S):
    """Threads get whole sequences, parts of one, or the end of one and the beginning of the next."""
    rng = np.random.default_rng(0)
    mask = (np.arange(S) < rng.integers(1, S + 1, B)[:, None]).astype(int)
    batch = refbert.Batch(input_ids=rng.integers(0, 50, (B, S)), attention_mask=mask)
    ours, reference = model("numpy", dtype), model("reference", "float64")
    one, two = (ours(batch).last_hidden_state for _ in range(2))
    assert np.array_equal(one, two)
    assert np.abs(one - reference(batch).last_hidden_state).max(initial=0) < most


@pytest.mark.parametrize(("dtype", "most"), [("float32", 1e-5), ("float64", 1e-12)])
@pytest.mark.parametrize("lengths", [[], [1], [9], [3, 3, 3], [1, 7, 2, 2, 2], [9, 1], [1, 1, 1, 1], [5, 4, 3, 2, 1]])
def test_packed(team, dtype, most, lengths):
    ours, reference = model("numpy", dtype), model("reference", "float64")
    rng = np.random.default_rng(1)
    x = rng.standard_normal((sum(lengths), 24)).astype(dtype)
    c = reference.choices
    options = {"heads": c.heads, "activation": c.activation, "eps": c.layer_norm_eps}
    y, again = (
        ours.backend.packed_encoder_layer(x, Scope(ours.parameters, LAYER), lengths=np.array(lengths, int), **options)
        for _ in range(2)
    )
    assert np.array_equal(y, again)
    want = packed_layer(
        reference.backend, Scope(reference.parameters, LAYER), x.astype(float), np.array(lengths, int), c
    )
    assert y.shape == x.shape
    if lengths:
        assert np.abs(y - np.concatenate(want)).max() < most


def test_lengths_that_do_not_fit(team):
    ours = model("numpy", "float32")
    x = np.zeros((5, 24), np.float32)
    for lengths in ([2, 2], [3, 3], []):
        with pytest.raises(ValueError, match="lengths add up"):
            ours.backend.packed_encoder_layer(
                x, Scope(ours.parameters, LAYER), lengths=np.array(lengths, int), heads=3, activation="relu", eps=1e-12
            )


@pytest.mark.parametrize("packed", [False, True])
def test_features_that_do_not_divide_into_heads(team, packed):
    ours = model("numpy", "float32")
    x, p = np.zeros((12, 24), np.float32), Scope(ours.parameters, LAYER)
    options = {"heads": 5, "activation": "relu", "eps": 1e-12}
    if packed:
        run = functools.partial(ours.backend.packed_encoder_layer, x, p, lengths=np.full(4, 3), **options)
    else:
        options |= {"mask": np.ones((4, 3)), "mask_value": -np.inf}
        run = functools.partial(ours.backend.encoder_layer, x.reshape(4, 3, 24), p, **options)
    with pytest.raises(ValueError, match="24 features do not divide into 5 heads"):
        run()


def test_an_error_in_a_thread_is_the_callers(team):
    ours = model("numpy", "float32")
    with pytest.raises(ValueError, match="unheard of"):
        ours.backend.encoder_layer(
            np.zeros((4, 3, 24), np.float32), Scope(ours.parameters, LAYER), mask=np.ones((4, 3)), heads=3,
            mask_value=-np.inf, activation="unheard of", eps=1e-12,
        )  # fmt: skip
    batch = refbert.Batch(input_ids=np.ones((4, 3), int))
    assert np.isfinite(ours(batch).last_hidden_state).all()  # and the team works on
