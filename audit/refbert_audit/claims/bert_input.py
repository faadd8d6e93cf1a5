"""Devlin et al. 2019 §3, Figure 2: the input representation."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from refbert import ops
from refbert.config.parameters import shapes
from refbert.config.presets import preset
from refbert_audit import Value, Values
from refbert_audit.corpora import pretraining_rows, tokenizer
from refbert_audit.measures import largest, refused
from refbert_audit.models import BERT, SIZES, batch, hidden_states, model, rows_that_learn


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
