"""Devlin et al. 2019 §3: the sizes, the parameters, the encoder."""

from __future__ import annotations

import math

import numpy as np

from refbert import ops
from refbert.config import BertConfig
from refbert.config.parameters import count, shapes
from refbert.config.presets import preset
from refbert.errors import ConfigError
from refbert.text.batching import Batch
from refbert_audit.findings import Finding, Value, agrees, deviates, wrong
from refbert_audit.registry import claim
from refbert_audit.shared import (
    BERT,
    LARGE,
    PRETRAINING,
    SIZES,
    Watching,
    batch,
    model,
)


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


@claim("bert.sizes.base", where="§3", says="BERT base has 12 layers, hidden size 768 and 12 heads.", expects="agrees")
def sizes_base() -> Finding:
    """Layers counted among the parameters; hidden size and heads read off a layer that is run at that size."""
    return agrees(Value("L, H, A", heads_and_width(preset(BERT)), [12, 768, 12]))


@claim(
    "bert.sizes.large", where="§3", says="BERT large has 24 layers, hidden size 1024 and 16 heads.", expects="agrees"
)
def sizes_large() -> Finding:
    """Layers counted among the parameters; hidden size and heads read off a layer that is run at that size."""
    return agrees(Value("L, H, A", heads_and_width(preset(LARGE)), [24, 1024, 16]))


@claim(
    "bert.sizes.feed-forward", where="§3 fn 3", expects="agrees",
    says="The feed-forward layer is 4H wide: 3072 for H = 768, 4096 for H = 1024.",
)  # fmt: skip
def sizes_feed_forward() -> Finding:
    """Rows of the first feed-forward matrix of both published models."""
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    return agrees(*(Value(f"F, {p}", shapes(preset(p))[name][0], 4 * preset(p).hidden_size) for p in (BERT, LARGE)))


@claim(
    "bert.sizes.heads-divide", where="§3", expects="agrees", inferred=True,
    says="H is shared out among A heads: 64 features for each, in both sizes.",
)  # fmt: skip
def sizes_heads_divide() -> Finding:
    """Features of a head in both sizes; and a configuration whose heads do not divide H must be refused."""
    try:
        BertConfig(hidden_size=10, num_attention_heads=3)
        refused = False
    except ConfigError:
        refused = True
    sizes = [preset(p).head_size for p in (BERT, LARGE)]
    return agrees(Value("H/A of base and large", sizes, [64, 64]), Value("H = 10, A = 3 is refused", refused, True))


@claim("bert.params.base", where="§3", says="BERT base has 110M parameters in all.", expects="agrees")
def params_base() -> Finding:
    """Every tensor's shape is made and its entries are counted; 110M is that to two significant figures."""
    body, all_ = count(preset(BERT)), count(preset(BERT), PRETRAINING)
    return agrees(
        Value("parameters with the pooler", body, 109_482_240),
        Value("with both pretraining heads", all_, 110_106_428),
        Value("without the pooler", count(preset(BERT), pooler=False), 108_891_648),
        Value("in millions, two figures", [millions(body), millions(all_)], [110, 110]),
    )


@claim("bert.params.large", where="§3", says="BERT large has 340M parameters in all.", expects="agrees")
def params_large() -> Finding:
    """340M holds to two significant figures: 335.1M with the pooler, 336.2M with both pretraining heads."""
    body, all_ = count(preset(LARGE)), count(preset(LARGE), PRETRAINING)
    return agrees(
        Value("parameters with the pooler", body, 335_141_888),
        Value("with both pretraining heads", all_, 336_226_108),
        Value("without the pooler", count(preset(LARGE), pooler=False), 334_092_288),
        Value("in millions, two figures", [millions(body), millions(all_)], [340, 340]),
    )


@claim(
    "bert.params.paper-vocabulary", where="§3", expects="deviates", inferred=True,
    says="The 340M of BERT large go with a vocabulary of 30,000 pieces.",
)  # fmt: skip
def params_paper_vocabulary() -> Finding:
    """With 30,000 pieces the encoder and its pooler come to 335M only with the pretraining heads; without, to 330M."""
    config = preset(LARGE).replace(vocab_size=30_000)
    body, all_ = count(config), count(config, PRETRAINING)
    return deviates(
        Value("parameters with the pooler", body, 334_607_360),
        Value("with both pretraining heads", all_, 335_691_058),
        Value("the first in millions, two figures", millions(body), 330, claimed=340),
        paper="340M, with a vocabulary of 30,000",
        google="releases 30,522 pieces: 335.1M with the pooler, 336.2M with the heads",
    )


@claim(
    "bert.params.vocabulary", where="§3", expects="deviates",
    says="The WordPiece vocabulary has 30,000 tokens.",
)  # fmt: skip
def params_vocabulary() -> Finding:
    """Rows of the word-embedding table of the released uncased and cased models."""
    rows = [shapes(preset(p))["bert.embeddings.word_embeddings.weight"][0] for p in (BERT, "bert-base-cased")]
    return deviates(
        Value("rows of the table, uncased and cased", rows, [30_522, 28_996], claimed=[30_000, 30_000]),
        paper="30,000", google="30,522 uncased, 28,996 cased", hf="the same files as Google",
    )  # fmt: skip


@claim(
    "bert.params.layer", where="§3", expects="agrees", inferred=True,
    says="A layer is four H×H projections, two feed-forward matrices of 4H, their biases and two LayerNorms.",
)  # fmt: skip
def params_layer() -> Finding:
    """12H² + 13H, against the shapes of a layer's tensors."""

    def layer(name: str) -> int:
        tensors = shapes(preset(name)).items()
        return sum(math.prod(shape) for tensor, shape in tensors if tensor.startswith("bert.encoder.layer.0."))

    sizes = {name: preset(name).hidden_size for name in (BERT, LARGE)}
    return agrees(*(Value(f"parameters of a layer, H = {H}", layer(p), 12 * H * H + 13 * H) for p, H in sizes.items()))


@claim(
    "bert.params.tied", where="§3.1", expects="agrees", inferred=True,
    says="The masked-LM output layer over the vocabulary adds no matrix of its own: it is the embedding table.",
)  # fmt: skip
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


@claim(
    "bert.params.same-as-gpt", where="§3", expects="deviates",
    says="BERT base was chosen to have the same model size as OpenAI GPT.",
)  # fmt: skip
def params_same_as_gpt() -> Finding:
    """The same layers, width and heads, but GPT has 40,478 pieces, no segments, no embedding LayerNorm, no pooler."""
    named = shapes(preset(BERT).replace(vocab_size=40_478), pooler=False)
    absent = ("bert.embeddings.token_type", "bert.embeddings.LayerNorm")
    gpt = sum(math.prod(shape) for name, shape in named.items() if not name.startswith(absent))
    return deviates(
        Value("parameters of GPT", gpt, 116_534_784),
        Value("GPT has more than BERT base by", gpt - count(preset(BERT)), 7_052_544, claimed=0),
        paper="the same size", refbert="the same L, H and A; 109.5M against GPT's 116.5M parameters",
    )  # fmt: skip


@claim(
    "bert.encoder.bidirectional", where="§1, §3", expects="agrees",
    says="Every token attends to both its left and its right, in all layers.",
)  # fmt: skip
def encoder_bidirectional() -> Finding:
    """No attention probability of any layer, head, query and key is 0; and the last word moves the first's vector."""
    one, rows = model(), batch()
    seen = one(rows, output_attentions=True)
    assert seen.attentions is not None
    ids = rows.input_ids.copy()
    ids[:, -1] = (ids[:, -1] + 1) % SIZES.vocab_size
    other = one(Batch(ids, rows.token_type_ids, rows.attention_mask)).last_hidden_state
    moved = np.abs(other[:, 0] - seen.last_hidden_state[:, 0]).max(-1)
    return agrees(
        Value("share of probabilities above 0", np.mean([p > 0 for p in seen.attentions]), 1.0),
        Value("the last word moves the first vector", bool((moved > 1e-6).all()), True),
    )


@claim(
    "bert.encoder.padding", where="§3 (implied)", expects="agrees", inferred=True,
    says="Padding changes nothing for the tokens that are there.",
)  # fmt: skip
def encoder_padding() -> Finding:
    """A text alone, and the same text padded: its vectors must be the same under both masks."""
    rows = batch(1, 7)
    pad = np.zeros((1, 4), dtype=np.int64)
    padded = Batch(*(np.concatenate([x, pad], 1) for x in (rows.input_ids, rows.token_type_ids, rows.attention_mask)))
    apart = {}
    for profile in ("google", "hf"):
        one = model(profile=profile)
        short, long = one(rows).last_hidden_state, one(padded).last_hidden_state[:, :7]
        apart[profile] = np.abs(short - long).max()
    return agrees(*(Value("largest difference", d, 0.0, within=1e-12, by=f"refbert, profile {p}")
                    for p, d in apart.items()))  # fmt: skip


@claim(
    "bert.encoder.layer-norms", where="§3 (by reference to Vaswani)", expects="agrees", inferred=True,
    says="A layer has two sublayers, each with a residual connection and a LayerNorm.",
)  # fmt: skip
def encoder_layer_norms() -> Finding:
    """Calls of layer_norm and of the residual addition while a model of two layers runs, embeddings included."""
    watching = Watching()
    model(backend=watching)(batch())
    L = SIZES.num_hidden_layers
    return agrees(
        Value("LayerNorms: the embeddings' and two a layer", watching.counts["layer_norm"], 1 + 2 * L),
        Value("additions: two of embeddings and two a layer", watching.counts["add"], 2 + 2 * L),
    )


@claim(
    "bert.encoder.gelu", where="A.2", expects="agrees",
    says="The activation is GELU, not ReLU.",
)  # fmt: skip
def encoder_gelu() -> Finding:
    """Activations called while a pretraining model runs: one GELU a layer, one in the masked-LM head, never ReLU."""
    watching = Watching()
    rows = batch()
    model(PRETRAINING, backend=watching)(rows)
    counted = [watching.counts[op] for op in ("gelu", "relu")]
    return agrees(Value("calls of gelu and of relu", counted, [SIZES.num_hidden_layers + 1, 0]))


@claim(
    "bert.encoder.gelu-form", where="A.2", expects="deviates", inferred=True,
    says="GELU is one function, the same in all code.",
)  # fmt: skip
def encoder_gelu_form() -> Finding:
    """The two functions that go by the name, on a grid from −6 to 6: how far apart, and where."""
    x = np.linspace(-6, 6, 120_001)
    apart = np.abs(ops.gelu(x, form="erf")[0] - ops.gelu(x, form="tanh")[0])
    forms = [model(profile=p).choices.activation for p in ("google", "hf")]
    return deviates(
        Value("largest difference", apart.max(), 4.73e-4, within=1e-6, claimed=0.0),
        Value("at |x|", abs(x[apart.argmax()]), 2.70, within=5e-3),
        Value("what the profiles compute", forms, ["gelu_tanh", "gelu_erf"]),
        paper="says GELU", google="tanh form since 2019-02-07; the models of 2018 came with erf", hf="erf",
    )  # fmt: skip


@claim(
    "bert.output.cls", where="§3", expects="deviates",
    says="The final hidden vector of [CLS] is what stands for the sequence.",
)  # fmt: skip
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
        Value("from tanh(C W + b)", np.abs(pooled - out.pooler_output).max(), 0.0, within=1e-12),
        Value("it is C itself", bool(np.allclose(first, out.pooler_output)), False, claimed=True),
        Value("base's pooler has parameters", count(preset(BERT)) - count(preset(BERT), pooler=False), H * H + H),
        paper="C, the final hidden vector of [CLS]", google="tanh(C W + b), the pooler", hf="the same as Google",
    )  # fmt: skip


@claim(
    "bert.params.readme-chinese", where="README of the release", expects="wrong",
    says="The Chinese and the multilingual models have 110M parameters.",
)  # fmt: skip
def params_readme_chinese() -> Finding:
    """Only the vocabulary differs from base, but that makes 102M and 178M."""
    found = {name: millions(count(preset(f"bert-base-{name}"))) for name in ("chinese", "multilingual-cased")}
    return wrong(
        Value("Chinese, parameters", count(preset("bert-base-chinese")), 102_267_648),
        Value("Chinese, in millions", found["chinese"], 100, claimed=110),
        Value("multilingual cased, in millions", found["multilingual-cased"], 180, claimed=110),
    )
