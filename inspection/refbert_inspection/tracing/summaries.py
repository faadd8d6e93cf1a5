"""What a tensor looks like in a few numbers: size, extremes, quantiles, a histogram, and its size at each token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from refbert.backend import Host

QUANTILES = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
BINS = 40


@dataclass(frozen=True)
class Summary:
    """rms: √mean(x²), the norm that does not grow with the tensor; norm: √Σx². Numbers that are none: ``bad`` of them,
    left out of the rest."""

    shape: tuple[int, ...]
    rms: float
    norm: float
    min: float
    max: float
    mean: float
    bad: int

    @classmethod
    def of(cls, x: Host) -> Summary:
        """Of an array; an empty one has zeros."""
        good = _finite(x)
        bad = x.size - good.size
        if not good.size:
            return cls(tuple(x.shape), 0.0, 0.0, 0.0, 0.0, 0.0, bad)
        squares = float(good @ good)
        return cls(
            tuple(x.shape), float(np.sqrt(squares / good.size)), float(np.sqrt(squares)), float(good.min()),
            float(good.max()), float(good.mean()), bad,
        )  # fmt: skip


def _finite(x: Host) -> Host:
    flat = np.asarray(x, np.float64).reshape(-1)
    return flat[np.isfinite(flat)]


def distribution(x: Host) -> dict[str, Any]:
    """``quantiles`` at `QUANTILES`, and ``histogram``: the counts in `BINS` equal steps, least to largest."""
    good = _finite(x)
    if not good.size:
        return {"quantiles": [], "histogram": []}
    low, high = float(good.min()), float(good.max())
    counts = np.histogram(good, BINS, (low, high))[0] if high > low else np.array([good.size])
    return {"quantiles": [short(q) for q in np.quantile(good, QUANTILES)], "histogram": counts.tolist()}


def by_token(x: Host, S: int) -> list[float]:
    """The rms at each token of [1, S, …]; empty for a tensor of another kind."""
    if x.ndim != 3 or x.shape[:2] != (1, S):
        return []
    return [short(v) for v in np.sqrt((np.asarray(x[0], np.float64) ** 2).mean(axis=-1))]


def short(x: Any) -> float:
    """Four digits, as a page needs; what is no number as 0, which ``bad`` has told of."""
    value = float(x)
    return float(f"{value:.4g}") if np.isfinite(value) else 0.0
