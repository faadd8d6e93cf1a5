"""A page for the documentation (Markdown with TeX between $$), and the same as data."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any

from refbert.files.json import jsonable
from refbert_inspection.explain.appearances import appearances
from refbert_inspection.explain.catalogue import Entry, find
from refbert_inspection.explain.documents import Section
from refbert_inspection.explain.examples import worked
from refbert_inspection.explain.layout import Line, is_sentence, logical
from refbert_inspection.explain.sources import code
from refbert_inspection.explain.terminal import CALLED_BY_NOTHING, FOUND_BY, calls, example_text, made_of
from refbert_inspection.explain.tex import aligned, is_formula
from refbert_inspection.explain.worked_examples import Worked

FORMAT = "refbert-explain/1"
_EXAMPLE_WIDTH = 88  # what a code block of a page shows without scrolling


def markdown(name: str, examples: Sequence[Worked] | None = None) -> str:
    """The page of an op or block; raises `InputError`, with near names, for one that there is not.

    ``examples``: those of `refbert_inspection.explain.examples.worked`, where they are worked through already.
    """
    entry = find(name)
    return "\n\n".join(_blocks(entry, list(worked(entry)) if examples is None else examples)) + "\n"


def _blocks(entry: Entry, examples: Sequence[Worked]) -> Iterator[str]:
    yield f"# `{entry.name}`"
    yield _escaped(entry.summary)
    yield f"`{entry.file}`: `{entry.signature}`"
    yield _escaped(entry.says)
    for section in entry.sections:
        yield f"## {_escaped(section.title or 'Note')}"
        yield from _section(section)
    yield "## Code"
    for part in code(entry):
        yield f"```python\n{part.forward}\n```"
        if part.pullback:
            yield "Its pullback:"
            yield f"```python\n{part.pullback}\n```"
    yield "## Where in BERT"
    rows = [f"| {_path(one.path)} | {calls(one)} |" for one in appearances(entry)]
    if rows:
        yield "\n".join(["| called by | calls |", "| --- | --- |", *rows])
        yield FOUND_BY
    else:
        yield CALLED_BY_NOTHING
    parts = ", ".join(f"[`{name}`]({name}.md) ({count})" for name, count in made_of(entry))
    if parts:
        yield f"Made of {parts}."
    for i, example in enumerate(examples, 1):
        yield f"## Example {i}" if len(examples) > 1 else "## Example"
        if example.note:
            yield _escaped(example.note)
        yield f"```text\n{example_text(example, _EXAMPLE_WIDTH)}\n```"


def _path(path: tuple[str, ...]) -> str:
    return " › ".join(f"[`{name}`]({name}.md)" if "." not in name else f"`{name}`" for name in path)


def is_typeset(section: Section, line: Line) -> bool:
    """Whether the line is mathematics, not words."""
    mathematics = section.kind in ("equation", "gradient")
    return mathematics and not line.prose and not is_sentence(line.text) and is_formula(line.text)


def _section(section: Section) -> Iterator[str]:
    for paragraph in logical(section.text):
        for typeset, lines in groupby(paragraph, partial(is_typeset, section)):
            texts = [line.text for line in lines]
            yield aligned(texts) if typeset else "\\\n".join(map(_escaped, texts))


def _escaped(text: str) -> str:
    """Text in which nothing is meant as Markdown but what is between backquotes."""
    return re.sub(r"(`+[^`]*`+)|([\\*_\[\]<>|$#~])", lambda m: m[1] or f"\\{m[2]}", text)


def as_data(name: str, examples: Sequence[Worked] | None = None) -> dict[str, Any]:
    """The page as plain data for JSON (docs/command-line.md describes it)."""
    entry = find(name)
    return {
        "format": FORMAT,
        **{name: getattr(entry, name) for name in ("name", "kind", "summary", "file", "signature", "says")},
        "sections": [dict(vars(s)) for s in entry.sections],
        "code": [{"name": c.name, "forward": c.forward, "pullback": c.pullback or None} for c in code(entry)],
        "appears": [
            {"path": list(a.path), "forward": a.forward, "backward": a.backward, "only": a.only or None}
            for a in appearances(entry)
        ],
        "made_of": [name for name, _ in made_of(entry)],
        "examples": [_example(one) for one in (worked(entry) if examples is None else examples)],
    }


def _example(one: Worked) -> Any:
    gradients = [
        {
            "name": g.name, "value": g.value, "by_differences": g.differences, "apart": g.apart, "allowed": g.allowed,
            "agrees": g.holds,
        }
        for g in one.gradients
    ]  # fmt: skip
    return jsonable({**vars(one), "gradients": gradients}, other=str)
