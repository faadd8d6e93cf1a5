"""``refbert trace``: one text through a model, every tensor by name, as a page and as a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from refbert.cli.options import computing, file_option, is_given, json_option, model_option
from refbert.cli.output import print_json, require_writable, say_default_model, write_arrays, write_text
from refbert.cli.tables import Table, print_table, say
from refbert.errors import InputError
from refbert.loading import load

if TYPE_CHECKING:
    from refbert_inspection.tracing import Trace

_PAGE = Path("refbert-trace.html")


@click.command()
@click.argument("texts", nargs=-1, metavar="TEXT")
@model_option
@computing
@click.option("--pair", is_flag=True, help="Two texts: TEXT TEXT.")
@click.option("--truncate", is_flag=True, help="Cut a text that is too long, instead of refusing it.")
@click.option("--backward", is_flag=True, help="The gradients, too: of the masked-LM loss.")
@click.option(
    "--mask", "masked", multiple=True, type=int, metavar="N",
    help="Put a [MASK] in place of token N ([CLS] is 0); its label is what was there.",
)  # fmt: skip
@click.option(
    "--label", "labels", multiple=True, metavar="TOKEN",
    help="What belongs at the text's [MASK]s, in order; default: the model's own first guesses.",
)  # fmt: skip
@click.option("--top-k", default=5, show_default=True, type=click.IntRange(min=1), help="Predictions for each token.")
@file_option("--html", "html_file", default=_PAGE, show_default=True, help="The page.")
@file_option("--save", metavar="FILE.npz", help="Every array by name.")
@json_option()
def trace(
    texts: tuple[str, ...], model: str, pair: bool, truncate: bool, backward: bool, masked: tuple[int, ...],
    labels: tuple[str, ...], top_k: int, html_file: Path, save: Path | None, as_json: bool, **computed: Any,
) -> None:  # fmt: skip
    """Run one TEXT and keep everything that is made of it: attention, activations, predictions, gradients.

    \b
    refbert trace "The cat sat on the [MASK]."
    refbert trace --backward --label mat "The cat sat on the [MASK]."
    refbert trace --backward --mask 3 --html page.html --save arrays.npz "The cat sat on the mat."
    refbert trace --pair "Where did it sit?" "The cat sat on the mat."
    """
    if len(texts) != (2 if pair else 1):
        raise InputError(
            f"--pair takes two texts, got {len(texts)}" if pair else f"trace takes one text, got {len(texts)}; "
            "quote it if it has spaces, and see --pair for two"
        )  # fmt: skip
    if labels and not backward:
        raise InputError("--label is for the loss: add --backward")
    require_writable(html_file, save)
    if not is_given("model"):
        say_default_model(model)
    from refbert_inspection.tracing import trace as traced
    from refbert_inspection.tracing.page import page

    loaded = load(model, **computed)
    if top_k > loaded.config.vocab_size:
        raise InputError(f"top-k must be at most the vocabulary's {loaded.config.vocab_size}, not {top_k}")
    text = (texts[0], texts[1]) if pair else texts[0]
    found = traced(loaded, text, backward=backward, masked=masked, labels=labels, truncate=truncate, top_k=top_k)
    if save is not None:
        write_arrays(save, {"input_tokens": np.array(found.tokens)} | found.run.arrays())
    write_text(html_file, page(found))
    if as_json:
        print_json(_as_json(found, html_file, save))
    else:
        _show(found, html_file, save)


def _as_json(found: Trace, html_file: Path, save: Path | None) -> dict[str, Any]:
    """The fields that docs/command-line.md lists."""
    from refbert_inspection.tracing.summaries import Summary

    def numbers(x: Any) -> dict[str, Any]:
        s = Summary.of(x)
        return {"shape": s.shape, "rms": s.rms, "min": s.min, "max": s.max, "not_finite": s.bad}

    gradients = found.run.gradients_of_tensors()
    tensors = [
        {"name": name, **numbers(x), "gradient_rms": Summary.of(gradients[name]).rms if name in gradients else None}
        for name, x in found.run.tensors().items()
    ]
    parameters = [
        {"name": name, "shape": g.shape, "gradient_norm": Summary.of(g).norm} for name, g in found.run.gradients.items()
    ]
    return {
        "text": found.text, "tokens": found.tokens, "loss": found.run.loss,
        "loss_of": found.about_loss or None,
        "labels": [{"position": s, "token": token} for s, token in found.targets],
        "masks": [{"position": s, "predictions": _predictions(found, s)} for s in found.masks] if found.lens else [],
        "tensors": tensors, "parameters": parameters, "html": str(html_file), "npz": str(save) if save else None,
    }  # fmt: skip


def _predictions(found: Trace, s: int) -> list[dict[str, Any]]:
    """What the last layer says of a token, the likeliest first."""
    assert found.lens is not None
    ids, scores = found.lens.ids[-1, s].tolist(), found.lens.scores[-1, s].tolist()
    word = found.model.tokenizer.token
    return [{"token": word(i), "token_id": i, "score": p} for i, p in zip(ids, scores, strict=True)]


def _say_guess(found: Trace, s: int) -> None:
    """What a [MASK] is, and how the first guess comes about from the embeddings through the layers."""
    if found.lens is None:
        say(f"{found.tokens[s]} (token {s}): this model has no masked-LM head to say what it is")
        return
    guesses = _predictions(found, s)
    said = ", ".join(f"{one['token']} {_percent(one['score'])}" for one in guesses)
    label = "".join(f"; the label is {token}" for at, token in found.targets if at == s)
    say(f"{found.tokens[s]} (token {s}): {said}{label}")
    embedded, *layers = map(_percent, found.lens.final[:, s])
    rows = [f"embeddings: {embedded}", *(f"layer {i}: {p}" for i, p in enumerate(layers))]
    say(f"    {guesses[0]['token']}, layer by layer: {', '.join(rows)}")


def _percent(p: float) -> str:
    return f"{100 * p:.3g}%"


def _show(found: Trace, html_file: Path, save: Path | None) -> None:
    from refbert_inspection.tracing.summaries import Summary, short

    for at in found.masks:
        _say_guess(found, at)
    if found.masks:
        print()
    gradients = found.run.gradients_of_tensors()
    title = " ".join(found.tokens[:24]) + (" …" if len(found.tokens) > 24 else "")
    figures = ("shape", "rms", "min", "max", *(["rms of gradient"] if gradients else []))
    table = Table(title, ("tensor", "name"), *((name, "figure") for name in figures))
    for name, x in found.run.tensors().items():
        s = Summary.of(x)
        row = ["×".join(map(str, s.shape)) or "number", *(f"{short(v):.4g}" for v in (s.rms, s.min, s.max))]
        if s.bad:
            row[-1] += f"  ({s.bad} not finite)"
        if gradients:
            row.append(f"{short(Summary.of(gradients[name]).rms):.4g}" if name in gradients else "")
        table.add_row(name, *row)
    print_table(table)
    if found.about_loss:
        loss = "" if found.run.loss is None else f", {found.run.loss:.6g}"
        say(f"gradients of {found.about_loss}{loss}")
    if save is not None:
        say(f"arrays: {save}")
    say(f"page: {html_file}")
