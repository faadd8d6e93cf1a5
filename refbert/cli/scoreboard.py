"""``refbert scoreboard``: several conformance reports on one page."""

from __future__ import annotations

from pathlib import Path

import click

from refbert.cli.output import write_text


@click.command()
@click.argument("reports", nargs=-1, required=True, metavar="REPORT.json …", type=click.Path(path_type=Path))
@click.option("--html", "target", required=True, type=click.Path(dir_okay=False, path_type=Path), metavar="FILE")
@click.option(
    "--before", multiple=True, type=click.Path(path_type=Path), metavar="REPORT.json", help="Earlier reports."
)
def scoreboard(reports: tuple[Path, ...], target: Path, before: tuple[Path, ...]) -> None:
    """Backends side by side, from the files that `refbert conform --json` wrote."""
    from refbert_conformance.scoreboard import page, read

    write_text(target, page([read(path) for path in reports], earlier=[read(path) for path in before]))
