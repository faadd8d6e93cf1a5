"""``refbert run``: texts in, predictions or vectors out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import click

from refbert.cli.answers import answers_of
from refbert.cli.arrays import Keeping
from refbert.cli.options import computing, count_option, file_option, is_given, json_option, model_option
from refbert.cli.output import progress, require_writable, say_default_model, write_arrays
from refbert.cli.results import Printer
from refbert.cli.texts import Outcome, from_arguments, from_stdin, outcomes
from refbert.embedder import POOLINGS
from refbert.errors import InputError, quiet
from refbert.loading import load
from refbert.model import Model, Text
from refbert.tasks.fill_mask import TASKS, default_task, embed, fill_mask, has_mask


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
def run(
    texts: tuple[str, ...],
    model: str,
    task: str | None,
    pair: bool,
    top_k: int,
    null_threshold: float | None,
    pooling: str | None,
    normalize: bool | None,
    prompt: str | None,
    truncate: bool,
    max_length: int | None,
    batch_size: int,
    save: Path | None,
    as_json: bool,
    **computed: Any,
) -> int:
    """Run a BERT on TEXTs, or on the lines of stdin.

    A text that cannot be read or is refused leaves the others alone; the exit status is 2 then.

    \b
    refbert run "A cat is a kind of [MASK]."
    refbert run --model DIR "Paris is the [MASK] of France."
    refbert run --model DIR --json < texts.txt > vectors.jsonl
    refbert run --model DIR --pair "a question" "a passage"
    refbert run --model DIR --task next-sentence --pair "a sentence" "another"
    """
    given = from_arguments(texts, pair) if texts else from_stdin(pair)
    # What the default task is chosen by: all texts, or of stdin, which may have no end, a batch.
    first = list(given if texts or save is not None else islice(given, batch_size))
    if not is_given("model"):
        say_default_model(model)
    require_writable(save)
    loaded = load(model, **computed)
    known = [item.text for item in first if item.text is not None]
    chosen = task or default_task(loaded, known)
    if chosen == "fill-mask" and texts and not has_mask(loaded, known):
        raise InputError(_no_mask(loaded))
    limits: dict[str, Any] = {"batch_size": batch_size, "truncate": truncate, "max_length": max_length}
    if chosen == "embed":  # as the directory says, unless told otherwise; --save reads the texts in the same way
        limits |= {"truncate": truncate or None, "prompt": prompt}
    asked = loaded if save is None else Keeping(loaded)
    printer = Printer(as_json, top_k=top_k, null_threshold=null_threshold)
    with progress(chosen, len(first) if texts else None) as advance:

        def predict(some: list[Text]) -> Sequence[Any]:
            how = limits | {"progress": advance}
            if chosen == "fill-mask":
                return fill_mask(asked, some, top_k=top_k, need_mask=False, **how)
            if chosen == "embed":
                return embed(asked, some, pooling=pooling, normalize=normalize, **how)
            return answers_of(asked, chosen, some, top_k=top_k, **how)

        every = outcomes(chain(first, given), predict, batch_size)
        if save is not None and isinstance(asked, Keeping):
            # One file of them all: nothing is written or shown unless they all are good.
            every = iter([_all_good(every)])
            write_arrays(save, _arrays(asked, known, **limits))
        for batch in every:
            printer.add(batch)
    printer.close()
    if chosen == "fill-mask" and printer.shown and not printer.masks:
        raise InputError(_no_mask(loaded))
    return 2 if printer.refused else 0


def _no_mask(model: Model) -> str:
    return f"no text has a {model.tokenizer.mask_token} to fill"


def _all_good(every: Iterable[list[Outcome]]) -> list[Outcome]:
    kept = [one for batch in every for one in batch]
    for one in kept:
        if one.wrong:
            raise InputError(f"{one.given.where} {one.wrong}")
    return kept


def _arrays(model: Keeping, texts: list[Text], *, batch_size: int, **how: Any) -> dict[str, Any]:
    with quiet():  # the task has said what was cut
        if "prompt" in how:
            encodings, _ = model.tokens_to_embed(texts, **how)
        else:
            encodings = model.tokenizer.encode(
                texts, max_length=model.limit(how["max_length"]), truncate=how["truncate"]
            )
    return model.arrays(encodings, batch_size)
