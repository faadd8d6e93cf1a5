"""The scoreboard: one or several reports as one self-contained HTML page.

No script, no font, no picture and no request: a style sheet and inline SVG. Names, messages and cases come from third
parties; the templates escape them all.
"""

from refbert_conformance.scoreboard.page import page
from refbert_conformance.scoreboard.reading import read, read_all

__all__ = ["page", "read", "read_all"]
