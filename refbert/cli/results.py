"""What `refbert run` shows: one JSON object for each text as soon as its batch is done, or tables."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from refbert.cli.output import print_json
from refbert.cli.tables import Heading, Table, print_table
from refbert.cli.texts import Outcome
from refbert.embedder import Normalize
from refbert.tasks.answering import Answered
from refbert.tasks.classifying import Classified, Estimated
from refbert.tasks.fill_mask import Embedded, Filled
from refbert.tasks.tagging import TaggedText
from refbert.text.batching import Text

# More texts than this make a similarity table that nobody reads.
_COMPARABLE = 12
# Refused texts that are named on stderr; of more, their number is.
_NAMED = 10


class Printer:
    """Show outcomes as they come. JSON and the tables of masks are not held; a table of many texts has to be."""

    def __init__(self, as_json: bool, *, top_k: int, null_threshold: float | None) -> None:
        self._as_json = as_json
        self._top_k, self._null_threshold = top_k, null_threshold
        self._kept: list[Any] = []
        self.shown = self.masks = self.refused = 0

    def add(self, batch: Sequence[Outcome]) -> None:
        """Show a batch, whole before the next is computed."""
        for one in batch:
            if one.wrong:
                self._refuse(one)
            else:
                self._show(one.result)
        sys.stdout.flush()

    def close(self) -> None:
        """Show what had to wait for all."""
        if self._kept and isinstance(self._kept[0], Embedded):
            _print_embedded(self._kept)
        elif self._kept:
            _print_answers(self._kept, self._top_k, self._null_threshold)
        if self.refused > _NAMED:
            print(f"refbert: {self.refused:,} texts in all were refused", file=sys.stderr)

    def _refuse(self, one: Outcome) -> None:
        self.refused += 1
        if self._as_json:
            print_json({"text": one.given.text, "error": one.wrong})
        if self.refused <= _NAMED:
            print(f"refbert: {one.given.where} {one.wrong}", file=sys.stderr)

    def _show(self, result: Any) -> None:
        self.shown += 1
        if isinstance(result, Filled):
            self.masks += len(result.masks)
        if self._as_json:
            print_json(_as_json(result, self._top_k, self._null_threshold))
        elif isinstance(result, Filled):
            _print_filled(result)
        else:
            self._kept.append(result)


def _shown(text: Text) -> str:
    return text if isinstance(text, str) else "  |  ".join(text)


def _as_json(one: Any, top_k: int, null_threshold: float | None) -> dict[str, Any]:
    """The fields that docs/command-line.md lists."""
    if isinstance(one, Filled):
        masks = [
            {"position": mask.position, "predictions": [vars(found) for found in mask.predictions]}
            for mask in one.masks
        ]
        return {"text": one.text, "tokens": one.tokens, "masks": masks}
    if isinstance(one, Embedded):
        return {"text": one.text, "tokens": one.tokens, "embedding": one.embedding}
    if isinstance(one, Estimated):
        return {"text": one.text, "value": one.values[0] if len(one.values) == 1 else list(one.values)}
    if isinstance(one, Classified):
        several = {} if one.labels is None else {"labels": list(one.labels)}
        shared = len({s.label for s in one.scores}) < len(one.scores)
        scores = [
            {"label": s.label, **({"number": s.number} if shared else {}), "score": s.score} for s in one.scores[:top_k]
        ]
        return {"text": one.text, "label": one.label, **several, "scores": scores}
    if isinstance(one, TaggedText):
        words = zip(one.tagged.words, one.tagged.tags, one.tagged.scores, strict=True)
        return {
            "text": one.text,
            "words": [{"word": word, "tag": tag, "score": score} for word, tag, score in words],
            "entities": [vars(entity) for entity in one.entities],
        }
    return {
        "question": one.question,
        "passage": one.passage,
        "answer": one.text(null_threshold),
        "null_margin": one.null_margin,
        "answers": [vars(candidate) for candidate in one.answers[:top_k]],
    }


def _print_filled(result: Filled) -> None:
    table = Table(_shown(result.text), ("position", "figure"), "token", ("probability", "figure"))
    for mask in result.masks:
        for rank, prediction in enumerate(mask.predictions):
            table.add_row(str(mask.position) if rank == 0 else "", prediction.token, f"{prediction.score:.4f}")
    if not result.masks:
        table.add_row("", "(no mask)", "")
    print_table(table)


def _print_embedded(results: list[Embedded]) -> None:
    heading = f"embedding (of {len(results[0].embedding)})"
    table = Table(None, ("#", "figure"), "text", ("tokens", "figure"), (heading, "id"))
    for number, result in enumerate(results, start=1):
        head = "  ".join(f"{x:+.4f}" for x in result.embedding[:4])
        table.add_row(str(number), _shown(result.text), str(len(result.tokens)), f"{head}  …")
    print_table(table)
    if 1 < len(results) <= _COMPARABLE:
        vectors = Normalize()(np.stack([result.embedding for result in results]))
        rows = [[str(n), *(f"{x:.3f}" for x in row)] for n, row in enumerate(vectors @ vectors.T, start=1)]
        figures: list[Heading] = [(number, "figure") for number in ("", *(row[0] for row in rows))]
        print_table(Table("cosine similarity", *figures, rows=rows))


def _print_answers(answers: Sequence[Any], top_k: int, null_threshold: float | None) -> None:
    table = Table(None, "text", "answer", ("", "figure"))
    for one in answers:
        asked = one.question if isinstance(one, Answered) else _shown(one.text)
        for row, (text, number) in enumerate(_rows(one, top_k, null_threshold)):
            table.add_row(asked if row == 0 else "", text, number)
    print_table(table)


def _rows(one: Any, top_k: int, null_threshold: float | None) -> list[tuple[str, str]]:
    if isinstance(one, Estimated):
        return [("", f"{value:.4f}") for value in one.values]
    if isinstance(one, Classified):
        return [(s.label, f"{s.score:.4f}") for s in one.scores[:top_k]]
    if isinstance(one, TaggedText):
        return [(entity.text, entity.type) for entity in one.entities] or [("(no entity)", "")]
    none = [("(no answer)", "")] if one.text(null_threshold) == "" else []
    return none + [(candidate.text, f"{candidate.probability:.4f}") for candidate in one.answers[:top_k]]
