"""Levels "forward" and "backward": what must hold exactly, or without asking the reference at all.

A bound leaves room for rounding, and a small bug may hide in it. These do not: they compare the backend with itself bit
for bit, or use numbers whose arithmetic is exact in any order (sums of small integers, powers of two).
"""

from refbert_conformance.engine.property import Property
from refbert_conformance.properties.symmetries import (
    attention,
    functions,
    linearity,
    lookups,
    nonfinite,
    vanishing,
)


def properties() -> list[Property]:
    """Exact properties, op by op."""
    modules = (linearity, nonfinite, lookups, functions, attention, vanishing)
    return [p for module in modules for p in module.properties()]


__all__ = ["properties"]
