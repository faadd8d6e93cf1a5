"""Devlin et al. 2019 §3, Figure 2: the input representation."""

from __future__ import annotations

import math

import numpy as np

from refbert import ops
from refbert.config.parameters import shapes
from refbert.config.presets import preset
from refbert.errors import InputError
from refbert_audit.findings import Finding, Value, agrees, deviates
from refbert_audit.registry import claim
from refbert_audit.shared import BERT, SIZES, batch, masked_labels, model, pretraining_rows, tokenizer


@claim(
    "bert.input.sum", where="§3 fig 2", expects="agrees",
    says="A token's input is the sum of its token, segment and position embeddings.",
)  # fmt: skip
def input_sum() -> Finding:
    """The sum written out with NumPy and put through LayerNorm, against the embeddings that the model computes."""
    one, rows = model(), batch()
    p = one.state_dict()
    e = p["bert.embeddings.word_embeddings.weight"][rows.input_ids]
    e = e + p["bert.embeddings.token_type_embeddings.weight"][rows.token_type_ids]
    e = e + p["bert.embeddings.position_embeddings.weight"][: rows.shape[1]]
    gain, shift = p["bert.embeddings.LayerNorm.weight"], p["bert.embeddings.LayerNorm.bias"]
    x, _ = ops.layer_norm(e, gain, shift, eps=1e-12)
    hidden = one(rows, output_hidden_states=True).hidden_states
    assert hidden is not None
    return agrees(Value("largest difference", np.abs(hidden[0] - x).max(), 0.0, within=1e-12))


@claim(
    "bert.input.layer-norm", where="§3 fig 2", expects="deviates",
    says="The sum of the three embeddings is what goes into the encoder.",
)  # fmt: skip
def input_layer_norm() -> Finding:
    """A fresh model's first hidden state: were it the sum, its rows would not have mean 0 and deviation 1."""
    fresh = model(scale=0.0)
    rng = np.random.default_rng(3)
    for name in ("word", "position", "token_type"):
        table = fresh.parameters[f"bert.embeddings.{name}_embeddings.weight"]
        table[:] = 0.02 * rng.standard_normal(table.shape)
    hidden = fresh(batch(), output_hidden_states=True).hidden_states
    assert hidden is not None
    # ε = 1e-12 beside a variance of about 1e-3 moves the deviation by 1e-9.
    return deviates(
        Value("largest |mean| of a row", np.abs(hidden[0].mean(-1)).max(), 0.0, within=1e-12),
        Value("a row's deviation, on average", hidden[0].std(-1).mean(), 1.0, within=1e-6, claimed=0.02 * math.sqrt(3)),
        paper="the sum", google="LayerNorm and dropout after the sum", hf="the same as Google",
    )  # fmt: skip


@claim(
    "bert.input.learned-positions", where="§3 fig 2", expects="agrees",
    says="Positions have embeddings that are learned.",
)  # fmt: skip
def input_learned_positions() -> Finding:
    """The position table receives a gradient in every row that is used, and none beyond the sequence."""
    rows = batch(S=11)
    _, gradients = model(("masked_lm",)).loss_and_gradients(rows, masked_labels(rows))
    moved = np.abs(gradients["bert.embeddings.position_embeddings.weight"]).max(axis=1) > 0
    table = shapes(preset(BERT))["bert.embeddings.position_embeddings.weight"]
    return agrees(
        Value("rows with a gradient, of 11 tokens", int(moved.sum()), 11),
        Value("they are the first", bool(moved[:11].all()), True),
        Value("parameters of base's table", math.prod(table), 393_216),
    )


@claim(
    "bert.input.max-length", where="A.2", expects="agrees",
    says="Sequences have at most 512 tokens.",
)  # fmt: skip
def input_max_length() -> Finding:
    """A batch of 512 tokens is taken by a model with base's positions; one of 513 is refused."""
    config = SIZES.replace(max_position_embeddings=preset(BERT).max_position_embeddings, num_hidden_layers=1)
    taken = []
    for S in (512, 513):
        try:
            taken.append(model(config=config)(batch(1, S)).last_hidden_state.shape[1] == S)
        except InputError:
            taken.append(False)
    return agrees(Value("512 and 513 tokens are taken", taken, [True, False]))


@claim(
    "bert.input.special-tokens", where="§3", expects="agrees",
    says="[CLS] comes first; [SEP] stands between two sentences, and after the second.",
)  # fmt: skip
def input_special_tokens() -> Finding:
    """A pair through the tokenizer; and where the two are in 1,920 pretraining sequences, before anything is masked."""
    (pair,) = tokenizer().encode([("w1 w2", "w3")], max_length=16)
    seen = pretraining_rows()
    first, last = (seen["original"] == id for id in (tokenizer().cls_id, tokenizer().sep_id))
    end = seen["mask"].sum(axis=1) - 1
    return agrees(
        Value("tokens", pair.tokens, ["[CLS]", "w1", "w2", "[SEP]", "w3", "[SEP]"]),
        Value("sequences that begin with [CLS]", first[:, 0].mean(), 1.0),
        Value("that hold one, and [SEP] twice", ((first.sum(1) == 1) & (last.sum(1) == 2)).mean(), 1.0),
        Value("that end with [SEP]", last[np.arange(len(end)), end].mean(), 1.0),
    )


@claim(
    "bert.input.segments", where="§3", expects="agrees",
    says="A learned embedding on every token says whether it belongs to sentence A or B.",
)  # fmt: skip
def input_segments() -> Finding:
    """Segment numbers of a pair ([SEP] belongs to the sentence it ends) and of pretraining sequences; their gradient.

    In pretraining B begins behind the first [SEP], and padding counts as A.
    """
    seen = pretraining_rows()
    ends = np.cumsum(seen["original"] == tokenizer().sep_id, axis=1) - (seen["original"] == tokenizer().sep_id)
    (pair,) = tokenizer().encode([("w1 w2", "w3")], max_length=16)
    rows = batch()
    _, gradients = model(("masked_lm",)).loss_and_gradients(rows, masked_labels(rows))
    table = np.abs(gradients["bert.embeddings.token_type_embeddings.weight"]).max(axis=1) > 0
    return agrees(
        Value("segments", pair.token_type_ids, [0, 0, 0, 0, 1, 1]),
        Value("pretraining tokens with another", int((seen["types"] != (ends == 1) * seen["mask"]).sum()), 0),
        Value("both rows of the table learn", table.tolist(), [True, True]),
    )
