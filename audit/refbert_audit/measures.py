"""What checks measure with: sizes of differences, losses written out, what is refused, how far chance may be off."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np

from refbert.backend import Host
from refbert.errors import InputError


def largest(x: Host) -> float:
    """The largest absolute entry."""
    return float(np.abs(x).max())


def without_gradient(found: Mapping[str, Host]) -> list[str]:
    """Names of tensors whose gradient is rounding alone."""
    limit = 1e-13 * max(largest(g) for g in found.values())
    return [name for name, g in found.items() if largest(g) < limit]


def log_losses(logits: Host, labels: Any) -> Host:
    """−log of the softmax over the last axis at each row's label, written out."""
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return cast(Host, -np.log(np.take_along_axis(p, np.asarray(labels)[..., None], -1)[..., 0]))


def shift_residual(table: Host) -> float:
    """How far rows 5 … of a table are from the best linear map of rows 0 …"""
    a, b = table[:-5], table[5:]
    fit, *_ = np.linalg.lstsq(a, b, rcond=None)
    return largest(a @ fit - b)


def refused(work: Callable[[], object], error: type[Exception] = InputError) -> bool:
    """Whether ``work`` raises that error."""
    try:
        work()
    except error:
        return True
    return False


def spread(share: float, n: int) -> float:
    """Six standard deviations of the share of n independent draws: a chance of 2e-9 to be further off."""
    return float(6 * np.sqrt(share * (1 - share) / n))
