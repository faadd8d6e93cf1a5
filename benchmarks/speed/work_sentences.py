"""sentence-transformers, as its documentation says to use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from speed.cases import Missing
from speed.inputs import sentences
from speed.worker import Prepared


def prepare(work: Mapping[str, Any], options: Mapping[str, Any]) -> Prepared:
    try:
        import torch
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise Missing(f'{error.name} is not installed: pip install -e ".[bench]"') from error
    torch.set_num_threads(options["threads"])
    model = SentenceTransformer(work["checkpoint"], device="cpu")
    texts = sentences(work["count"], work.get("sentences"))
    return Prepared(
        lambda: model.encode(texts, show_progress_bar=False, normalize_embeddings=True), lambda out: {"vectors": out}
    )
