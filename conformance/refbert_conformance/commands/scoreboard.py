"""``refbert scoreboard``: several conformance reports on one page."""

from __future__ import annotations

from pathlib import Path

import click

from refbert.cli.options import file_option
from refbert.cli.output import write_text
from refbert.errors import InputError


@click.command()
@click.argument("reports", nargs=-1, required=True, metavar="REPORT.json …", type=click.Path(path_type=Path))
@file_option("--html", "target", required=True, help="The page.")
@click.option(
    "--before", multiple=True, type=click.Path(path_type=Path), metavar="REPORT.json",
    help="An earlier report, for the trend; may be given several times.",
)  # fmt: skip
def scoreboard(reports: tuple[Path, ...], target: Path, before: tuple[Path, ...]) -> None:
    """Backends side by side, from the files that `refbert conform --json` wrote.

    An earlier report belongs to the backend with the same name, dtype and device; with several, the newest counts.
    """
    from refbert_conformance.scoreboard import page, read_all

    if target.resolve() in {path.resolve() for path in (*reports, *before)}:
        raise InputError(f"{target}: is one of the reports; name another file for the page")
    shown, earlier = ([one for path in paths for one in read_all(path)] for paths in (reports, before))
    write_text(target, page(shown, earlier=earlier))
