"""``refbert evaluate``: a model and a file in, scores out: labelled texts, or running text for a pretrained model."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from refbert.cli.options import computing, count_option, file_option, given_settings, is_given, json_option, of_settings
from refbert.cli.output import print_json, progress, require_writable, write_text
from refbert.cli.tables import Table, print_table
from refbert.data.labelled import TASKS, read
from refbert.data.tables import Columns
from refbert.errors import InputError
from refbert.evaluation.tasks import Limits, default_evaluation
from refbert.evaluation.tasks import evaluate as score
from refbert.files.json import read_json
from refbert.files.reading import is_file
from refbert.labels import is_multi_label
from refbert.loading import load
from refbert.model import Model
from refbert.training.finetuning_settings import Settings as Finetuning
from refbert.training.pretraining_settings import Settings
from refbert.training.run import RunDirectory

_TEXT = ("lines", "raw", "parquet")
# What a model that `refbert finetune` made is read with unless told otherwise: as it was trained.
_AS_TRAINED = (
    "max_length", "doc_stride", "text_column", "pair_column", "label_column", "choice_columns", "format",
)  # fmt: skip


@click.command()
@click.argument("file", metavar="FILE")
@click.option("--model", envvar="REFBERT_MODEL", help="A fine-tuned model's directory or hub name.")
@click.option("--task", type=click.Choice((*TASKS, "masked-lm")), help="Default: what the model's head is for.")
@click.option("--format", type=click.Choice(("csv", "tsv", "jsonl", *_TEXT)),
              help="Default: by the file's ending; masked-lm: lines.")  # fmt: skip
@click.option("--text-column", default="text", show_default=True, help="Also of a Parquet file.")
@of_settings(Finetuning, "pair_column", "label_column", "choice_columns", "max_length", "doc_stride")
@count_option("--n-best", Limits.n_best, "Answers to weigh for each question.")
@count_option("--max-answer", Limits.max_answer, "Longest answer in tokens.")
@click.option("--null-threshold", type=float, help='"No answer" above this margin. [default: SQuAD 2.0: 0]')
@count_option("--batch-size", Limits.batch_size, "Texts per forward pass.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of what masked-lm hides.")
@computing
@file_option("--predictions", metavar="FILE.jsonl", help="Write every prediction, one JSON object a line.")
@json_option()
def evaluate(file: str, model: str | None, task: str | None, as_json: bool, **options: Any) -> None:
    """Score a model. Lengths and columns are by default those that it was trained with.

    A fine-tuned model is scored on labelled texts; one that refbert pretrain made on the words that are hidden from it
    in a text, and on the next sentence: --task masked-lm.

    \b
    refbert evaluate --model DIR test.csv
    refbert evaluate --model DIR --json test.conll
    refbert evaluate --model DIR --task masked-lm text.txt
    """
    if model is None:
        raise InputError("no model: name a fine-tuned model's directory or hub name with --model (or REFBERT_MODEL)")
    require_writable(options["predictions"])
    trained, pretrained = _trained_with(Path(model))
    asked = given_settings(Finetuning, options)
    options |= {name: asked.get(name, trained.get(name, getattr(Finetuning, name))) for name in _AS_TRAINED}
    given = load(model, **{name: options[name] for name in ("backend", "dtype", "device", "profile")})
    chosen = task or default_evaluation(given)
    if chosen == "classify" and is_multi_label(given.config):
        chosen = "multi-label"
    if chosen == "masked-lm":
        _print(file, chosen, *_masked_lm(file, given, options, pretrained), as_json)
        return
    if options["format"] in _TEXT:
        raise InputError(f"--format {options['format']} is for --task masked-lm")
    columns = Columns(*(options[name] for name in ("text_column", "pair_column", "label_column", "choice_columns")))
    data = read(chosen, file, columns, format=options["format"], to_learn=False)
    limits = Limits(**{one.name: options[one.name] for one in dataclasses.fields(Limits)})
    with progress(chosen, len(data)) as advance:
        found = score(given, chosen, data, limits, progress=advance)
    if options["predictions"] is not None:
        lines = (json.dumps(prediction, ensure_ascii=False) + "\n" for prediction in found.predictions)
        write_text(options["predictions"], "".join(lines))
    _print(file, chosen, len(data), found.scores, as_json)


def _print(file: str, task: str, examples: int, found: Mapping[str, float], as_json: bool) -> None:
    scores = {name: value if math.isfinite(value) else None for name, value in found.items()}
    if as_json:
        print_json({"file": file, "task": task, "examples": examples, "scores": scores})
        return
    rows = [(name, "undefined" if value is None else f"{value:.4f}") for name, value in scores.items()]
    print_table(Table(f"{task}: {examples:,} examples", ("score", "id"), ("", "figure"), rows=rows))


def _masked_lm(
    file: str, model: Model, options: Mapping[str, Any], trained: Settings | None
) -> tuple[int, Mapping[str, float]]:
    """(how many sequences, the scores); read as in training where refbert made the model."""
    from refbert.data import Pretraining, Rows, build_store
    from refbert.evaluation.masked_lm import Sums

    if options["predictions"] is not None:
        raise InputError("--predictions is for labelled texts")
    if options["format"] in ("csv", "tsv", "jsonl"):
        raise InputError(f"masked-lm reads {', '.join(_TEXT)}, not {options['format']}")
    chosen, length = Pretraining(), model.limit(options["max_length"])
    how: dict[str, Any] = {}
    form: Any = options["format"] or "lines"
    if trained is not None:
        chosen, how = trained.data(), {"documents": trained.documents, "column": trained.column}
        length = options["max_length"] or trained.phases()[-1].length
        form = options["format"] or trained.format
    if is_given("text_column"):
        how["column"] = options["text_column"]
    chosen = dataclasses.replace(chosen, next_sentence="next_sentence" in model.heads)
    sums, count = Sums(), 0
    with tempfile.TemporaryDirectory() as scratch:
        text: Any = sys.stdin.buffer if file == "-" else file
        with build_store([text], model.tokenizer, scratch, format=form, **how) as store:
            rows = Rows(store, model.tokenizer, chosen, seed=options["seed"])
            with progress("masked-lm", store.documents) as advance:
                for batch, labels in rows.once(length, options["batch_size"], progress=advance):
                    sums.add(model, batch, labels)
                    count += len(batch.input_ids)
    return count, sums.scores()


def _trained_with(directory: Path) -> tuple[dict[str, Any], Settings | None]:
    """The settings that finetune, or pretrain, left beside the model; none for another's model.

    Raises `InputError` where run.json is refbert's and damaged: the scores would be of other lengths.
    """
    run = RunDirectory(directory)
    if not is_file(run.file):
        return {}, None
    content = read_json(run.file)
    if not isinstance(content, dict) or not {"format", "settings"} <= set(content):
        return {}, None  # another program's
    settings = run.read()["settings"]
    if content.get("kind") == "pretraining":
        return {}, run.settings(Settings, settings)
    return vars(run.settings(Finetuning, settings)), None
