"""Devlin et al. 2019 §3.1, A.1 and A.2: masked words, next sentences, the loss; batches, steps, optimizer, dropout."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import numpy as np

from refbert import ops
from refbert.backend.reference import ReferenceBackend
from refbert.config.heads import PRETRAINING
from refbert.data.draws import Draws
from refbert.data.pairs import IS_NEXT, RANDOM_NEXT, examples
from refbert.data.settings import Phase
from refbert.data.stream import PretrainingSource
from refbert.loading import from_config
from refbert.ops.cross_entropy import IGNORE, cross_entropy
from refbert.ops.mask_tokens import mask_tokens
from refbert.randomness import Dropout
from refbert.spec.heads import next_sentence
from refbert.spec.pooler import pooler
from refbert.spec.scope import Scope
from refbert.text.batching import Batch
from refbert_audit import Missing, Value, Values
from refbert_audit.corpora import corpus, pairs, pretraining_rows, store, texts, tokenizer
from refbert_audit.measures import largest, log_losses, spread, without_gradient
from refbert_audit.models import SIZES, batch, labels_for, loss_and_logits, masked_labels, model, next_sentence_labels
from refbert_audit.runs import RUN, examples_of_a_run, optimizer_of_a_run, updated
from refbert_audit.watching import Counting, dropout_sites, flops_of


def full_targets(seen: Mapping[str, np.ndarray]) -> list[int]:
    """How many targets full sequences have."""
    return sorted(set(seen["chosen"][seen["mask"].all(axis=1)].sum(axis=1).tolist()))


def bert_masking_rate() -> Values:
    """Targets among all tokens ([CLS] and [SEP] counted) and among those that may be chosen, in 1,920 sequences.

    Rounding a sequence's number is off by at most a half, which is the bound; the second share is larger because
    [CLS] and [SEP] are counted but never chosen.
    """
    seen = pretraining_rows()
    targets, tokens, special = (int(seen[name].sum()) for name in ("chosen", "mask", "special"))
    half = 0.5 * len(seen["ids"]) / tokens
    yield Value("share of all tokens", targets / tokens, 0.15, within=half)
    yield Value("share of those not special", targets / (tokens - special), 0.1525, within=0.004, claimed=0.15)
    yield Value("targets of full sequences of 128", full_targets(seen), [19])


def bert_masking_512() -> Values:
    """Targets of full sequences of 512 tokens, as the data code draws them."""
    yield Value("targets of full sequences", full_targets(pretraining_rows(S=512, batches=4)), [77])


def bert_masking_80_10_10() -> Values:
    """Shares among 32,000 targets. A random token is the token itself once in V, so that little more stays."""
    seen = pretraining_rows()
    now, before = seen["ids"][seen["chosen"]], seen["labels"][seen["chosen"]]
    hidden = now == tokenizer().mask_id
    kept = ~hidden & (now == before)
    n = len(now)
    yield Value("[MASK]", hidden.mean(), 0.8, within=spread(0.8, n))
    yield Value("random", (~hidden & ~kept).mean(), 0.1, within=spread(0.1, n))
    yield Value("unchanged", kept.mean(), 0.1, within=spread(0.1, n))


def bert_masking_random_words() -> Values:
    """Tokens that were replaced by another word, among all tokens: 10% of 15%."""
    seen = pretraining_rows()
    changed = (seen["ids"] != seen["original"]) & (seen["ids"] != tokenizer().mask_id)
    tokens = int(seen["mask"].sum())
    yield Value("share of all tokens", changed.sum() / tokens, 0.015, within=spread(0.015, tokens) + 2e-4)


def bert_masking_unchanged_predicted() -> Values:
    """Labels where the input still shows the token: a tenth of all, or targets would be missing."""
    seen = pretraining_rows()
    same, n = seen["ids"] == seen["labels"], int(seen["chosen"].sum())
    yield Value("labelled as they stand, of all labelled", same.sum() / n, 0.1, within=spread(0.1, n))
    yield Value("labelled in full sequences of 128", full_targets(seen), [19])
    changed = (seen["ids"] != seen["original"]) & ~seen["chosen"]
    yield Value("positions not chosen that changed", int(changed.sum()), 0)


def bert_masking_no_specials() -> Values:
    """Targets on special or padded positions, in 1,920 sequences."""
    seen = pretraining_rows()
    yield Value("on [CLS] or [SEP]", int((seen["chosen"] & seen["special"]).sum()), 0)
    yield Value("on padding", int((seen["chosen"] & ~seen["mask"]).sum()), 0)


def bert_masking_only_masked() -> Values:
    """The loss is the mean cross-entropy over the labelled positions, written out from the logits of all positions."""
    rows, labels = batch(), masked_labels(batch())
    loss, logits = loss_and_logits("masked_lm", labels, rows)
    each = log_losses(logits, rows.input_ids)[labels != IGNORE]
    yield Value("loss − mean over labelled positions", loss - each.mean(), 0.0, within=1e-10)
    yield Value("labelled positions, of 33", len(each), 8)


def bert_masking_hides() -> Values:
    """Two texts that differ in one word, with it and with it masked: predictions at its place.

    The masking is the training's, with draws that choose that word and put [MASK] in its place.
    """
    one, rows = model(("masked_lm",)), batch()
    here = np.zeros(rows.shape, dtype=bool)
    here[:, 4] = True

    def apart(masked: bool) -> float:
        found = []
        for step in (0, 1):
            ids = np.where(here, (rows.input_ids + step) % SIZES.vocab_size, rows.input_ids)
            if masked:
                none = np.zeros(ids.shape)
                ids, _ = mask_tokens(ids, ~here, select=none, action=none, random_ids=ids, rate=1.0, mask_id=5)
            found.append(one(Batch(ids, rows.token_type_ids, rows.attention_mask)).logits["masked_lm"])
        return largest((found[0] - found[1])[:, 4])

    yield Value("the word moves its own prediction where it is seen", apart(masked=False) > 1e-6, True)
    yield Value("and moves nothing where it is masked", apart(masked=True), 0.0)


def bert_nsp_half() -> Values:
    """Random pairs among some 7,000: more than half, because a chunk of one sentence has no next one to take."""
    found, coins = pairs()
    random = sum(e.label == RANDOM_NEXT for e in found)
    alone = len(found) - coins  # chunks of one sentence, which toss none
    yield Value("random, where a coin decides", (random - alone) / coins, 0.5, within=spread(0.5, coins))
    yield Value("random, in all", random / len(found), 0.566, within=0.02, claimed=0.5)
    lonely = store(texts(60, sentences=(1, 1), tokens=(5, 45)), "lonely")
    forced = [e.label for d in range(60) for e in examples(lonely, d, 128, examples_of_a_run(), Draws(d))]
    yield Value("random, in documents of one sentence", np.mean(forced), 1.0, claimed=0.5)


def bert_nsp_follows() -> Values:
    """Where each part lies in the corpus; tokens cut at the ends of a long pair are the only gap there may be."""
    found, _ = pairs()
    following = [e for e in found if e.label == IS_NEXT]
    whole = [e for e in following if (e.a_stop - e.a_start) + (e.b_stop - e.b_start) < 125]
    yield Value("B begins after A's end", all(e.b_start >= e.a_stop for e in following), True)
    yield Value("right after, where nothing is cut", all(e.b_start == e.a_stop for e in whole), True)


def bert_nsp_random_document() -> Values:
    """The documents that random parts were taken from: nearly all of the corpus serves, the own one almost never."""
    found, _ = pairs()
    starts = [int(corpus().boundaries(*corpus().document(d))[0]) for d in range(corpus().documents)]
    drawn = [e for e in found if e.label == RANDOM_NEXT]
    home = np.searchsorted(starts, [e.a_start for e in drawn], "right")
    away = np.searchsorted(starts, [e.b_start for e in drawn], "right")
    yield Value("random parts from A's own document", int((home == away).sum()), 0)
    yield Value("documents that served, of 400", len(set(away.tolist())), 400, within=8)


def bert_nsp_uses_c() -> Values:
    """The other positions' last hidden vectors are changed behind the last layer: the prediction must not move."""
    one, rows = model(PRETRAINING), batch()
    backend, hidden = one.backend, one(rows).last_hidden_state

    def predicted(x: np.ndarray) -> np.ndarray:
        pooled, _ = pooler(backend, Scope(one.parameters, "bert.pooler."), x)
        return np.asarray(next_sentence(backend, one.parameters, pooled)[0])

    other, first = hidden.copy(), hidden.copy()
    other[:, 1:] += 1
    first[:, 0] += 1
    yield Value("moved by all other positions", largest(predicted(other) - predicted(hidden)), 0.0)
    yield Value("moved by [CLS]", largest(predicted(first) - predicted(hidden)) > 1e-6, True)


def bert_loss_sum() -> Values:
    """The loss of both heads, against the two means computed from the logits."""
    one, rows = model(PRETRAINING), batch()
    labels, order = masked_labels(rows), next_sentence_labels(rows)
    loss, _ = one.loss_and_gradients(rows, labels_for(PRETRAINING, rows))
    out = one(rows)
    words = cross_entropy(out.logits["masked_lm"], labels, denominator=float((labels != IGNORE).sum()))[0]
    sentences = cross_entropy(out.logits["next_sentence"], order, denominator=float(len(order)))[0]
    yield Value("loss − (mean MLM + mean NSP)", loss - float(words + sentences), 0.0, within=1e-10)


def bert_loss_initial() -> Values:
    """A fresh model with 30,522 words and H = 128. Logits have variance H·0.02² = 0.05, half of which is added."""
    config = SIZES.replace(vocab_size=30_522, hidden_size=128, num_attention_heads=2)
    fresh = from_config(config, heads=PRETRAINING, backend=ReferenceBackend(), profile="google")
    rows = batch(8, 32, vocabulary=config.vocab_size)
    loss, _ = fresh.loss_and_gradients(rows, labels_for(PRETRAINING, rows))
    yield Value("loss", loss, math.log(30_522) + math.log(2) + 0.5 * 128 * 0.02**2, within=0.08)
    yield Value("above ln V + ln 2, in percent", 100 * (loss / (math.log(30_522) + math.log(2)) - 1), 0, within=1)


def bert_loss_gradients() -> Values:
    """Encoder tensors that get no gradient from an objective alone: only the key biases, which cancel."""
    silent = []
    for head in PRETRAINING:
        _, found = model(PRETRAINING).loss_and_gradients(batch(), labels_for((head,), batch()))
        body = {n: g for n, g in found.items() if n.startswith(("bert.encoder", "bert.embeddings"))}
        silent.append(without_gradient(body))
    others = [sum("key.bias" not in n for n in names) for names in silent]
    yield Value("silent but for key biases, from MLM and NSP", others, [0, 0])
    yield Value("silent key biases", [len(names) for names in silent], [2, 2])


def bert_corpus_words() -> Values:
    """The words would have to be counted in the two corpora."""
    raise Missing("BooksCorpus (no longer distributed) and the English Wikipedia dump that was used (not named)")


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
