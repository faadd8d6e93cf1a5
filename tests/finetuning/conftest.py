"""The helpers beside these tests and those of the oracles."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
for folder in (HERE, HERE.parent, HERE.parent / "oracle"):
    sys.path.insert(0, str(folder))
