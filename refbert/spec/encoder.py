"""The encoder: L identical layers, each self-attention then feed-forward.

Source   Vaswani et al. 2017 §3.1 ("a stack of N identical layers"); Devlin et al. 2019 §3 (L = 12 or 24).
Shapes   x [B, S, H], mask [B, S]  ->  y [B, S, H]

    h_0 = x,   h_{i+1} = FFN_i(SelfAttention_i(h_i)),   i = 0 … L − 1,   y = h_L

    Backward: the layers' pullbacks in reverse. Without gradients the pullbacks are dropped as soon as they are made,
    and with them every activation of the layer.

    With gradient checkpointing (Chen et al. 2016 §4.1, a segment being a layer) the same happens in the forward of a
    training step: of layer i only h_i stays, and its pullback first runs the layer again. The operations and
    dropout's masks are the same, so the gradients are too, to the last bit where a backend's operations repeat.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Generic

from refbert.backend import A, Backend, BlockPullback, Host, KeepMasks
from refbert.spec.attention import attention_map, self_attention
from refbert.spec.choices import Choices
from refbert.spec.feed_forward import feed_forward
from refbert.spec.scope import Scope, prefixed


@dataclass
class Watch(Generic[A]):
    """What to keep of the way through the encoder, for those who ask: filled in as the layers run.

    hidden_states: h_0 … h_L, each [B, S, H].      attentions: per layer [B, A, S, S].
    """

    want_hidden_states: bool = False
    want_attentions: bool = False
    hidden_states: list[A] = field(default_factory=list)
    attentions: list[A] = field(default_factory=list)


def encoder_layer(
    ops: Backend[A], p: Mapping[str, A], x: A, mask: Host, c: Choices, *, site: str = "", draws: KeepMasks | None = None
) -> tuple[A, BlockPullback[A]]:
    """One layer composed of ops: y [B, S, H], and a pullback to (dx, gradients by name below the layer)."""
    attended, attention_back = self_attention(ops, Scope(p, "attention."), x, mask, c, site=site, draws=draws)
    y, feed_forward_back = feed_forward(ops, p, attended, c, site=site, draws=draws)

    def pullback(dy: A) -> tuple[A, dict[str, A]]:
        dattended, feed_forward_gradients = feed_forward_back(dy)
        dx, attention_gradients = attention_back(dattended)
        return dx, prefixed("attention.", attention_gradients) | feed_forward_gradients

    return y, pullback


def _recomputed(
    ops: Backend[A], p: Mapping[str, A], x: A, mask: Host, c: Choices, *, site: str, draws: KeepMasks | None
) -> tuple[A, BlockPullback[A]]:
    """`encoder_layer`, of which only x [B, S, H] is kept: the pullback makes the rest again.

    Ops that record one graph for a whole model do this themselves (`refbert.backend.Recomputed`).
    """
    p = dict(p)  # as they are now: an update may come before the pullback
    layer = partial(encoder_layer, ops, p, mask=mask, c=c, site=site, draws=draws)
    in_graph = getattr(ops, "recomputed", None)
    if in_graph is not None:
        made: tuple[A, BlockPullback[A]] = in_graph(layer, x)
        return made
    y, _ = layer(x)
    return y, lambda dy: layer(x)[1](dy)


def encoder(
    ops: Backend[A],
    p: Mapping[str, A],
    x: A,
    mask: Host,
    c: Choices,
    *,
    draws: KeepMasks | None = None,
    gradients: bool = True,
    watch: Watch[A] | None = None,
) -> tuple[A, BlockPullback[A]]:
    """y [B, S, H], and a pullback to (dx, gradients by name below ``bert.encoder.``).

    With ``gradients=False`` nothing is kept, the pullback must not be called, and a backend's own fused layer is used
    where it has one.
    """
    watch = watch or Watch()
    fused = getattr(ops, "encoder_layer", None)  # optional, and for inference only
    composed = _recomputed if c.gradient_checkpointing and gradients else encoder_layer
    backs: list[BlockPullback[A]] = []
    if watch.want_hidden_states:
        watch.hidden_states.append(x)
    for i in range(c.layers):
        layer = Scope(p, f"layer.{i}.")
        if watch.want_attentions:
            watch.attentions.append(attention_map(ops, Scope(layer, "attention."), x, mask, c))
        if gradients or draws is not None or fused is None:
            x, back = composed(ops, layer, x, mask, c, site=f"encoder.layer.{i}", draws=draws)
            if gradients:
                backs.append(back)
            del back  # with it goes the last layer's memory, before the next layer runs
        else:
            x = fused(x, layer, mask=mask, **c.layer_options())
        if watch.want_hidden_states:
            watch.hidden_states.append(x)

    def pullback(dy: A) -> tuple[A, dict[str, A]]:
        collected: dict[str, A] = {}
        for i in reversed(range(c.layers)):
            dy, layer_gradients = backs[i](dy)
            collected |= prefixed(f"layer.{i}.", layer_gradients)
        return dy, collected

    return x, pullback
