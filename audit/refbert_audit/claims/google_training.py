"""google-research/bert: optimization.py, and the schedules of run_*.py."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from refbert import ops
from refbert.backend.reference import ReferenceBackend
from refbert.config.heads import PRETRAINING
from refbert.config.parameters import shapes
from refbert.config.profiles import GOOGLE
from refbert_audit import Value, Values
from refbert_audit.measures import largest
from refbert_audit.models import SIZES, model
from refbert_audit.runs import RUN, finetuning, optimizer_of_a_run, updated

ADAM: dict[str, Any] = {"beta1": 0.9, "beta2": 0.999, "weight_decay": 0.0}


def google_adam_bias_correction() -> Values:
    """The step of BERT's Adam over that of AdamW, on the same constant gradient: (1 − β₁ᵗ)/√(1 − β₂ᵗ)."""
    p, g = np.zeros(1), np.ones(1)
    zero: Any = np.zeros(1)
    m = v = other_m = other_v = zero
    ratio = []
    for t in range(1, 1001):
        a, m, v = ops.bert_adam(p, g, m, v, lr=1.0, eps=0.0, **ADAM)
        b, other_m, other_v = ops.adamw(p, g, other_m, other_v, lr=1.0, eps=0.0, step=t, **ADAM)
        ratio.append(float(a[0] / b[0]))
    yield Value("a run's update", RUN.new_optimizer().rule, "bert_adam", by="refbert, profile google")
    yield Value("at t = 1", ratio[0], math.sqrt(10), within=1e-9, claimed=1.0)
    yield Value("largest", max(ratio), 6.57, within=5e-3, claimed=1.0)
    yield Value("at t", int(np.argmax(ratio)) + 1, 12)
    yield Value("at t = 1000", ratio[-1], 1.26, within=5e-3, claimed=1.0)


def google_adam_epsilon() -> Values:
    """A gradient so small that √v = ε: outside the root the step is m/2ε, inside it would be m/√(ε² + ε)."""
    g = 1e-6 / math.sqrt(0.001)
    optimizers = (optimizer_of_a_run(), finetuning().new_optimizer(GOOGLE))
    steps = [-updated(one, 0.0, g, lr=1.0) / (0.1 * g / 2e-6) for one in optimizers]
    yield Value("step / (m/2ε), pretraining and fine-tuning", steps, [1.0, 1.0], within=1e-9)


def google_adam_exclusions() -> Values:
    """One update without gradients of all parameters of a pretraining model: which of them move."""
    one = model(PRETRAINING)
    zeros = {name: np.zeros(x.shape) for name, x in one.parameters.items()}
    new, _ = optimizer_of_a_run().step(one.backend, one.parameters, zeros, lr=0.1)
    moved = {name for name in new if not np.array_equal(new[name], one.parameters[name])}
    tables = {name for name in moved if "embeddings.weight" in name}
    fixed = [n for n in shapes(SIZES, PRETRAINING) if n not in moved and not ("LayerNorm" in n or n.endswith("bias"))]
    wrongly = [n for n in sorted(moved) if "LayerNorm" in n or n.endswith("bias")]
    yield Value("LayerNorms and biases that decay", wrongly, [])
    yield Value("other parameters that do not", fixed, [])
    yield Value("embedding tables that decay", len(tables), 3)


def google_adam_own_test() -> Values:
    """Google's own test, in float64: the mean of (target − w)², its gradient −2/3 (target − w)."""
    target = np.array([0.4, 0.2, -0.5])
    optimizer, seen = optimizer_of_a_run(weight_decay=0.0, max_norm=None), [np.array([0.1, -0.2, -0.1])]
    for _ in range(100):
        w = seen[-1]
        new, _ = optimizer.step(ReferenceBackend(), {"w": w}, {"w": -2 / 3 * (target - w)}, lr=0.2)
        seen.append(new["w"])
    yield Value("after step 1", seen[1], [0.73235555, 0.43238054, -0.73238054], within=5e-9)
    yield Value("after step 100", seen[-1], [0.40164604, 0.19782445, -0.49782445], within=5e-9)
    yield Value("largest distance from the target", largest(seen[-1] - target), 0.0, within=0.01)


def google_clip() -> Values:
    """Two gradients of joint norm 10, and two of joint norm 0.5: what arrives in the first moments, m = 0.1 g.

    Of a pretraining run, and of fine-tuning.
    """
    arrived = []
    for of_a_run, (a, b) in product((True, False), ((6.0, 8.0), (0.3, 0.4))):
        optimizer = RUN.new_optimizer() if of_a_run else finetuning().new_optimizer(GOOGLE)
        weights = {"a": np.zeros(1), "b": np.zeros(1)}
        _, norm = optimizer.step(ReferenceBackend(), weights, {"a": np.array([a]), "b": np.array([b])}, lr=0.1)
        arrived.append([norm, *(10 * float(optimizer.m[name][0]) for name in weights)])
    yield Value("norm 10: norm, gradients", arrived[::2], [[10.0, 0.6, 0.8]] * 2, within=1e-12)
    yield Value("norm 0.5: norm, gradients", arrived[1::2], [[0.5, 0.3, 0.4]] * 2, within=1e-12)


def google_schedule_jump() -> Values:
    """Rates around the end of the warmup in both profiles: Google counts the decay from step 0, so it jumps by w/T."""
    hf = replace(RUN, profile="hf")
    jump = [1e4 * (s.rate(10_000) - s.rate(9_999)) for s in (RUN, hf)]
    rate, by = RUN.rate(10_000), "refbert, profile google"
    yield Value("rate of step 10,000", rate, 9.9e-5, within=1e-18, claimed=1e-4, by=by)
    yield Value("step to it, 1e-4", jump, [-0.0099, 0.0001], within=1e-12, by="refbert, profiles google and hf")


def google_schedule_first() -> Values:
    """The first update of a run, its rate from the schedule."""
    optimizer = optimizer_of_a_run(max_norm=None)
    yield Value("rate", RUN.rate(0), 0.0)
    yield Value("weight", updated(optimizer, 0.5, 2.0, lr=RUN.rate(0)), 0.5)
    yield Value("m, v", [optimizer.m["w"][0], optimizer.v["w"][0]], [0.2, 0.004], within=1e-15)


def google_finetune_warmup() -> Values:
    """The share that a fine-tuning run takes by default, and where the rate of 1,000 steps is highest."""
    settings = finetuning()
    plan = settings.plans()[0]
    rates = [settings.rate(step, plan, steps=1000, profile=GOOGLE) for step in range(1000)]
    yield Value("share", settings.warmup_share, 0.1)
    yield Value("steps up to the highest rate", int(np.argmax(rates)) + 1, 100)
