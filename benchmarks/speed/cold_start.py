"""From the start of the process to the first embedding (MiniLM), and the memory that it took."""

from __future__ import annotations

from speed.cases import Case, Contender, Target

REFBERT = Contender("refbert numpy", "refbert")
SENTENCES = Contender("sentence-transformers", "sentences")
RUNTIME = Contender("onnxruntime", "onnxruntime")
WORK = {"kind": "first embedding", "model": "MiniLM"}
_ROW = "process start to first embedding, MiniLM"
_MEMORY = "peak memory of the same"

CASES = [
    Case(
        name="cold-start",
        group="cold_start",
        kind="start",
        work=WORK | {"quantity": "seconds"},
        contenders=(REFBERT, SENTENCES, RUNTIME),
        targets=(
            Target(_ROW, "sentence-transformers", REFBERT.name, (SENTENCES.name,), 1 / 45, "≤ 1/45"),
            Target(_ROW, "onnxruntime", REFBERT.name, (RUNTIME.name,), 1 / 3, "≤ 1/3"),
        ),
        quick=True,
    ),
    Case(
        name="cold-start-memory",
        group="cold_start",
        kind="start",
        work=WORK | {"quantity": "bytes"},
        contenders=(REFBERT, SENTENCES, RUNTIME),
        targets=(
            Target(_MEMORY, "sentence-transformers", REFBERT.name, (SENTENCES.name,), 1 / 6, "≤ 1/6"),
            Target(_MEMORY, "75 MB", REFBERT.name, (), 75e6, "≤ 75 MB"),
        ),
        quick=True,
    ),
]
