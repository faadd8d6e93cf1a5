"""Questions about passages, in SQuAD's JSON, versions 1.1 and 2.0.

Source   Rajpurkar et al. 2016 and 2018. {"data": [{"paragraphs": [{"context", "qas": [{"id", "question", "answers":
         [{"text", "answer_start"}], "is_impossible"}]}]}]}; positions count characters of the context.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refbert.data.tables import read_text, require_unicode
from refbert.errors import InputError
from refbert.files.json import parse_json
from refbert.files.reading import shown


@dataclass(frozen=True)
class Question:
    """A question about a passage. ``answers``: (text, first character) of each; none where it has no answer.

    The first character is None where the file was read for scoring, which compares texts alone.
    """

    id: str
    question: str
    context: str
    answers: tuple[tuple[str, int | None], ...]


@dataclass(frozen=True)
class Questions:
    """A file's questions; ``unanswerable``: whether it is of the kind of SQuAD 2.0, where some have no answer."""

    items: tuple[Question, ...]
    unanswerable: bool


def read_squad(path: str | Path, *, positions: bool = True) -> Questions:
    """All questions; raises `InputError`, with the question's id, for what is not as it should be.

    Without ``positions`` an answer need not say where it starts, and what it says is not looked at.
    """
    source = parse_json(read_text(path), path, strict=False)
    out: list[Question] = []
    unanswerable = False
    try:
        for article in source["data"]:
            for paragraph in article["paragraphs"]:
                for item in paragraph["qas"]:
                    unanswerable |= "is_impossible" in item
                    out.append(_question(path, paragraph["context"], item, positions))
    except KeyError as error:
        raise InputError(f"{path}: not SQuAD's format, there is no {error}{_after(out)}") from None
    except TypeError:
        raise InputError(f"{path}: not SQuAD's format{_after(out)}") from None
    if not out:
        raise InputError(f"{path}: no questions")
    seen: set[str] = set()
    for question in out:
        if question.id in seen:
            raise InputError(f'{path}: two questions have the id "{question.id}"')
        seen.add(question.id)
    return Questions(tuple(out), unanswerable)


def _question(path: str | Path, context: str, item: dict[str, Any], positions: bool) -> Question:
    name = str(item["id"])
    where = f'{path}: question "{name}"'
    for what, text in (("context", context), ("question", item["question"])):
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"{where}: the {what} is empty or no text")
        require_unicode(text, f"{where}: the {what}")
    impossible = item.get("is_impossible", False)
    if not isinstance(impossible, bool):
        raise InputError(f"{where}: is_impossible must be true or false, not {shown(impossible)}")
    answers = [
        (answer["text"], answer["answer_start"] if positions else None)
        for answer in ([] if impossible else item["answers"])
    ]
    for text, start in answers:
        if not isinstance(text, str) or not text.strip() or (positions and type(start) is not int):
            raise InputError(f"{where}: an answer must be a text{' and the place that it starts at' * positions}")
        if start is not None and (start < 0 or context[start : start + len(text)] != text):
            raise InputError(f'{where}: the answer "{text}" is not at character {start} of its context')
    if not answers and not impossible and "is_impossible" not in item:
        raise InputError(f"{where}: no answer")
    return Question(name, item["question"], context, tuple(answers))


def _after(done: list[Question]) -> str:
    return f' (after question "{done[-1].id}")' if done else ""
