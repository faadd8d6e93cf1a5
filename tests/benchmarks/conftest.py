"""The benchmarks are no package that is installed: their folder goes on the path, as when the command runs."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "benchmarks"))
