"""Print tables at any width: names shorten first, columns set aside go next, and figures are never cut.

Where the figures of a row have no room side by side even so, each row is a record: its first cell, and below it every
figure behind its heading.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from refbert.cli.terminal import console, visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import ProgressColumn
    from rich.text import Text

    Cell = str | Text

# figure, id: never cut (right, left).   name: dotted, shortened in its middle.   text: folded.   aside: left out first.
Kind = Literal["figure", "id", "name", "text", "aside"]
Heading = str | tuple[str, Kind]

NOTHING = "·"  # a count of 0, in a table that is easier to read without zeros
_GAP = 2
_PIPE = 160  # columns of a file or a pipe, where only text is folded
_SHORT_NAME = 28  # names get at least this, or what they are when they have lost all that they may
# Text is folded into no less than this: beside a column that might go, and when there is none left.
_ROOMY, _NARROW = 24, 12
_WIDEST_ASIDE = 28
_BAR = 41  # columns of a moving bar and the gap behind it


@dataclass(frozen=True)
class Column:
    """One column: its heading, and what may be done to it where room is short."""

    heading: str
    kind: Kind


class Table:
    """A title, columns (headings of text, or headings with their kinds) and rows; ``bold``: the title's style."""

    def __init__(
        self, title: str | None = None, *columns: Heading, bold: bool = False, rows: Iterable[Sequence[Cell]] = ()
    ) -> None:
        self.title, self.bold = title, bold
        self.columns: list[Column] = []
        self.rows: list[tuple[tuple[Cell, ...], str]] = []
        for column in columns:
            self.add_column(*((column,) if isinstance(column, str) else column))
        for row in rows:
            self.add_row(*row)

    def add_column(self, heading: str, kind: Kind = "text") -> None:
        """Add a column."""
        self.columns.append(Column(visible(heading), kind))

    def add_row(self, *cells: Cell, style: str = "") -> None:
        """Add a row, with a cell for every column."""
        if len(cells) != len(self.columns):
            raise ValueError(f"{len(cells)} cells for {len(self.columns)} columns")
        self.rows.append((tuple(visible(cell) if isinstance(cell, str) else cell for cell in cells), style))

    def cells(self, j: int) -> list[str]:
        """Return the texts of a column."""
        return [str(row[j]) for row, _ in self.rows]


def columns() -> int | None:
    """Return the terminal's width (or COLUMNS); None for a file or a pipe."""
    if os.environ.get("COLUMNS", "").isdigit() or sys.stdout.isatty():
        from rich.console import Console

        return Console().width or None
    return None


def print_table(table: Table) -> None:
    """Print a table on stdout: in colour on a terminal, plain text otherwise.

    Cells, titles and headings are shown as they are: what stands in brackets is no markup, and :cat: no picture.
    """
    from rich.text import Text

    room = columns()
    widths = fitted(table, room)
    wide = room or max(_PIPE, _total(widths or {}), _width(table.title or ""))
    out = console(width=wide, highlight=False, markup=False, emoji=False)
    if table.title:
        out.print(Text(visible(table.title), "bold" if table.bold else "italic", overflow="fold"))
    if widths is None:
        _print_records(table, out)
    else:
        _print_columns(table, widths, out)
    out.print()


def say(line: str) -> None:
    """Print a line on stdout, folded between words on a terminal; a word that is longer stays whole."""
    room = columns()
    print("\n".join(_folded(line, room)) if room else line)


def _folded(line: str, room: int) -> list[str]:
    """Lines of whole words, by the columns that a terminal gives them, which are two for 漢."""
    deeper = " " * (4 + len(line) - len(line.lstrip()))
    lines: list[str] = []
    for word in re.findall(r"\s*\S+", re.sub(r"[\t\n]", " ", line)):
        if lines and _width(lines[-1] + word) <= room:
            lines[-1] += word
        else:
            lines.append(deeper + word.lstrip() if lines else word)
    return lines or [""]


def bar_columns(console: Console, text: str, room: int) -> list[ProgressColumn]:
    """Columns of a moving bar: all figures in one text, which folds, and the bar where that has ``room`` beside it."""
    from rich.progress import BarColumn, TextColumn
    from rich.table import Column as Folding

    figures = TextColumn(text, markup=False, table_column=Folding(overflow="fold"))
    return [BarColumn(), figures] if console.width > room + _BAR else [figures]


def fitted(table: Table, room: int | None) -> dict[int, int] | None:
    """The columns to show and how wide each is; None where the figures alone are too wide."""
    every = range(len(table.columns))
    kept = [j for j in every if table.columns[j].kind != "aside"]
    full = [j for j in kept if j == 0 or any(cell not in ("", NOTHING) for cell in table.cells(j))]
    for shown, narrowest in ((every, _ROOMY), (kept, _NARROW), (full, _NARROW)):
        natural = {j: _natural(table, j) for j in shown}
        if room is None:
            texts = [j for j in shown if table.columns[j].kind == "text"]
            least = {j: min(natural[j], narrowest) if j in texts else natural[j] for j in shown}
            return _shared(table, least, natural, max(_PIPE, _total(least)) - _total(least))
        least = {j: _least(table, j, natural[j], narrowest) for j in shown}
        spare = room - _total(least)
        if spare >= 0:
            widths = _shared(table, least, natural, spare)
            if all(_distinct(table, j, width) for j, width in widths.items()):
                return widths
    return None


def _natural(table: Table, j: int) -> int:
    widest = max(map(_width, table.cells(j)), default=0)
    widest = max(widest, _width(table.columns[j].heading))
    return min(widest, _WIDEST_ASIDE) if table.columns[j].kind == "aside" else widest


def _least(table: Table, j: int, natural: int, narrowest: int) -> int:
    kind, heading = table.columns[j].kind, table.columns[j].heading
    word = max(map(_width, heading.split()), default=0)
    widest = max(map(_width, table.cells(j)), default=0)
    if kind == "name":
        widest = min(max((_width(_parts_left(name)[-1]) for name in table.cells(j)), default=0), _SHORT_NAME)
    elif kind == "text":
        widest = min(widest, narrowest)
    return max(natural if kind == "aside" else widest, word)


def _shared(table: Table, least: dict[int, int], natural: dict[int, int], spare: int) -> dict[int, int]:
    """What is left over goes to names, then to texts (the narrowest first), then to headings."""
    widths = dict(least)
    for kinds in (("name",), ("text",), ("figure", "id", "aside")):
        while spare:
            growing = [j for j in widths if table.columns[j].kind in kinds and widths[j] < natural[j]]
            if not growing:
                break
            widths[min(growing, key=widths.__getitem__)] += 1
            spare -= 1
    return widths


def _distinct(table: Table, j: int, width: int) -> bool:
    """Whether names that differ still do when they are shortened."""
    if table.columns[j].kind != "name":
        return True
    names = set(table.cells(j))
    return len({shortened(name, width) for name in names}) == len(names)


def shortened(name: str, width: int) -> str:
    """A dotted name within ``width``: parts go from its beginning, but never a number nor the last two.

    "bert.encoder.layer.0.attention.self.query" becomes "…layer.0.attention.self.query", then "…0..self.query".
    """
    tried = _parts_left(name)
    for short in tried:
        if _width(short) <= width:
            return short
    before, space, rest = tried[-1].rpartition(" ")
    while rest and _width(before + space + rest) > width - 1:
        rest = rest[1:]
    return f"{before}{space}…{rest.lstrip('….')}"


def _parts_left(name: str) -> list[str]:
    """The name, and what is left of it after each further part that goes; words before it ("gradient of") stay."""
    before, space, dotted = name.rpartition(" ")
    left: list[str | None] = list(dotted.split("."))
    found = [name]
    for k, part in enumerate(left[:-2]):
        if part is not None and not part.isdigit():
            left[k] = None
            found.append(before + space + _elided(left))
    return found


def _elided(parts: Sequence[str | None]) -> str:
    """What is gone in front is "…", and what is gone further in an empty part."""
    joined = re.sub(r"(…\.)+", "…", ".".join("…" if part is None else part for part in parts))
    return joined[0] + joined[1:].replace("…", ".")


def _total(widths: dict[int, int]) -> int:
    return sum(widths.values()) + _GAP * max(0, len(widths) - 1)


def _width(text: str) -> int:
    from rich.cells import cell_len

    return max(map(cell_len, text.split("\n")), default=0)


def _print_columns(table: Table, widths: dict[int, int], console: Console) -> None:
    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, _GAP - 1, 0, 0))
    for j, width in widths.items():
        column = table.columns[j]
        grid.add_column(
            column.heading, width=width, overflow="fold", justify="right" if column.kind == "figure" else "left"
        )
    for row, style in table.rows:
        cells = [row[j] for j in widths]
        for k, (j, width) in enumerate(widths.items()):
            if table.columns[j].kind == "name":
                cells[k] = Text(shortened(str(row[j]), width))
        grid.add_row(*cells, style=style)
    console.print(grid)


def _print_records(table: Table, console: Console) -> None:
    from rich.padding import Padding
    from rich.text import Text

    shortens = table.columns[0].kind == "name" and _distinct(table, 0, console.width)
    for row, style in table.rows:
        if str(row[0]):
            first = row[0] if isinstance(row[0], Text) else Text(row[0])
            if shortens:
                first = Text(shortened(str(first), console.width))
            console.print(Text.assemble(first, style="bold", overflow="fold"), style=style)
        line = Text()
        for column, cell in zip(table.columns[1:], row[1:], strict=True):
            if column.kind == "aside" or str(cell) in ("", NOTHING):
                continue
            item = Text.assemble((f"{column.heading} ".lstrip(), "dim"), cell)
            if line and line.cell_len + 3 + item.cell_len > console.width - 2:
                console.print(Padding(line, (0, 0, 0, 2)), style=style)
                line = Text()
            line = Text.assemble(line, "   ", item) if line else item
        if line:
            console.print(Padding(line, (0, 0, 0, 2)), style=style)
