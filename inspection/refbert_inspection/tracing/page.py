"""A trace as one HTML page: no request, no font, no library; template, style and script are in ``templates``."""

from __future__ import annotations

from typing import Any

import numpy as np

from refbert import __version__
from refbert.files.json import jsonable
from refbert.pages import fill
from refbert_inspection.tracing.maps import encode, habits
from refbert_inspection.tracing.names import NUMBERING, layer_of
from refbert_inspection.tracing.summaries import QUANTILES, Summary, by_token, distribution, short
from refbert_inspection.tracing.trace import Trace

_SCRIPTS = ("selection.js", "sentence.js", "attention.js", "sections.js", "start.js")


def page(traced: Trace) -> str:
    """The whole page."""
    model, run = traced.model, traced.run
    text = traced.text if isinstance(traced.text, str) else "  |  ".join(traced.text)
    facts = {
        "tokens": len(traced.tokens), "layers": run.choices.layers, "heads": run.choices.heads,
        "parameters": f"{model.num_parameters:,}", "profile": model.profile.name,
        "backend": f"{model.backend.name} ({model.backend.dtype}, {model.backend.device}; {model.backend.library})",
    }  # fmt: skip
    there = {
        "sentence": True, "predictions": traced.lens is not None, "attention": bool(run.choices.layers),
        "activations": True, "gradients": bool(run.gradients),
    }  # fmt: skip
    return fill(
        "refbert_inspection.tracing", "trace.html",
        text=text if len(text) < 400 else text[:400] + " …", facts=facts, numbering=NUMBERING,
        sections=[section for section, shown in there.items() if shown],
        loss=run.loss, about_loss=traced.about_loss, version=__version__, data=jsonable(data(traced)), scripts=_SCRIPTS,
    )  # fmt: skip


def data(traced: Trace) -> dict[str, Any]:
    """What the script reads; the fields are those that ``templates/*.js`` use."""
    run, layers = traced.run, traced.run.choices.layers
    tensors = [
        _described(name, op, x, call.gradient if name == call.name else None, len(traced.tokens))
        for name, op, x, call in run.made()
    ]
    maps = encode(traced.attentions) if layers else None
    return {
        "tokens": traced.tokens,
        "special": traced.special,
        "segments": traced.segments,
        "masks": traced.masks,
        "opens": traced.masks[0] if traced.masks else traced.special.index(0) if 0 in traced.special else 0,
        "layers": layers,
        "heads": run.choices.heads,
        "loss": run.loss,
        "targets": traced.targets,
        "quantiles": [f"{100 * q:g} %" for q in QUANTILES],
        "tensors": tensors,
        "attention": None if maps is None else {
            "layers": maps.layers, "thumbnails": maps.thumbnails, "side": maps.side, "kept": maps.kept,
            "share": maps.share, "habits": [habits(p, traced.special) for p in traced.attentions],
        },
        "lens": _lens(traced),
        "parameters": _parameters(traced),
    }  # fmt: skip


def _described(name: str, op: str, x: Any, gradient: Any, S: int) -> dict[str, Any]:
    said = Summary.of(x)
    found = {
        "name": name, "op": op, "layer": layer_of(name), "shape": said.shape, "rms": short(said.rms),
        "min": short(said.min), "max": short(said.max), "mean": short(said.mean), "bad": said.bad,
        "tokens": by_token(x, S), **distribution(x),
    }  # fmt: skip
    if gradient is not None:
        found["gradient"] = {"rms": short(Summary.of(gradient).rms), "tokens": by_token(gradient, S)}
    return found


def _lens(traced: Trace) -> dict[str, Any] | None:
    found = traced.lens
    if found is None:
        return None
    words = {int(i): traced.model.tokenizer.token(int(i)) for i in np.unique(found.ids)}
    return {
        "words": words,
        "ids": found.ids.tolist(),
        "scores": [[[short(p) for p in row] for row in layer] for layer in found.scores],
        "final": [[short(p) for p in layer] for layer in found.final],
    }


def _parameters(traced: Trace) -> list[dict[str, Any]]:
    host = traced.model.backend.to_numpy
    found = []
    for name, weights in traced.model.parameters.items():
        if name in traced.run.gradients:
            gradient = Summary.of(traced.run.gradients[name])
            found.append({"name": name, "shape": gradient.shape, "rms": short(Summary.of(host(weights)).rms),
                          "norm": short(gradient.norm)})  # fmt: skip
    return found
