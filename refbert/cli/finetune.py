"""``refbert finetune``: a checkpoint and labelled files in, a model for a task out."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from refbert.cli.progress import TrainingProgress, say
from refbert.cli.signals import Interrupted, Stopping
from refbert.cli.tables import Table, print_table
from refbert.config.profiles import PROFILES
from refbert.errors import InputError

_POSITIVE = click.IntRange(min=1)
_TASKS = ("classify", "multi-label", "regress", "tag", "answer", "choose")
# The settings that take several values, by the option's name.
_SEVERAL = {"learning_rate": "learning_rates", "batch_size": "batch_sizes", "epochs": "epochs"}


class _Several(click.ParamType[Any]):
    """Numbers with commas between them."""

    name = "N[,N…]"

    def __init__(self, kind: type) -> None:
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return tuple(self._kind(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a number, or several with commas between them", param, context)


@click.command()
@click.option("--task", type=click.Choice(_TASKS), help="What to learn.")
@click.option("--model", envvar="REFBERT_MODEL", metavar="DIR", help="The checkpoint to begin with, or a hub name.")
@click.option("--train", "train_file", metavar="FILE", help="CSV, TSV or JSON lines; tag: CoNLL; answer: SQuAD's JSON.")
@click.option("--dev", metavar="FILE", help="By its score the best epoch and the best run are chosen.")
@click.option("--output", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Where the model goes.")
@click.option("--format", type=click.Choice(("csv", "tsv", "jsonl")), help="Default: by the file's ending.")
@click.option("--text-column", default="text", show_default=True, help="The text, or the first of two.")
@click.option("--pair-column", help="The second text, where the task is about two.")
@click.option("--label-column", default="label", show_default=True, help="The right answer.")
@click.option("--choice-columns", default="choices", show_default=True, help="A list, or several columns: a,b,c.")
@click.option("--learning-rate", multiple=True, type=_Several(float), help="Several make a grid. [default: 5e-5]")
@click.option("--batch-size", multiple=True, type=_Several(int), help="Several make a grid. [default: 32]")
@click.option("--epochs", multiple=True, type=_Several(int), help="Several make a grid. [default: 3]")
@click.option(
    "--paper-grid", is_flag=True, help="The paper's values for what is not named: 5e-5,3e-5,2e-5; 16,32; 2,3,4."
)
@click.option("--restarts", type=_POSITIVE, default=1, show_default=True, help="Runs of each, with other seeds.")
@click.option("--metric", help="The score that decides. [default: accuracy, spearman or f1, by task]")
@click.option("--warmup-share", type=float, default=0.1, show_default=True, help="Of the updates.")
@click.option("--optimizer", type=click.Choice(("bert_adam", "adamw", "lamb")), help="Default: the profile's.")
@click.option("--weight-decay", type=float, default=0.01, show_default=True, help="Not of biases and LayerNorms.")
@click.option("--max-norm", type=float, default=1.0, show_default=True, help="Gradients are clipped to this norm.")
@click.option("--dropout", type=float, help="Default: the configuration's.")
@click.option("--max-length", type=_POSITIVE, help="Longer texts are cut. [default: the model's; answer: at most 384]")
@click.option("--doc-stride", type=_POSITIVE, default=128, show_default=True, help="Tokens from window to window.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the new head, order and dropout.")
@click.option("--profile", type=click.Choice(tuple(PROFILES)), help="Whose numbers. [default: the checkpoint's]")
@click.option("--backend", default="numpy", show_default=True, help="A name from `refbert backends`.")
@click.option("--dtype", help="What the backend computes in.")
@click.option("--device", help='Where: "cpu", "cuda", …')
@click.option("--mixed-precision", metavar="DTYPE", help="Of forward and backward alone: bfloat16.")
@click.option("--micro-batch", type=_POSITIVE, help="Rows computed at once. [default: the batch]")
@click.option(
    "--gradient-checkpointing/--no-gradient-checkpointing", default=False,
    help="Less memory, more time: layers run again in the backward.",
)  # fmt: skip
@click.option("--save-every", type=_POSITIVE, default=500, show_default=True, help="Updates between checkpoints.")
@click.option("--save-minutes", type=float, default=5.0, show_default=True, help="Between checkpoints, at most.")
@click.option("--resume", is_flag=True, help="Go on with what is in the directory (or begin, if there is nothing).")
def finetune(output: Path, resume: bool, paper_grid: bool, **options: Any) -> int:
    """Fine-tune a BERT on labelled texts.

    \b
    refbert finetune --task classify --model DIR --train train.csv --dev dev.csv --output OUT
    refbert finetune --task tag --model DIR --train train.conll --dev dev.conll --output OUT --learning-rate 5e-5,3e-5
    refbert finetune --output OUT --resume
    """
    from refbert.training import finetuning
    from refbert.training.finetuning_settings import PAPER_GRID, Settings, resumed_settings
    from refbert.training.loop import NotFinite
    from refbert.training.run import RunDirectory

    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise InputError(
            "finetune is for one process: start it without torchrun, each run of a grid on its own if need be"
        )
    given = {_SEVERAL.get(name, name): _read(name, value) for name, value in options.items() if _is_given(name)}
    if "train_file" in given:
        given["train"] = given.pop("train_file")
    if paper_grid:
        given = {**PAPER_GRID, **given}
    if resume and RunDirectory(output).holds_run():
        if not _is_given("model", "ENVIRONMENT"):
            given.pop("model", None)
        settings = resumed_settings(output, given)
    else:
        for name in ("task", "model", "train"):
            if name not in given:
                raise InputError(f"no {name}: name it with --{name}")
        settings = Settings(**given)
    plans = settings.plans()
    shown: list[TrainingProgress] = []

    stopping = Stopping()

    def begin(plan: Any, model: Any, steps: int, done: int) -> None:
        stopping.be_patient()
        _close(shown)
        number = f" ({plans.index(plan) + 1} of {len(plans)})" if len(plans) > 1 else ""
        print(f"{plan.name}{number}: {model!r}, {model.num_parameters:,} parameters", file=sys.stderr)
        shown.append(TrainingProgress(steps, done))

    def score(plan: Any, epoch: int, scores: Any) -> None:
        if scores:
            print(f"{plan.name}, epoch {epoch}: {_line(scores)}", file=sys.stderr, flush=True)

    try:
        with stopping:
            result = finetuning.finetune(
                output, settings, resume=resume, on_begin=begin, on_update=lambda update: shown[-1].add(update),
                on_score=score, stop=stopping, say=say,
            )  # fmt: skip
    except Interrupted:
        kept = f"go on with: refbert finetune --output {output} --resume"
        if not RunDirectory(output).holds_run():
            kept = "nothing was written; start again with the same command"
        stopping.leave(f"{output}: stopped before the first update; {kept}")
    except NotFinite as error:
        print(f"refbert: {error}", file=sys.stderr)
        return 1
    finally:
        _close(shown)
    if result.best is None:
        print(f"{output}: stopped and saved; go on with: refbert finetune --output {output} --resume")
        return stopping.status
    if len(result.outcomes) > 1:
        _print_runs(result)
    best = result.best
    said = f"; epoch {best.epoch} of {best.name}: {_line(best.scores)}" if best.scores else ""
    print(f"{output}: done{said}; try: refbert evaluate --model {output} FILE")
    return 0


def _print_runs(result: Any) -> None:
    table = Table(f"runs, by {result.metric}")
    table.add_column("run")
    for name in ("epoch", result.metric):
        table.add_column(name, "figure")
    for outcome in result.outcomes:
        value = outcome.scores.get(result.metric)
        last = outcome.failed or ("none" if value is None else f"{value:.4f}")
        table.add_row(f"{outcome.name}{'  (best)' if outcome is result.best else ''}", str(outcome.epoch), last)
    print_table(table)


def _line(scores: Any) -> str:
    return ", ".join(f"{name} {'none' if value is None else format(value, '.4f')}" for name, value in scores.items())


def _close(shown: list[TrainingProgress]) -> None:
    for bar in shown:
        bar.close()


def _read(name: str, value: Any) -> Any:
    """An option's value as the settings have it."""
    if name in _SEVERAL:
        return tuple(number for numbers in value for number in numbers)
    if name == "choice_columns":
        return tuple(value.split(","))
    if name in ("train_file", "dev") or (name == "model" and os.path.isdir(value)):
        return str(Path(value).resolve())
    return value


def _is_given(name: str, *not_by: str) -> bool:
    """Whether the option is given (by the command line or the environment), rather than its default."""
    source = click.get_current_context().get_parameter_source(name)
    return source is not None and source.name not in ("DEFAULT", "DEFAULT_MAP", *not_by)
