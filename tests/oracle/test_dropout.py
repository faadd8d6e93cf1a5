"""Dropout's places and rates in the model: Hugging Face in training mode, with its random draws replaced by ours.

Every dropout of transformers ends in torch.nn.functional.dropout; the replacement hands out refbert's keep masks in the
order of the places that the papers and Google's code name, and checks that the rate is the one meant for that place.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from random_models import assert_gradients_agree, random_batch, random_labels, random_model, run

from refbert.backend import registry
from refbert.model import Model
from refbert.randomness import Dropout

RATES = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.2, "classifier_dropout": 0.3}
SITES = {"attention.self": RATES["attention_probs_dropout_prob"], "classifier": RATES["classifier_dropout"]}


def places(layers, heads):
    """One after the embeddings, three in each layer, and one before a classifier."""
    out = ["embeddings"]
    for i in range(layers):
        out += [f"encoder.layer.{i}.{site}" for site in ("attention.self", "attention.output", "output")]
    return out + (["classifier"] if heads[0].endswith("classification") else [])


@pytest.mark.parametrize("backend", ["reference", "torch", "numpy"])
@pytest.mark.parametrize(
    "heads",
    [("masked_lm", "next_sentence"), ("sequence_classification",), ("token_classification",), ("question_answering",)],
    ids="+".join,
)
def test_the_same_places_rates_and_gradients(monkeypatch, heads, backend):
    theirs, config, weights = random_model(heads)
    for module in theirs.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = RATES["hidden_dropout_prob"]
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = RATES["attention_probs_dropout_prob"]
    for layer in theirs.bert.encoder.layer:
        layer.attention.self.dropout.p = RATES["attention_probs_dropout_prob"]
    if heads[0].endswith("classification"):
        theirs.dropout.p = RATES["classifier_dropout"]
    draws = Dropout(seed=11, step=4)
    waiting = places(config.num_hidden_layers, heads)

    def ours_instead(x, p=0.5, training=True, inplace=False):
        assert training
        site = waiting.pop(0)
        assert p == next((r for end, r in SITES.items() if site.endswith(end)), RATES["hidden_dropout_prob"]), site
        keep = torch.from_numpy(draws.keep(site, tuple(x.shape), p))
        return torch.where(keep, x / (1 - p), 0.0)

    batch = random_batch(3, 11)
    labels = random_labels(heads, batch)
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.functional, "dropout", ours_instead)
        loss, _, gradients = run(theirs.train(), batch, labels, heads)
    assert not waiting, f"never dropped: {waiting}"

    model = Model(config.replace(**RATES), weights, backend=registry.create(backend, dtype="float64"), heads=heads)
    our_loss, ours = model.loss_and_gradients(batch, labels, dropout=draws)
    assert abs(our_loss - loss) <= 1e-10 * loss
    assert_gradients_agree(ours, gradients, 1e-10)
    without, _ = model.loss_and_gradients(batch, labels)
    assert not np.isclose(without, loss)
