"""Say once for each length of batch, with advice, that most of it is padding, which costs as much as tokens."""

from __future__ import annotations

from collections.abc import Callable

# Updates after which the share is known well enough.
_ENOUGH = 10
_MUCH = 0.5


class PaddingWatch:
    """Give ``say`` a line where more than half of the first batches of one kind is padding.

    advice: what to do, from the kind and the share of padding.
    """

    def __init__(self, say: Callable[[str], object], advice: Callable[[int, float], str]) -> None:
        self._say, self._advice = say, advice
        self._seen: dict[int, list[float]] = {}

    def add(self, kind: int, padding: float) -> None:
        """Count one more batch of that kind."""
        seen = self._seen.setdefault(kind, [])
        if len(seen) == _ENOUGH:
            return
        seen.append(padding)
        if len(seen) == _ENOUGH and sum(seen) > _MUCH * _ENOUGH:
            share = sum(seen) / _ENOUGH
            self._say(f"{share:.0%} of what is computed is padding: {self._advice(kind, share)}")
