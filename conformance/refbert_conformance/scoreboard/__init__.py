"""The scoreboard: one or several reports as one self-contained HTML page.

No script, no font, no picture and no request: a style sheet (scoreboard.css) and inline SVG. Names, messages and cases
come from third parties; `html.Html` keeps them apart from what is HTML already, so that no text reaches the page
unescaped.
"""

from refbert_conformance.scoreboard.page import page
from refbert_conformance.scoreboard.reading import read, read_all

__all__ = ["page", "read", "read_all"]
