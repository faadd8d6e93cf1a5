"""Running claims: each check's finding, or what went wrong, beside the verdict on record."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from refbert import __version__
from refbert.errors import RefbertWarning
from refbert.files.json import jsonable
from refbert_audit import models, sources
from refbert_audit.findings import SAME, VERDICTS, Finding, Missing, Value, decide
from refbert_audit.registry import Claim
from refbert_inspection import hugging_face

FORMAT = "refbert-audit/1"


@dataclass(frozen=True)
class Outcome:
    """A claim and what its check came to.

    error: the exception that ended it, in one line. lacking: what is not installed here, without which it cannot run.
    With either there is no finding.
    """

    claim: Claim
    finding: Finding | None
    error: str = ""
    lacking: str = ""

    @property
    def verdict(self) -> str:
        """The finding's, or "unavailable" for want of a library, or "error"."""
        if self.finding is None:
            return "unavailable" if self.lacking else "error"
        return self.finding.verdict

    @property
    def ok(self) -> bool:
        """Whether the verdict is the one on record, and every value too; or weights were given, and agree."""
        found = self.finding
        if found is None:
            return False
        if self.claim.takes_model and found.verdict == "agrees":
            return True
        return found.verdict == self.claim.expects and all(v.holds for v in found.values)

    @property
    def changed(self) -> bool:
        """Whether it is not as recorded, which what could not run here neither is nor is not."""
        return not self.ok and not self.lacking


def run(
    claims: Sequence[Claim], *, model: str | None = None, progress: Callable[[int], object] | None = None
) -> list[Outcome]:
    """Every claim's outcome, in order. ``model``: a checkpoint's directory, for what weights decide.

    Nothing of an earlier run is used again. ``progress`` is called with 1 after each claim.
    """
    models.clear()
    out = []
    for one in claims:
        out.append(_run(one, model))
        if progress is not None:
            progress(1)
    models.clear()
    return out


def _run(one: Claim, model: str | None) -> Outcome:
    with warnings.catch_warnings():
        # Checks provoke what users are warned of (fresh heads, [UNK], cut texts), and other libraries chatter.
        warnings.simplefilter("ignore", RefbertWarning)
        warnings.filterwarnings("ignore", module=r"torch|transformers")
        try:
            return Outcome(one, decide(one.expects, one.check(model) if one.takes_model else one.check()))
        except Missing as problem:
            return Outcome(one, Finding("needs weights/data", (), str(problem)))
        except hugging_face.Unavailable as problem:
            return Outcome(one, None, lacking=problem.lacking)
        except Exception as problem:  # noqa: BLE001 - whatever it is, it is this claim's outcome and nobody else's
            return Outcome(one, None, error=f"{type(problem).__name__}: {' '.join(str(problem).split())}")


def counts(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Verdict -> how many; "unavailable" and "error" where there are some; and "not as recorded"."""
    found = Counter(outcome.verdict for outcome in outcomes)
    out: dict[str, int] = {verdict: found[verdict] for verdict in VERDICTS}
    out |= {other: found[other] for other in ("unavailable", "error") if found[other]}
    return out | {"not as recorded": sum(outcome.changed for outcome in outcomes)}


def by_kind(outcomes: Sequence[Outcome]) -> dict[sources.Kind, dict[str, int]]:
    """Kind of document (`refbert_audit.sources.KINDS`) -> its `counts`, so that no article is counted as a paper."""
    found = {kind: [outcome for outcome in outcomes if outcome.claim.kind == kind] for kind in sources.KINDS}
    return {kind: counts(some) for kind, some in found.items() if some}


def as_data(outcomes: Sequence[Outcome], *, model: str | None = None) -> dict[str, Any]:
    """The whole run as plain data for JSON (docs/command-line.md describes it); the same for the same code."""
    return {
        "format": FORMAT, "refbert": __version__, "hugging_face": hugging_face.release(), "model": model,
        "counts": counts(outcomes), "counts_by_kind": by_kind(outcomes), "claims": list(map(_claim_data, outcomes)),
    }  # fmt: skip


def _claim_data(outcome: Outcome) -> dict[str, Any]:
    one, found = outcome.claim, outcome.finding
    return {
        "id": one.id, "document": one.document, "kind": one.kind, "where": one.where,
        "links": [{"text": text, "url": url} for text, url in one.links if url],
        "inferred": one.inferred, "says": one.says, "about": one.about, "recorded": one.expects,
        "verdict": outcome.verdict, "as_recorded": None if outcome.lacking else outcome.ok,
        "values": [_value_data(v) for v in found.values] if found else [], "who": dict(one.who),
        "missing": (found.missing if found else outcome.lacking) or None, "error": outcome.error or None,
        "file": one.file, "code": one.code,
    }  # fmt: skip


def _value_data(v: Value) -> dict[str, Any]:
    claimed = v.expected if v.claimed is SAME else v.claimed
    found: dict[str, Any] = jsonable(vars(v) | {"claimed": claimed, "holds": v.holds})
    return found
