"""The mutants that compute the same, with the reasons: equivalent.txt.

    FILE: WHERE          the place, as in `Mutant.key`
    - STATEMENT          what is there
    + STATEMENT          what the mutant has instead
    = reason             of all pairs since the reason before

So a row is found again where lines have moved, and lost where the statement is another: then it has to be looked at.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

Key = tuple[str, str, str, str]

FILE = Path(__file__).with_name("equivalent.txt")


def read(path: Path = FILE) -> dict[Key, str]:
    """The mutants' keys, each with its reason; raises ValueError for a line that is not as described above."""
    found: dict[Key, str] = {}
    place, was, waiting = "", "", list[Key]()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        mark, rest = line[:2], line[2:]
        if not line or line.startswith("#"):
            continue
        if mark == "- ":
            was = rest
        elif mark == "+ " and place and was:
            file, _, where = place.partition(":")
            waiting.append((file, where.strip(), was, rest))
        elif mark == "= " and waiting:
            found |= dict.fromkeys(waiting, rest)
            waiting = []
        elif ".py:" in line:
            place, was = line, ""
        else:
            raise ValueError(f"{path.name}:{number}: {line!r}")
    if waiting:
        raise ValueError(f"{path.name}: no reason for {waiting[0]}")
    return found


@cache
def reasons() -> dict[Key, str]:
    """Those of the suite."""
    return read()
