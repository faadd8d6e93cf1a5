"""A Chinese article on configuring BERT: its example, formulas and arithmetic; objectives, sizes, uses, outlook."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from refbert import ops
from refbert.backend.reference import ReferenceBackend
from refbert.config import BertConfig
from refbert.config.heads import HEADS, PRETRAINING
from refbert.config.parameters import count, shapes
from refbert.config.presets import preset
from refbert.errors import ConfigError
from refbert.loading import from_config
from refbert.ops.cross_entropy import IGNORE
from refbert.text.tokenization import Tokenizer
from refbert_audit import Missing, Value, Values
from refbert_audit.corpora import tokenizer
from refbert_audit.measures import largest, log_losses, refused, shift_residual
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
    rows_that_learn,
)
from refbert_audit.quoted import article_positions, sinusoids
from refbert_audit.runs import RUN, finetuning
from refbert_audit.watching import Watching

SENTENCE = "我 喜欢 吃 苹果"


def article_example_shape() -> Values:
    """The sentence through a tokenizer with those characters and a model of base's width: 8 tokens."""
    (encoded,) = tokenizer().encode([SENTENCE], max_length=16)
    config = SIZES.replace(vocab_size=tokenizer().vocab_size, hidden_size=768, num_attention_heads=12)
    out = model(config=config, pooler=False)(tokenizer().pad([encoded]))
    yield Value("tokens", encoded.tokens, ["[CLS]", *"我喜欢吃苹果", "[SEP]"])
    yield Value("shape", out.last_hidden_state.shape, [1, 8, 768], claimed=[1, 5, 768])


def article_example_ids(directory: str | None) -> Values:
    """With --model DIR the vocabulary there is used. (The numbers are this project's; the article prints none.)"""
    if directory is None:
        raise Missing("the vocabulary of bert-base-chinese (refbert audit article.example.ids --model DIR)")
    (encoded,) = Tokenizer.from_directory(directory).encode([SENTENCE], max_length=16)
    yield Value("ids", encoded.input_ids, [101, 2769, 1599, 3614, 1391, 5741, 3362, 102])


def article_ffn_concat() -> Values:
    """Such a map would be 2H·H + H parameters a layer that the 109,482,240 have no room for; and a layer adds."""
    config, H = preset(BERT), preset(BERT).hidden_size
    extra = config.num_hidden_layers * (2 * H * H + H)
    tail = Watching.forward(config=SIZES.replace(num_hidden_layers=1), pooler=False).ops[-2:]
    yield Value("base's parameters", count(config), 109_482_240, claimed=109_482_240 + extra)
    yield Value("more, were it so, for a layer", extra // 12, 1_180_416)
    yield Value("the last ops of a layer", tail, ["add", "layer_norm"], claimed=["concatenate", "linear"])


def article_encoder_one_norm() -> Values:
    """LayerNorms called in a layer: one behind each sublayer."""
    none, one = (Watching.forward(config=SIZES.replace(num_hidden_layers=n)).counts["layer_norm"] for n in (0, 1))
    yield Value("LayerNorms in a layer", one - none, 2, claimed=1)


def article_attention_multi_head() -> Values:
    """Twelve heads and one on the same queries, keys and values: the formula is that of one."""
    q, k, v = np.random.default_rng(0).standard_normal((3, 1, 6, 24))
    many, single = (ops.attention(q, k, v, mask=np.ones((1, 6)), heads=A, mask_value=-math.inf)[0] for A in (12, 1))
    w = np.exp(q @ k.swapaxes(1, 2) / math.sqrt(24))
    formula = w / w.sum(-1, keepdims=True) @ v
    yield Value("the formula is one head", np.abs(single - formula).max(), 0.0, within=1e-13)
    yield Value("12 heads give the same", bool(np.allclose(many, formula)), False, claimed=True)


def article_attention_order() -> Values:
    """Five words of eight features: W X wants a word in a column, and QKᵀ is then [8, 8], one row a feature.

    refbert's attention has a row for each word; its scores are those of Q = X W.
    """
    rng = np.random.default_rng(0)
    X, W_Q, W_K = rng.standard_normal((5, 8)), *rng.standard_normal((2, 8, 8))
    q, k = (ops.linear(X[None], W.T, np.zeros(8))[0] for W in (W_Q, W_K))
    p, _ = ops.attention_probabilities(q, k, mask=np.ones((1, 5)), heads=1, mask_value=-math.inf)
    by_hand = np.exp(X @ W_Q @ (X @ W_K).T / math.sqrt(8))
    by_hand /= by_hand.sum(-1, keepdims=True)
    columns = W_Q @ X.T @ (W_K @ X.T).T
    yield Value("shape of the scores of 5 words", p.shape[2:], [5, 5], claimed=columns.shape)
    yield Value("from the softmax of X W_Q (X W_K)ᵀ", np.abs(p[0, 0] - by_hand).max(), 0.0, within=1e-13)


def article_ffn_relu() -> Values:
    """Activations called while a model with base's hidden_act runs."""
    counts = Watching.forward(config=SIZES.replace(hidden_act=preset(BERT).hidden_act)).counts
    yield Value("calls of relu and gelu", [counts["relu"], counts["gelu"]], [0, 2], claimed=[2, 0])


def article_positions_sinusoidal() -> Values:
    """Base's position table is made of parameters, and a training step gives it a gradient."""
    table = "bert.embeddings.position_embeddings.weight"
    yield Value("base's parameters for positions", math.prod(shapes(preset(BERT))[table]), 393_216, claimed=0)
    yield Value("they learn", largest(gradients()[table]) > 0, True, claimed=False)


def article_positions_formula() -> Values:
    """With d = 8: the slowest feature has exponent 1.75 instead of 0.75, and shifts are no longer linear maps."""
    positions = np.arange(105.0)
    written, meant = article_positions(positions, 8), sinusoids(positions, 8)
    # The last feature is cos(p/10000^x); at p = 1 its angle gives x.
    exponents = [-math.log10(math.acos(table[1, -1])) / 4 for table in (written, meant)]
    yield Value("largest exponent", exponents[0], 1.75, within=1e-3, claimed=exponents[1])
    yield Value("residual as written is over 0.01", shift_residual(written) > 0.01, True, claimed=False)
    yield Value("residual of the formula of Vaswani et al.", shift_residual(meant), 0.0, within=1e-12)


def article_positions_first() -> Values:
    """Its own formula at position 0: sin 0 = 0, cos 0 = 1."""
    yield Value("PE(0), d = 3", article_positions(np.zeros(1), 3)[0], [0, 1, 0], claimed=[0, 0, 0])


def article_embeddings_word2vec() -> Values:
    """Fresh embeddings are random numbers that depend on the seed alone, and training moves them."""
    name = "bert.embeddings.word_embeddings.weight"
    tables = [from_config(SIZES, seed=s, backend=ReferenceBackend()).state_dict()[name] for s in (0, 1)]
    alike = abs(float(np.corrcoef(tables[0][1:].ravel(), tables[1][1:].ravel())[0, 1]))
    yield Value("correlation of two fresh tables", alike, 0.0, within=6 / math.sqrt(tables[0].size), claimed=1.0)
    yield Value("words whose embeddings learn", int(rows_that_learn("word").sum()), SIZES.vocab_size, claimed=0)


def article_input_sum() -> Values:
    """The sum is right; the segment is missing, and LayerNorm makes of it [−1.2247, 0, 1.2247]."""
    e, _ = ops.add(np.array([0.1, 0.2, 0.3]), np.array([0.4, 0.5, 0.6]))
    x, _ = ops.layer_norm(e, np.ones(3), np.zeros(3), eps=1e-12)
    yield Value("sum", e, [0.5, 0.7, 0.9], within=1e-15)
    normed = [-math.sqrt(1.5), 0, math.sqrt(1.5)]
    yield Value("what goes into the encoder", x, normed, within=1e-8, claimed=[0.5, 0.7, 0.9])


def article_encoder_output() -> Values:
    """A fresh encoder ends in a LayerNorm with gain 1 and shift 0, so a row's mean is 0; that row's is 1.5."""
    config = SIZES.replace(hidden_size=3, num_attention_heads=1)
    y = from_config(config, backend=ReferenceBackend())(batch()).last_hidden_state
    said = float(np.mean([1.2, 1.5, 1.8]))
    yield Value("largest |mean| of a row of three", largest(y.mean(-1)), 0.0, within=1e-12, claimed=said)
    yield Value("largest entry possible is √2", largest(y) <= math.sqrt(2) + 1e-9, True)


def article_attention_example() -> Values:
    """The example's four words with identity projections, which no trained model has; then with random ones."""
    X = (np.arange(12).reshape(1, 4, 3) + 1) / 10
    free = {"mask": np.ones((1, 4)), "heads": 1, "mask_value": -math.inf}
    p, _ = ops.attention_probabilities(X, X, **free)  # type: ignore[arg-type]
    y, _ = ops.attention(X, X, X, **free)  # type: ignore[arg-type]
    W = np.random.default_rng(0).standard_normal((3, 3, 3))
    q, k, v = (ops.linear(X, w, np.zeros(3))[0] for w in W)
    yield Value("weights of word 1", p[0, 0, 0], [0.2125, 0.2357, 0.2616, 0.2902], within=5e-5)
    yield Value("output of word 1", y[0, 0], [0.5889, 0.6889, 0.7889], within=5e-5)
    yield Value("Q = K = V with random projections", bool(np.allclose(q, k) and np.allclose(k, v)), False, claimed=True)


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
