"""What the hardware can do: the two sides of the roofline."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from refbert.backend import registry
from refbert.benchmark import product_limit
from speed.worker import Prepared


def prepare(work: Mapping[str, Any], options: Mapping[str, Any]) -> Prepared:
    return Prepared(roof, lambda found: {name: np.array(value) for name, value in found.items()})


def roof() -> dict[str, float]:
    """FLOP/s of large float32 products, bytes/s of a copy (each byte read and written), the best of several runs."""
    x, y = np.ones(1 << 26, np.float32), np.empty(1 << 26, np.float32)  # 256 MB each: no cache holds them
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        np.copyto(y, x)
        best = min(best, time.perf_counter() - start)
    limit = product_limit(registry.create("numpy"), seconds=3.0)
    return {"flops_per_second": limit, "bytes_per_second": 2 * x.nbytes / best}
