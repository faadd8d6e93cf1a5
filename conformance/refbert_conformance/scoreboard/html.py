"""Elements, and text that is escaped unless it is HTML already."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape


class Html(str):
    """Text that is HTML already. Every other text is escaped on its way into the page."""

    __slots__ = ()


_VOID = frozenset({"meta", "link", "input", "br"})
# What HTML or UTF-8 cannot hold, and what would reverse the text around it.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def escaped(value: object) -> Html:
    """HTML as it is, anything else as its text."""
    return value if isinstance(value, Html) else Html(escape(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(value))))


def join(parts: Iterable[object], between: str = "") -> Html:
    """The parts in a row, without those that are None."""
    return Html(escaped(between).join(escaped(part) for part in parts if part is not None))


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """One element: ``class_`` is class, ``aria_label`` is aria-label; what is None is left out."""
    words = (
        f' {key.rstrip("_").replace("_", "-")}="{escaped(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    opening = f"<{name}{''.join(words)}>"
    return Html(opening if name in _VOID else f"{opening}{join(children)}</{name}>")


def soft(*children: object) -> Html:
    """Said less loudly."""
    return tag("span", *children, class_="soft")


def table_of(head: Sequence[object], body: Iterable[Html], label: str, class_: str | None = None) -> Html:
    """A table that scrolls by itself where the screen is narrow. body: its <tbody> elements."""
    columns = (
        cell if isinstance(cell, Html) and cell.startswith("<th") else tag("th", cell, scope="col") for cell in head
    )
    caption = tag("caption", label, class_="unseen")
    table = tag("table", caption, tag("thead", tag("tr", *columns)), *body)
    # Focusable, so that it can be scrolled with the keyboard.
    return tag("div", table, class_=f"scroll {class_ or ''}".strip(), tabindex="0", role="region", aria_label=label)
