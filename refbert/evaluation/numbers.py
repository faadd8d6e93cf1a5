"""Scores of numbers: how well predictions follow them.

Pearson    Σ (x − x̄)(y − ȳ) / √(Σ (x − x̄)² Σ (y − ȳ)²)
Spearman   the same of the ranks, equal numbers sharing the mean of theirs
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


def pearson(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> float:
    """The correlation, from −1 to 1; NaN where either is constant or there are less than two.

    Raises ValueError unless both are rows of one length.
    """
    x, y = np.asarray(truth, np.float64), np.asarray(predicted, np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"shapes {x.shape} and {y.shape}: two rows of the same length are expected")
    if len(x) < 2 or (x == x[0]).all() or (y == y[0]).all():
        return math.nan
    x, y = x - x.mean(), y - y.mean()
    x, y = x / np.abs(x).max(), y / np.abs(y).max()  # squares of small numbers would vanish
    return float(np.clip(x @ y / math.sqrt((x @ x) * (y @ y)), -1.0, 1.0))


def spearman(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> float:
    """The correlation of the ranks."""
    return pearson(_ranks(np.asarray(truth, np.float64)), _ranks(np.asarray(predicted, np.float64)))


def mean_squared_error(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> float:
    """The mean of the squared differences."""
    return float(np.mean((np.asarray(truth, np.float64) - np.asarray(predicted, np.float64)) ** 2))


def _ranks(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """From 1; equal numbers get the mean of the ranks that they take up."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse])
