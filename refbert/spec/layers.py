"""The layers that blocks are made of: dense, LayerNorm, activation, dropout, and the end of a sublayer.

Those with parameters find them by the layer's name, and hand their gradients back under the same names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from refbert.backend import A, Backend, BlockPullback, KeepMasks, Out
from refbert.spec.choices import Choices


def dense(ops: Backend[A], p: Mapping[str, A], name: str, x: A) -> tuple[A, BlockPullback[A]]:
    """x W + b, [..., I] -> [..., O], and a pullback to (dx, gradients of ``name``.weight and ``name``.bias)."""
    y, back = ops.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])
    return y, _named(name, back)


def layer_norm(ops: Backend[A], p: Mapping[str, A], name: str, x: A, c: Choices) -> tuple[A, BlockPullback[A]]:
    """LN(x), [..., H] -> [..., H], and a pullback to (dx, gradients of ``name``.weight and ``name``.bias)."""
    y, back = ops.layer_norm(x, p[f"{name}.weight"], p[f"{name}.bias"], eps=c.layer_norm_eps)
    return y, _named(name, back)


def _named(name: str, back: Callable[[A], tuple[A, ...]]) -> BlockPullback[A]:
    def pullback(dy: A) -> tuple[A, dict[str, A]]:
        dx, dweight, dbias = back(dy)
        return dx, {f"{name}.weight": dweight, f"{name}.bias": dbias}

    return pullback


def add_and_norm(
    ops: Backend[A], p: Mapping[str, A], x: A, o: A, c: Choices, *, site: str, draws: KeepMasks | None
) -> tuple[A, Callable[[A], tuple[A, A, dict[str, A]]]]:
    """LN(x + dropout(o)), [B, S, H] twice -> [B, S, H]: how a sublayer with the output o ends.

    The pullback returns (dx, do, gradients of output.LayerNorm), dx being the residual's share alone.
    """
    dropped, dropout_back = dropout(ops, o, site=site, rate=c.hidden_dropout, draws=draws)
    added, add_back = ops.add(x, dropped)
    y, norm_back = layer_norm(ops, p, "output.LayerNorm", added, c)

    def pullback(dy: A) -> tuple[A, A, dict[str, A]]:
        dadded, gradients = norm_back(dy)
        dx, ddropped = add_back(dadded)
        (do,) = dropout_back(ddropped)
        return dx, do, gradients

    return y, pullback


def activate(ops: Backend[A], x: A, activation: str) -> Out[A]:
    """The configured activation, [...] -> [...]: "gelu_erf", "gelu_tanh", "relu", "tanh" or "linear" (the identity).

    Raises ValueError for another name.
    """
    if activation in ("gelu_erf", "gelu_tanh"):
        return ops.gelu(x, form=activation.removeprefix("gelu_"))
    if activation == "relu":
        return ops.relu(x)
    if activation == "tanh":
        return ops.tanh(x)
    if activation == "linear":
        return x, _identity
    raise ValueError(f'unknown activation "{activation}"')


def dropout(ops: Backend[A], x: Any, *, site: str, rate: float, draws: KeepMasks | None) -> Out[A]:
    """Dropout at a named site, [...] -> [...]; the identity in inference (``draws`` is None) and at rate 0."""
    if draws is None or rate == 0:
        return x, _identity
    return ops.dropout(x, keep=draws.keep(site, tuple(x.shape), rate), rate=rate)


def _identity(dy: A) -> tuple[A]:
    return (dy,)
