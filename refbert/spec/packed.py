"""Inference over sequences laid end to end: no padding, so no work on it.

    x = [x⁽¹⁾; x⁽²⁾; …; x⁽ᴮ⁾]   [N, H],   N = Σ S_b            y = [layer(x⁽¹⁾); …; layer(x⁽ᴮ⁾)]

Everything but attention treats rows one by one and does not care where a sequence ends. Positions count from 0 in each
sequence. The results are those of the padded batch, at its tokens.

Source   No paper's: padding is no part of Vaswani et al. 2017 or Devlin et al. 2019, and what is not computed for it
         changes nothing at the tokens.
Shapes   input_ids, token_type_ids [N], lengths [B]  ->  hidden [N, H]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from refbert.backend import A, Backend, Host
from refbert.spec.choices import Choices
from refbert.spec.embeddings import embeddings
from refbert.spec.encoder import encoder_layer
from refbert.spec.scope import Scope


def packed_bert(ops: Any, p: Mapping[str, A], input_ids: Host, token_type_ids: Host, lengths: Host, c: Choices) -> A:
    """hidden [N, H] of the encoder's last layer, on a backend that has `packed_encoder_layer`."""
    positions = np.concatenate([np.arange(length) for length in lengths])  # [N]
    row, _ = embeddings(
        ops, Scope(p, "bert.embeddings."), input_ids[None], token_type_ids[None], c, positions=positions[None]
    )  # [1, N, H]
    x, _ = ops.reshape(row, row.shape[1:])
    for i in range(c.layers):
        layer = Scope(p, f"bert.encoder.layer.{i}.")
        x = ops.packed_encoder_layer(
            x, layer, lengths=lengths, heads=c.heads, activation=c.activation, eps=c.layer_norm_eps
        )
    hidden: A = x
    return hidden


def packed_layer(ops: Backend[A], p: Mapping[str, A], x: Host, lengths: Host, c: Choices) -> list[A]:
    """What `packed_encoder_layer` computes: the layer composed of ops on each sequence by itself, [S_b, H] each."""
    out: list[A] = []
    start = 0
    for length in (int(length) for length in lengths):
        rows = ops.asarray(x[None, start : start + length])  # [1, S_b, H]
        y, _ = encoder_layer(ops, p, rows, np.ones((1, length), np.int64), c)
        out.append(ops.reshape(y, (length, x.shape[1]))[0])
        start += length
    return out
