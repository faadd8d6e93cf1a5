"""``refbert judge-outputs``: an engine that shows nothing but its outputs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from refbert.cli.options import is_given, json_option, model_option, profile_option
from refbert.cli.output import print_json, say_default_model, working
from refbert.cli.tables import Table, print_table, say
from refbert.cli.texts import from_arguments, from_stdin
from refbert.embedder import POOLINGS
from refbert.errors import InputError
from refbert_conformance.commands.options import DTYPES, arithmetic_option, declared_arithmetic

if TYPE_CHECKING:
    from refbert_conformance.outputs.judging import Judged, Verdict

_SHOWN = 6


@click.command("judge-outputs")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.argument("texts", nargs=-1, metavar="[TEXT …]")
@model_option
@profile_option
@click.option(
    "--dtype", type=click.Choice(DTYPES), default="float32", show_default=True, help="What the engine computes in."
)
@arithmetic_option("How it rounds, such as")
@click.option("--pair", is_flag=True, help="Texts come in twos: TEXT TEXT …, or tab-separated on each line of stdin.")
@click.option("--pooling", type=click.Choice(POOLINGS), help="What makes a text's vector; default: the checkpoint's.")
@click.option(
    "--normalize/--no-normalize", default=None, help="Vectors of length 1 or not; default: as the checkpoint."
)
@click.option("--prompt", help="What stands before each text; default: the checkpoint's, or nothing.")
@click.option("--truncate", is_flag=True, help="Cut texts that are too long, instead of refusing them.")
@click.option("--max-length", type=int, help="Longest text in tokens; default: the model's.")
@json_option("tables")
def judge_outputs(
    file: Path, texts: tuple[str, ...], model: str, profile: str | None, dtype: str, arithmetic: str | None, pair: bool,
    pooling: str | None, normalize: bool | None, prompt: str | None, truncate: bool, max_length: int | None,
    as_json: bool,
) -> int:  # fmt: skip
    """Judge whether outputs are a model's, for engines that show nothing else: a server, a phone, ONNX Runtime.

    FILE (.npz, .npy or .safetensors) has what the engine made of the TEXTs (or the lines of stdin), in their order:
    last_hidden_state, pooler_output, logits, sentence_embedding, and if it is known input_ids, attention_mask and
    token_type_ids. What is not the model's gets its cause, if one of the things that engines do instead explains it.

    \b
    refbert judge-outputs out.npz --model DIR "A text." "Another."
    refbert judge-outputs out.npz --model DIR < texts.txt

    Exit status: 0 the model's, 1 not the model's, 2 bad usage.
    """
    from refbert.loading import load
    from refbert_conformance.outputs.files import VECTORS, read_outputs
    from refbert_conformance.outputs.hypotheses import Reading
    from refbert_conformance.outputs.judging import Judge
    from refbert_conformance.tolerances.arithmetic import Arithmetic

    rounding = Arithmetic.of(dtype, declared_arithmetic(arithmetic, dtype))
    given = []
    for one in from_arguments(texts, pair) if texts else from_stdin(pair):
        if one.wrong or one.text is None:
            raise InputError(f"{one.where} {one.wrong}")
        given.append(one.text)
    if not is_given("model"):
        say_default_model(model)
    loaded = load(model, backend="reference", dtype="float64", profile=profile)
    loaded.embedder = (
        loaded.embedder.told(pooling, normalize) if (pooling, normalize) != (None, None) else loaded.embedder
    )
    found = read_outputs(file, loaded, len(given))
    embedding = any(array.kind == VECTORS for array in found.arrays)
    how = Reading(given, truncate, max_length, prompt, embedding)
    with working() as tell:
        tell("judging", "")
        verdict = Judge(loaded, how, found, rounding).verdict()
    if as_json:
        print_json(_as_json(verdict, dtype, found.unknown))
    else:
        _show(verdict, file, dtype, found.unknown)
    return 0 if verdict.within else 1


def _show(verdict: Verdict, file: Path, dtype: str, unknown: tuple[str, ...]) -> None:
    from refbert_conformance.outputs.judging import number

    table = Table(f"{file} against the model, in {dtype}", ("array", "name"), "shape")
    for heading in ("rows", "distance", "allowed", "worst ρ"):
        table.add_column(heading, "figure")
    table.add_column("where")
    for one in verdict.arrays:
        table.add_row(
            one.name, str(list(one.shape)), str(one.rows), number(one.distance), number(one.allowed), f"{one.rho:.2g}",
            str(list(one.where)), style="" if one.within else "bold red",
        )  # fmt: skip
    print_table(table)
    for difference in verdict.tokens:
        say(f"other tokens than the model's: {difference}")
    for one in verdict.arrays:
        for line in _notes(one):
            say(line)
    if unknown:
        say(f"not judged, since nothing is known of these names: {', '.join(unknown)}")
    if not verdict.within:
        near = Table("nearest", ("computed", "text"), ("distance", "figure"))
        for candidate in verdict.ranked[:_SHOWN]:
            near.add_row(candidate.name, number(candidate.distance))
        print_table(near)
        say(verdict.sentence)
    said = "the model's" if verdict.within else "not the model's"
    arrays = f"{len(verdict.arrays)} array{'' if len(verdict.arrays) == 1 else 's'}"
    say(f"{said}: {arrays}, {len(verdict.ranked) - 1} other things that might have been computed")


def _notes(one: Judged) -> list[str]:
    notes = []
    if one.missing:
        notes.append(f"{one.name} lacks {one.missing} of the texts' tokens: it has {one.shape[1]} columns")
    if one.towards and one.rho <= 1:
        notes.append(
            f"{one.name}: each row is within rounding, but all together lie {one.way:.2f} of the way to another model, "
            f"the one with {one.towards}, and rounding has no aim (ρ = {one.rho_towards:.3g} in that direction)"
        )
    if one.allowed >= 1:
        notes.append(f"{one.name}: rounding may take a row further than its own norm, so that this says little")
    return notes


def _as_json(verdict: Verdict, dtype: str, unknown: tuple[str, ...]) -> dict[str, Any]:
    """The fields that docs/command-line.md lists."""
    return {
        "verdict": "within" if verdict.within else "beyond",
        "dtype": dtype,
        "arrays": [{**vars(one), "within": one.within} for one in verdict.arrays],
        "tokens": list(verdict.tokens),
        "not_judged": list(unknown),
        "nearest": [{"name": one.name, "distance": one.distance} for one in verdict.ranked],
        "causes": list(verdict.causes),
        "cause": verdict.sentence,
    }
