"""Scores of numbers: how well predictions follow them.

Pearson    Σ (x − x̄)(y − ȳ) / √(Σ (x − x̄)² Σ (y − ȳ)²)
Spearman   the same of the ranks, equal numbers sharing the mean of theirs
"""

from __future__ import annotations

import math
import warnings

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
    from scipy.stats import pearsonr  # here: it takes half a second

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numbers that are nearly the same
        return float(pearsonr(x, y).statistic)


def spearman(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> float:
    """The correlation of the ranks; as `pearson`."""
    from scipy.stats import rankdata

    return pearson(rankdata(truth), rankdata(predicted))


def mean_squared_error(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> float:
    """The mean of the squared differences."""
    return float(np.mean((np.asarray(truth, np.float64) - np.asarray(predicted, np.float64)) ** 2))
