"""Texts to vectors with real weights (all-MiniLM-L6-v2), tokenization included."""

from __future__ import annotations

from speed.cases import Case, Contender, Target, refbert

NUMPY = refbert("numpy")
SENTENCES = Contender("sentence-transformers", "sentences")

CASES = [
    Case(
        name=f"encode-{count}",
        group="encode",
        work={"kind": "encode", "model": "MiniLM", "count": count},
        contenders=(NUMPY, SENTENCES),
        targets=(
            Target(
                f"`encode`, {what}, MiniLM",
                "sentence-transformers",
                NUMPY.name,
                (SENTENCES.name,),
                1 / faster,
                f"≥ {faster}× sentences/s",
            ),
        ),
        quick=count == 32,
    )
    for count, what, faster in ((1000, "1,000 real sentences", 1.9), (32, "one call of 32", 4))
]
