"""A module read with an error in it: nothing on the disk changes, and no other process sees it.

Only what is not imported yet can be changed, so this imports nothing of refbert.
"""

from __future__ import annotations

from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any


def plant(path: str | Path, source: str) -> None:
    """From now on Python reads the module at ``path`` as ``source``."""
    read_code = SourceFileLoader.get_code
    place = Path(path).resolve()

    def get_code(self: SourceFileLoader, fullname: str) -> Any:
        if Path(self.get_filename(fullname)).resolve() == place:
            return compile(source, str(place), "exec", dont_inherit=True)
        return read_code(self, fullname)

    SourceFileLoader.get_code = get_code  # type: ignore[method-assign, assignment]
