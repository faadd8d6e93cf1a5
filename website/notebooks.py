"""A notebook in the percent format as a page."""

from __future__ import annotations

import re


def to_markdown(source: str) -> str:
    """``# %% [markdown]`` cells become text, the others Python blocks; the first cell's heading is the page's."""
    out: list[str] = []
    for kind, cell in _cells(source):
        if kind == "markdown":
            out.append("\n".join(re.sub(r"^# ?", "", line) for line in cell.splitlines()))
        elif cell.strip():
            out.append(f"```python\n{cell.strip()}\n```")
    return "\n\n".join(part.strip() for part in out if part.strip()) + "\n"


def _cells(source: str) -> list[tuple[str, str]]:
    parts = re.split(r"^# %%(.*)$", source, flags=re.MULTILINE)
    # What comes before the first cell (a licence, an encoding) belongs to none.
    return [
        ("markdown" if "[markdown]" in marker else "code", cell)
        for marker, cell in zip(parts[1::2], parts[2::2], strict=True)
    ]
