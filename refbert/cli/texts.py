"""Read the texts of `refbert run`, one after the other, and predict them batch by batch.

A text that cannot be read or is refused is one outcome among the others: it never takes them with it.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from refbert.errors import InputError, RefbertWarning, TextError, warn
from refbert.text.batching import Text

# Bytes of a line: a longer one is of a file of another kind, and would have to be held whole.
_LONGEST = 1 << 22


@dataclass(frozen=True)
class Given:
    """A text and where it came from; or, without one, what is wrong there."""

    where: str
    text: Text | None
    wrong: str = ""


@dataclass(frozen=True)
class Outcome:
    """What came of a text: a result, or why there is none."""

    given: Given
    result: Any = None
    wrong: str = ""


def from_arguments(texts: Sequence[str], pair: bool) -> Iterator[Given]:
    """Yield the arguments, two by two with ``pair``; raises `InputError` for an odd number."""
    if pair and len(texts) % 2:
        raise InputError(f"--pair takes texts two by two, got {len(texts)}")
    items: Iterable[Text] = zip(texts[::2], texts[1::2], strict=True) if pair else texts
    return (Given(f"text {number}", text) for number, text in enumerate(items, start=1))


def from_stdin(pair: bool) -> Iterator[Given]:
    """Yield the lines of stdin, as they come; raises `InputError` where there is none."""
    if sys.stdin is None or sys.stdin.isatty():
        raise InputError("no text: pass TEXT arguments, or lines on stdin")
    number = 0
    try:
        while line := sys.stdin.buffer.readline(_LONGEST):
            number += 1
            long = len(line) == _LONGEST and not line.endswith(b"\n")
            while long and (rest := sys.stdin.buffer.readline(_LONGEST)) and not rest.endswith(b"\n"):
                pass
            yield _read(f"line {number} of stdin", line, first=number == 1, long=long, pair=pair)
    except OSError as error:
        raise InputError(f"stdin cannot be read ({error.strerror})") from None
    if not number:
        raise InputError("no text: stdin is empty; pass TEXT arguments, or lines on stdin")


def _read(where: str, line: bytes, *, first: bool, long: bool, pair: bool) -> Given:
    if long:
        return Given(where, None, f"is longer than {_LONGEST:,} bytes")
    try:
        text = line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        return Given(where, None, f"is not UTF-8 (byte {error.start})")
    if not pair:
        return Given(where, text)
    sides = text.split("\t")
    if len(sides) != 2:
        return Given(where, text, "is no pair: --pair needs two texts separated by one tab")
    return Given(where, (sides[0], sides[1]))


def outcomes(
    given: Iterable[Given], predict: Callable[[list[Text]], Sequence[Any]], batch_size: int
) -> Iterator[list[Outcome]]:
    """Yield the outcomes of the texts, in their order, batch by batch.

    A `TextError` of ``predict`` is that text's outcome; every other error, such as that of a missing head, is raised.
    Warnings say where a text came from, and each kind is said once.
    """
    said: Counter[str] = Counter()
    given = iter(given)
    while batch := list(islice(given, batch_size)):
        out = {item.where: Outcome(item, wrong=item.wrong) for item in batch}
        good = [item for item in batch if not item.wrong]
        while good:
            try:
                with warnings.catch_warnings(record=True) as caught:
                    results = predict([item.text for item in good if item.text is not None])
            except TextError as error:
                item = good.pop(error.number)
                out[item.where] = Outcome(item, wrong=error.why)
            else:
                _say([str(one.message) for one in caught if issubclass(one.category, RefbertWarning)], good, said)
                out |= {item.where: Outcome(item, result) for item, result in zip(good, results, strict=True)}
                break
        yield list(out.values())
    for kind, times in said.items():
        if times > 1:
            warn(f"so it was in {times - 1:,} more batches: {kind}", stacklevel=2)


def _say(messages: Iterable[str], good: Sequence[Given], said: Counter[str]) -> None:
    for message in messages:
        kind = re.sub(r"\d[\d,]*( texts?)?", "…", message)
        if not said[kind]:
            # The tokenizer counts the texts that it is given.
            named = re.sub(r"\btext (\d+)", lambda found: good[int(found[1]) - 1].where, message)
            warn(named, stacklevel=3)
        said[kind] += 1
