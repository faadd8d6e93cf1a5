"""``refbert finetune``: a checkpoint and labelled files in, a model for a task out."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from refbert.cli.options import given_settings, is_given, of_settings, placing
from refbert.cli.progress import Watch, say
from refbert.cli.tables import Table, print_table
from refbert.errors import InputError
from refbert.model import Model
from refbert.training.finetuning_settings import PAPER_GRID, Plan, Settings


@click.command()
@click.option("--output", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Where the model goes.")
@of_settings(Settings)
@placing
@click.option(
    "--paper-grid", is_flag=True, help="The paper's values for what is not named: 5e-5,3e-5,2e-5; 16,32; 2,3,4."
)
@click.option("--resume", is_flag=True, help="Go on with what is in the directory (or begin, if there is nothing).")
def finetune(output: Path, resume: bool, paper_grid: bool, **options: Any) -> int:
    """Fine-tune a BERT on labelled texts.

    \b
    refbert finetune --task classify --model DIR --train train.csv --dev dev.csv --output OUT
    refbert finetune --task tag --model DIR --train train.conll --dev dev.conll --output OUT --learning-rate 5e-5,3e-5
    refbert finetune --output OUT --resume
    """
    from refbert.training import finetuning
    from refbert.training.run import RunDirectory

    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise InputError(
            "finetune is for one process: start it without torchrun, each run of a grid on its own if need be"
        )
    given = (dict(PAPER_GRID) if paper_grid else {}) | given_settings(Settings, options)
    if resume and RunDirectory(output).holds_run():
        if not is_given("model", environment=False):
            given.pop("model", None)
        settings = Settings.resumed(output, given)
    else:
        for name in ("task", "model", "train"):
            if name not in given:
                raise InputError(f"no {name}: name it with --{name}")
        settings = Settings(**given)
    plans = settings.plans()
    watch = Watch("finetune", output)

    def begin(plan: Plan, model: Model, steps: int, done: int) -> None:
        number = f" ({plans.index(plan) + 1} of {len(plans)})" if len(plans) > 1 else ""
        watch.begin(f"{plan.name}{number}: {model!r}, {model.num_parameters:,} parameters", steps, done)

    def score(plan: Plan, epoch: int, scores: Any) -> None:
        if scores:
            print(f"{plan.name}, epoch {epoch}: {_line(scores)}", file=sys.stderr, flush=True)

    with watch.running("nothing was written; start again with the same command"):
        result = finetuning.finetune(
            output, settings, resume=resume, on_begin=begin, on_update=watch.update, on_score=score,
            stop=watch.stopping, say=say,
        )  # fmt: skip
    if result.best is None:
        print(f"{output}: stopped and saved; {watch.go_on}")
        return watch.stopping.status
    if len(result.outcomes) > 1:
        _print_runs(result)
    best = result.best
    said = f"; epoch {best.epoch} of {best.name}: {_line(best.scores)}" if best.scores else ""
    print(f"{output}: done{said}; try: refbert evaluate --model {output} FILE")
    return 0


def _print_runs(result: Any) -> None:
    table = Table(f"runs, by {result.metric}", "run", ("epoch", "figure"), (result.metric, "figure"))
    for outcome in result.outcomes:
        value = outcome.scores.get(result.metric)
        last = outcome.failed or ("none" if value is None else f"{value:.4f}")
        table.add_row(f"{outcome.name}{'  (best)' if outcome is result.best else ''}", str(outcome.epoch), last)
    print_table(table)


def _line(scores: Any) -> str:
    return ", ".join(f"{name} {'none' if value is None else format(value, '.4f')}" for name, value in scores.items())
