"""``refbert audit``: what the papers and the code say of BERT, checked by running it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from refbert.cli.options import file_option, json_option
from refbert.cli.output import print_json, progress, require_writable, write_text
from refbert.cli.tables import Heading, Table, print_table, say
from refbert.config import BertConfig
from refbert.errors import InputError
from refbert.files.reading import is_directory, is_file

if TYPE_CHECKING:
    from rich.text import Text

    from refbert_audit import Claim, Outcome

# How a verdict looks on a terminal.
STYLES = {
    "agrees": "green", "deviates": "yellow", "wrong": "red", "needs weights/data": "dim", "unavailable": "dim",
    "error": "bold red",
}  # fmt: skip


@click.command()
@click.argument("claims", nargs=-1, metavar="[ID | GROUP] …")
@json_option("tables")
@file_option("--html", "html_file", help="Everything as one HTML page, too.")
@click.option("--model", type=click.Path(path_type=str), metavar="DIR", help="A checkpoint, for what weights decide.")
@click.option("--list", "listing", is_flag=True, help="Only list the claims and the verdicts on record.")
@file_option("--write-docs", "docs_file", help="Only write the table of claims into a page of the documentation.")
def audit(
    claims: tuple[str, ...], as_json: bool, html_file: Path | None, model: str | None, listing: bool,
    docs_file: Path | None,
) -> int:  # fmt: skip
    """Check what the BERT paper, Vaswani et al., Google's code and others say, by running refbert.

    Without arguments: all claims. An ID such as bert.params.large shows one claim in full, with its code; a GROUP such
    as bert. or bert.masking. several.

    Exit status: 0 every verdict is the one on record, 1 some is not, 2 bad usage, or some claim is unavailable: it is
    about Hugging Face's code, and transformers or PyTorch is not installed here.
    """
    from refbert_audit import run, select

    if docs_file is not None:
        from refbert_audit.documentation import write

        click.echo(f"{docs_file}: {write(docs_file)} claims")
        return 0
    chosen = select(claims)
    if listing:
        for one in chosen:
            say(f"{one.id:36} {one.expects + _mark(one):19} {one.says}")
        return 0
    require_writable(html_file)
    if model is not None:
        if not is_directory(model):
            raise InputError(f"{model}: no such directory")
        # What is no checkpoint is the caller's mistake, no claim's outcome; but one claim reads the vocabulary alone.
        if not any(is_file(Path(model, name)) for name in ("tokenizer.json", "vocab.txt")):
            BertConfig.from_directory(model)
    started = time.perf_counter()
    with progress("auditing", len(chosen)) as advance:
        outcomes = run(chosen, model=model, progress=advance)
    seconds = time.perf_counter() - started
    if html_file is not None:
        from refbert_audit.pages import page

        write_text(html_file, page(outcomes))
    if as_json:
        from refbert_audit.outcomes import as_data

        print_json(as_data(outcomes, model=model))
    elif len(claims) == 1 and len(outcomes) == 1 and outcomes[0].claim.id == claims[0]:
        _show_one(outcomes[0])
    else:
        _show_all(outcomes, seconds)
    lacking = [outcome.lacking for outcome in outcomes if outcome.lacking]
    for what in dict.fromkeys(lacking):
        click.echo(f"refbert: {lacking.count(what)} of {len(outcomes)} claims unavailable: needs {what}", err=True)
    if any(outcome.changed for outcome in outcomes):
        return 1
    return 2 if lacking else 0


def _mark(one: Claim) -> str:
    """What tells a claim that no document makes in so many words."""
    return "*" if one.inferred else ""


def _show_all(outcomes: Sequence[Outcome], seconds: float) -> None:
    from refbert_audit import counts
    from refbert_audit.formatting import INFERRED, parts, summary
    from refbert_audit.outcomes import by_kind
    from refbert_inspection import hugging_face

    for document, here in groupby(outcomes, key=lambda outcome: outcome.claim.document):
        rows = [(o.claim.id, _word(o), o.claim.where, summary(o)) for o in here]
        columns: tuple[Heading, ...] = ("claim", "id"), ("verdict", "id"), ("where", "aside"), "measured"
        print_table(Table(document, *columns, bold=True, rows=rows))
    for o in outcomes:
        if o.changed:
            say(f"NOT AS RECORDED  {o.claim.id}: {o.verdict}, on record: {o.claim.expects}; {summary(o)}")
    say(f"{len(outcomes)} claims in {seconds:.1f} s; Hugging Face's code is {hugging_face.release()}")
    for kind, numbers in by_kind(outcomes).items():
        say(f"{kind:8}{parts(numbers)}")
    inferred = sum(outcome.claim.inferred for outcome in outcomes)
    if inferred:
        say(f"* {inferred} are inferred: {INFERRED}")
    changed = counts(outcomes)["not as recorded"]
    which = "every other verdict" if any(outcome.lacking for outcome in outcomes) else "every verdict"
    say(f"{which} is the one on record" if not changed else f"{changed} not as recorded")


def _word(outcome: Outcome) -> Text:
    """The verdict, short enough for a column of a table."""
    from rich.text import Text

    short = {"needs weights/data": "needs data"}.get(outcome.verdict, outcome.verdict)
    if outcome.changed:
        return Text(f"{short} ≠", "bold reverse red")
    return Text(short + _mark(outcome.claim), STYLES[outcome.verdict])


def _show_one(outcome: Outcome) -> None:
    from refbert_audit.formatting import INFERRED, show_claimed, show_expected, show_measured

    one, found = outcome.claim, outcome.finding
    say(one.id)
    say(f"{one.document}, {one.where}")
    for url in dict.fromkeys(url for _, url in one.links if url):
        click.echo(f"source: {url}")
    click.echo()
    say(f"    {one.says}")
    click.echo()
    if one.inferred:
        say(f"inferred: {INFERRED}")
    record = "as on record" if outcome.ok else f"on record is {one.expects}"
    click.echo(f"verdict: {outcome.verdict} ({'NOT AS RECORDED: ' if outcome.changed else ''}{record})")
    if outcome.lacking:
        click.echo(f"needs {outcome.lacking}")
    if outcome.error:
        click.echo(f"error: {outcome.error}")
    if found is not None and found.missing:
        click.echo(f"missing: {found.missing}")
    if found is not None and found.values:
        says = ["the document says"] if any(show_claimed(v) for v in found.values) else []
        table = Table(None, "value", "measured", "on record", *says, "run by")
        for v in found.values:
            claimed = [show_claimed(v)] if says else []
            style = "" if v.holds else "bold red"
            table.add_row(v.name, show_measured(v), show_expected(v), *claimed, v.by, style=style)
        print_table(table)
    for party, does in one.who.items():
        say(f"    {party}: {does}")
    for paragraph in ("", *one.about.split("\n\n")):
        say(" ".join(paragraph.split()))
    click.echo(f"\n{one.file}:\n\n{one.code.rstrip()}")
