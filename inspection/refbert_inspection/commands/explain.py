"""``refbert explain``: an op or block in full: equation, gradient, code, place in BERT, and an example in numbers."""

from __future__ import annotations

import shutil
import sys

import click

from refbert.cli.options import json_option
from refbert.cli.output import print_json
from refbert.cli.tables import columns
from refbert.cli.terminal import console
from refbert.errors import InputError


@click.command()
@click.argument("name", required=False)
@json_option("a page")
@click.option("--markdown", "as_markdown", is_flag=True, help="The page as the documentation has it.")
@click.option(
    "--width", type=click.IntRange(60, 10_000), help="Columns; default: the terminal's, 100 where there is none."
)
def explain(name: str | None, as_json: bool, as_markdown: bool, width: int | None) -> int:
    """Explain an op or a block of BERT; without NAME: list them all.

    Exit status: 0 done, 1 an example's gradient is not what finite differences say, 2 unknown name.
    """
    from refbert_inspection.explain import as_data, entries, find, markdown
    from refbert_inspection.explain.examples import worked
    from refbert_inspection.explain.terminal import listing, page

    if as_json and as_markdown:
        raise click.UsageError("--json and --markdown exclude each other")
    if name is None:
        if as_markdown:
            raise InputError("--markdown needs the name of an op or block; `refbert explain` lists them")
        if as_json:
            print_json([{"name": e.name, "kind": e.kind, "summary": e.summary} for e in entries()])
        else:
            # Whole lines into a pipe, where someone may look for a word.
            click.echo(listing(width or columns()), nl=False)
        return 0
    entry = find(name)
    examples = list(worked(entry))
    if as_json:
        print_json(as_data(entry.name, examples))
    elif as_markdown:
        click.echo(markdown(entry.name, examples), nl=False)
    else:
        _show(page(entry, examples, width or max(60, shutil.get_terminal_size((100, 24)).columns)))
    return 0 if all(one.holds for one in examples) else 1


def _show(text: str) -> None:
    """In colour on a terminal: headings bold; plain text otherwise."""
    if not sys.stdout.isatty():
        click.echo(text, nl=False)
        return
    from rich.text import Text

    out = console(highlight=False, soft_wrap=True)
    for line in text.rstrip("\n").split("\n"):
        heading = bool(line) and not line.startswith(" ")
        out.print(Text(line, style="bold" if heading else ""))
