"""The audit: what the papers, Google's code and an article say about BERT, each statement checked by running refbert.

findings       a value beside the one on record, and the verdict that follows
sources        the documents, as what each is counted, and where it is read
registry       claims: statements listed by document in refbert_audit/claims, and a small function that checks each
outcomes       claims run, and what each came to
models, runs   small models and their labels, settings of runs    watching, corpora    backends that look on, and data
measures       what is compared with what
quoted         the papers' tables, and formulas that BERT does not use
formatting     values as text        pages, documentation    outcomes as one HTML page, the table of docs/audit.md

Hugging Face's models are made by `refbert_inspection.hugging_face`.

A claim is a statement in the list of its document, and the function that is named for it in a file of
`refbert_audit.claims`:

    bert.sizes.head  agrees  §3
        Every attention head has 64 features.

    def bert_sizes_head() -> Values:
        \"\"\"H/A of both published sizes.\"\"\"
        yield Value("features of a head", preset("bert-base-uncased").head_size, 64)
"""

from refbert_audit.findings import Missing, Value, Values, decide
from refbert_audit.outcomes import Outcome, counts, run
from refbert_audit.registry import Claim, all_claims, select

__all__ = ["Claim", "Missing", "Outcome", "Value", "Values", "all_claims", "counts", "decide", "run", "select"]
