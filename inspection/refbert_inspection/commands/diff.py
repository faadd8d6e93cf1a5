"""``refbert diff``: the same pass on two sides, tensor by tensor."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from refbert.cli.options import backend_option, file_option, json_option
from refbert.cli.output import print_json, require_writable, say_default_model, working, write_text
from refbert.cli.tables import Table, print_table, say
from refbert.config.profiles import PROFILES
from refbert.errors import InputError
from refbert.models import DEFAULT

if TYPE_CHECKING:
    from refbert_inspection.tracing.difference import Difference, Row, Side, Told
    from refbert_inspection.tracing.setting import Setting

_TRANSFORMERS = "transformers"
_TEXTS = ("The quick brown fox jumps over the lazy dog.", "Yes.")


@click.command()
@click.argument("texts", nargs=-1, metavar="[TEXT …]")
@backend_option
@click.option(
    "--against", default="reference", show_default=True,
    help='Another backend, or "transformers" for Hugging Face\'s model (needs --model).',
)  # fmt: skip
@click.option("--dtype", help="What --backend computes in; default: its own first choice.")
@click.option("--against-dtype", help="The same for --against.")
@click.option("--device", help='Where --backend is: "cpu", "cuda", …')
@click.option("--against-device", help="The same for --against.")
@click.option("--profile", type=click.Choice(tuple(PROFILES)), help="Whose numbers on --backend's side.")
@click.option("--against-profile", type=click.Choice(tuple(PROFILES)), help="For --against; default: --profile.")
@click.option(
    "--model",
    envvar="REFBERT_MODEL",
    help="A checkpoint; default where there is TEXT: the one that comes with refbert.",
)
@click.option("--backward", is_flag=True, help="The gradients, too.")
@click.option("--truncate", is_flag=True, help="Cut texts that are too long, instead of refusing them.")
@file_option("--html", "html_file", help="Plot and tensors.")
@click.option("--all", "everything", is_flag=True, help="Every tensor in the table, not only each layer's last.")
@json_option()
def diff(
    texts: tuple[str, ...], backend: str, against: str, dtype: str | None, against_dtype: str | None,
    device: str | None, against_device: str | None, profile: str | None, against_profile: str | None,
    model: str | None, backward: bool, truncate: bool, html_file: Path | None, everything: bool, as_json: bool,
) -> int:  # fmt: skip
    """Find where two backends, dtypes or profiles part, or a backend and Hugging Face transformers.

    Without TEXT and --model: small random weights, which need no files.

    \b
    refbert diff --backend torch --backward
    refbert diff --backend package.module:Class --against numpy --backward --html diff.html
    refbert diff --backend numpy --against transformers --model DIR "Some text."

    Exit status: 0 within the bounds, 1 beyond them, 2 bad usage or something unavailable.
    """
    require_writable(html_file)
    if backend == _TRANSFORMERS:
        raise InputError("--backend is a backend; transformers is for --against")
    if against == _TRANSFORMERS and against_device is not None:
        raise InputError("--against-device is for backends; transformers runs on the CPU here")
    if against == _TRANSFORMERS and model is None and not texts:
        raise InputError("--against transformers needs a checkpoint: name one with --model")
    if model is None and texts:
        model = DEFAULT
        say_default_model(model)
    from refbert_inspection.tracing.difference import compared

    with working() as told:
        one, other = _sides(
            model, texts, backward, truncate, Named(backend, dtype, device, profile),
            Named(against, against_dtype, against_device, against_profile or profile), told,
        )  # fmt: skip
        found = compared(one, other, told)
    if html_file is not None:
        from refbert_inspection.tracing.difference_page import page

        write_text(html_file, page(found))
    if as_json:
        print_json(_as_json(found, html_file))
    else:
        _show(found, html_file, everything)
    return 0 if found.within else 1


class Named(NamedTuple):
    """What the options say of a side."""

    backend: str
    dtype: str | None
    device: str | None
    profile: str | None


def _sides(
    model: str | None, texts: tuple[str, ...], backward: bool, truncate: bool, mine: Named, theirs: Named, told: Told
) -> tuple[Side, Side]:
    from refbert import checkpoint
    from refbert.backend import registry, require_whole
    from refbert_inspection.tracing.difference import side_of
    from refbert_inspection.tracing.setting import synthetic

    def labelled(backend: Any, setting: Setting, given: str) -> Side:
        label = f"{given} ({backend.dtype})"
        told(f"{label}: {described}", "")
        return side_of(backend, setting, label=label)

    def made(named: Named) -> Any:
        backend = registry.create(named.backend, dtype=named.dtype, device=named.device)
        require_whole(backend)
        return backend

    backend = made(mine)
    other = None if theirs.backend == _TRANSFORMERS else made(theirs)
    setting = synthetic(backward=backward) if model is None else _of_checkpoint(model, texts, backward, truncate)
    B, S = setting.batch.shape
    way = "forward and backward" if backward else "forward"
    described = f"{way}, {setting.choices.layers} layers, {B} × {S} tokens"
    if other is not None:
        setting = setting.in_dtype(backend.dtype, other.dtype)
        one = setting.under(mine.profile)
        two = one if mine.profile == theirs.profile else setting.under(theirs.profile)
        return labelled(backend, one, mine.backend), labelled(other, two, theirs.backend)
    from refbert_inspection import hugging_face
    from refbert_inspection.tracing.transformers_side import side_of_transformers

    assert model is not None
    dtype = theirs.dtype or "float32"
    model_there = hugging_face.load(checkpoint.resolve(model), setting.heads, pooler=setting.has_pooler, dtype=dtype)
    # transformers has its own weights, unrounded: a backend of half precision is compared with them as they are.
    one = setting.under(mine.profile)
    two = one if mine.profile is None else setting.under("hf")
    ours = labelled(backend, one, mine.backend)
    told(f"transformers ({dtype}): {described}", "")
    return ours, side_of_transformers(model_there, two, dtype=dtype)


def _of_checkpoint(model: str, texts: tuple[str, ...], backward: bool, truncate: bool) -> Setting:
    from refbert.loading import load
    from refbert_inspection.tracing.setting import of_model

    loaded = load(model, backend="reference", dtype="float32")
    return of_model(loaded, loaded.batch(list(texts or _TEXTS), truncate=truncate), backward=backward)


def _as_json(found: Difference, html_file: Path | None) -> dict[str, Any]:
    """The fields that docs/command-line.md lists."""
    fields = ("op", "direction", "name", "rho", "message")
    return {
        "verdict": "within" if found.within else "beyond", "sides": [side.label for side in found.sides],
        "compared": len(found.rows), "unlike": found.unlike, "different": found.different,
        "wrong": [[{name: getattr(one, name) for name in fields} for one in side] for side in found.wrong],
        "first_tensor_beyond": None if found.parted is None else found.parted.name,
        "tensors": [vars(row) for row in found.rows], "html": None if html_file is None else str(html_file),
    }  # fmt: skip


def _show(found: Difference, html_file: Path | None, everything: bool) -> None:
    from refbert_inspection.tracing.difference import number, verdict

    for line in verdict(found):
        say(line)
    for line in found.different:
        say(f"asked for differently: {line}")
    judged = [k for k in (0, 1) if any(row.own[k] is not None for row in found.rows)]
    figures = ["distance", "allowed", "ρ", *(f"{found.sides[k].name}: op by itself" for k in judged)]
    title = f"{found.sides[0].label} against {found.sides[1].label}"
    table = Table(title, ("tensor", "name"), *((x, "figure") for x in figures), ("distance, 1e-17 to 10", "aside"))
    for row in found.rows:
        beyond = row.rho > 1 or any(own is not None and own > 1 for own in row.own)
        if everything or beyond or _tells(row):
            numbers = (row.distance, row.allowed, row.rho, *(row.own[k] for k in judged))
            cells = ("" if x is None else number(x) for x in numbers)
            table.add_row(row.name, *cells, _bar(row.distance), style="bold red" if beyond else "")
    print()
    print_table(table)
    if len(table.rows) < len(found.rows):
        say(f"{len(table.rows)} of {len(found.rows)} tensors shown; --all shows every one")
    if html_file is not None:
        say(f"page: {html_file}")


def _tells(row: Row) -> bool:
    """The rows of the short table: what leaves the embeddings and each layer, the logits, losses and the pooler."""
    from refbert_inspection.tracing.names import PROJECTIONS
    from refbert_inspection.tracing.passes import GRADIENT

    last = ("embeddings.LayerNorm", "output.LayerNorm", "pooler.tanh", "loss", "decoder", *PROJECTIONS)
    return row.name.removeprefix(GRADIENT).endswith(last) and ".attention." not in row.name


def _bar(distance: float) -> str:
    """How far on a logarithmic scale, one mark for each power of ten."""
    if not distance > 0 or not math.isfinite(distance):
        return ""
    return "▇" * max(0, min(18, round(math.log10(distance)) + 17))
