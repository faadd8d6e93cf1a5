"""The page: what its template shows, and its sections in their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from refbert.backend import contract_note
from refbert.errors import InputError
from refbert.pages import fill
from refbert_conformance.cost import Cost
from refbert_conformance.engine.measure import ULPS, telling
from refbert_conformance.process.records import Diagnosis, errors_of
from refbert_conformance.scoreboard import drawing, trend
from refbert_conformance.scoreboard.runs import STATES, Report, counts_of, levels_of, runs_of, state_of

_MEANING = {
    "passed": "held on every example",
    "failed": "did not hold: a case, and a script that reproduces it",
    "inconclusive": "no answer: not in time, twice, without computing that long (the backend waits, or the machine was "
    "busy), or not among the results of a kit",
    "unsupported": "the backend does not offer it, or its dtype cannot judge it",
    "unavailable": "could not be tried here",
    "waived": "fails, as expected by the adopter's file of waivers, for the reason given there",
}


def page(reports: Sequence[Report], *, earlier: Sequence[Report] = ()) -> str:
    """The page, side by side for several reports; ``earlier`` ones of the same backend, dtype, device give the trend.

    The same reports give the same page. Raises `InputError` without a report.
    """
    if not reports:
        raise InputError("no report to show: name at least one file that refbert conform --json wrote")
    runs = runs_of(reports)
    levels = levels_of(runs)
    lines = [line for level in levels for line in level.lines]
    found = [(run, line, row) for line in lines for run in runs if (row := line.rows[run.number])]
    failed = [
        (run, line, replace(row, failure=row.failure or Diagnosis()))
        for run, line, row in found
        if row.outcome == "failed"
    ]
    waived = [one for one in found if one[2].waived]
    measured = [(run, one) for run in runs for one in errors_of(run.report)]
    there = {
        "backends": True, "levels": True, "trend": bool(earlier), "failures": True, "waivers": bool(waived),
        "errors": bool(measured), "properties": True,
    }  # fmt: skip
    return fill(
        "refbert_conformance.scoreboard", "scoreboard.html",
        sections=[section for section, shown in there.items() if shown],
        runs=runs, levels=levels, lines=lines, line_of={line.id: line for line in lines}, states=STATES,
        meanings=_MEANING, ulps_edges=ULPS, rho_axis=drawing.RHO, axis_width=drawing.WIDTH,
        # Waived ones last: they are expected.
        failures=sorted(failed, key=lambda one: state_of(one[2]) == "waived"), waivers=waived,
        suspects=[one for one in measured if one[1].suspect], regular=[one for one in measured if not one[1].suspect],
        trend=trend.trend(runs, earlier), alone=runs_of(trend.alone(runs, earlier)), kinds_of_change=trend.KINDS,
        doubled=trend.DOUBLED, unlike_in=trend.unlike,
        state_of=state_of, counts_of=counts_of, contract_of=_contract, cost_of=_cost, arithmetic_of=drawing.arithmetic,
        shares_of=drawing.shares, ulps_of=drawing.ulps, growth_of=drawing.growth,
        errors_of=drawing.errors,
        telling_of=lambda worst: telling(worst.got, worst.expected),
    )  # fmt: skip


def _cost(report: Mapping[str, Any]) -> str | None:
    """What the declaration costs; None where nothing was declared, or counted."""
    found = report.get("cost")
    return None if found is None else str(Cost(**found))


def _contract(backend: Mapping[str, Any]) -> str | None:
    """The version of the plugin contract; None in a report of before there were versions."""
    return contract_note(backend["contract"], said=backend["contract_said"]) if "contract" in backend else None
