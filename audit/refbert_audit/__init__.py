"""The audit: what the papers, Google's code and an article say about BERT, each statement checked by running refbert.

findings   a value beside the one on record, and the verdict that follows
sources    the documents, as what each is counted, and where it is read
registry   claims: statements listed by document in audit/refbert_audit/claims, and a small function that checks each
running    all of it run, with what it came to
shared     small models, corpora and counters that several claims use, made once a run
printed    the papers' tables, and formulas that BERT does not use, copied out
pages      the same as one HTML page          documentation   the table of docs/audit.md

A claim is a statement in the list of its document, and a function in a file of `refbert_audit.claims`:

    bert.sizes.head  agrees  §3
        Every attention head has 64 features.

    @claim("bert.sizes.head")
    def head_size() -> Finding:
        \"\"\"H/A of both published sizes.\"\"\"
        return agrees(Value("features of a head", preset("bert-base-uncased").head_size, 64))
"""

from refbert_audit.findings import Finding, Value, agrees, deviates, needs, wrong
from refbert_audit.registry import Claim, all_claims, claim, select
from refbert_audit.running import Outcome, counts, run

__all__ = [
    "Claim",
    "Finding",
    "Outcome",
    "Value",
    "agrees",
    "all_claims",
    "claim",
    "counts",
    "deviates",
    "needs",
    "run",
    "select",
    "wrong",
]
