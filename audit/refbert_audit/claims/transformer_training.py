"""Vaswani et al. 2017 §5: how the Transformer is trained, and how BERT is."""

from __future__ import annotations

import math

import numpy as np

from refbert import ops
from refbert.config.heads import PRETRAINING
from refbert_audit import Value, Values
from refbert_audit.quoted import noam
from refbert_audit.runs import RUN, optimizer_of_a_run, updated
from refbert_audit.watching import dropout_sites


def transformer_schedule() -> Values:
    """The formula's first rate and peak; and the fall of BERT's rate from step 20,000 to 80,000, over the formula's."""
    ratio, theirs = RUN.rate(80_000) / RUN.rate(20_000), noam(80_000) / noam(20_000)
    yield Value("peak of the formula, d = 512", max(noam(s) for s in range(1, 8001)), 6.98771e-4, within=5e-10)
    yield Value("its first rate", noam(1), 1.74693e-7, within=5e-13)
    yield Value("rate of step 80,000 / 20,000 in BERT", ratio, 0.92 / 0.98, within=1e-12, claimed=theirs)


def transformer_adam() -> Values:
    """Read off BERT's optimizer after one step on a gradient of 1: m = 1 − β₁, v = 1 − β₂, step = m/(√v + ε)."""
    optimizer = optimizer_of_a_run(max_norm=None, weight_decay=0.0)
    w = updated(optimizer, 0.0, 1.0, lr=1.0)
    m, v = float(optimizer.m["w"][0]), float(optimizer.v["w"][0])
    eps = m / -w - math.sqrt(v)
    yield Value("β₁, β₂", [1 - m, 1 - v], [0.9, 0.999], within=1e-12, claimed=[0.9, 0.98])
    yield Value("ε", eps, 1e-6, within=1e-12, claimed=1e-9)


def transformer_dropout_residual() -> Values:
    """Those places among the ones that a training step of BERT draws masks for."""
    wanted = ["embeddings", *(f"encoder.layer.{i}.{s}" for i in (0, 1) for s in ("attention.output", "output"))]
    yield Value("rates there", [dropout_sites(PRETRAINING).get(site) for site in wanted], [0.1] * 5)


def transformer_dropout_attention() -> Values:
    """Places in a layer beyond the two sublayers' outputs: the attention probabilities."""
    extra = [s for s in dropout_sites(PRETRAINING) if s.startswith("encoder.layer.0.") and "output" not in s]
    yield Value("further places in layer 0", extra, ["encoder.layer.0.attention.self"], claimed=[])


def transformer_label_smoothing() -> Values:
    """The loss of logits that are certain and right: 0 with hard labels, as it could not be with smoothed ones."""
    logits = np.zeros((1, 10))
    logits[0, 3] = 50
    loss, _ = ops.cross_entropy(logits, np.array([3]), denominator=1)
    smoothed = -float((np.full(10, 0.01) * (logits[0] - 50)).sum())  # the right label's term is 0
    yield Value("loss", float(loss), 0.0, within=1e-15, claimed=smoothed)
