"""Where things lie in a plot; `templates/plots.html` draws them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Axis:
    """The numbers from low to high on the pixels from start to end; what lies outside, and NaN, is at the edge."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def around(cls, values: Iterable[float], start: float, end: float) -> Self:
        """The axis that just holds the values; infinity and NaN do not count."""
        kept = [value for value in values if math.isfinite(value)] or [0.0]
        low, high = min(kept), max(kept)
        if low == high:
            low, high = low - abs(low) / 2 - 1e-9, high + abs(high) / 2 + 1e-9
        return cls(low, high, start, end)

    def at(self, value: float) -> float:
        """The pixel of a value."""
        inside = self.high if math.isnan(value) else min(max(value, self.low), self.high)
        return round(self.start + (inside - self.low) / (self.high - self.low or 1) * (self.end - self.start), 1)

    @property
    def ticks(self) -> list[tuple[float, float]]:
        """(value, pixel) of both ends and the middle."""
        return [(value, self.at(value)) for value in (self.low, (self.low + self.high) / 2, self.high)]


@dataclass(frozen=True)
class LogAxis(Axis):
    """The same by their logarithms: low and high are powers of ten, and so are the ticks."""

    @classmethod
    def around(cls, values: Iterable[float], start: float, end: float) -> Self:
        """The axis of whole decades that holds the values; 0, infinity and NaN do not count."""
        logs = [math.log10(value) for value in values if 0 < value < math.inf]
        low, high = (math.floor(min(logs)), math.ceil(max(logs))) if logs else (-1, 0)
        return cls(low, max(high, low + 1), start, end)

    def at(self, value: float) -> float:
        """The pixel of a value."""
        return super().at(-math.inf if value <= 0 else math.log10(value))

    @property
    def ticks(self) -> list[tuple[float, float]]:
        """(power of ten, pixel), seven at most."""
        low, high = int(self.low), int(self.high)
        return [(power, Axis.at(self, power)) for power in range(low, high + 1, -(-(high - low) // 6))]
