"""``refbert run``: texts in, predictions or vectors out."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import click
import numpy as np
from click.core import ParameterSource

from refbert.cli.answers import answers_of, print_answers
from refbert.cli.output import print_json, progress, say_default_model, write_arrays
from refbert.cli.tables import Table, print_table
from refbert.embedder import POOLINGS, Normalize
from refbert.errors import InputError, RefbertWarning
from refbert.loading import load
from refbert.model import Model, Text
from refbert.models import DEFAULT
from refbert.profiles import PROFILES
from refbert.tasks import TASKS, Embedded, Filled, default_task, embed, fill_mask

# More texts than this make a similarity table that nobody reads.
_COMPARABLE = 12


@click.command()
@click.argument("texts", nargs=-1, metavar="[TEXT …]")
@click.option(
    "--model", envvar="REFBERT_MODEL", default=DEFAULT, show_default=True,
    help="A local directory, a hub name, or the model that comes with refbert (or set REFBERT_MODEL).",
)  # fmt: skip
@click.option(
    "--backend", default="numpy", show_default=True, help="A name from `refbert backends`, or package.module:Class."
)
@click.option(
    "--task", type=click.Choice(TASKS), help="Default: a fine-tuned head's; fill-mask for a [MASK]; else embed."
)
@click.option("--pair", is_flag=True, help="Texts come in twos: TEXT TEXT …, or tab-separated on each line of stdin.")
@click.option("--dtype", help="What the backend computes in; default: its own first choice.")
@click.option("--device", help='Where: "cpu", "cuda", "cuda:1", …')
@click.option(
    "--profile", type=click.Choice(tuple(PROFILES)), help="Whose numbers, where Google's and Hugging Face's differ."
)
@click.option("--top-k", default=5, show_default=True, help="How many candidates for each [MASK], label or answer.")
@click.option("--null-threshold", type=float, help='answer: "no answer" above this margin; default: never.')
@click.option(
    "--pooling", type=click.Choice(POOLINGS), help="What makes a text's vector; default: the checkpoint's, or mean."
)
@click.option("--normalize/--no-normalize", default=None, help="Scale vectors to length 1; default: as the checkpoint.")
@click.option("--prompt", help="embed: what to put before each text; default: the checkpoint's, or nothing.")
@click.option("--truncate", is_flag=True, help="Cut texts that are too long, instead of refusing them.")
@click.option("--max-length", type=int, help="Longest text in tokens; default: the model's.")
@click.option("--batch-size", default=32, show_default=True, type=click.IntRange(min=1), help="Texts per forward pass.")
@click.option(
    "--save", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.npz", help="Store the raw arrays."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per text instead of a table.")
def run(
    texts: tuple[str, ...],
    model: str,
    backend: str,
    task: str | None,
    pair: bool,
    dtype: str | None,
    device: str | None,
    profile: str | None,
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
) -> None:
    """Run a BERT on TEXTs, or on the lines of stdin.

    \b
    refbert run "A cat is a kind of [MASK]."
    refbert run --model DIR "Paris is the [MASK] of France."
    refbert run --model DIR --json < texts.txt > vectors.jsonl
    refbert run --model DIR --pair "a question" "a passage"
    refbert run --model DIR --task next-sentence --pair "a sentence" "another"
    """
    items = _read_texts(texts, pair)
    if click.get_current_context().get_parameter_source("model") is ParameterSource.DEFAULT:
        say_default_model(model)
    if save is not None:
        save = _writable(save)
    loaded = load(model, backend=backend, dtype=dtype, device=device, profile=profile)
    chosen = task or default_task(loaded, items)
    limits: dict[str, Any] = {"batch_size": batch_size, "truncate": truncate, "max_length": max_length}
    with progress(chosen, len(items)) as advance:
        if chosen == "fill-mask":
            filled = fill_mask(loaded, items, top_k=top_k, progress=advance, **limits)
        elif chosen == "embed":
            limits |= {"truncate": truncate or None, "prompt": prompt}
            embedded = embed(loaded, items, pooling=pooling, normalize=normalize, progress=advance, **limits)
        else:
            answers = answers_of(loaded, chosen, items, top_k=top_k, progress=advance, **limits)
    if save is not None:
        write_arrays(save, _arrays(loaded, items, **limits))
    if chosen == "fill-mask":
        _print_filled(filled, as_json)
    elif chosen != "embed":
        print_answers(answers, as_json, top_k=top_k, null_threshold=null_threshold)
    else:
        _print_embedded(embedded, as_json)


def _read_texts(texts: tuple[str, ...], pair: bool) -> list[Text]:
    """The arguments, or stdin's lines; two by two with ``pair``."""
    if texts:
        if not pair:
            return list(texts)
        if len(texts) % 2:
            raise InputError(f"--pair takes texts two by two, got {len(texts)}")
        return list(zip(texts[::2], texts[1::2], strict=True))
    if sys.stdin is None or sys.stdin.isatty():
        raise InputError("no text: pass TEXT arguments, or lines on stdin")
    try:
        lines = sys.stdin.buffer.read().decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"stdin is not UTF-8 (byte {error.start})") from None
    if not lines:
        raise InputError("no text: stdin is empty; pass TEXT arguments, or lines on stdin")
    if not pair:
        return list(lines)
    pairs: list[Text] = []
    for number, line in enumerate(lines, start=1):
        parts = line.split("\t")
        if len(parts) != 2:
            raise InputError(f"line {number} of stdin: --pair needs two texts separated by one tab")
        pairs.append((parts[0], parts[1]))
    return pairs


def _arrays(model: Model, texts: list[Text], *, batch_size: int, **how: Any) -> dict[str, Any]:
    """The raw arrays of all texts in one padded batch: [N, S, …], under Hugging Face's output names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RefbertWarning)  # the task has said what was cut
        batch = (
            model.tokenizer.pad(model.tokens_to_embed(texts, **how)[0])
            if "prompt" in how
            else model.batch(texts, **how)
        )
    parts: dict[str, list[Any]] = {}
    for start in range(0, len(texts), batch_size):
        rows = batch.rows(slice(start, start + batch_size))
        out = model(rows)
        arrays = {"last_hidden_state": out.last_hidden_state}
        if out.pooler_output is not None:
            arrays["pooler_output"] = out.pooler_output
        for head, logits in out.logits.items():
            arrays["logits" if len(out.logits) == 1 else f"{head}_logits"] = logits
        for name, array in arrays.items():
            parts.setdefault(name, []).append(array)
    return {
        "input_ids": batch.input_ids,
        "token_type_ids": batch.token_type_ids,
        "attention_mask": batch.attention_mask,
    } | {name: np.concatenate(arrays) for name, arrays in parts.items()}


def _writable(path: Path) -> Path:
    """Where to save, links followed; raises `InputError` before any work is done for a place that cannot be."""
    target = path.resolve()
    if not target.parent.is_dir():
        raise InputError(f"{path}: the directory to save in does not exist")
    if target.exists() and not target.is_file():
        raise InputError(f"{path}: not a regular file; name another to save in")
    return target


def _shown(text: Text) -> str:
    return text if isinstance(text, str) else "  |  ".join(text)


def _print_filled(results: list[Filled], as_json: bool) -> None:
    if as_json:
        for result in results:
            print_json(
                {
                    "text": result.text,
                    "tokens": result.tokens,
                    "masks": [
                        {"position": mask.position, "predictions": [vars(p) for p in mask.predictions]}
                        for mask in result.masks
                    ],
                }
            )
        return
    for result in results:
        table = Table(_shown(result.text))
        table.add_column("position", "figure")
        table.add_column("token")
        table.add_column("probability", "figure")
        for mask in result.masks:
            for rank, prediction in enumerate(mask.predictions):
                table.add_row(str(mask.position) if rank == 0 else "", prediction.token, f"{prediction.score:.4f}")
        if not result.masks:
            table.add_row("", "(no mask)", "")
        print_table(table)


def _print_embedded(results: list[Embedded], as_json: bool) -> None:
    if as_json:
        for result in results:
            print_json({"text": result.text, "tokens": result.tokens, "embedding": result.embedding})
        return
    table = Table()
    table.add_column("#", "figure")
    table.add_column("text")
    table.add_column("tokens", "figure")
    table.add_column(f"embedding (of {len(results[0].embedding)})", "id")
    for number, result in enumerate(results, start=1):
        head = "  ".join(f"{x:+.4f}" for x in result.embedding[:4])
        table.add_row(str(number), _shown(result.text), str(len(result.tokens)), f"{head}  …")
    print_table(table)
    if 1 < len(results) <= _COMPARABLE:
        vectors = Normalize()(np.stack([result.embedding for result in results]))
        similarity = Table("cosine similarity")
        similarity.add_column("", "figure")
        for number in range(1, len(results) + 1):
            similarity.add_column(str(number), "figure")
        for number, row in enumerate(vectors @ vectors.T, start=1):
            similarity.add_row(str(number), *(f"{x:.3f}" for x in row))
        print_table(similarity)
