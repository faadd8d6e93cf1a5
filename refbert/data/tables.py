"""Read labelled texts from tables: CSV, TSV and JSON lines, with every mistake named by file and line.

csv     RFC 4180: commas, quotes doubled inside quotes, a header line
tsv     tabs and nothing else: a quotation mark is a character, as in GLUE's files; a header line
jsonl   one JSON object a line

A line ends at LF or CRLF and nowhere else: U+2028, form feeds and the like stand within texts. Columns that nobody asks
for may hold anything, have no name or share one.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refbert.errors import InputError
from refbert.files import reading as files
from refbert.files.json import TWICE, parse_json
from refbert.text.batching import Text

FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}


@dataclass(frozen=True)
class Columns:
    """Which columns hold what. ``pair``: the second text. ``choices``: the answers to choose from (JSON: one list)."""

    text: str = "text"
    pair: str | None = None
    label: str = "label"
    choices: tuple[str, ...] = ("choices",)


@dataclass(frozen=True)
class Row:
    """One row by column name (`TWICE` where two columns share it), and the line of the file that it ends on.

    ``option``: the command's, which a message names where there is no such column.
    """

    path: str | Path
    line: int
    values: Mapping[str, Any]

    @property
    def where(self) -> str:
        """What a message begins with."""
        return f"{self.path}, line {self.line}"

    def value(self, column: str, option: str) -> Any:
        """Return what stands in a column; raises `InputError` if there is none or two of that name."""
        if column not in self.values:
            has = ", ".join(map(str, self.values))
            raise InputError(f'{self.where}: no column "{column}" (there are: {has}); name it with {option}')
        if self.values[column] is TWICE:
            raise InputError(f'{self.where}: two columns are called "{column}"; rename one')
        return self.values[column]

    def text(self, column: str, option: str) -> str:
        """Return a column's text; raises `InputError` for another value, and for a blank one."""
        value = self.value(column, option)
        if not isinstance(value, str):
            raise InputError(f'{self.where}: "{column}" must be a text, not {json.dumps(value)}')
        if not value.strip():
            raise InputError(f'{self.where}: "{column}" is empty')
        require_unicode(value, f'{self.where}: "{column}"')
        return value


@dataclass(frozen=True)
class LabelledText:
    """A text or a pair, and its label: by task a class's name, the names of any number of classes, or a number."""

    text: Text
    label: Any
    line: int


@dataclass(frozen=True)
class Choice:
    """A text, the answers to choose from, and the right one's place (from 0)."""

    text: str
    choices: tuple[str, ...]
    label: int
    line: int


def read_text(path: str | Path) -> str:
    """Read a UTF-8 file, without a byte order mark; raises `InputError` if it is missing, empty or not UTF-8."""
    text = files.read_text(path)
    if not text.strip():
        raise InputError(f"{path}: empty")
    return text


def lines_of(text: str) -> list[str]:
    """Split text into lines, which end at LF or CRLF alone; `str.splitlines` knows eight more ends."""
    return [line.removesuffix("\r") for line in text.split("\n")]


def read_table(path: str | Path, format: str | None = None) -> list[Row]:
    """Read all rows; ``format`` (default: by the name's ending) is csv, tsv or jsonl. Raises `InputError`."""
    path = Path(path)
    chosen = format or FORMATS.get(path.suffix.lower())
    if chosen is None:
        raise InputError(f"{path}: the ending says nothing of the format; name it with --format (csv, tsv or jsonl)")
    text = read_text(path)
    rows = _json_lines(path, text) if chosen == "jsonl" else _separated(path, text, chosen)
    if not rows:
        raise InputError(f"{path}: no rows")
    return rows


def _json_lines(path: Path, text: str) -> list[Row]:
    rows = []
    for number, line in enumerate(lines_of(text), start=1):
        if not line.strip():
            continue
        values = parse_json(line, f"{path}, line {number}", strict=False)
        if not isinstance(values, dict):
            raise InputError(f"{path}, line {number}: a JSON object is expected")
        rows.append(Row(path, number, values))
    return rows


def _tsv(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(lines_of(text), start=1):
        if line:
            yield number, line.split("\t")


def _csv(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(2**31 - 1)  # the module's own is 128 KB: less than a chapter
    reader = csv.reader(io.StringIO(text, newline="\n"), strict=True)
    try:
        for fields in reader:
            if fields:
                yield reader.line_num, fields
    except csv.Error as error:
        why = "a carriage return outside quotation marks" if "new-line" in str(error) else error
        raise InputError(f"{path}, line {reader.line_num}: not CSV ({why})") from None


def _separated(path: Path, text: str, format: str) -> list[Row]:
    lines = (_tsv if format == "tsv" else _csv)(path, text)
    _, header = next(lines)
    twice = {name: TWICE for name in header if header.count(name) > 1}
    rows: list[Row] = []
    for number, fields in lines:
        if len(fields) != len(header):
            raise InputError(f"{path}, line {number}: {len(fields)} fields, the header has {len(header)}")
        rows.append(Row(path, number, dict(zip(header, fields, strict=True)) | twice))
    return rows


def read_labelled(
    path: str | Path, columns: Columns, *, numbers: bool = False, several: bool = False, format: str | None = None
) -> list[LabelledText]:
    """Read texts with classes, or with ``numbers``; raises `InputError`, with the line, for what cannot be used.

    ``several`` classes a text are a list; in a table its JSON, or names with commas between them (no name: none).
    """
    out = []
    read_label: Callable[[Any, str], Any] = _number if numbers else _classes if several else _label
    for row in read_table(path, format):
        first = row.text(columns.text, "--text-column")
        text: Text = first if columns.pair is None else (first, row.text(columns.pair, "--pair-column"))
        label = read_label(row.value(columns.label, "--label-column"), row.where)
        out.append(LabelledText(text, label, row.line))
    return out


def read_choices(path: str | Path, columns: Columns, *, format: str | None = None) -> list[Choice]:
    """Read texts with answers to choose from; every row must have the same number of them. Raises `InputError`."""
    out: list[Choice] = []
    for row in read_table(path, format):
        where = row.where
        text = row.text(columns.text, "--text-column")
        if len(columns.choices) == 1:
            listed = row.value(columns.choices[0], "--choice-columns")
            if not isinstance(listed, list) or not all(isinstance(c, str) and c.strip() for c in listed):
                raise InputError(f'{where}: "{columns.choices[0]}" must be a list of texts (where they are in columns: '
                                 "--choice-columns a,b,c)")  # fmt: skip
            for choice in listed:
                require_unicode(choice, f"{where}: a choice")
            choices = tuple(listed)
        else:
            choices = tuple(row.text(name, "--choice-columns") for name in columns.choices)
        if len(choices) < 2:
            raise InputError(f"{where}: {len(choices)} choice; there must be two or more")
        if out and len(choices) != len(out[0].choices):
            raise InputError(f"{where}: {len(choices)} choices, the first row has {len(out[0].choices)}")
        value = row.value(columns.label, "--label-column")
        try:
            label = int(value) if isinstance(value, str | int) and not isinstance(value, bool) else -1
        except ValueError:
            label = -1
        if not 0 <= label < len(choices):
            raise InputError(f"{where}: label {value!r}: it must be a whole number from 0 to {len(choices) - 1}")
        out.append(Choice(text, choices, label, row.line))
    return out


def _label(value: Any, where: str) -> str:
    """A class's name. What says that there is none, or several, is no name, however the file's format spells it."""
    label = value.strip() if isinstance(value, str) else value
    if label is None or label == "" or (isinstance(label, str) and label.lower() in ("nan", "null")):
        raise InputError(f"{where}: no label ({files.shown(value)}); remove the row, or name a class")
    if isinstance(label, float) and not math.isfinite(label):
        raise InputError(f"{where}: the label {label} is not a class")
    if isinstance(label, list | dict) or (isinstance(label, str) and _is_list(label)):
        raise InputError(f"{where}: the label {files.shown(value)} is several values; one class is expected")
    if isinstance(label, str):
        require_unicode(label, f"{where}: the label")
        return label
    return json.dumps(label)


def _classes(value: Any, where: str) -> tuple[str, ...]:
    """The names of any number of classes, each once."""
    if isinstance(value, str):
        text = value.strip()
        value = parse_json(text, where, strict=False) if text[:1] == "[" else text.split(",") if text else []
    if not isinstance(value, list):
        value = [value]
    return tuple(dict.fromkeys(_label(one, where) for one in value))


def _is_list(text: str) -> bool:
    """Whether a text is a list or an object, as JSON or Python writes it: what a table makes of one."""
    if text[0] + text[-1] not in ("[]", "{}", "()"):
        return False
    try:
        return isinstance(ast.literal_eval(text), list | dict | set | tuple)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False


def require_unicode(text: str, what: str) -> None:
    """Raise `InputError` for half of a surrogate pair, which JSON can spell and no file holds."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{what} is not Unicode text: it has half a surrogate pair") from None


def _number(value: Any, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise InputError(f"{where}: label {value!r} is not a number")
    return number
