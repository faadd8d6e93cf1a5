"""The audit as one HTML page: no script, no font, no picture, no request; the filter is a row of radio buttons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from refbert import __version__
from refbert.pages import fill
from refbert_audit import formatting
from refbert_audit.findings import MEANINGS
from refbert_audit.outcomes import Outcome, by_kind, counts
from refbert_audit.sources import DOCUMENTS, KINDS
from refbert_inspection import hugging_face

_SLUGS = {
    "agrees": "agrees", "deviates": "deviates", "wrong": "wrong", "needs weights/data": "needs",
    "unavailable": "unavailable", "error": "error",
}  # fmt: skip


def page(outcomes: Sequence[Outcome]) -> str:
    """All outcomes as a page."""
    numbers = counts(outcomes)
    changed = numbers.pop("not as recorded")
    sections = [
        (prefix, document, [o for o in outcomes if o.claim.id.startswith(f"{prefix}.")])
        for prefix, document in DOCUMENTS.items()
    ]
    return fill(
        "refbert_audit", "audit.html",
        count=len(outcomes), decided=sum(numbers[verdict] for verdict in ("agrees", "deviates", "wrong")),
        changed=changed, lacking=Counter(outcome.lacking for outcome in outcomes if outcome.lacking),
        version=__version__, hugging_face=hugging_face.release(),
        choices=[("all", "all", len(outcomes)), *((_SLUGS[v], v, n) for v, n in numbers.items() if n)],
        meanings={**MEANINGS, "inferred": formatting.INFERRED},
        kinds={KINDS[kind]: formatting.parts(some).strip() for kind, some in by_kind(outcomes).items()},
        sections=sections, slugs=_SLUGS, formatting=formatting,
    )  # fmt: skip
