"""The folders whose helpers these tests share."""

from __future__ import annotations

import sys
from pathlib import Path

for folder in (Path(__file__).parent.parent, Path(__file__).parent.parent / "oracle"):
    sys.path.insert(0, str(folder))
