"""The audit as one HTML page: no script, no font, no picture, no request; the filter is a row of radio buttons."""

from __future__ import annotations

import html
from collections.abc import Sequence
from importlib.resources import files

from refbert import __version__
from refbert_audit import oracle
from refbert_audit.findings import MEANINGS, Finding
from refbert_audit.registry import Claim, module_of
from refbert_audit.running import Outcome, by_kind, counts
from refbert_audit.sources import DOCUMENTS, KINDS, Document
from refbert_audit.wording import INFERRED, parts, show_claimed, show_expected, show_measured, summary

_SLUGS = {
    "agrees": "agrees", "deviates": "deviates", "wrong": "wrong", "needs weights/data": "needs",
    "unavailable": "unavailable", "error": "error",
}  # fmt: skip


def page(outcomes: Sequence[Outcome]) -> str:
    """All outcomes as a page."""
    style = files("refbert_audit").joinpath("audit.css").read_text(encoding="utf-8")
    numbers = counts(outcomes)
    changed = numbers.pop("not as recorded")
    decided = sum(numbers[verdict] for verdict in ("agrees", "deviates", "wrong"))
    shown = {verdict: n for verdict, n in numbers.items() if n}
    choices = [("all", "all", len(outcomes)), *((_SLUGS[v], v, n) for v, n in shown.items())]
    radios = "".join(
        f'<input type="radio" name="show" id="show-{slug}"{" checked" if slug == "all" else ""}>'
        for slug, *_ in choices
    )
    labels = "".join(
        f'<label for="show-{slug}" class="chip {slug}">{_text(word)} <b>{n}</b></label>' for slug, word, n in choices
    )
    hide = "".join(
        f"#show-{slug}:checked ~ main .claim:not(.{slug}){{display:none}}"
        f"#show-{slug}:checked ~ header label[for=show-{slug}]{{outline:2px solid currentColor}}"
        for slug, *_ in choices[1:]
    )
    record = "Every verdict is the one on record." if not changed else f"{changed} not as recorded."
    record += _unavailable(outcomes)
    meanings = "".join(f"<dt>{_text(v)}</dt><dd>{_text(m)}</dd>" for v, m in {**MEANINGS, "inferred": INFERRED}.items())
    kinds = "".join(
        f"<dt>{_text(KINDS[kind])}</dt><dd>{_text(parts(some).strip())}</dd>"
        for kind, some in by_kind(outcomes).items()
    )
    sections = "".join(_section(prefix, document, outcomes) for prefix, document in DOCUMENTS.items())
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        'img-src data:">'
        '<link rel="icon" href="data:,">'
        f"<title>refbert audit</title><style>{style}{hide}</style></head><body>{radios}"
        f"<header><h1>refbert audit</h1><p>{len(outcomes)} statements about BERT, {decided} of them decided by running."
        f" {record} refbert {__version__}; Hugging Face's code is {_text(oracle.name())}.</p><dl>{kinds}</dl>"
        f'<nav aria-label="verdicts">{labels}</nav><details><summary>What the verdicts mean</summary>'
        f"<dl>{meanings}</dl></details></header><main>{sections}</main></body></html>\n"
    )


def _unavailable(outcomes: Sequence[Outcome]) -> str:
    lacking = [outcome.lacking for outcome in outcomes if outcome.lacking]
    return "".join(f" {lacking.count(what)} unavailable: needs {_text(what)}." for what in dict.fromkeys(lacking))


def _section(prefix: str, document: Document, outcomes: Sequence[Outcome]) -> str:
    here = [o for o in outcomes if o.claim.id.startswith(f"{prefix}.")]
    if not here:
        return ""
    title = _linked(document.title, document.url)
    return f'<section><h2 id="{prefix}">{title}</h2>{"".join(_claim(o) for o in here)}</section>'


def _linked(text: str, url: str) -> str:
    return f'<a href="{_text(url)}">{_text(text)}</a>' if url else _text(text)


def _where(one: Claim) -> str:
    where = "".join(_linked(text, url) for text, url in one.links)
    return f"{where} (inferred)" if one.inferred else where


def _claim(outcome: Outcome) -> str:
    one, slug = outcome.claim, _SLUGS[outcome.verdict]
    changed = (
        "" if not outcome.changed else f'<p class="changed">Not as recorded: on record is {_text(one.expects)}.</p>'
    )
    error = f'<p class="changed">{_text(outcome.error)}</p>' if outcome.error else ""
    return (
        f'<details class="claim {slug}{" not-ok" if outcome.changed else ""}" id="{_text(one.id)}">'
        f'<summary><span class="chip {slug}">{_text(outcome.verdict)}</span> <code>{_text(one.id)}</code>'
        f'<span class="says">{_text(one.says)}</span><span class="found">{_text(summary(outcome))}</span></summary>'
        f'<div class="inside">{changed}{error}<p class="where">{_where(one)}</p><p>{_text(one.about)}</p>'
        f"{_finding(outcome.finding) if outcome.finding else ''}"
        f"<p>{_text(module_of(one.check))}</p><pre>{_text(one.code.rstrip())}</pre></div></details>"
    )


def _finding(found: Finding) -> str:
    out = f"<p>Missing: {_text(found.missing)}.</p>" if found.missing else ""
    if found.values:
        rows = "".join(
            f'<tr{"" if v.holds else " class=changed"}><th scope="row">{_text(v.name)}</th>'
            f"<td>{_text(show_measured(v))}</td><td>{_text(show_expected(v))}</td><td>{_text(show_claimed(v))}</td><td>{_text(v.by)}</td></tr>"
            for v in found.values
        )
        head = "".join(
            f'<th scope="col">{c}</th>' for c in ("", "measured", "on record", "the document says", "run by")
        )
        out += f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    if found.who:
        who = "".join(f"<dt>{_text(party)}</dt><dd>{_text(does)}</dd>" for party, does in found.who.items())
        out += f'<dl class="who">{who}</dl>'
    return out


def _text(text: str) -> str:
    return html.escape(text)
