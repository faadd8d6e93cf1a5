"""Attention probabilities, small enough for a page.

512 tokens in 12 × 12 heads are 38 million numbers. On the page a probability p is the byte round(255 √p): the root
gives the many small ones most of the 256 steps, and p comes back within (√p + 1/1020)/255, at most 0.004. The bytes
of a layer are deflated (RFC 1950, what a browser's DecompressionStream calls "deflate") and written in base64.

Where that would be more than `BUDGET`, every row keeps its k largest probabilities, and the rest is shown as 0: k is
the largest of `KEPT` that fits, and the page says what it is and which share of each row's attention is left.

All heads at a glance need no more than `SIDE` cells a side: each shows the largest probability in its square, so that a
single bright key is not averaged away.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from refbert.backend import Host

BUDGET = 7_500_000  # characters of base64 for all layers
KEPT = (256, 128, 96, 64, 48, 32, 24, 16, 12, 8)
SIDE = 32
_TRIED = 6  # heads that a k is tried on


@dataclass(frozen=True)
class Maps:
    """layers: per layer, base64 of the deflated bytes [A, S, S]. thumbnails: the same for [L, A, n, n], n = side.

    kept: how many probabilities of each row are left, or None for all of them; share: (least, mean) of what is left.
    """

    layers: tuple[str, ...]
    thumbnails: str
    side: int
    kept: int | None
    share: tuple[float, float]


def encode(probabilities: Sequence[Host], *, budget: int = BUDGET) -> Maps:
    """The maps of a pass; each array is a layer's [A, S, S]."""
    kept = _kept(probabilities, budget)
    layers, least, total, rows = [], 1.0, 0.0, 0
    for p in probabilities:
        left = p if kept is None else largest(p, kept)
        share = left.sum(axis=-1, dtype=np.float64) / p.sum(axis=-1, dtype=np.float64)
        least, total, rows = min(least, float(share.min())), total + float(share.sum()), rows + share.size
        layers.append(packed(quantised(left)))
    small = np.stack([thumbnail(p) for p in probabilities])
    return Maps(tuple(layers), packed(quantised(small)), small.shape[-1], kept, (least, total / rows))


def _kept(probabilities: Sequence[Host], budget: int) -> int | None:
    """How many of each row to keep, judged by some heads spread over all layers; None for all."""
    S = probabilities[0].shape[-1]
    every = [(layer, head) for layer, p in enumerate(probabilities) for head in range(len(p))]
    chosen = every[:: max(1, len(every) // _TRIED)]
    allowed = 0.95 * budget * len(chosen) / len(every)
    for k in (S, *(k for k in KEPT if k < S)):
        size = 0
        for layer, head in chosen:
            p = probabilities[layer][head]
            size += len(packed(quantised(p if k == S else largest(p, k))))
        if size <= allowed:
            break
    return None if k == S else k


def quantised(p: Host) -> Host:
    """round(255 √p) as bytes."""
    return np.asarray(np.rint(255 * np.sqrt(np.clip(p, 0, 1))), np.uint8)


def largest(p: Host, k: int) -> Host:
    """Each row with everything below its k-th largest number set to 0."""
    least = np.partition(p, p.shape[-1] - k, axis=-1)[..., p.shape[-1] - k, None]
    return np.where(p >= least, p, p.dtype.type(0))


def thumbnail(p: Host) -> Host:
    """[A, S, S] -> [A, n, n], n ≤ SIDE: the largest number in each square."""
    S = p.shape[-1]
    starts = np.unique(np.linspace(0, S, min(S, SIDE), endpoint=False).astype(int))
    return np.asarray(np.maximum.reduceat(np.maximum.reduceat(p, starts, axis=-1), starts, axis=-2))


def packed(x: Host) -> str:
    """Bytes, deflated, in base64. Level 6 is 1/8 smaller and takes 5 times as long."""
    return base64.b64encode(zlib.compress(x.tobytes(), 3)).decode("ascii")


def habits(p: Host, special: Sequence[int]) -> list[dict[str, Any]]:
    """How each head of [A, S, S] attends, on average over the queries: to specials, to itself, to its neighbours.

    entropy: in bits, of which log2 S would be uniform attention.
    """
    S = p.shape[-1]
    at = np.arange(S)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.where(p > 0, p * np.log2(p), 0).sum(axis=-1).mean(axis=-1)
    shares = {
        "special": p[..., np.asarray(special, bool)].sum(axis=-1).mean(axis=-1),
        "itself": p[:, at, at].mean(axis=-1),
        "previous": p[:, at[1:], at[:-1]].sum(axis=-1) / S,
        "next": p[:, at[:-1], at[1:]].sum(axis=-1) / S,
    }
    return [
        {"entropy": round(float(e), 2)} | {name: round(float(share[a]), 3) for name, share in shares.items()}
        for a, e in enumerate(entropy)
    ]
