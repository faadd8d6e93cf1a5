"""One optimizer step over named parameters: who decays, who moves, what is refused."""

from __future__ import annotations

import numpy as np
import oracles as o
import pytest
from oracles import agree

from refbert import ops
from refbert.backend.reference import ReferenceBackend
from refbert.config import BertConfig
from refbert.config.parameters import shapes
from refbert.errors import InputError, Unsupported
from refbert.training import Optimizer, decays

BACKEND = ReferenceBackend()
WEIGHT, NORM, BIAS = "bert.pooler.dense.weight", "bert.embeddings.LayerNorm.weight", "bert.pooler.dense.bias"
RNG = np.random.default_rng(0)
PARAMETERS = {WEIGHT: RNG.standard_normal((3, 4)), NORM: RNG.standard_normal(4), BIAS: RNG.standard_normal(3)}
GRADIENTS = {name: RNG.standard_normal(p.shape) for name, p in PARAMETERS.items()}


PRETRAINING = ("masked_lm", "next_sentence", "question_answering")


@pytest.mark.parametrize("heads", [PRETRAINING, ("token_classification",), ("multiple_choice",)], ids="+".join)
def test_who_decays(heads):
    """Every matrix and table, embeddings included; nothing with a single axis (gains, shifts, biases)."""
    config = BertConfig(vocab_size=7, hidden_size=4, num_hidden_layers=1, num_attention_heads=2, intermediate_size=5)
    for name, shape in shapes(config, heads).items():
        assert decays(name) == (len(shape) == 2), name


def test_who_decays_under_tensorflows_names():
    for name in ("output/LayerNorm/gamma", "output/dense/bias", "output_bias", "layer_norm/gamma"):
        assert not decays(name)
    assert decays("bert/encoder/layer_0/output/dense/kernel")
    assert decays("bert/embeddings/word_embeddings")


@pytest.mark.parametrize("rule", ["bert_adam", "adamw", "lamb"])
def test_three_steps_are_the_update_of_each_tensor(rule):
    """Clipped together, each with its own moments, decay by name, steps counted from 1."""
    optimizer = Optimizer(rule=rule, max_norm=0.5, clip_epsilon=1e-6)
    parameters = PARAMETERS
    moments = {name: (np.zeros(p.shape), np.zeros(p.shape)) for name, p in PARAMETERS.items()}
    expected = dict(PARAMETERS)
    for t in (1, 2, 3):
        gradients = {name: t * g for name, g in GRADIENTS.items()}
        parameters, norm = optimizer.step(BACKEND, parameters, gradients, lr=0.1 / t)
        clipped, their_norm = ops.clip_by_global_norm(gradients, max_norm=0.5, epsilon=1e-6)
        for name, p in expected.items():
            expected[name], *moments[name] = getattr(ops, rule)(
                p,
                clipped[name],
                *moments[name],
                lr=0.1 / t,
                beta1=0.9,
                beta2=0.999,
                eps=1e-6,
                weight_decay=0.01 if name == WEIGHT else 0.0,
                **({} if rule == "bert_adam" else {"step": t}),
            )
            assert np.array_equal(parameters[name], expected[name]), (t, name)
            assert np.array_equal(optimizer.m[name], moments[name][0])
            assert np.array_equal(optimizer.v[name], moments[name][1])
        assert norm == their_norm
    assert optimizer.updates == 3


def test_defaults_are_the_papers_and_googles():
    x = Optimizer()
    assert (x.rule, x.beta1, x.beta2, x.eps, x.weight_decay) == ("bert_adam", 0.9, 0.999, 1e-6, 0.01)
    assert (x.max_norm, x.clip_epsilon, x.updates) == (1.0, 0.0, 0)


def test_zero_gradient():
    """A decayed weight becomes w(1 − 0.01·lr); LayerNorm and biases stay."""
    zeros = {name: np.zeros(p.shape) for name, p in PARAMETERS.items()}
    new, norm = Optimizer().step(BACKEND, PARAMETERS, zeros, lr=1e-4)
    assert norm == 0
    assert np.array_equal(new[NORM], PARAMETERS[NORM])
    assert np.array_equal(new[BIAS], PARAMETERS[BIAS])
    w = PARAMETERS[WEIGHT]
    exactly = o.exactly(lambda w: w * (1 - o.mpmath.mpf(0.01) * o.mpmath.mpf(1e-4)), w)
    # lr·(λw): two roundings of a number 1e-6 of w; the subtraction: one of w
    agree(new[WEIGHT], exactly, o.U * np.abs(new[WEIGHT]) + 2e-6 * o.U * np.abs(w))


def test_first_update_at_rate_0_moves_the_moments_only():
    optimizer = Optimizer(max_norm=None)
    new, norm = optimizer.step(BACKEND, PARAMETERS, GRADIENTS, lr=0.0)
    assert norm is None
    assert all(np.array_equal(new[name], PARAMETERS[name]) for name in PARAMETERS)
    for name, g in GRADIENTS.items():
        agree(optimizer.m[name], 0.1 * g, 2 * o.U * np.abs(g))
        agree(optimizer.v[name], 0.001 * g * g, 3 * o.U * g * g)
    assert optimizer.updates == 1


def test_without_a_gradient_a_parameter_stays():
    before = {name: p.copy() for name, p in PARAMETERS.items()}
    optimizer = Optimizer()
    new, _ = optimizer.step(BACKEND, PARAMETERS, {BIAS: GRADIENTS[BIAS]}, lr=0.1)
    assert new[WEIGHT] is PARAMETERS[WEIGHT]
    assert new[NORM] is PARAMETERS[NORM]
    assert not np.array_equal(new[BIAS], PARAMETERS[BIAS])
    assert set(optimizer.m) == set(optimizer.v) == {BIAS}
    assert all(np.array_equal(PARAMETERS[name], before[name]) for name in before), "the old parameters are left alone"


def test_unknown_gradients_are_refused_before_anything_moves():
    optimizer = Optimizer()
    with pytest.raises(InputError, match="unknown parameters: a, b"):
        optimizer.step(BACKEND, PARAMETERS, GRADIENTS | {"b": np.ones(1), "a": np.ones(1)}, lr=0.1)
    assert (optimizer.updates, optimizer.m) == (0, {})


def test_a_rule_that_the_backend_lacks():
    with pytest.raises(Unsupported, match='"reference" does not offer the optimizer "sgd"'):
        Optimizer(rule="sgd").step(BACKEND, PARAMETERS, GRADIENTS, lr=0.1)


def test_float32_stays_float32():
    backend = ReferenceBackend(dtype="float32")
    parameters, gradients = ({k: x.astype(np.float32) for k, x in d.items()} for d in (PARAMETERS, GRADIENTS))
    for rule in ("bert_adam", "adamw", "lamb"):
        optimizer = Optimizer(rule=rule)
        new, _ = optimizer.step(backend, parameters, gradients, lr=0.1)
        for arrays in (new, optimizer.m, optimizer.v):
            assert {x.dtype for x in arrays.values()} == {np.dtype(np.float32)}
