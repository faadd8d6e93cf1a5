"""Vaswani et al. 2017 §3 and §5: what BERT takes over from the Transformer and its training, and what it does not."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from refbert import ops
from refbert.backend.reference import ReferenceBackend
from refbert.config.heads import PRETRAINING
from refbert.config.parameters import count
from refbert.config.presets import preset
from refbert.config.profiles import get_profile
from refbert.loading import from_config
from refbert.ops.attention import split_heads
from refbert.spec.feed_forward import feed_forward
from refbert.spec.scope import Scope
from refbert.text.batching import Batch
from refbert_audit import Value, Values
from refbert_audit.measures import largest, shift_residual
from refbert_audit.models import BERT, SIZES, attentions, batch, gradients, hidden_states, model, rows_that_learn
from refbert_audit.quoted import noam, sinusoids
from refbert_audit.runs import RUN, optimizer_of_a_run, updated
from refbert_audit.watching import Counting, Watching, dropout_sites, flops_of

FREE = -math.inf  # mask value where nothing is masked


def qkv(B: int = 2, S: int = 5, H: int = 24) -> list[np.ndarray]:
    """Random queries, keys and values."""
    return [*np.random.default_rng(7).standard_normal((3, B, S, H))]


def transformer_attention_formula() -> Values:
    """The op with one head, against sums written out entry by entry."""
    q, k, v = qkv(B=1)
    y, _ = ops.attention(q, k, v, mask=np.ones((1, 5)), heads=1, mask_value=FREE)
    by_hand = np.zeros_like(y)
    for i in range(5):
        weights = [math.exp(sum(q[0, i, d] * k[0, j, d] for d in range(24)) / math.sqrt(24)) for j in range(5)]
        by_hand[0, i] = sum(w / sum(weights) * v[0, j] for j, w in enumerate(weights))
    yield Value("largest difference", largest(y - by_hand), 0.0, within=1e-13)


def transformer_attention_variance() -> Values:
    """Scores with d_k = 64, read off the probabilities that the op makes of them: log p_i1 − log p_i2 = s_i1 − s_i2.

    So differences have twice the variance, 2 as the op scales and 2·d_k without. One pair for each of 40,000 sequences;
    the bound is six standard deviations of a sample variance.
    """
    rng = np.random.default_rng(1)
    n, d = 40_000, 64
    q, k = rng.standard_normal((2, n, 2, d))
    p, _ = ops.attention_probabilities(q, k, mask=np.ones((n, 2)), heads=1, mask_value=FREE)
    apart = np.log(p[:, 0, 0, 0]) - np.log(p[:, 0, 0, 1])
    products = (q[:, 0] * (k[:, 0] - k[:, 1])).sum(-1)
    # Var of a sample variance is (κ − 1)/n with kurtosis κ = 3 + 6/d of such a sum.
    within = 6 * math.sqrt((2 + 6 / d) / n)
    yield Value("variance of the scores", apart.var() / 2, 1.0, within=within)
    yield Value("of the products, over d_k", products.var() / 2 / d, 1.0, within=within)


def transformer_attention_saturation() -> Values:
    """Gradients of the queries with d_k = 512 through the op, and as if it did not scale: queries √d_k times as long.

    A softmax that is not saturated spreads over its 32 keys; a saturated one is nearly all on one.
    """
    rng = np.random.default_rng(2)
    q, k = rng.standard_normal((2, 12, 32, 512))
    sizes, peaks = [], []
    for x in (math.sqrt(512) * q, q):
        p, back = ops.attention_probabilities(x, k, mask=np.ones((12, 32)), heads=1, mask_value=FREE)
        one = np.zeros_like(p)
        one[..., 0] = 1
        sizes.append(float(np.abs(back(one)[0]).mean()))
        peaks.append(float(p.max(-1).mean()))
    yield Value("gradient, unscaled / scaled, below a half", sizes[0] / sizes[1] < 0.5, True)
    yield Value("largest probability, unscaled, above 0.9", peaks[0] > 0.9, True)
    yield Value("scaled, below 0.3", peaks[1] < 0.3, True)


def transformer_attention_weights() -> Values:
    """Rows of the probabilities of a model, and the output for values that are all the same vector."""
    off = max(largest(p.sum(-1) - 1) for p in attentions(model(), batch()))
    yield Value("largest |row sum − 1|", off, 0.0, within=1e-14)
    q, k, v = qkv()
    same = np.broadcast_to(v[:, :1], v.shape)
    y, _ = ops.attention(q, k, same, mask=np.ones((2, 5)), heads=3, mask_value=FREE)
    yield Value("equal values come out as they are", largest(y - same), 0.0, within=1e-13)


def transformer_heads_concat() -> Values:
    """Three heads at once, against three calls with one head on a third of the features; and against a single head."""
    q, k, v = qkv()
    mask = np.ones((2, 5))
    together, _ = ops.attention(q, k, v, mask=mask, heads=3, mask_value=FREE)
    parts = [slice(8 * h, 8 * h + 8) for h in range(3)]
    apart = [ops.attention(q[..., p], k[..., p], v[..., p], mask=mask, heads=1, mask_value=FREE)[0] for p in parts]
    single, _ = ops.attention(q, k, v, mask=mask, heads=1, mask_value=FREE)
    yield Value("from the heads side by side", largest(together - np.concatenate(apart, -1)), 0.0, within=1e-14)
    yield Value("one head gives the same", bool(np.allclose(together, single)), False)


def transformer_heads_output() -> Values:
    """Linear maps of H×H in a layer while it runs: query, key, value, and the output behind the attention."""
    ops = Watching.forward(config=SIZES.replace(num_hidden_layers=1), pooler=False).ops
    order = [name for name in ops if name in ("linear", "attention")]
    yield Value("maps and attention, in order", order, ["linear"] * 3 + ["attention"] + ["linear"] * 3)


def transformer_heads_cost() -> Values:
    """Operations of the matrix products of a pass with 1 and with 3 heads, counted; and the parameters."""
    one, three = (SIZES.replace(num_attention_heads=A) for A in (1, 3))
    flops = [flops_of(partial(model(config=config, backend=Counting()), batch()))[0] for config in (one, three)]
    yield Value("operations, 3 heads − 1 head", flops[1] - flops[0], 0)
    yield Value("parameters, 3 heads − 1 head", count(three) - count(one), 0)


def transformer_heads_size() -> Values:
    """Features of a head for d_model = 512 with 8 heads, and in BERT base; and what the attention op gives each."""
    configs = (SIZES.replace(hidden_size=512, num_attention_heads=8), preset(BERT))
    split = [split_heads(np.zeros((1, 1, c.hidden_size)), c.num_attention_heads).shape[-1] for c in configs]
    yield Value("the Transformer's and base's", [c.head_size for c in configs], [64, 64])
    yield Value("features that a head is given", split, [64, 64])


def transformer_ffn_relu() -> Values:
    """The sublayer with hidden_act "relu" against the formula, and the activation that BERT names."""
    one = model(config=SIZES.replace(hidden_act="relu"))
    p = Scope(one.parameters, "bert.encoder.layer.0.")
    x = np.random.default_rng(0).standard_normal((2, 5, SIZES.hidden_size))
    y, _ = feed_forward(one.backend, p, x, one.choices)
    inner = np.maximum(0, x @ p["intermediate.dense.weight"].T + p["intermediate.dense.bias"])
    outer = inner @ p["output.dense.weight"].T + p["output.dense.bias"]
    by_hand, _ = ops.layer_norm(x + outer, p["output.LayerNorm.weight"], p["output.LayerNorm.bias"], eps=1e-12)
    yield Value("with ReLU, from the formula", largest(y - by_hand), 0.0, within=1e-12)
    yield Value("BERT's activation", get_profile("hf").activation(preset(BERT)), "gelu_erf", claimed="relu")


def transformer_ffn_position_wise() -> Values:
    """Positions in another order come out in that order, with the same numbers."""
    one = model()
    p = Scope(one.parameters, "bert.encoder.layer.0.")
    x = np.random.default_rng(0).standard_normal((1, 6, SIZES.hidden_size))
    order = np.array([3, 0, 5, 1, 4, 2])
    y, z = (feed_forward(one.backend, p, x[:, o], one.choices)[0] for o in (np.arange(6), order))
    yield Value("largest difference", largest(y[:, order] - z), 0.0, within=1e-13)


def transformer_attention_order_free() -> Values:
    """Words in another order, with the position table set to 0 and as it is: the vectors only move with their words."""
    rows = batch(1, 7)
    order = np.array([3, 0, 6, 5, 1, 4, 2])
    moved = Batch(rows.input_ids[:, order], rows.token_type_ids[:, order], rows.attention_mask)
    apart = []
    for positions in (0.0, 1.0):
        one = model()
        one.parameters["bert.embeddings.position_embeddings.weight"] *= positions
        a, b = one(rows).last_hidden_state, one(moved).last_hidden_state
        apart.append(largest(a[:, order] - b))
    yield Value("difference without positions", apart[0], 0.0, within=1e-12)
    yield Value("with positions there is one", apart[1] > 1e-3, True)


def transformer_layer_norm_post() -> Values:
    """Rows of a fresh model's output have mean 0 and deviation 1, as only a LayerNorm at the end makes them."""
    y = from_config(SIZES, backend=ReferenceBackend())(batch()).last_hidden_state
    yield Value("largest |mean| of a row", largest(y.mean(-1)), 0.0, within=1e-13)
    yield Value("largest |deviation − 1|", largest(y.std(-1) - 1), 0.0, within=1e-8)


def transformer_residual() -> Values:
    """With all maps of a layer set to 0 the sublayers give nothing: what went in is normalized twice and comes out."""
    one = model(config=SIZES.replace(num_hidden_layers=1))
    for name, x in one.parameters.items():
        if ".dense." in name or ".self." in name:
            x[:] = 0
        if "encoder" in name and "LayerNorm" in name:
            x[:] = float(name.endswith("weight"))
    hidden = hidden_states(one, batch())
    gain, shift = np.ones(SIZES.hidden_size), np.zeros(SIZES.hidden_size)
    x, _ = ops.layer_norm(hidden[0], gain, shift, eps=1e-12)
    yield Value("out − LayerNorm(in)", largest(hidden[1] - x), 0.0, within=1e-10)


def transformer_embeddings_scaled() -> Values:
    """The factor, 1 or √H, that gives a model's embeddings when written out: LN(factor·word + segment + place)."""
    one, rows = model(), batch()
    ids = {"word": rows.input_ids, "token_type": rows.token_type_ids, "position": np.arange(rows.shape[1])}
    word, segment, place = (one.parameters[f"bert.embeddings.{name}_embeddings.weight"][i] for name, i in ids.items())
    norm = [one.parameters[f"bert.embeddings.LayerNorm.{name}"] for name in ("weight", "bias")]
    embedded = hidden_states(one, rows)[0]
    factors = (1.0, math.sqrt(SIZES.hidden_size))
    apart = [largest(ops.layer_norm(f * word + segment + place, *norm, eps=1e-12)[0] - embedded) for f in factors]
    yield Value("factor", factors[int(np.argmin(apart))], 1.0, claimed=factors[1])
    yield Value("what it gives − the model's", min(apart), 0.0, within=1e-12)


def transformer_embeddings_shared() -> Values:
    """The table's gradient holds rows of words that are nowhere in the text: they come from the output side."""
    moved = rows_that_learn("word")
    absent = np.setdiff1d(np.arange(SIZES.vocab_size), batch().input_ids)
    yield Value("absent words with a gradient", int(moved[absent].sum()), len(absent))


def transformer_positions_first() -> Values:
    """The formula at position 0 alternates 0 and 1; its wavelengths go from 2π up to 10000·2π (for large d)."""
    d = 512
    yield Value("PE(0), d = 6", sinusoids(np.zeros(1), 6)[0], [0, 1, 0, 1, 0, 1])
    period = largest(sinusoids(np.array([0.0, 2 * math.pi]), d)[:, 0])
    yield Value("sin of the fastest after 2π", period, 0.0, within=1e-15)
    slowest = 2 * math.pi * 10_000 ** ((d - 2) / d)
    yield Value("slowest wavelength / (10000·2π)", slowest / (2e4 * math.pi), 1.0, within=0.04)


def transformer_positions_linear() -> Values:
    """The best linear map from PE(0 … 99) to PE(5 … 104), d = 16: what it leaves over."""
    yield Value("largest residual", shift_residual(sinusoids(np.arange(105.0), 16)), 0.0, within=1e-12)


def transformer_positions_learned() -> Values:
    """BERT's positions are parameters, which learn, and end at 512."""
    g = np.abs(gradients()["bert.embeddings.position_embeddings.weight"][: batch().shape[1]]).min()
    none = count(preset(BERT)) - count(preset(BERT).replace(max_position_embeddings=1))
    yield Value("the table gets a gradient", bool(g > 0), True, claimed=False)
    yield Value("base's parameters for positions 1 to 511", none, 511 * 768, claimed=0)


def transformer_encoder_unmasked() -> Values:
    """Probabilities above the diagonal of all layers and heads: none is 0."""
    later = np.triu(np.ones((11, 11), dtype=bool), 1)
    seen = [p[..., later] > 0 for p in attentions(model(), batch())]
    yield Value("later keys that are seen", np.mean(seen), 1.0)


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
