"""``refbert invariance``: what a sequence's bits depend on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from refbert.cli.options import backend_option, device_option
from refbert.cli.tables import Table, print_table, say
from refbert_conformance.commands.conform import require_hypothesis

if TYPE_CHECKING:
    from refbert_conformance.process.records import Row

_ANSWERS = {"passed": "yes", "failed": "no", "unsupported": "-", "inconclusive": "?"}


def _answer(row: Row) -> str:
    """What a row says; no answer if the backend did not live to give one."""
    return "?" if row.outcome == "failed" and not row.says else _ANSWERS[row.outcome]


@click.command()
@backend_option
@click.option("--dtype", help="What the backend computes in; default: its own first choice.")
@device_option
@click.option("--timeout", default=30.0, show_default=True, help="Seconds that one example may take.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def invariance(backend: str, dtype: str | None, device: str | None, timeout: float, as_json: bool) -> int:
    """Say whether a sequence's numbers depend on what is computed beside it, bit for bit.

    Alone or in a batch, at any place, with any padding, in any split, packed or padded, 200 times in a row; forward and
    gradients. Both answers may be right: refbert conform --require batch-invariance makes it a condition.

    Exit status: 0 all answered, 2 bad usage or the backend is unavailable, 3 where it gave no answer.
    """
    require_hypothesis()
    from refbert_conformance.process.sharing import supervise
    from refbert_conformance.process.supervisor import Limits
    from refbert_conformance.properties.invariance import properties
    from refbert_conformance.properties.table import INVARIANCE

    job = {
        "given": backend, "dtype": dtype, "device": device, "effort": "quick", "seed": 0,
        "lanes": (INVARIANCE,), "explain": False,
    }  # fmt: skip
    asked = properties()
    run = supervise(job, [p.id for p in asked], Limits(seconds=timeout))
    found = [(p, run.results[p.id]) for p in asked]
    status = 3 if any(_answer(row) == "?" for _, row in found) else 0
    if as_json:
        rows: list[dict[str, Any]] = [
            {"id": p.id, "says": p.says, "holds": {"yes": True, "no": False}.get(_answer(row)),
             "message": row.message} for p, row in found
        ]  # fmt: skip
        click.echo(json.dumps({"backend": run.backend, "invariance": rows}, indent=1, ensure_ascii=False))
        return status
    title = f"{backend} ({run.backend['library']}, {run.backend['dtype']}, {run.backend['device']})"
    rows_shown = [(f"{p.op}, {p.name}", _answer(row), p.says) for p, row in found]
    print_table(
        Table(f"{title}: bit for bit", ("a sequence is the same", "id"), ("holds", "figure"), "what", rows=rows_shown)
    )
    for p, row in found:
        if row.message:
            say(f"{p.op}, {p.name}: {row.message}")
    return status
