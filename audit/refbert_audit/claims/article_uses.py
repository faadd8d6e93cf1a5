"""A Chinese article on configuring BERT: objectives, sizes, applications, outlook."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from refbert import ops
from refbert.config import BertConfig
from refbert.config.heads import HEADS, PRETRAINING
from refbert.config.parameters import count, shapes
from refbert.config.presets import preset
from refbert.errors import ConfigError
from refbert.ops.cross_entropy import IGNORE
from refbert_audit import Value, Values
from refbert_audit.corpora import tokenizer
from refbert_audit.measures import largest, log_losses, refused
from refbert_audit.models import (
    BERT,
    LARGE,
    SIZES,
    batch,
    gradients,
    labels_for,
    loss_and_logits,
    masked_labels,
    model,
    other_end,
)
from refbert_audit.runs import RUN, finetuning


def article_loss_mlm() -> Values:
    """The loss against the sum over all words and against the mean over the masked ones."""
    rows, labels = batch(), masked_labels(batch())
    loss, logits = loss_and_logits("masked_lm", labels, rows)
    each = log_losses(logits, rows.input_ids)
    yield Value("loss / mean over masked words", loss / each[labels != IGNORE].mean(), 1.0, within=1e-12)
    yield Value("loss is the sum over all words", bool(np.isclose(loss, each.sum())), False, claimed=True)


def article_loss_nsp() -> Values:
    """One pair's loss against −log softmax of its two logits; which label means what, the article leaves out."""
    loss, logits = loss_and_logits("next_sentence", {"next_sentence_label": np.array([1])}, batch(1))
    (by_hand,) = log_losses(logits, [1])
    yield Value("difference", loss - by_hand, 0.0, within=1e-12)


def article_objectives() -> Values:
    """Losses that a pretraining step adds up."""
    one, rows = model(PRETRAINING), batch()
    total, parts, _ = one.part_of_loss_and_gradients(rows, labels_for(PRETRAINING, rows), None)
    yield Value("parts", sorted(parts), ["masked_lm", "next_sentence"])
    yield Value("sum − loss", sum(parts.values()) - total, 0.0, within=1e-12)


def article_input_specials() -> Values:
    """A Chinese pair."""
    (pair,) = tokenizer().encode([("我喜欢", "苹果")], max_length=16)
    yield Value("tokens", pair.tokens, ["[CLS]", *"我喜欢", "[SEP]", *"苹果", "[SEP]"])
    yield Value("segments", pair.token_type_ids, [0, 0, 0, 0, 0, 1, 1, 1])


def article_params() -> Values:
    """Counted with the pretraining heads, to two significant figures."""
    found = [round(count(preset(name), PRETRAINING) / 1e7) * 10 for name in (BERT, LARGE)]
    yield Value("millions", found, [110, 340])


def article_params_chinese() -> Values:
    """bert-base-chinese has a vocabulary of 21,128, and so 102M."""
    n = count(preset("bert-base-chinese"))
    yield Value("parameters", n, 102_267_648)
    yield Value("millions, two figures", round(n / 1e7) * 10, 100, claimed=110)


def article_tasks_supported() -> Values:
    """Each head runs and learns: shapes of logits, and a gradient for its own weights."""
    rows = batch()
    found, learn = [], []
    for head in ("sequence_classification", "token_classification", "question_answering"):
        found.append(list(model((head,))(rows).logits[head].shape))
        own = next(g for name, g in gradients((head,)).items() if name.startswith(("classifier", "qa")))
        learn.append(largest(own) > 0)
    yield Value("logits: classes, tags, spans", found, [[3, 5], [3, 11, 5], [3, 11, 2]])
    yield Value("they learn", learn, [True] * 3)


def article_tasks_answering() -> Values:
    """Labels that the answering head takes: two positions in question and passage; and it predicts S of each."""
    labels = list(HEADS["question_answering"].labels)
    yield Value("labels", labels, ["start_positions", "end_positions"], claimed=["answer"])
    one, rows = model(("question_answering",)), batch()
    logits = one(rows).logits["question_answering"]
    yield Value("what is chosen from", logits.shape[1], rows.shape[1], claimed=SIZES.vocab_size)


def article_tasks_translation() -> Values:
    """A decoder's configuration is refused as not BERT; no head gives a sequence of another length.

    Rothe et al. 2020 (1907.12461) build a translator from two BERTs, with cross-attention trained from scratch.
    """
    sizes = {"vocab_size": 9, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1}
    fields = ("is_decoder", "add_cross_attention")
    both = [refused(partial(BertConfig.from_dict, sizes | {field: True}), ConfigError) for field in fields]
    yield Value("decoder, cross-attention are refused", both, [True, True], claimed=[False, False])
    yield Value("heads that translate", [h for h in HEADS if "transl" in h], [], claimed=["translation"])


def article_tasks_generation() -> Values:
    """Predictions of a word depend on what comes after it, so a text cannot be written from left to right.

    Wang and Cho 2019 (1902.04094) sample from BERT all the same, position by position, in any order.
    """
    one, rows = model(("masked_lm",)), batch(1)
    a, b = (one(x).logits["masked_lm"][0, 1] for x in (rows, other_end(rows)))
    moved = largest(a - b)
    yield Value("a later word moves an earlier prediction", moved > 1e-6, True, claimed=False)


def article_later_albert() -> Values:
    """ALBERT (1909.11942) did so in 2019: its base counted from BERT's shapes, one layer, embeddings of 128."""

    def albert(hidden: int, heads: int) -> int:
        config = preset(BERT).replace(
            vocab_size=30_000, hidden_size=hidden, num_attention_heads=heads, intermediate_size=4 * hidden,
            num_hidden_layers=1,
        )  # fmt: skip
        narrow = shapes(config.replace(hidden_size=128, num_attention_heads=2), pooler=False)
        embeddings = sum(math.prod(s) for n, s in narrow.items() if n.startswith("bert.embeddings"))
        rest = sum(math.prod(s) for n, s in shapes(config).items() if not n.startswith("bert.embeddings"))
        return embeddings + 128 * hidden + hidden + rest

    millions = [30_000 * 768 / 1e6, (30_000 * 128 + 128 * 768) / 1e6]
    yield Value("ALBERT base and large", [albert(768, 12), albert(1024, 16)], [11_683_584, 17_683_968])
    yield Value("word embeddings, full and factorised, in millions", millions, [23.04, 3.94], within=5e-3)


def article_later_optimizers() -> Values:
    """BERT's own run has a schedule; LAMB (1904.00962) followed in 2019: its step has length lr·‖p‖ at any scale."""
    p, zero = np.array([3.0, 4.0]), np.zeros(2)
    yield Value("BERT's rate is constant", RUN.rate(5_000) == RUN.rate(500_001), False, claimed=True)
    rates = {"lr": 0.1, "beta1": 0.9, "beta2": 0.999, "eps": 1e-12, "weight_decay": 0.0}
    gradients = [scale * np.array([1.0, 2.0]) for scale in (1e-3, 1e3)]
    lengths = [float(np.linalg.norm(ops.lamb(p, g, zero, zero, step=1, **rates)[0] - p)) for g in gradients]
    yield Value("LAMB's step for gradients of 1e-3 and 1e3", lengths, [0.5, 0.5], within=1e-6)


def article_validation() -> Values:
    """Runs of a grid: each combination once, chosen by a development file, without which it is refused."""
    yield Value("runs of the grid; five folds would make 90", len(finetuning().plans()), 18, claimed=90)
    yield Value("without a development file it is refused", refused(lambda: finetuning(dev=None)), True, claimed=False)


def article_length() -> Values:
    """A sequence beyond the model's positions is refused; shorter ones need no padding."""
    one, longest = model(), SIZES.max_position_embeddings
    rows = [batch(1, S) for S in (1, longest, longest + 1)]
    taken = [0 if refused(partial(one, x)) else one(x).last_hidden_state.shape[1] for x in rows]
    yield Value("tokens of 1, 48 and 49 that a model with 48 positions takes", taken, [1, 48, 0], claimed=[1, 48, 49])


def article_languages() -> Values:
    """Published sizes whose vocabulary is not an English one: one Chinese, two multilingual (November 2018)."""
    models = [preset(f"bert-base-{name}") for name in ("chinese", "multilingual-cased", "multilingual-uncased")]
    found = [shapes(config)["bert.embeddings.word_embeddings.weight"][0] for config in models]
    expected = [21_128, 119_547, 105_879]
    yield Value("pieces: Chinese, multilingual cased and uncased", found, expected, claimed=[0, 0, 0])
