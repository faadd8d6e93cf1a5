"""``refbert evaluate``: a fine-tuned model and a labelled file in, scores out."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import click

from refbert.cli.output import print_json, progress, require_writable, write_text
from refbert.cli.tables import Table, print_table
from refbert.errors import InputError
from refbert.loading import load
from refbert.profiles import PROFILES

_POSITIVE = click.IntRange(min=1)
_TASKS = ("classify", "regress", "tag", "answer", "choose")
# What a model that `refbert finetune` made is read with unless told otherwise: as it was trained.
_AS_TRAINED = (
    "max_length", "doc_stride", "text_column", "pair_column", "label_column", "choice_columns", "format",
)  # fmt: skip


@click.command()
@click.argument("file", metavar="FILE")
@click.option("--model", envvar="REFBERT_MODEL", help="A fine-tuned model's directory or hub name.")
@click.option("--task", type=click.Choice(_TASKS), help="Default: what the model's head is for.")
@click.option("--format", type=click.Choice(("csv", "tsv", "jsonl")), help="Default: by the file's ending.")
@click.option("--text-column", default="text", show_default=True)
@click.option("--pair-column", help="The second text, where the task is about two.")
@click.option("--label-column", default="label", show_default=True)
@click.option("--choice-columns", default="choices", show_default=True, help="A list, or several columns: a,b,c.")
@click.option("--max-length", type=_POSITIVE, help="Longer texts are cut. [default: the model's; answer: at most 384]")
@click.option("--doc-stride", type=_POSITIVE, default=128, show_default=True, help="Tokens from window to window.")
@click.option("--n-best", type=_POSITIVE, default=20, show_default=True, help="Answers to weigh for each question.")
@click.option("--max-answer", type=_POSITIVE, default=30, show_default=True, help="Longest answer in tokens.")
@click.option("--null-threshold", type=float, help='"No answer" above this margin. [default: SQuAD 2.0: 0]')
@click.option("--batch-size", type=_POSITIVE, default=32, show_default=True, help="Texts per forward pass.")
@click.option("--profile", type=click.Choice(tuple(PROFILES)), help="Whose numbers. [default: the checkpoint's]")
@click.option("--backend", default="numpy", show_default=True, help="A name from `refbert backends`.")
@click.option("--dtype", help="What the backend computes in.")
@click.option("--device", help='Where: "cpu", "cuda", …')
@click.option("--predictions", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.jsonl",
              help="Write every prediction, one JSON object a line.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
def evaluate(file: str, model: str | None, task: str | None, as_json: bool, **options: Any) -> None:
    """Score a fine-tuned model on labelled texts. Lengths and columns are by default those that it was trained with.

    \b
    refbert evaluate --model DIR test.csv
    refbert evaluate --model DIR --json test.conll
    """
    from refbert.data.labelled import read
    from refbert.data.tables import Columns
    from refbert.evaluation.tasks import Limits, default_evaluation
    from refbert.evaluation.tasks import evaluate as score

    if model is None:
        raise InputError("no model: name a fine-tuned model's directory or hub name with --model (or REFBERT_MODEL)")
    require_writable(options["predictions"])
    trained = _trained_with(Path(model))
    for name in _AS_TRAINED:
        source = click.get_current_context().get_parameter_source(name)
        if source is not None and source.name == "DEFAULT" and name in trained:
            options[name] = trained[name]
    if isinstance(options["choice_columns"], str):
        options["choice_columns"] = options["choice_columns"].split(",")
    given = load(
        model, backend=options["backend"], dtype=options["dtype"], device=options["device"], profile=options["profile"]
    )
    chosen = task or default_evaluation(given)
    columns = Columns(
        options["text_column"], options["pair_column"], options["label_column"], tuple(options["choice_columns"])
    )
    data = read(chosen, file, columns, format=options["format"], to_learn=False)
    names = ("max_length", "batch_size", "doc_stride", "n_best", "max_answer", "null_threshold")
    with progress(chosen, len(data)) as advance:
        found = score(given, chosen, data, Limits(**{name: options[name] for name in names}), progress=advance)
    if options["predictions"] is not None:
        lines = (json.dumps(prediction, ensure_ascii=False) + "\n" for prediction in found.predictions)
        write_text(options["predictions"], "".join(lines))
    scores = {name: value if math.isfinite(value) else None for name, value in found.scores.items()}
    if as_json:
        print_json({"file": file, "task": chosen, "examples": len(data), "scores": scores})
        return
    table = Table(f"{chosen}: {len(data):,} examples")
    table.add_column("score", "id")
    table.add_column("", "figure")
    for name, value in scores.items():
        table.add_row(name, "undefined" if value is None else f"{value:.4f}")
    print_table(table)


def _trained_with(directory: Path) -> dict[str, Any]:
    """The settings that `refbert finetune` left beside the model; none for another's model."""
    try:
        content = json.loads((directory / "run.json").read_text(encoding="utf-8"))
        return dict(content["settings"]) if content.get("kind") == "finetuning" else {}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return {}
