"""Numbers, times and counts as a reader wants them; each is a filter of every template."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Any

__all__ = ["date", "duration", "number", "percent", "plural"]


def number(value: Any, digits: int = 3) -> str:
    """Write a number briefly: 0.43, 170, 12,500, 1.2e-5, ∞. A text is read as a number; None is "–"."""
    if value is None:
        return "–"
    x = float(value)
    if math.isnan(x):
        return "NaN"
    if math.isinf(x):
        return "∞" if x > 0 else "-∞"
    if 10**digits <= abs(x) < 1e5:
        return f"{x:,.0f}"
    return re.sub(r"e([+-])0*(\d)", lambda m: f"e{m[1].strip('+')}{m[2]}", f"{x:.{digits}g}")


def percent(share: float) -> str:
    """Rounded down: 100 % is all, not nearly all."""
    return f"{math.floor(1000 * share + 1e-9) / 10:.1f} %"


def duration(seconds: float) -> str:
    """Seconds, in minutes where they are many."""
    if seconds < 120:
        return "<0.01 s" if 0 < seconds < 0.01 else f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def moment(text: str) -> datetime:
    """When that was; the year 1 if it does not say."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def date(text: str) -> str:
    """The moment as text; what is no moment stays as it is."""
    found = moment(text)
    return text if found.year == 1 or found.utcoffset() else f"{found:%Y-%m-%d %H:%M} UTC"


def plural(count: int, one: str, many: str) -> str:
    """A count and its word."""
    return f"{count} {one if count == 1 else many}"
