"""Percent-format Python files to Jupyter notebooks: ``python convert.py FILE.py …`` writes FILE.ipynb beside each.

Exit status 2, and one line, where there is nothing to convert.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any


def cells(text: str) -> list[tuple[str, str]]:
    """("markdown" or "code", its source) for each cell; what stands before the first (the docstring) is left out."""
    found = []
    for part in re.split(r"^# %%", text, flags=re.MULTILINE)[1:]:
        kind, _, body = part.partition("\n")
        if kind.strip() == "[markdown]":
            lines = (line.removeprefix("#").removeprefix(" ") for line in body.strip().split("\n"))
            found.append(("markdown", "\n".join(lines)))
        else:
            found.append(("code", body.strip()))
    return found


def notebook(text: str) -> dict[str, Any]:
    """The same as a notebook of format 4.5."""
    made: list[dict[str, Any]] = []
    for number, (kind, source) in enumerate(cells(text)):
        cell: dict[str, Any] = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": source}
        if kind == "code":
            cell |= {"execution_count": None, "outputs": []}
        made.append(cell)
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return {"cells": made, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}


def markdown(text: str) -> str:
    """The same as a page: text, and Python blocks."""
    parts = (body if kind == "markdown" else f"```python\n{body}\n```" for kind, body in cells(text) if body)
    return "\n\n".join(parts) + "\n"


def main(names: list[str]) -> int:
    """For the command line."""
    if not names:
        print("convert.py: name at least one FILE.py", file=sys.stderr)
        return 2
    for name in names:
        target = Path(name).with_suffix(".ipynb")
        try:
            made = notebook(Path(name).read_text(encoding="utf-8"))
            if not made["cells"]:
                raise ValueError("no cell in it (a cell begins with # %%)")
            target.write_text(json.dumps(made, indent=1), encoding="utf-8")
        except OSError as error:
            print(f"convert.py: {error.filename}: {error.strerror}", file=sys.stderr)
            return 2
        except ValueError as error:
            said = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error
            print(f"convert.py: {name}: {said}", file=sys.stderr)
            return 2
        print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
