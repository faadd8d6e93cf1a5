"""Devlin et al. 2019 §3: the sizes, the parameters, the encoder."""

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
from refbert_audit.findings import Finding, Value, agrees, deviates, wrong
from refbert_audit.registry import claim
from refbert_audit.shared import BERT, LARGE, SIZES, attentions, batch, largest, model, refused
from refbert_audit.watching import Watching


def millions(n: int) -> int:
    """Millions, rounded to two significant figures, as the paper states them: 109,482,240 is 110."""
    digits = 2 - len(str(round(n / 1e6)))
    return int(round(n / 1e6, digits))


def heads_and_width(config: BertConfig) -> list[int]:
    """(heads, hidden size, layers) as a run of one layer and the parameters show them."""
    one = model(config=config.replace(vocab_size=9, num_hidden_layers=1), scale=0.02)
    out = one(Batch(np.array([[1, 2]])), output_attentions=True)
    assert out.attentions is not None
    layers = {name.split(".")[3] for name in shapes(config) if ".layer." in name}
    return [len(layers), out.last_hidden_state.shape[-1], out.attentions[0].shape[1]]


@claim("bert.sizes.base")
def sizes_base() -> Finding:
    """Layers counted among the parameters; hidden size and heads read off a layer that is run at that size."""
    return agrees(Value("L, H, A", heads_and_width(preset(BERT)), [12, 768, 12]))


@claim("bert.sizes.large")
def sizes_large() -> Finding:
    """Layers counted among the parameters; hidden size and heads read off a layer that is run at that size."""
    return agrees(Value("L, H, A", heads_and_width(preset(LARGE)), [24, 1024, 16]))


@claim("bert.sizes.feed-forward")
def sizes_feed_forward() -> Finding:
    """Rows of the first feed-forward matrix of both published models."""
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    return agrees(*(Value(f"F, {p}", shapes(preset(p))[name][0], 4 * preset(p).hidden_size) for p in (BERT, LARGE)))


@claim("bert.sizes.heads-divide")
def sizes_heads_divide() -> Finding:
    """Features of a head in both sizes; and a configuration whose heads do not divide H must be refused."""
    sizes = [preset(p).head_size for p in (BERT, LARGE)]
    uneven = refused(partial(BertConfig, hidden_size=10, num_attention_heads=3), ConfigError)
    return agrees(Value("H/A of base and large", sizes, [64, 64]), Value("H = 10, A = 3 is refused", uneven, True))


def parameters(name: str, expected: list[int], said: int) -> list[Value]:
    """What a published size comes to: with the pooler, with the pretraining heads, without a pooler; in millions."""
    config = preset(name)
    counted = [count(config), count(config, PRETRAINING), count(config, pooler=False)]
    names = ("parameters with the pooler", "with both pretraining heads", "without the pooler")
    values = [Value(name, n, want) for name, n, want in zip(names, counted, expected, strict=True)]
    return [*values, Value("in millions, two figures", [millions(n) for n in counted[:2]], [said, said])]


@claim("bert.params.base")
def params_base() -> Finding:
    """Every tensor's shape is made and its entries are counted; 110M is that to two significant figures."""
    return agrees(*parameters(BERT, [109_482_240, 110_106_428, 108_891_648], 110))


@claim("bert.params.large")
def params_large() -> Finding:
    """340M holds to two significant figures: 335.1M with the pooler, 336.2M with both pretraining heads."""
    return agrees(*parameters(LARGE, [335_141_888, 336_226_108, 334_092_288], 340))


@claim("bert.params.paper-vocabulary")
def params_paper_vocabulary() -> Finding:
    """With 30,000 pieces the encoder and its pooler come to 335M only with the pretraining heads; without, to 330M."""
    config = preset(LARGE).replace(vocab_size=30_000)
    body, all_ = count(config), count(config, PRETRAINING)
    return deviates(
        Value("parameters with the pooler", body, 334_607_360),
        Value("with both pretraining heads", all_, 335_691_058),
        Value("the first in millions, two figures", millions(body), 330, claimed=340),
    )


@claim("bert.params.vocabulary")
def params_vocabulary() -> Finding:
    """Rows of the word-embedding table of the released uncased and cased models."""
    rows = [shapes(preset(p))["bert.embeddings.word_embeddings.weight"][0] for p in (BERT, "bert-base-cased")]
    return deviates(
        Value("rows of the table, uncased and cased", rows, [30_522, 28_996], claimed=[30_000, 30_000]),
    )


@claim("bert.params.layer")
def params_layer() -> Finding:
    """12H² + 13H, against the shapes of a layer's tensors."""

    def layer(name: str) -> int:
        tensors = shapes(preset(name)).items()
        return sum(math.prod(shape) for tensor, shape in tensors if tensor.startswith("bert.encoder.layer.0."))

    sizes = {name: preset(name).hidden_size for name in (BERT, LARGE)}
    return agrees(*(Value(f"parameters of a layer, H = {H}", layer(p), 12 * H * H + 13 * H) for p, H in sizes.items()))


@claim("bert.params.tied")
def params_tied() -> Finding:
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
    return agrees(
        Value("words whose logits move", np.flatnonzero(moved).tolist(), [word]),
        Value("base, were it not tied", untied, 133_547_324),
    )


@claim("bert.params.same-as-gpt")
def params_same_as_gpt() -> Finding:
    """The same layers, width and heads, but GPT has 40,478 pieces, no segments, no embedding LayerNorm, no pooler."""
    named = shapes(preset(BERT).replace(vocab_size=40_478), pooler=False)
    absent = ("bert.embeddings.token_type", "bert.embeddings.LayerNorm")
    gpt = sum(math.prod(shape) for name, shape in named.items() if not name.startswith(absent))
    return deviates(
        Value("parameters of GPT", gpt, 116_534_784),
        Value("GPT has more than BERT base by", gpt - count(preset(BERT)), 7_052_544, claimed=0),
    )


@claim("bert.encoder.bidirectional")
def encoder_bidirectional() -> Finding:
    """No attention probability of any layer, head, query and key is 0; and the last word moves the first's vector."""
    one, rows = model(), batch()
    ids = rows.input_ids.copy()
    ids[:, -1] = (ids[:, -1] + 1) % SIZES.vocab_size
    other = Batch(ids, rows.token_type_ids, rows.attention_mask)
    moved = np.abs(one(other).last_hidden_state[:, 0] - one(rows).last_hidden_state[:, 0]).max(-1)
    return agrees(
        Value("share of probabilities above 0", np.mean([p > 0 for p in attentions(one, rows)]), 1.0),
        Value("the last word moves the first vector", bool((moved > 1e-6).all()), True),
    )


@claim("bert.encoder.padding")
def encoder_padding() -> Finding:
    """A text alone, and the same text padded: its vectors must be the same under both masks."""
    rows = batch(1, 7)
    pad = np.zeros((1, 4), dtype=np.int64)
    padded = Batch(*(np.concatenate([x, pad], 1) for x in (rows.input_ids, rows.token_type_ids, rows.attention_mask)))
    apart = {}
    for profile in ("google", "hf"):
        one = model(profile=profile)
        short, long = one(rows).last_hidden_state, one(padded).last_hidden_state[:, :7]
        apart[profile] = largest(short - long)
    return agrees(*(Value("largest difference", d, 0.0, within=1e-12, by=f"refbert, profile {p}")
                    for p, d in apart.items()))  # fmt: skip


@claim("bert.encoder.layer-norms")
def encoder_layer_norms() -> Finding:
    """Calls of layer_norm and of the residual addition while a model of two layers runs, embeddings included."""
    watching = Watching.forward()
    L = SIZES.num_hidden_layers
    return agrees(
        Value("LayerNorms: the embeddings' and two a layer", watching.counts["layer_norm"], 1 + 2 * L),
        Value("additions: two of embeddings and two a layer", watching.counts["add"], 2 + 2 * L),
    )


@claim("bert.encoder.gelu")
def encoder_gelu() -> Finding:
    """Activations called while a pretraining model runs: one GELU a layer, one in the masked-LM head, never ReLU."""
    counts = Watching.forward(PRETRAINING).counts
    return agrees(
        Value("calls of gelu and of relu", [counts["gelu"], counts["relu"]], [SIZES.num_hidden_layers + 1, 0])
    )


@claim("bert.encoder.gelu-form")
def encoder_gelu_form() -> Finding:
    """The two functions that go by the name, on a grid from −6 to 6: how far apart, and where."""
    x = np.linspace(-6, 6, 120_001)
    apart = np.abs(ops.gelu(x, form="erf")[0] - ops.gelu(x, form="tanh")[0])
    forms = [model(profile=p).choices.activation for p in ("google", "hf")]
    return deviates(
        Value("largest difference", apart.max(), 4.73e-4, within=1e-6, claimed=0.0),
        Value("at |x|", abs(x[apart.argmax()]), 2.70, within=5e-3),
        Value("what the profiles compute", forms, ["gelu_tanh", "gelu_erf"]),
    )


@claim("bert.output.cls")
def output_cls() -> Finding:
    """The pooled vector is not that vector but tanh of a dense layer on it, which the paper does not mention."""
    one, rows = model(), batch()
    out = one(rows)
    assert out.pooler_output is not None
    p = one.state_dict()
    first = out.last_hidden_state[:, 0]
    pooled = np.tanh(first @ p["bert.pooler.dense.weight"].T + p["bert.pooler.dense.bias"])
    H = preset(BERT).hidden_size
    return deviates(
        Value("from tanh(C W + b)", largest(pooled - out.pooler_output), 0.0, within=1e-12),
        Value("it is C itself", bool(np.allclose(first, out.pooler_output)), False, claimed=True),
        Value("base's pooler has parameters", count(preset(BERT)) - count(preset(BERT), pooler=False), H * H + H),
    )


@claim("bert.params.readme-chinese")
def params_readme_chinese() -> Finding:
    """Only the vocabulary differs from base, but that makes 102M and 178M."""
    found = {name: millions(count(preset(f"bert-base-{name}"))) for name in ("chinese", "multilingual-cased")}
    return wrong(
        Value("Chinese, parameters", count(preset("bert-base-chinese")), 102_267_648),
        Value("Chinese, in millions", found["chinese"], 100, claimed=110),
        Value("multilingual cased, in millions", found["multilingual-cased"], 180, claimed=110),
    )
