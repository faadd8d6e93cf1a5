"""The recipes' scripts import each other by name from their own folders."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2] / "recipes" / name) for name in ("small-english", "small-chinese")]
