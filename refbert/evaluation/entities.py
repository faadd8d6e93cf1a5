"""Entities in BIO tags, and their F1: an entity counts if its type and both ends are right.

Source   Tjong Kim Sang and De Meulder 2003 and their conlleval. Tags are "O", "B-TYPE", "I-TYPE" (also "E-", "S-").
         An entity begins at a B or an S, and at any other tag that does not go on with an entity of its own type; so
         an "I-" at the start, or after another type, begins one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Span:
    """An entity: words ``start`` to ``stop`` (not included), and its type."""

    start: int
    stop: int
    type: str


def spans(tags: Sequence[str]) -> list[Span]:
    """The entities of one sentence's tags, in order."""
    out: list[Span] = []
    begun: tuple[int, str] | None = None
    before = "O"
    for i, tag in enumerate([*tags, "O"]):
        prefix, _, type = tag.partition("-")
        goes_on = begun is not None and prefix in ("I", "E") and before in ("B", "I") and begun[1] == type
        if begun is not None and not goes_on:
            out.append(Span(begun[0], i, begun[1]))
            begun = None
        if prefix != "O" and not goes_on:
            begun = (i, type)
        before = prefix
    return out


def entity_scores(truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, float]:
    """precision, recall and f1 over all entities of all sentences, and f1_TYPE of each type; 0 where there are none."""
    wanted = {(n, span) for n, tags in enumerate(truth) for span in spans(tags)}
    found = {(n, span) for n, tags in enumerate(predicted) for span in spans(tags)}
    scores = _scores(wanted, found)
    for type in sorted({span.type for _, span in wanted | found}):
        of_type = _scores({x for x in wanted if x[1].type == type}, {x for x in found if x[1].type == type})
        scores[f"f1_{type}"] = of_type["f1"]
    return scores


def _scores(wanted: set[tuple[int, Span]], found: set[tuple[int, Span]]) -> dict[str, float]:
    right = len(wanted & found)
    return {
        "precision": right / len(found) if found else 0.0,
        "recall": right / len(wanted) if wanted else 0.0,
        "f1": 2 * right / (len(wanted) + len(found)) if wanted or found else 0.0,
    }
