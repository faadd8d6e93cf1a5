"""Read the labelled files of each fine-tuning task, and the set of their labels.

classify  texts and classes        regress  texts and numbers      (CSV, TSV, JSON lines)
multi-label  texts and any number of classes each                  (the same)
choose    texts and answers to choose from                         (the same)
tag       sentences of words and tags                              (CoNLL)
answer    questions about passages                                 (SQuAD's JSON)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from refbert.data.conll import Sentence, read_conll
from refbert.data.squad import Question, read_squad
from refbert.data.tables import Choice, Columns, LabelledText, read_choices, read_labelled
from refbert.errors import InputError
from refbert.files.reading import shown

TASKS = ("classify", "multi-label", "regress", "tag", "answer", "choose")


@dataclass(frozen=True)
class Labelled:
    """What a file holds; one of the lists, by task. unanswerable: questions may have no answer (SQuAD 2.0)."""

    path: str
    texts: tuple[LabelledText, ...] = ()
    sentences: tuple[Sentence, ...] = ()
    questions: tuple[Question, ...] = ()
    choices: tuple[Choice, ...] = ()
    unanswerable: bool = False

    def __len__(self) -> int:
        return len(self.texts) + len(self.sentences) + len(self.questions) + len(self.choices)


def read(
    task: str, path: str | Path, columns: Columns, *, format: str | None = None, to_learn: bool = True
) -> Labelled:
    """Read a file for a task; raises `InputError`, with file and line, for what cannot be used.

    Without ``to_learn`` the file is for scoring alone, for which an answer's place is not needed.
    """
    name = str(path)
    if task == "tag":
        word, tag = _number(columns.text, "text"), _number(columns.label, "label")
        return Labelled(name, sentences=tuple(read_conll(path, word_column=word, tag_column=tag)))
    if task == "answer":
        questions = read_squad(path, positions=to_learn)
        return Labelled(name, questions=questions.items, unanswerable=questions.unanswerable)
    if task == "choose":
        return Labelled(name, choices=tuple(read_choices(path, columns, format=format)))
    if task in ("classify", "multi-label", "regress"):
        how = {"numbers": task == "regress", "several": task == "multi-label"}
        return Labelled(name, texts=tuple(read_labelled(path, columns, **how, format=format)))
    raise InputError(f'unknown task "{task}" (known: {", ".join(TASKS)})')


def _number(column: str, unnamed: str) -> int | None:
    """A column of a CoNLL file, from 1; None for the usual one."""
    if column == unnamed:
        return None
    if not (column.isascii() and column.isdigit() and len(column) < 6):
        raise InputError(f'CoNLL\'s columns have no names: --{unnamed}-column takes a number, from 1, not "{column}"')
    return int(column)


def label_set(task: str, data: Labelled) -> tuple[str, ...]:
    """Return the labels to learn, in order: numbers by value, names by alphabet, "O" before the other tags.

    Empty for tasks without names. Raises `InputError` if there is one class only: there is nothing to learn then.
    """
    found = {label for label, _ in _named(task, data)}
    if task == "multi-label" and not found:
        raise InputError(f"{data.path}: no text has a label: there is nothing to learn")
    if task in ("classify", "tag") and len(found) < 2:
        raise InputError(f'{data.path}: one label only ("{found.pop()}"): there is nothing to tell apart')
    if all(label.isascii() and label.isdigit() for label in found):
        return tuple(sorted(found, key=lambda label: (int(label), label)))
    return tuple(sorted(found, key=lambda label: (label != "O", label)))


def _named(task: str, data: Labelled) -> Iterator[tuple[str, int]]:
    """Every label that has a name, and its line."""
    if task == "classify":
        yield from ((example.label, example.line) for example in data.texts)
    elif task == "multi-label":
        yield from ((label, example.line) for example in data.texts for label in example.label)
    elif task == "tag":
        yield from (pair for s in data.sentences for pair in zip(s.tags, s.lines, strict=True))


def check_labels(task: str, data: Labelled, labels: Sequence[str]) -> None:
    """Raise `InputError`, with the line, for a label that is not in the set, or that two of the set are called."""
    known = set(labels)
    shared = [label for label, times in Counter(labels).items() if times > 1]
    if shared:
        raise InputError(f"two labels of the model are called {shown(shared[0])}: a file cannot say which it means")
    for label, line in _named(task, data):
        if label not in known:
            some = ", ".join(labels[:8]) + (f" and {len(labels) - 8} more" if len(labels) > 8 else "")
            raise InputError(f'{data.path}, line {line}: the label "{label}" is not in the set ({some})')
