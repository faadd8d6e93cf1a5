"""Devlin et al. 2019 §3.1 and A.1: masked words, next sentences, and the loss."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from refbert.backend.reference import ReferenceBackend
from refbert.config.heads import PRETRAINING
from refbert.data.draws import Draws
from refbert.data.pairs import IS_NEXT, RANDOM_NEXT, examples
from refbert.loading import from_config
from refbert.ops.cross_entropy import IGNORE, cross_entropy
from refbert.ops.mask_tokens import mask_tokens
from refbert.spec.heads import next_sentence
from refbert.spec.pooler import pooler
from refbert.spec.scope import Scope
from refbert.text.batching import Batch
from refbert_audit import Missing, Value, Values
from refbert_audit.corpora import corpus, pairs, pretraining_rows, store, texts, tokenizer
from refbert_audit.measures import largest, log_losses, spread, without_gradient
from refbert_audit.models import SIZES, batch, labels_for, loss_and_logits, masked_labels, model, next_sentence_labels
from refbert_audit.runs import examples_of_a_run


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
