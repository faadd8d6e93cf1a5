"""A Chinese article on configuring BERT: its worked example, its formulas, its arithmetic."""

from __future__ import annotations

import math

import numpy as np

from refbert import ops
from refbert.backend.reference import ReferenceBackend
from refbert.config.parameters import count, shapes
from refbert.config.presets import preset
from refbert.loading import from_config
from refbert.text.tokenization import Tokenizer
from refbert_audit import Missing, Value, Values
from refbert_audit.corpora import tokenizer
from refbert_audit.measures import largest, shift_residual
from refbert_audit.models import BERT, SIZES, batch, gradients, model, rows_that_learn
from refbert_audit.quoted import article_positions, sinusoids
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
