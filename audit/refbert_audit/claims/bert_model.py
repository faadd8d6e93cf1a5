"""Devlin et al. 2019 §3: the input representation, the sizes, the parameters, the encoder."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from refbert import ops
from refbert.config import BertConfig
from refbert.config.heads import PRETRAINING
from refbert.config.parameters import count, shapes
from refbert.config.presets import preset
from refbert.errors import ConfigError
from refbert.text.batching import Batch
from refbert_audit import Value, Values
from refbert_audit.corpora import pretraining_rows, tokenizer
from refbert_audit.measures import largest, refused
from refbert_audit.models import BERT, LARGE, SIZES, attentions, batch, hidden_states, model, other_end, rows_that_learn
from refbert_audit.watching import Watching


def bert_input_sum() -> Values:
    """The sum written out with NumPy and put through LayerNorm, against the embeddings that the model computes."""
    one, rows = model(), batch()
    p = one.state_dict()
    e = p["bert.embeddings.word_embeddings.weight"][rows.input_ids]
    e = e + p["bert.embeddings.token_type_embeddings.weight"][rows.token_type_ids]
    e = e + p["bert.embeddings.position_embeddings.weight"][: rows.shape[1]]
    gain, shift = p["bert.embeddings.LayerNorm.weight"], p["bert.embeddings.LayerNorm.bias"]
    x, _ = ops.layer_norm(e, gain, shift, eps=1e-12)
    yield Value("largest difference", largest(hidden_states(one, rows)[0] - x), 0.0, within=1e-12)


def bert_input_layer_norm() -> Values:
    """A fresh model's first hidden state: were it the sum, its rows would not have mean 0 and deviation 1."""
    fresh = model(scale=0.0)
    rng = np.random.default_rng(3)
    for name in ("word", "position", "token_type"):
        table = fresh.parameters[f"bert.embeddings.{name}_embeddings.weight"]
        table[:] = 0.02 * rng.standard_normal(table.shape)
    x = hidden_states(fresh, batch())[0]
    # ε = 1e-12 beside a variance of about 1e-3 moves the deviation by 1e-9.
    yield Value("largest |mean| of a row", largest(x.mean(-1)), 0.0, within=1e-12)
    yield Value("a row's deviation, on average", x.std(-1).mean(), 1.0, within=1e-6, claimed=0.02 * math.sqrt(3))


def bert_input_learned_positions() -> Values:
    """The position table receives a gradient in every row that is used, and none beyond the sequence."""
    moved = rows_that_learn("position")
    table = shapes(preset(BERT))["bert.embeddings.position_embeddings.weight"]
    yield Value("rows with a gradient, of 11 tokens", int(moved.sum()), 11)
    yield Value("they are the first", bool(moved[:11].all()), True)
    yield Value("parameters of base's table", math.prod(table), 393_216)


def bert_input_max_length() -> Values:
    """A batch of 512 tokens is taken by a model with base's positions; one of 513 is refused."""
    config = SIZES.replace(max_position_embeddings=preset(BERT).max_position_embeddings, num_hidden_layers=1)
    taken = [not refused(partial(model(config=config), batch(1, S))) for S in (512, 513)]
    yield Value("512 and 513 tokens are taken", taken, [True, False])


def bert_input_special_tokens() -> Values:
    """A pair through the tokenizer; and where the two are in 1,920 pretraining sequences, before anything is masked."""
    (pair,) = tokenizer().encode([("w1 w2", "w3")], max_length=16)
    seen = pretraining_rows()
    first, last = (seen["original"] == id for id in (tokenizer().cls_id, tokenizer().sep_id))
    end = seen["mask"].sum(axis=1) - 1
    yield Value("tokens", pair.tokens, ["[CLS]", "w1", "w2", "[SEP]", "w3", "[SEP]"])
    yield Value("sequences that begin with [CLS]", first[:, 0].mean(), 1.0)
    yield Value("that hold one, and [SEP] twice", ((first.sum(1) == 1) & (last.sum(1) == 2)).mean(), 1.0)
    yield Value("that end with [SEP]", last[np.arange(len(end)), end].mean(), 1.0)


def bert_input_segments() -> Values:
    """Segment numbers of a pair ([SEP] belongs to the sentence it ends) and of pretraining sequences; their gradient.

    In pretraining B begins behind the first [SEP], and padding counts as A.
    """
    (pair,) = tokenizer().encode([("w1 w2", "w3")], max_length=16)
    yield Value("segments", pair.token_type_ids, [0, 0, 0, 0, 1, 1])
    seen = pretraining_rows()
    ends = np.cumsum(seen["original"] == tokenizer().sep_id, axis=1) - (seen["original"] == tokenizer().sep_id)
    yield Value("pretraining tokens with another", int((seen["types"] != (ends == 1) * seen["mask"]).sum()), 0)
    yield Value("both rows of the table learn", rows_that_learn("token_type"), [True, True])


def millions(n: int) -> int:
    """Millions, rounded to two significant figures, as the paper states them: 109,482,240 is 110."""
    return int(round(n / 1e6, 2 - len(str(round(n / 1e6)))))


def heads_and_width(config: BertConfig) -> list[int]:
    """[layers, hidden size, heads] as a run of one layer and the parameters show them."""
    layers = {name.split(".")[3] for name in shapes(config) if ".layer." in name}
    one, rows = model(config=config.replace(vocab_size=9, num_hidden_layers=1), scale=0.02), Batch(np.array([[1, 2]]))
    return [len(layers), one(rows).last_hidden_state.shape[-1], attentions(one, rows)[0].shape[1]]


def bert_sizes_base() -> Values:
    """Layers counted among the parameters; hidden size and heads read off a layer that is run at that size."""
    yield Value("L, H, A", heads_and_width(preset(BERT)), [12, 768, 12])


def bert_sizes_large() -> Values:
    """Layers counted among the parameters; hidden size and heads read off a layer that is run at that size."""
    yield Value("L, H, A", heads_and_width(preset(LARGE)), [24, 1024, 16])


def bert_sizes_feed_forward() -> Values:
    """Rows of the first feed-forward matrix of both published models."""
    for name in (BERT, LARGE):
        F, _ = shapes(preset(name))["bert.encoder.layer.0.intermediate.dense.weight"]
        yield Value(f"F, {name}", F, 4 * preset(name).hidden_size)


def bert_sizes_heads_divide() -> Values:
    """Features of a head in both sizes; and a configuration whose heads do not divide H must be refused."""
    yield Value("H/A of base and large", [preset(name).head_size for name in (BERT, LARGE)], [64, 64])
    uneven = partial(BertConfig, hidden_size=10, num_attention_heads=3)
    yield Value("H = 10, A = 3 is refused", refused(uneven, ConfigError), True)


def parameters(name: str, body: int, pretraining: int, without_pooler: int, said: int) -> Values:
    """What a published size comes to: with the pooler, with the pretraining heads, without a pooler; in millions."""
    config = preset(name)
    yield Value("parameters with the pooler", count(config), body)
    yield Value("with both pretraining heads", count(config, PRETRAINING), pretraining)
    yield Value("without the pooler", count(config, pooler=False), without_pooler)
    rounded = [millions(count(config, heads)) for heads in ((), PRETRAINING)]
    yield Value("in millions, two figures", rounded, [said, said])


def bert_params_base() -> Values:
    """Every tensor's shape is made and its entries are counted; 110M is that to two significant figures."""
    yield from parameters(BERT, 109_482_240, 110_106_428, 108_891_648, said=110)


def bert_params_large() -> Values:
    """340M holds to two significant figures: 335.1M with the pooler, 336.2M with both pretraining heads."""
    yield from parameters(LARGE, 335_141_888, 336_226_108, 334_092_288, said=340)


def bert_params_paper_vocabulary() -> Values:
    """With 30,000 pieces the encoder and its pooler come to 335M only with the pretraining heads; without, to 330M."""
    config = preset(LARGE).replace(vocab_size=30_000)
    yield Value("parameters with the pooler", count(config), 334_607_360)
    yield Value("with both pretraining heads", count(config, PRETRAINING), 335_691_058)
    yield Value("the first in millions, two figures", millions(count(config)), 330, claimed=340)


def bert_params_vocabulary() -> Values:
    """Rows of the word-embedding table of the released uncased and cased models."""
    rows = [shapes(preset(p))["bert.embeddings.word_embeddings.weight"][0] for p in (BERT, "bert-base-cased")]
    yield Value("rows of the table, uncased and cased", rows, [30_522, 28_996], claimed=[30_000, 30_000])


def bert_params_layer() -> Values:
    """12H² + 13H, against the shapes of a layer's tensors."""
    for config in (preset(BERT), preset(LARGE)):
        H = config.hidden_size
        layer = [math.prod(x) for name, x in shapes(config).items() if name.startswith("bert.encoder.layer.0.")]
        yield Value(f"parameters of a layer, H = {H}", sum(layer), 12 * H * H + 13 * H)


def bert_params_tied() -> Values:
    """A word's row is changed where that word does not occur in the text: its logit must move, and no other.

    The paper only says "output softmax over the vocabulary, as in a standard LM"; its 110M has no room for two tables.
    """
    rows = batch()
    word = int(np.setdiff1d(np.arange(SIZES.vocab_size), rows.input_ids)[0])
    one, other = model(("masked_lm",)), model(("masked_lm",))
    other.parameters["bert.embeddings.word_embeddings.weight"][word] += 1
    moved = np.abs(one(rows).logits["masked_lm"] - other(rows).logits["masked_lm"]).max(axis=(0, 1))
    config = preset(BERT)
    untied = count(config, PRETRAINING) + config.vocab_size * config.hidden_size
    yield Value("words whose logits move", np.flatnonzero(moved).tolist(), [word])
    yield Value("base, were it not tied", untied, 133_547_324)


def bert_params_same_as_gpt() -> Values:
    """The same layers, width and heads, but GPT has 40,478 pieces, no segments, no embedding LayerNorm, no pooler."""
    named = shapes(preset(BERT).replace(vocab_size=40_478), pooler=False)
    absent = ("bert.embeddings.token_type", "bert.embeddings.LayerNorm")
    gpt = sum(math.prod(shape) for name, shape in named.items() if not name.startswith(absent))
    yield Value("parameters of GPT", gpt, 116_534_784)
    yield Value("GPT has more than BERT base by", gpt - count(preset(BERT)), 7_052_544, claimed=0)


def bert_encoder_bidirectional() -> Values:
    """No attention probability of any layer, head, query and key is 0; and the last word moves the first's vector."""
    one, rows = model(), batch()
    first, other = (one(x).last_hidden_state[:, 0] for x in (rows, other_end(rows)))
    moved = np.abs(other - first).max(-1)
    yield Value("share of probabilities above 0", np.mean([p > 0 for p in attentions(one, rows)]), 1.0)
    yield Value("the last word moves the first vector", bool((moved > 1e-6).all()), True)


def bert_encoder_padding() -> Values:
    """A text alone, and the same text padded: its vectors must be the same under both masks."""
    rows = batch(1, 7)
    pad = np.zeros((1, 4), dtype=np.int64)
    padded = Batch(*(np.concatenate([x, pad], 1) for x in (rows.input_ids, rows.token_type_ids, rows.attention_mask)))
    for profile in ("google", "hf"):
        one = model(profile=profile)
        apart = largest(one(rows).last_hidden_state - one(padded).last_hidden_state[:, :7])
        yield Value("largest difference", apart, 0.0, within=1e-12, by=f"refbert, profile {profile}")


def bert_encoder_layer_norms() -> Values:
    """Calls of layer_norm and of the residual addition while a model of two layers runs, embeddings included."""
    counts, L = Watching.forward().counts, SIZES.num_hidden_layers
    yield Value("LayerNorms: the embeddings' and two a layer", counts["layer_norm"], 1 + 2 * L)
    yield Value("additions: two of embeddings and two a layer", counts["add"], 2 + 2 * L)


def bert_encoder_gelu() -> Values:
    """Activations called while a pretraining model runs: one GELU a layer, one in the masked-LM head, never ReLU."""
    counts = Watching.forward(PRETRAINING).counts
    yield Value("calls of gelu and of relu", [counts["gelu"], counts["relu"]], [SIZES.num_hidden_layers + 1, 0])


def bert_encoder_gelu_form() -> Values:
    """The two functions that go by the name, on a grid from −6 to 6: how far apart, and where."""
    x = np.linspace(-6, 6, 120_001)
    apart = np.abs(ops.gelu(x, form="erf")[0] - ops.gelu(x, form="tanh")[0])
    forms = [model(profile=p).choices.activation for p in ("google", "hf")]
    yield Value("largest difference", apart.max(), 4.73e-4, within=1e-6, claimed=0.0)
    yield Value("at |x|", abs(x[apart.argmax()]), 2.70, within=5e-3)
    yield Value("what the profiles compute", forms, ["gelu_tanh", "gelu_erf"])


def bert_output_cls() -> Values:
    """The pooled vector is not that vector but tanh of a dense layer on it, which the paper does not mention."""
    one, rows = model(), batch()
    out = one(rows)
    assert out.pooler_output is not None
    p = one.state_dict()
    first = out.last_hidden_state[:, 0]
    pooled = np.tanh(first @ p["bert.pooler.dense.weight"].T + p["bert.pooler.dense.bias"])
    H = preset(BERT).hidden_size
    yield Value("from tanh(C W + b)", largest(pooled - out.pooler_output), 0.0, within=1e-12)
    yield Value("it is C itself", bool(np.allclose(first, out.pooler_output)), False, claimed=True)
    yield Value("base's pooler has parameters", count(preset(BERT)) - count(preset(BERT), pooler=False), H * H + H)


def bert_params_readme_chinese() -> Values:
    """Only the vocabulary differs from base, but that makes 102M and 178M."""
    chinese, multilingual = (count(preset(f"bert-base-{name}")) for name in ("chinese", "multilingual-cased"))
    yield Value("Chinese, parameters", chinese, 102_267_648)
    yield Value("Chinese, in millions", millions(chinese), 100, claimed=110)
    yield Value("multilingual cased, in millions", millions(multilingual), 180, claimed=110)
