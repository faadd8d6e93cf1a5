"""What a check finds: measured values beside those on record, and the verdict on the statement.

Two things are kept apart. `Value.expected` is what this project has on record: what running shows. `Value.claimed` is
what the document says, where that is something else. A verdict is about the document; a value that is no longer the
one on record is a failure of the audit, whatever the verdict.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Verdict = Literal["agrees", "deviates", "wrong", "needs weights/data"]
VERDICTS: tuple[Verdict, ...] = ("agrees", "deviates", "wrong", "needs weights/data")

# What each verdict means, for whoever reads a table.
MEANINGS: Mapping[str, str] = {
    "agrees": "what the document says is what running shows",
    "deviates": "paper and code (or Google's and Hugging Face's) do different things, and it says who does what",
    "wrong": "what the document says is not so",
    "needs weights/data": "not decided: it needs something that does not come with refbert",
}


SAME: Any = object()  # as a claim: the document says what is on record


@dataclass(frozen=True)
class Value:
    """One thing measured.

    measured, expected: numbers, texts, truth values, or lists of those; NumPy's are turned into plain ones. within: how
    far apart numbers may be, absolutely (0: the same). claimed: what the document says, where that is not what is
    expected. by: what was run, where that is not refbert alone.
    """

    name: str
    measured: Any
    expected: Any
    within: float = 0.0
    claimed: Any = SAME
    by: str = "refbert"

    def __post_init__(self) -> None:
        for name in ("measured", "expected", "claimed"):
            object.__setattr__(self, name, _plain(getattr(self, name)))
        object.__setattr__(self, "within", float(self.within))

    @property
    def holds(self) -> bool:
        """Whether what was measured is what is on record."""
        return _near(self.measured, self.expected, self.within)

    @property
    def as_claimed(self) -> bool:
        """Whether what was measured is what the document says."""
        return self.holds if self.claimed is SAME else _near(self.measured, self.claimed, self.within)


# What a check yields.
Values = Iterator[Value]


@dataclass(frozen=True)
class Finding:
    """A verdict and the values it follows from. missing: what would decide it."""

    verdict: Verdict
    values: tuple[Value, ...]
    missing: str = ""


class Missing(Exception):
    """A check cannot decide without this: weights or data that do not come with refbert."""


def decide(recorded: Verdict, values: Iterable[Value]) -> Finding:
    """The verdict on a statement whose verdict on record is ``recorded``, from what its check measured.

    What is on record as deviating or wrong is decided by the values that the document claims: "agrees" if all of them
    are as claimed. All else is decided by every value: "wrong" unless all are on record and as claimed.

    Raises ValueError where there is no value to decide by.
    """
    values = tuple(values)
    if recorded in ("deviates", "wrong"):
        claimed = [v for v in values if v.claimed is not SAME]
        if not claimed:
            raise ValueError("a finding without a value that the document claims decides nothing")
        return Finding("agrees" if all(v.as_claimed for v in claimed) else recorded, values)
    if not values:
        raise ValueError("a finding without a value decides nothing")
    return Finding("agrees" if all(v.holds and v.as_claimed for v in values) else "wrong", values)


def _near(a: Any, b: Any, within: float) -> bool:
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_near(x, y, within) for x, y in zip(a, b, strict=True))
    if isinstance(a, bool) or isinstance(b, bool) or not (isinstance(a, int | float) and isinstance(b, int | float)):
        return type(a) is type(b) and bool(a == b)
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    return bool(a == b or abs(a - b) <= within)


def _plain(x: Any) -> Any:
    if isinstance(x, np.ndarray | np.generic):
        x = x.tolist()
    if isinstance(x, tuple | list):
        return [_plain(one) for one in x]
    return x
