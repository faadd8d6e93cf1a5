"""``refbert conform``: prove or disprove a backend."""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from refbert.backend import contract_note
from refbert.cli.options import backend_option, device_option, file_option
from refbert.cli.output import require_writable, write_text
from refbert.cli.tables import NOTHING, Table, bar_columns, print_table, say
from refbert.cli.terminal import console
from refbert.errors import BackendUnavailable, InputError, Unsupported
from refbert_conformance.commands.options import arithmetic_option, declared_arithmetic

if TYPE_CHECKING:
    from refbert_conformance.engine.suspicion import Errors
    from refbert_conformance.process.records import Row

EFFORTS = ("quick", "default", "thorough")
_BARS = " ▁▂▃▄▅▆▇█"


@click.command()
@backend_option
@click.option("--effort", type=click.Choice(EFFORTS), default="default", show_default=True, help="How many examples.")
@click.option("--profile", "formerly", type=click.Choice(EFFORTS), hidden=True, help="What --effort was called.")
@click.option(
    "--dtype", help='What the backend computes in; default: its own first choice; "all": each that it offers.'
)
@device_option
@arithmetic_option("Judge by this, whatever the backend declares, such as")
@click.option(
    "--seed", default="0", show_default=True, metavar="N|random", help="Other examples; the same for the same N."
)
@click.option("--only", metavar="PATTERN", help="Properties whose id holds this text, or matches it with * and ?.")
@click.option("--model", metavar="PATH", help="A checkpoint: adds the level of pretrained weights.")
@file_option("--json", "json_file", help="The report as JSON.")
@file_option("--html", "html_file", help="The scoreboard.")
@click.option("--waivers", type=click.Path(path_type=Path), metavar="FILE", help="Strict expected failures, in TOML.")
@click.option(
    "--scripts", type=click.Path(file_okay=False, path_type=Path), default=Path("conformance-failures"),
    show_default=True, help="Where scripts that reproduce failures are written.",
)  # fmt: skip
@click.option(
    "--jobs", type=click.IntRange(min=1), metavar="N",
    help="Judges side by side, each with a process of the backend's; default: one per processor on the CPU, else one.",
)  # fmt: skip
@click.option(
    "--require", type=click.Choice(["batch-invariance"]),
    help="Also that a sequence's bits do not depend on what is computed beside it (see: refbert invariance).",
)  # fmt: skip
@click.option(
    "--sizes", type=click.Choice(["large"]),
    help="Also beyond the sizes of models: 2²⁰ in a row, rows beyond 2²³, arrays of more than 2 GiB; by one judge.",
)  # fmt: skip
@click.option(
    "--timeout", default=30.0, show_default=True, help="Seconds that one example may take; large ones have more."
)
@click.option("--list", "listing", is_flag=True, help="Only list the properties.")
@click.option(
    "--self-test", is_flag=False, flag_value="mutants", type=click.Choice(["mutants", "generated"]),
    help="Try the suite itself: it must find every mutant, of its own table, or generated from the source.",
)  # fmt: skip
@click.option(
    "--sample", default="300", show_default=True, metavar="N|all", help="How many of the generated mutants are tried."
)
def conform(
    backend: str, effort: str, formerly: str | None, dtype: str | None, device: str | None,
    arithmetic: str | None, seed: str, only: str | None, model: str | None, json_file: Path | None,
    html_file: Path | None, waivers: Path | None, scripts: Path, jobs: int | None, require: str | None,
    sizes: str | None, timeout: float, listing: bool, self_test: str | None, sample: str,
) -> int:  # fmt: skip
    """Hold a backend to refbert.ops: contract, every op and gradient, blocks, models, training.

    Exit status: 0 conformant, 1 not conformant, 2 bad usage or the backend is unavailable, 3 inconclusive: nothing
    failed, but something gave no answer in time, which may be the machine's doing.

    "Suspect" changes none of that: errors within their bounds that are, taken together, not those of rounding.
    """
    require_hypothesis()
    number, effort = seed_number(seed), formerly or effort
    if self_test == "generated":
        from refbert_conformance.generated.trial import run_generated

        require_writable(json_file)
        return run_generated(
            effort=effort, seed=number, only=only, sample=_sample(sample), jobs=jobs, json_file=json_file
        )
    if self_test:
        from refbert_conformance.selftest import run_self_test

        return run_self_test(effort=effort, only=only)

    from refbert_conformance import report as reports
    from refbert_conformance import waivers as waiving
    from refbert_conformance.process.sharing import supervise
    from refbert_conformance.process.supervisor import Limits, Run
    from refbert_conformance.properties.table import matching

    lanes = tuple(filter(None, (require, sizes)))
    jobs = 1 if sizes and jobs is None else jobs  # each would need the memory
    if model is not None:
        from refbert_conformance.properties.pretrained import check_model

        check_model(model)
    properties = matching(only, model, lanes)
    if listing:
        for p in properties:
            say(f"{p.id:55} {p.says}")
        return 0
    require_writable(json_file, html_file)
    waived = () if waivers is None else waiving.read(waivers, [p.id for p in matching(None, model, lanes)])
    job = {
        "given": backend, "device": device, "effort": effort, "seed": number, "model": model,
        "scripts": str(scripts), "explain": True, "lanes": lanes,
        "arithmetic": declared_arithmetic(arithmetic),
    }  # fmt: skip
    limits = Limits(seconds=timeout)
    needs = {p.id: p.needs for p in properties}
    runs: list[tuple[Run, float]] = []
    absent: dict[str, str] = {}
    # One process after the other; what there is beside the first is known once it is made.
    left = [None if dtype == "all" else dtype]
    while left:
        started, one = time.perf_counter(), left.pop(0)
        try:
            with _Progress(len(properties)) as progress:
                run = supervise({**job, "dtype": one}, list(needs), limits, progress, needs, waived, jobs)
        except BackendUnavailable as error:
            if not runs or one is None:
                raise
            absent[one] = str(error)
            continue
        runs.append((run, time.perf_counter() - started))
        if dtype == "all" and one is None:
            left += [name for name in run.backend.get("dtypes") or () if name != run.backend["dtype"]]
    judged = {run.backend["dtype"] for run, _ in runs}
    results = [
        reports.assemble(
            run, properties,
            waiving.concerning(waived, run.backend["dtype"], effort)[0],
            effort=effort, seed=number, only=only, model=model, seconds=seconds,
            not_judged=[name for name in run.backend.get("dtypes") or () if name not in judged],
        )
        for run, seconds in runs
    ]  # fmt: skip
    publish(results, json_file, html_file)
    for name, reason in absent.items():
        say(f"{name}: not judged ({reason})")
    statuses = {reports.STATUS[result["verdict"]] for result in results} | ({2} if absent else set())
    return min(statuses, key=(1, 2, 3, 0).index)


def require_hypothesis() -> None:
    """Raise `Unsupported`, with what to do, without Hypothesis."""
    from importlib.util import find_spec

    if find_spec("hypothesis") is None:
        raise Unsupported('the suite needs Hypothesis; install it with: pip install "refbert[conformance]"')


def seed_number(text: str) -> int:
    """What ``--seed`` says; raises `InputError` for anything else."""
    if text == "random":
        return secrets.randbits(31)
    try:
        return int(text)
    except ValueError:
        raise InputError(f'--seed takes a whole number or "random", not "{text}"') from None


def _sample(text: str) -> int | None:
    if text == "all":
        return None
    if not text.isdecimal() or not int(text):
        raise InputError(f'--sample takes a number of mutants or "all", not "{text}"')
    return int(text)


class _Progress:
    """A bar on stderr where there is a terminal; otherwise one line per level."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._level = total, 0, ""
        self._bar: Any = None

    def __enter__(self) -> _Progress:
        if sys.stderr.isatty():
            from rich.progress import Progress, TimeElapsedColumn

            out = console(stderr=True)
            columns = bar_columns(out, f"{{task.completed}}/{self._total} {{task.description}}", 60)
            self._bar = Progress(TimeElapsedColumn(), *columns, console=out, transient=True)
            self._bar.start()
            self._task = self._bar.add_task("starting", total=self._total)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, kind: str, id: str) -> None:
        if kind == "start":
            level = id.split("/")[0]
            if self._bar is not None:
                self._bar.update(self._task, description=id)
            elif level != self._level:
                print(f"refbert: {level} …", file=sys.stderr, flush=True)
            self._level = level
        elif kind == "result" and self._bar is not None:
            self._bar.advance(self._task)


def publish(results: Sequence[dict[str, Any]], json_file: Path | None, html_file: Path | None) -> None:
    """Write reports to the files that are named, and print them.

    The files come first: whoever reads what is printed may not read it to its end.
    """
    if json_file is not None:
        whole = results if len(results) > 1 else results[0]
        write_text(json_file, json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    if html_file is not None:
        from refbert_conformance.scoreboard import page

        write_text(html_file, page(results))
    for result in results:
        _show(result)


def _show(result: dict[str, Any]) -> None:
    """A table of the levels, every failure, the verdict."""
    from refbert_conformance.cost import Cost
    from refbert_conformance.engine.property import LEVELS
    from refbert_conformance.process.records import errors_of, rows_of

    rows, suspects = rows_of(result), [one for one in errors_of(result) if one.suspect]
    backend = result["backend"]
    few = f", {backend['shapes']} shapes per op" if backend.get("shapes") else ""
    title = f"{backend['given']} ({backend['library']}, {backend['dtype']}, {backend['device']}{few})"
    inconclusive = ["inconclusive"] if result["counts"]["inconclusive"] else []
    outcomes = ("passed", "failed", *inconclusive, "unsupported", "unavailable")
    figures = (*outcomes, "waived", "examples", "worst ρ", "seconds")
    title += f", effort {result['effort']}, seed {result['seed']}"
    table = Table(title, ("level", "id"), *((name, "figure") for name in figures))
    for level in LEVELS:
        here = [row for row in rows if row.level == level]
        if not here:
            continue
        counts = [sum(row.outcome == name and not row.waived for row in here) for name in outcomes]
        worst = max((row.rho for row in here if row.rho is not None), default=None)
        equal = "exact" if any(row.outcome == "passed" for row in here) else NOTHING
        table.add_row(
            level, *(str(n or NOTHING) for n in counts),
            str(sum(bool(row.waived) for row in here) or NOTHING),
            str(sum(row.examples for row in here)), equal if worst is None else f"{worst:.2g}",
            f"{sum(row.seconds for row in here):.1f}",
        )  # fmt: skip
    print_table(table)
    if "contract" in backend:
        say(f"contract: {contract_note(backend['contract'], said=backend['contract_said'])}")
    say(_declared(backend["dtype"], backend["arithmetic"]))
    if result["cost"] is not None:
        say(f"under that declaration {Cost(**result['cost'])}")
    for row in rows:
        if row.outcome == "failed":
            _show_failure(row)
        elif row.outcome == "inconclusive":
            say(f"INCONCLUSIVE  {row.id}: {row.says}")
            say(f"    {row.message}")
    for one in suspects:
        _show_suspect(one)
    if missed := (result["errors"] or {}).get("not_measured"):
        said = "; ".join(f"{op} ({why})" for op, why in missed.items())
        say(f"errors not looked at together: {said}")
    if backend.get("note"):
        say(f"note: {backend['note']}")
    if result["not_judged"]:
        say(f"not judged: {', '.join(result['not_judged'])} (--dtype all judges every dtype that the backend offers)")
    absent: dict[str, set[str]] = {}
    for row in rows:
        if row.outcome == "unsupported":
            absent.setdefault(row.message, set()).add(row.op)
    if absent:
        say("unsupported: " + "; ".join(f"{', '.join(sorted(ops))} ({reason})" for reason, ops in absent.items()))
    but = "but" if result["verdict"].startswith("conformant") else "and"
    suspect = f", {but} suspect" if suspects else ""
    passed = f"{result['counts']['passed']} of {len(rows)} properties"
    say(f"{result['verdict']}{suspect}: {passed} in {result['seconds']:.1f} s")


def _show_suspect(one: Errors) -> None:
    case = f", {one.case}" if one.case else ""
    say(f"SUSPECT  {one.id}: {one.output}{case}: {one.suspect}")
    say(
        f"    mean error {one.mean:+.2g} of what one may be (limit {one.limit:.2g}), mean square {one.square:.2g} "
        f"(limit {one.square_limit:.2g}), {one.samples:,} samples of {one.elements:,} entries"
    )
    most = max(one.bars)
    drawn = "".join(_BARS[-(-n * (len(_BARS) - 1) // most)] for n in one.bars)
    click.echo(f"    from {-one.edge:g} to {one.edge:g}, away from 0 on the right: |{drawn}|")


def _declared(dtype: str, arithmetic: dict[str, Any]) -> str:
    """What the arithmetic is, and who says so."""
    from refbert_conformance.tolerances.functions import functions_said

    shown = {
        name: functions_said(value) if name == "functions" else value
        for name, value in (arithmetic.get("declared") or {}).items()
    }
    words = [name if value is True else f"{name} {value}" for name, value in shown.items() if value]
    by = "by --arithmetic, not by the backend" if arithmetic.get("given") else "declared"
    return f"arithmetic: {dtype}" + (f"; {by}: {', '.join(words)}" if words else ", nothing else declared")


def _show_failure(row: Row) -> None:
    say(f"{f'waived ({row.waived})' if row.waived else 'FAILED'}  {row.id}: {row.says}")
    say(f"    {row.message}")
    failure = row.failure
    if failure is None:
        return
    if failure.worst is not None and row.rho is not None and f"{row.rho:.3g}" != f"{failure.worst.rho:.3g}":
        say(f"    ρ = {row.rho:.3g} in the worst case tried; the smallest that fails:")
    for line in (failure.case or "").splitlines():
        click.echo(f"    | {line}")  # an array: its own lines
    for clue in failure.clues():
        (click.echo if clue.startswith("reproduce") else say)(f"    {clue}")  # a command stays on one line
