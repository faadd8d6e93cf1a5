"""``refbert run``: texts in, predictions or vectors out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import click

from refbert.cli.arrays import Keeping
from refbert.cli.options import computing, count_option, file_option, is_given, json_option, model_option
from refbert.cli.output import progress, require_writable, say_default_model, write_arrays
from refbert.cli.results import Printer
from refbert.cli.texts import Outcome, from_arguments, from_stdin, outcomes
from refbert.embedder import POOLINGS
from refbert.errors import InputError, quiet
from refbert.labels import is_regression
from refbert.loading import load
from refbert.model import Model
from refbert.tasks.answering import answer
from refbert.tasks.classifying import classify, next_sentence, regress
from refbert.tasks.fill_mask import TASKS, default_task, embed, fill_mask, has_mask
from refbert.tasks.tagging import tag
from refbert.text.batching import Text


@click.command()
@click.argument("texts", nargs=-1, metavar="[TEXT …]")
@model_option
@computing
@click.option(
    "--task", type=click.Choice(TASKS), help="Default: a fine-tuned head's; fill-mask for a [MASK]; else embed."
)
@click.option("--pair", is_flag=True, help="Texts come in twos: TEXT TEXT …, or tab-separated on each line of stdin.")
@click.option("--top-k", default=5, show_default=True, help="How many candidates for each [MASK], label or answer.")
@click.option("--null-threshold", type=float, help='answer: "no answer" above this margin; default: never.')
@click.option(
    "--pooling", type=click.Choice(POOLINGS), help="What makes a text's vector; default: the checkpoint's, or mean."
)
@click.option("--normalize/--no-normalize", default=None, help="Scale vectors to length 1; default: as the checkpoint.")
@click.option("--prompt", help="embed: what to put before each text; default: the checkpoint's, or nothing.")
@click.option("--truncate", is_flag=True, help="Cut texts that are too long, instead of refusing them.")
@click.option("--max-length", type=int, help="Longest text in tokens; default: the model's.")
@count_option("--batch-size", 32, "Texts per forward pass.")
@file_option("--save", metavar="FILE.npz", help="Store the raw arrays.")
@json_option(each="text")
def run(texts: tuple[str, ...], pair: bool, task: str | None, save: Path | None, as_json: bool, **options: Any) -> int:
    """Run a BERT on TEXTs, or on the lines of stdin.

    A text that cannot be read or is refused leaves the others alone; the exit status is 2 then.

    \b
    refbert run "A cat is a kind of [MASK]."
    refbert run --model DIR "Paris is the [MASK] of France."
    refbert run --model DIR --json < texts.txt > vectors.jsonl
    refbert run --model DIR --pair "a question" "a passage"
    refbert run --model DIR --task next-sentence --pair "a sentence" "another"
    """
    given, batch_size = from_arguments(texts, pair) if texts else from_stdin(pair), options["batch_size"]
    # What the default task is chosen by: all texts, or of stdin, which may have no end, a batch.
    first = list(given if texts or save is not None else islice(given, batch_size))
    if not is_given("model"):
        say_default_model(options["model"])
    require_writable(save)
    placed = {name: options.pop(name) for name in ("backend", "dtype", "device", "profile")}
    model = load(options.pop("model"), **placed)
    known = [item.text for item in first if item.text is not None]
    chosen = task or default_task(model, known)
    if chosen == "fill-mask" and texts and not has_mask(model, known):
        raise InputError(_no_mask(model))
    printer = Printer(as_json, top_k=options["top_k"], null_threshold=options.pop("null_threshold"))
    if save is not None:
        model = Keeping(model)
    with progress(chosen, len(first) if texts else None) as advance:
        predict = partial(_predict, model, chosen, progress=advance, **options)
        every = outcomes(chain(first, given), predict, batch_size)
        if save is not None and isinstance(model, Keeping):
            # One file of them all: nothing is written or shown unless they all are good.
            every = iter([_all_good(every)])
            write_arrays(save, _arrays(model, chosen, known, **options))
        for batch in every:
            printer.add(batch)
    printer.close()
    if chosen == "fill-mask" and printer.shown and not printer.masks:
        raise InputError(_no_mask(model))
    return 2 if printer.refused else 0


def _predict(
    model: Model, task: str, texts: list[Text], *, top_k: int, pooling: Any, normalize: Any, prompt: Any, **how: Any
) -> Sequence[Any]:
    """The task's results; raises `InputError` for a model without its head, and for unsuitable texts."""
    if task == "fill-mask":
        return fill_mask(model, texts, top_k=top_k, need_mask=False, **how)
    if task == "embed":
        how["truncate"] = how["truncate"] or None  # as the directory says, unless told otherwise
        return embed(model, texts, pooling=pooling, normalize=normalize, prompt=prompt, **how)
    if top_k < 1:
        raise InputError(f"top-k must be 1 or more, not {top_k}")
    if task == "answer":
        how.pop("truncate")  # a long passage is read in windows
        return answer(model, texts, n_best=max(20, top_k), **how)
    if task == "tag":
        return tag(model, texts, **how)
    if task == "next-sentence":
        return next_sentence(model, texts, **how)
    if "sequence_classification" in model.heads and is_regression(model.config):
        return regress(model, texts, **how)
    return classify(model, texts, **how)


def _no_mask(model: Model) -> str:
    return f"no text has a {model.tokenizer.mask_token} to fill"


def _all_good(every: Iterable[list[Outcome]]) -> list[Outcome]:
    kept = [one for batch in every for one in batch]
    for one in kept:
        if one.wrong:
            raise InputError(f"{one.given.where} {one.wrong}")
    return kept


def _arrays(
    model: Keeping, task: str, texts: list[Text], *, batch_size: int, truncate: bool, max_length: int | None, **how: Any
) -> dict[str, Any]:
    with quiet():  # the task has said what was cut
        if task == "embed":
            cut = truncate or None
            encodings, _ = model.tokens_to_embed(texts, prompt=how["prompt"], truncate=cut, max_length=max_length)
        else:
            encodings = model.tokenizer.encode(texts, max_length=model.limit(max_length), truncate=truncate)
    return model.arrays(encodings, batch_size)
