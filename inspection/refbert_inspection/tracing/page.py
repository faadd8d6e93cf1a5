"""A trace as one HTML page: no request, no font, no library; style and script are the files in ``assets``."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from refbert import __version__
from refbert.files.json import jsonable
from refbert_inspection.tracing.maps import encode, habits
from refbert_inspection.tracing.names import NUMBERING, layer_of
from refbert_inspection.tracing.passes import probabilities_of
from refbert_inspection.tracing.summaries import QUANTILES, Summary, by_token, distribution, short
from refbert_inspection.tracing.trace import Trace

_SCRIPTS = ("selection.js", "sentence.js", "attention.js", "sections.js", "start.js")


def page(traced: Trace) -> str:
    """The whole page."""
    return document("refbert trace", _body(traced), scripts=_SCRIPTS, data=data(traced))


def data(traced: Trace) -> dict[str, Any]:
    """What the script reads; the fields are those that ``assets/*.js`` use."""
    run, layers = traced.run, traced.run.choices.layers
    tensors = [_described(name, op, x, gradient, len(traced.tokens)) for name, op, x, gradient in _rows(traced)]
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


def _rows(traced: Trace) -> list[tuple[str, str, Any, Any]]:
    """(name, op, tensor, gradient or None) in the order in which they were made."""
    found: list[tuple[str, str, Any, Any]] = []
    for call in traced.run.forward:
        if call.probabilities is not None:
            found.append((probabilities_of(call.name), "attention_probabilities", call.probabilities, None))
        found.append((call.name, call.op, call.y, call.gradient))
    return found


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


def _body(traced: Trace) -> str:
    model, run = traced.model, traced.run
    text = traced.text if isinstance(traced.text, str) else "  |  ".join(traced.text)
    facts = {
        "tokens": len(traced.tokens), "layers": run.choices.layers, "heads": run.choices.heads,
        "parameters": f"{model.num_parameters:,}", "profile": model.profile.name,
        "backend": f"{model.backend.name} ({model.backend.dtype}, {model.backend.device}; {model.backend.library})",
    }  # fmt: skip
    listed = "".join(f"<li>{text_of(name)} <b>{text_of(str(value))}</b></li>" for name, value in facts.items())
    sections = [("sentence", "Sentence")]
    sections += [("predictions", "Predictions")] if traced.lens is not None else []
    sections += [("attention", "Attention")] if run.choices.layers else []
    sections += [("activations", "Activations")]
    sections += [("gradients", "Gradients")] if run.gradients else []
    links = "".join(f'<a href="#{id}">{title}</a>' for id, title in sections)
    loss = "" if run.loss is None else f" The loss is {run.loss:.5g}."
    lead = f"<p>{text_of(text if len(text) < 400 else text[:400] + ' …')}</p>"
    parts = {name: _section(name) for name, _ in sections}
    facts_and_numbers = f"<ul class='facts small'>{listed}</ul><p class='small dim'>{NUMBERING}</p>"
    parts["sentence"] = parts["sentence"].replace("@@facts@@", facts_and_numbers)
    if "gradients" in parts:
        parts["gradients"] = parts["gradients"].replace("@@loss@@", text_of(f"Of {traced.about_loss}.{loss}"))
    return (
        f'<header><h1>refbert trace</h1>{lead}<nav class="sections" aria-label="sections">{links}</nav></header>'
        '<p id="old" class="bad" hidden>This browser has no DecompressionStream (Chrome 80, Firefox 113, Safari 16.4 '
        "have it), so nothing can be shown.</p><main><div id='selected' class='selected' role='group' "
        f"aria-label='selected'></div>{''.join(parts.values())}</main>"
        f'<footer class="small dim">refbert {text_of(__version__)}. Every tensor as an array: '
        "<code>refbert trace … --save FILE.npz</code>.</footer><div id='selftest' hidden></div>"
    )


def _section(name: str) -> str:
    return files("refbert_inspection.tracing").joinpath("assets", f"{name}.html").read_text(encoding="utf-8")


def shown(traced: Mapping[str, Any]) -> str:
    """What of attention the page shows, in words."""
    kept, (least, mean) = traced["kept"], traced["share"]
    if kept is None:
        return "Probabilities are shown in 256 steps of their square root."
    return (
        f"So that the page stays small, every row shows its {kept} largest probabilities, {mean:.1%} of the attention "
        f"on average and at least {least:.1%}; in 256 steps of their square root."
    )


def document(title: str, body: str, *, scripts: Sequence[str] = (), data: Mapping[str, Any] | None = None) -> str:
    """A page of this package: its style and scripts within it, and a policy that forbids every request."""
    asset = files("refbert_inspection.tracing").joinpath("assets")
    style = asset.joinpath("page.css").read_text(encoding="utf-8")
    script = "\n".join(asset.joinpath(name).read_text(encoding="utf-8") for name in scripts)
    inside = ""
    if data is not None:
        if data.get("attention"):
            body = body.replace("@@shown@@", text_of(shown(data["attention"])))
        # "<" cannot occur outside of strings in JSON, and "</script>" within one would end the element.
        written = json.dumps(jsonable(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        written = written.replace("<", "\\u003c")
        inside = f'<script type="application/json" id="data">{written}</script><script>{script}</script>'
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    policy += "; script-src 'unsafe-inline'" if inside else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><link rel="icon" href="data:,">'
        f"<title>{text_of(title)}</title><style>{style}</style></head><body>{body}{inside}</body></html>\n"
    )


def text_of(text: str) -> str:
    """Text as HTML."""
    return html.escape(text)
