"""Scores of classes (accuracy, F1, Matthews' correlation) and of numbers. Different lengths raise ValueError.

Matthews   1975 and, for several classes, Gorodkin 2004 (R_K): with s examples, c of them right, t_k truly and p_k
           supposedly of class k,  (c·s − Σ p_k t_k) / √((s² − Σ p_k²)(s² − Σ t_k²)),  and 0 where that is 0/0
Pearson    Σ (x − x̄)(y − ȳ) / √(Σ (x − x̄)² Σ (y − ȳ)²)
Spearman   the same of the ranks, equal numbers sharing the mean of theirs
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Collection, Hashable, Sequence

import numpy as np
import numpy.typing as npt


def accuracy(truth: Sequence[Hashable], predicted: Sequence[Hashable]) -> float:
    """The share that is right; NaN of nothing."""
    return sum(a == b for a, b in zip(truth, predicted, strict=True)) / len(truth) if truth else math.nan


def f1(truth: Sequence[Hashable], predicted: Sequence[Hashable], positive: Hashable) -> float:
    """F1 of one class: 2·right / (true + supposed), 0 where it is right nowhere."""
    right = sum(a == b == positive for a, b in zip(truth, predicted, strict=True))
    counted = sum(a == positive for a in truth) + sum(b == positive for b in predicted)
    return 2 * right / counted if counted else 0.0


def macro_f1(truth: Sequence[Hashable], predicted: Sequence[Hashable]) -> float:
    """The mean of the F1 of the classes that occur in either."""
    right = Counter(a for a, b in zip(truth, predicted, strict=True) if a == b)
    counted = Counter(truth) + Counter(predicted)
    return sum(2 * right[name] / counted[name] for name in counted) / len(counted) if counted else math.nan


def set_scores(
    truth: Sequence[Collection[str]], predicted: Sequence[Collection[str]], names: Sequence[str]
) -> dict[str, float]:
    """Scores where an example has any number of the classes ``names``.

    micro_f1 counts right, true and supposed labels over all classes; macro_f1 is the mean of the classes' F1, 0 for one
    that is nowhere; accuracy the share of examples of which every label is right.
    """
    pairs = [(frozenset(a), frozenset(b)) for a, b in zip(truth, predicted, strict=True)]
    each = [f1([name in a for a, _ in pairs], [name in b for _, b in pairs], True) for name in names]
    counted = sum(len(a) + len(b) for a, b in pairs)
    return {
        "micro_f1": 2 * sum(len(a & b) for a, b in pairs) / counted if counted else 0.0,
        "macro_f1": sum(each) / len(each),
        "accuracy": sum(a == b for a, b in pairs) / len(pairs) if pairs else math.nan,
    }


def matthews(truth: Sequence[Hashable], predicted: Sequence[Hashable]) -> float:
    """Matthews' correlation coefficient, from −1 to 1."""
    s = len(truth)
    c = sum(a == b for a, b in zip(truth, predicted, strict=True))
    t, p = Counter(truth), Counter(predicted)
    spread = (s * s - sum(n * n for n in p.values())) * (s * s - sum(n * n for n in t.values()))
    return (c * s - sum(p[name] * t[name] for name in t)) / math.sqrt(spread) if spread else 0.0


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
