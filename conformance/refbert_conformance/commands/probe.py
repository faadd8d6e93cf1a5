"""``refbert probe``: a backend's numerical datasheet."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from refbert.cli.options import backend_option, device_option, file_option
from refbert.cli.output import require_writable, working, write_text
from refbert.cli.tables import Table, print_table, say
from refbert_conformance.commands.conform import require_hypothesis

if TYPE_CHECKING:
    from refbert_conformance.probe.datasheet import Datasheet
    from refbert_conformance.process.supervisor import Limits


@click.command()
@backend_option
@click.option("--dtype", help="What the backend computes in; default: its own first choice.")
@device_option
@click.option("--no-judge", is_flag=True, help="Only ask; do not judge by the declaration that comes of it.")
@click.option("--timeout", default=30.0, show_default=True, help="Seconds that one question, or example, may take.")
@file_option("--json", "json_file", help="The datasheet as JSON.")
@file_option("--html", "html_file", help="The datasheet as a page.")
def probe(
    backend: str, dtype: str | None, device: str | None, no_judge: bool, timeout: float, json_file: Path | None,
    html_file: Path | None,
) -> int:  # fmt: skip
    """Find out how a backend computes: its numerical datasheet, and the declaration that follows from it.

    Through the contract's operations alone: how results and operands of products are rounded, what sums are added up
    in and in which order, how far exp, log, tanh, erf, roots and divisions are off, what becomes of subnormal numbers,
    whether the same call gives the same bits. It ends with the tightest arithmetic that explains all of it, ready to
    be declared, and with what `refbert conform` at its quick effort says under it.

    Exit status: 0 conformant under that declaration (or not judged), 1 not conformant, 2 bad usage or the backend is
    unavailable, 3 inconclusive, or the backend gave no answer.
    """
    require_hypothesis()
    from refbert_conformance.engine.measure import Stopped
    from refbert_conformance.probe.datasheet import datasheet
    from refbert_conformance.process.supervisor import Limits, Supervisor

    require_writable(json_file, html_file)
    job, limits, asking = _job(backend, dtype, device), Limits(seconds=timeout), ""
    with working() as tell, Supervisor(job, limits) as supervisor:

        def told(what: str) -> None:
            nonlocal asking
            asking = what
            tell("asking", what)

        subject = supervisor.subject()
        try:
            sheet = datasheet(subject, told, supervisor.alive)
        except Stopped as stopped:
            print(f"refbert: no datasheet: asked about {asking}, the backend {stopped.reason}", file=sys.stderr)
            return 3
    about = {"given": backend, **{name: supervisor.run.backend[name] for name in ("library", "dtype", "device")}}
    verdict = None if no_judge else _judged({**job, "dtype": about["dtype"], "arithmetic": sheet.declaration}, limits)
    found = _as_json(about, supervisor.run.versions, sheet, verdict)
    if json_file is not None:
        write_text(json_file, json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    if html_file is not None:
        from refbert.pages import fill

        write_text(html_file, fill("refbert_conformance.probe", "probe.html", **found))
    _show(about, sheet)
    if verdict is None:
        return 0
    from refbert_conformance.report import STATUS

    for id in verdict["failed"]:
        say(f"FAILED  {id}")
    counts = verdict["counts"]
    of = f"{counts['passed']} of {sum(counts.values())} properties, effort {verdict['effort']}"
    say(f"{verdict['verdict']} under that declaration: {of}")
    return int(STATUS[verdict["verdict"]])


def _job(backend: str, dtype: str | None, device: str | None) -> dict[str, Any]:
    return {
        "given": backend, "dtype": dtype, "device": device, "effort": "quick", "seed": 0, "explain": False,
    }  # fmt: skip


def _judged(job: dict[str, Any], limits: Limits) -> dict[str, Any]:
    from refbert_conformance import report
    from refbert_conformance.process.sharing import supervise
    from refbert_conformance.properties.table import all_properties

    properties = all_properties()
    started = time.perf_counter()
    run = supervise(job, [p.id for p in properties], limits, jobs=None)
    seconds = time.perf_counter() - started
    result = report.assemble(run, properties, {}, effort="quick", seed=0, only=None, model=None, seconds=seconds)
    failed = [id for id, row in run.results.items() if row.outcome == "failed"]
    return {**{name: result[name] for name in ("verdict", "counts", "effort", "seed")}, "failed": failed}


def _as_json(
    about: dict[str, Any], made_with: dict[str, str], sheet: Datasheet, verdict: dict[str, Any] | None
) -> dict[str, Any]:  # fmt: skip
    """The fields that docs/command-line.md lists."""
    return {
        "backend": about,
        "versions": made_with,
        "facts": [vars(fact) for fact in sheet.facts],
        "arithmetic": dict(sheet.declaration),
        "presets": list(sheet.presets),
        "unexplained": list(sheet.unexplained),
        "judged": verdict,
    }


def _show(about: dict[str, Any], sheet: Datasheet) -> None:
    title = f"{about['given']} ({about['library']}, {about['dtype']}, {about['device']})"
    table = Table(title, ("", "id"), ("of", "id"), "found", "")
    before = ""
    for fact in sheet.facts:
        table.add_row("" if fact.group == before else fact.group, fact.what, fact.found, fact.detail)
        before = fact.group
    print_table(table)
    say("the tightest declaration that explains it:")
    click.echo(f"    arithmetic = {dict(sheet.declaration)!r}")
    if sheet.presets:
        say(f"presets that allow all of it: {', '.join(sheet.presets)}")
    for id in sheet.unexplained:
        say(f"not explained by it: {id}")
