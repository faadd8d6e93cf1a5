"""Errors planted in refbert: the verdict turns, and the command exits with 1."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from refbert import ops
from refbert.audit import run, select
from refbert.cli import main
from refbert.data import masking, pairs
from refbert.reference import ReferenceBackend
from refbert.spec import feed_forward
from refbert.training import optimizer, pretraining_settings


def status(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(["audit", *arguments])
    return ended.value.code


def layer_norm_without_centring(plant):
    """Root-mean-square normalisation: x/√(mean x²) instead of (x − mean)/deviation."""

    def other(x, gamma, beta, *, eps):
        _, back = ops.layer_norm(x, gamma, beta, eps=eps)
        rms = np.sqrt((x * x).mean(-1, keepdims=True) + eps)
        return gamma * x / rms + beta, back

    plant.setattr(ReferenceBackend, "layer_norm", staticmethod(other))


def too_many_masks(plant):
    """Nine tenths become [MASK]."""
    plant.setattr(sys.modules["refbert.ops.mask_tokens"], "MASKED", 0.9)


def masks_on_separators(plant):
    """[CLS] and [SEP] may be chosen."""

    def other(ids, special, *rest, **options):
        return real(ids, np.zeros_like(special), *rest, **options)

    real = masking.mask_batch
    plant.setattr("refbert.data.stream.mask_batch", other)


def warmup_one_step_late(plant):
    """The rate of step s + 1."""
    real = pretraining_settings.learning_rate
    plant.setattr(pretraining_settings, "learning_rate", lambda step, **options: real(step + 1, **options))


def everything_decays(plant):
    """Weight decay on LayerNorm and biases too."""
    plant.setattr(optimizer, "decays", lambda name: True)


def moments_corrected(plant):
    """Adam with bias correction where Google's has none."""

    def other(p, g, m, v, **options):
        return ops.adamw(p, g, m, v, step=1, **options)

    plant.setattr(ReferenceBackend, "bert_adam", staticmethod(other))


def no_dropout_in_the_feed_forward(plant):
    """The feed-forward sublayer's dropout is left out."""
    plant.setattr(feed_forward, "dropout", lambda ops, x, **options: (x, lambda dy: (dy,)))


def no_biases(plant):
    """Dense layers without a bias."""
    plant.setattr("refbert.parameters._dense", lambda name, n_in, n_out: {f"{name}.weight": (n_out, n_in)})


def cut_from_the_front(plant):
    """Too long pairs lose tokens at the front alone."""
    plant.setattr(pairs, "_cut", lambda span, tokens, draws: (span[0] + tokens, span[1]))


def mean_over_everything(plant):
    """The masked-LM loss divided by all positions."""
    plant.setattr("refbert.spec.losses._masked_lm", lambda labels, c: float(labels.size))


PLANTED = [
    (layer_norm_without_centring, "transformer.layer-norm.post"),
    (layer_norm_without_centring, "bert.input.sum"),
    (too_many_masks, "bert.masking.80-10-10"),
    (masks_on_separators, "bert.masking.no-specials"),
    (warmup_one_step_late, "bert.schedule.warmup"),
    (everything_decays, "bert.optimizer.weight-decay"),
    (moments_corrected, "google.adam.own-test"),
    (no_dropout_in_the_feed_forward, "bert.dropout.places"),
    (no_biases, "bert.params.large"),
    (cut_from_the_front, "google.instances.truncation"),
    (mean_over_everything, "bert.masking.only-masked"),
]


@pytest.mark.parametrize(("plant", "id"), PLANTED, ids=[f"{p.__name__}-{i}" for p, i in PLANTED])
def test_a_planted_error_turns_the_verdict(plant, id, monkeypatch, capsys):
    (before,) = run(select([id]))
    assert (before.verdict, before.ok) == ("agrees", True)
    with monkeypatch.context() as patch:
        plant(patch)
        (after,) = run(select([id]))
        assert after.verdict == "wrong", after.error
        assert not after.ok
        assert status(id) == 1
        assert "NOT AS RECORDED" in capsys.readouterr().out
    assert status(id) == 0
    assert "as on record" in capsys.readouterr().out


def test_a_deviation_that_is_gone_is_noticed(monkeypatch):
    """Both profiles with the same GELU: paper and code agree, which is not what is on record."""
    monkeypatch.setattr(ops, "gelu", lambda x, *, form: (x, None))
    (outcome,) = run(select(["bert.encoder.gelu-form"]))
    assert (outcome.verdict, outcome.ok) == ("agrees", False)


def test_a_wrong_statement_with_other_numbers_is_noticed(monkeypatch):
    """The verdict stays "wrong", but what was measured is not what is on record."""
    monkeypatch.setattr("refbert.parameters._dense", lambda name, n_in, n_out: {f"{name}.weight": (n_out, n_in)})
    (outcome,) = run(select(["article.params.chinese"]))
    assert (outcome.verdict, outcome.ok) == ("wrong", False)
