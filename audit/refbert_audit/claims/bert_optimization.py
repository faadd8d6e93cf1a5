"""Devlin et al. 2019 A.2: batches, steps, the optimizer, the schedule, dropout."""

from __future__ import annotations

from functools import partial

import numpy as np

from refbert import ops
from refbert.backend.reference import ReferenceBackend
from refbert.config.heads import PRETRAINING
from refbert.data.settings import Phase
from refbert.data.stream import PretrainingSource
from refbert.randomness import Dropout
from refbert_audit import Value, Values
from refbert_audit.corpora import store, texts, tokenizer
from refbert_audit.measures import largest, spread
from refbert_audit.models import SIZES, batch, model
from refbert_audit.runs import RUN, examples_of_a_run, optimizer_of_a_run, updated
from refbert_audit.watching import Counting, dropout_sites, flops_of

WORDS = 3.3e9  # of A.2's "3.3 billion word corpus"


def tokens(phases: tuple[Phase, ...]) -> int:
    """Tokens that the phases read, padding included."""
    return sum(phase.steps * phase.batch_size * phase.length for phase in phases)


def bert_batch_tokens() -> Values:
    """A batch of that shape from the data code, its entries counted: 131,072, of which 128,000 is 97.7%."""
    small = store(texts(300, sentences=(1, 6), tokens=(5, 20)), "batches")
    phases = (Phase(1, 512, RUN.batch_size),)
    source = PretrainingSource(small, tokenizer(), seed=0, phases=phases, settings=examples_of_a_run())
    rows, _ = source.next(0)
    yield Value("tokens in a batch", rows.input_ids.size, 131_072, claimed=128_000)


def bert_phases_lengths() -> Values:
    """The phases of a run of 1,000,000 steps."""
    yield Value("steps at each length", [[p.steps, p.length] for p in RUN.phases()], [[900_000, 128], [100_000, 512]])


def bert_batch_epochs() -> Values:
    """Tokens of all steps over 3.3e9: 39.7 if every step has 512 tokens, 12.9 with the lengths of the same section.

    Words are taken for tokens here, as the paper does; word pieces are more, which makes it fewer epochs still.
    """
    long = (Phase(RUN.steps, 512, RUN.batch_size),)
    yield Value("epochs, all at 512", tokens(long) / WORDS, 39.7, within=0.05, claimed=40)
    yield Value("epochs, 90% at 128", tokens(RUN.phases()) / WORDS, 12.9, within=0.05, claimed=40)
    yield Value("mean tokens of a batch", tokens(RUN.phases()) / RUN.steps, 42_598.4, within=0.05)


def bert_optimizer_rate() -> Values:
    """The largest rate of the schedule of 1,000,000 steps: the peak is approached but (Google's jump) never reached."""
    peak = max(RUN.rate(step) for step in range(0, RUN.steps, 1000))
    rates = [RUN.rate(step) for step in range(9_990, 10_010)]
    yield Value("the peak that warmup aims at", RUN.rate(5_000) * 2, 1e-4, within=1e-18)
    yield Value("largest rate", max(peak, *rates), 9.999e-5, within=1e-18)


def bert_schedule_warmup() -> Values:
    """Rates of a run of 1,000,000 steps, which warms up for 1% of them."""
    found = [RUN.rate(step) for step in (0, 2_500, 5_000, 9_999)]
    rising = all(RUN.rate(s) < RUN.rate(s + 1) for s in range(0, 9_999, 7))
    yield Value("rates of steps 0, 2,500, 5,000, 9,999", found, [0, 2.5e-5, 5e-5, 9.999e-5], within=1e-18)
    yield Value("rises up to step 9,999", rising, True)
    yield Value("and not after", RUN.rate(10_001) < RUN.rate(10_000), True)


def bert_schedule_decay() -> Values:
    """Half the peak at half the steps, nothing at the end, equal differences between."""
    found = [RUN.rate(step) for step in (500_000, 750_000, 1_000_000)]
    slopes = np.diff([RUN.rate(s) for s in range(20_000, 1_000_001, 20_000)])
    yield Value("rates of steps 500,000, 750,000, 1,000,000", found, [5e-5, 2.5e-5, 0.0], within=1e-18)
    yield Value("spread of the slope", float(np.ptp(slopes)), 0.0, within=1e-18)


def bert_optimizer_betas() -> Values:
    """Read off the moments after one update from zero: m = (1 − β₁) g and v = (1 − β₂) g²."""
    optimizer, g = optimizer_of_a_run(max_norm=None), 2.0
    updated(optimizer, 1.0, g, lr=0.1)
    b1, b2 = 1 - optimizer.m["w"] / g, 1 - optimizer.v["w"] / g**2
    yield Value("β₁, β₂", [b1[0], b2[0]], [0.9, 0.999], within=1e-12)


def bert_optimizer_weight_decay() -> Values:
    """A step without a gradient: a weight must shrink to exactly w(1 − 0.01·lr), LayerNorm and biases must stay."""
    names = ("bert.pooler.dense.weight", "bert.embeddings.LayerNorm.weight", "bert.pooler.dense.bias")
    weights = {name: np.array([0.5]) for name in names}
    new, _ = optimizer_of_a_run().step(ReferenceBackend(), weights, {n: np.zeros(1) for n in names}, lr=1e-4)
    yield Value("decayed weight / (w(1 − 0.01·lr))", new[names[0]][0] / (0.5 * (1 - 1e-6)), 1.0, within=2e-16)
    yield Value("LayerNorm and bias", [new[n][0] for n in names[1:]], [0.5, 0.5])


def bert_optimizer_l2() -> Values:
    """One step with no gradient, decoupled as in the code, and with λw as the gradient, which is what L2 means.

    Adam divides the penalty's gradient by its own size: the step is then lr (here times 3.16), whatever λ is.
    """
    w, zero, lr = np.array([0.5]), np.zeros(1), 1e-4
    options = {"lr": lr, "beta1": 0.9, "beta2": 0.999, "eps": 1e-6}
    decoupled, _, _ = ops.bert_adam(w, zero, zero, zero, weight_decay=0.01, **options)
    penalty, _, _ = ops.bert_adam(w, 0.01 * w, zero, zero, weight_decay=0.0, **options)
    ours = updated(optimizer_of_a_run(), 0.5, 0.0, lr)
    steps = [float((w - x)[0] / lr) for x in (decoupled, penalty, ours)]
    yield Value("step/lr, decoupled", steps[0], 0.005, within=1e-9)
    yield Value("step/lr, as L2", steps[1], 3.14, within=0.03)
    yield Value("step/lr of the optimizer", steps[2], 0.005, within=1e-9, claimed=3.14)


def bert_dropout_rate() -> Values:
    """The rate of every mask that a training step of two layers draws, and the share that one of a million keeps."""
    rates = list(dropout_sites(PRETRAINING).values())
    kept = Dropout(0).keep("encoder.layer.0.output", (1000, 1000), rates[0])
    yield Value("rates", rates, [0.1] * 7)
    yield Value("share kept", kept.mean(), 0.9, within=spread(0.9, kept.size))


def bert_dropout_places() -> Values:
    """Places that masks are drawn for: one behind the embeddings, three in every layer."""
    sites = list(dropout_sites(PRETRAINING))
    L = SIZES.num_hidden_layers
    each = [sum(site.startswith(f"encoder.layer.{i}.") for site in sites) for i in range(L)]
    yield Value("places", len(sites), 1 + 3 * L)
    yield Value("in each layer", each, [3] * L)
    yield Value("the first", sites[0], "embeddings")


def bert_dropout_inference() -> Values:
    """A model with dropout 0.1 gives what the same model without dropout gives, bit by bit."""
    rows = batch()
    none = SIZES.replace(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    first, second = (model(PRETRAINING, config=config)(rows).last_hidden_state for config in (SIZES, none))
    yield Value("largest difference", largest(first - second), 0.0)


def bert_batch_size() -> Values:
    """Batch sizes of both phases of a run of the paper's length."""
    yield Value("sequences", [phase.batch_size for phase in RUN.phases()], [256, 256])


def bert_phases_reason() -> Values:
    """Operations of matrix products, counted while a model runs at three lengths: the part that grows with S²."""
    one = model(config=SIZES.replace(max_position_embeddings=64), backend=Counting())
    whole = {S: flops_of(partial(one, batch(1, S)))[0] for S in (16, 32, 64)}
    # a + b·S² per pass, after the parts that grow with S alone are taken out.
    second = whole[64] - 3 * whole[32] + 2 * whole[16]  # of c + a·S + b·S² this is b·(4096 − 3·1024 + 2·256)
    per_square = second / (64**2 - 3 * 32**2 + 2 * 16**2)
    L, H = SIZES.num_hidden_layers, SIZES.hidden_size
    yield Value("operations that grow with S², 4·L·H each", per_square, 4 * L * H)
