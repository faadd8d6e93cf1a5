"""What a BERT costs: floating-point operations and memory in closed form, from the sizes alone.

Matrix products only, a multiplication and an addition counted as two operations. Letters as in refbert.config.

    encoder, per token       L (24 H² + 4 S H)  for F = 4H;  in general  L (8 H² + 4 H F + 4 S H)
        8 H²   four projections (query, key, value, output), 2 H² each
        4 H F  up and down
        4 S H  scores q kᵀ and context p v, 2 S D each, over A heads
    pooler, per sequence     2 H²
    masked LM, per position  2 H² + 2 H V
    next sentence            4 H        answering, per token 4 H        classes 2 H K

    A backward costs twice its forward: each product y = x wᵀ has two, dx = dy w and dw = dyᵀ x.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from refbert.config import BertConfig
from refbert.config.heads import HEADS
from refbert.config.parameters import count, shapes

BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}


def encoder_flops_per_token(config: BertConfig, S: int) -> int:
    """Forward operations of the encoder for one token in a sequence of S: 174,587,904 for base at S = 128."""
    L, H, F = config.num_hidden_layers, config.hidden_size, config.intermediate_size
    return L * (8 * H * H + 4 * H * F + 4 * S * H)


def forward_flops(
    config: BertConfig, S: int, heads: Collection[str] = (), *, pooler: bool = True, masked_positions: int | None = None
) -> int:
    """Forward operations for one sequence of S tokens, ``masked_positions`` (default: S) of them through the MLM."""
    H = config.hidden_size
    total = S * encoder_flops_per_token(config, S)
    if pooler:
        total += 2 * H * H
    rows = {"positions": S if masked_positions is None else masked_positions, "tokens": S, "pooled": 1}
    return total + sum(rows[HEADS[name].reads] * head_flops(config, name) for name in heads)


def head_flops(config: BertConfig, name: str) -> int:
    """Forward operations of a head for one vector that it reads."""
    H, head = config.hidden_size, HEADS[name]
    transform = 2 * H * H if head.tied else 0
    return transform + 2 * H * head.outputs(config)


def training_flops(
    config: BertConfig, S: int, heads: Collection[str], *, pooler: bool = True, masked_positions: int | None = None
) -> int:
    """Forward and backward operations for one sequence: three times the forward."""
    return 3 * forward_flops(config, S, heads, pooler=pooler, masked_positions=masked_positions)


def parameter_groups(config: BertConfig, heads: Collection[str] = (), *, pooler: bool = True) -> dict[str, int]:
    """Group (embeddings, encoder, pooler, each head) -> exact number of parameters, in the model's order."""
    body = shapes(config, (), pooler=pooler)
    out = {
        group: sum(math.prod(shape) for name, shape in body.items() if name.startswith(f"bert.{group}."))
        for group in ("embeddings", "encoder", "pooler")
    }
    out = {group: n for group, n in out.items() if n}
    return out | {head: count(config, (head,)) - count(config) for head in heads}


def weights_bytes(
    config: BertConfig, heads: Collection[str] = (), *, pooler: bool = True, dtype: str = "float32"
) -> int:
    """Bytes of the weights."""
    return count(config, heads, pooler=pooler) * BYTES[dtype]


def training_bytes(
    config: BertConfig, heads: Collection[str] = (), *, pooler: bool = True, dtype: str = "float32"
) -> int:
    """Bytes of weights, gradients and Adam's two moments: 1.76 GB for base with its pretraining heads."""
    return 4 * weights_bytes(config, heads, pooler=pooler, dtype=dtype)


def activation_bytes(config: BertConfig, S: int, *, dtype: str = "float32") -> int:
    """Bytes that a backward needs of one sequence's forward, roughly: (8H + 2F + 2AS) numbers per token and layer.

    An estimate, not a count: backends differ in what they store and what they compute again.
    """
    H, F, A, L = config.hidden_size, config.intermediate_size, config.num_attention_heads, config.num_hidden_layers
    return S * L * (8 * H + 2 * F + 2 * A * S) * BYTES[dtype]
