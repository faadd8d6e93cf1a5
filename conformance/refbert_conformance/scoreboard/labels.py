"""How the page names things wherever they appear: a run, a property, an outcome, a ρ."""

from __future__ import annotations

from urllib.parse import quote

from refbert_conformance.scoreboard.html import Html, join, soft, tag
from refbert_conformance.scoreboard.numbers import show
from refbert_conformance.scoreboard.pictures import mark, sign
from refbert_conformance.scoreboard.runs import Line, Run


def named(line: Line) -> Html:
    """A property's id with its op in bold, without the level."""
    rest = line.id.removeprefix(f"{line.level}/").removeprefix(line.op).lstrip("/")
    return join([tag("b", line.op), tag("span", "/", class_="slash"), rest] if rest else [tag("b", line.op)])


def link_to(line: Line) -> Html:
    """A property's id as a link to its row."""
    return tag("a", line.id, href=f"#{quote(line.slug)}", class_="id")


def who(run: Run) -> Html:
    """A run's mark, name and kind."""
    return tag("span", mark(run), " ", tag("b", run.name), " ", soft(run.kind), class_="who")


def heading(run: Run) -> Html:
    """The head of a run's column."""
    return tag("th", who(run), scope="col")


def outcome(state: str, words: object = None) -> Html:
    """An outcome's sign and its word, or other words."""
    return tag("span", sign(state), " ", words or state, class_=f"outcome {state}")


def rho_text(value: float) -> Html:
    """ρ, marked where it is above 1."""
    return tag("span", show(value), class_=None if value <= 1 else "over")
