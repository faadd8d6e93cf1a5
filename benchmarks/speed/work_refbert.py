"""refbert's side: what the public API offers, on the backend that the options name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

import refbert
from refbert.benchmark import PRETRAINING, forward_and_wait, step_and_wait, wait
from refbert.errors import BackendError, RefbertWarning
from refbert.model import Model
from refbert.spec.packed import packed_bert
from speed.cases import Missing
from speed.inputs import LIMIT, batch_of, config_of, sentences
from speed.worker import Prepared

# Gradients that are compared: one at each end of the backward, and one in between.
SAMPLED = (
    "bert.embeddings.word_embeddings.weight",
    "bert.encoder.layer.0.attention.self.query.weight",
    "bert.encoder.layer.0.output.dense.weight",
    "cls.predictions.transform.dense.weight",
)


def prepare(work: Mapping[str, Any], options: Mapping[str, Any]) -> Prepared:
    kind = work["kind"]
    heads = PRETRAINING if kind == "step" else ()
    if options["backend"] == "torch":
        import torch

        torch.set_num_threads(options["threads"])
        if options.get("dtype") == "bfloat16" and not options.get("device"):
            _require_bfloat16(torch)
    if work.get("tiny"):  # sizes of its own: no checkpoint has them
        model = refbert.from_config(config_of(work), heads=heads, backend=options["backend"])
    else:
        model = _load(work["checkpoint"], options["backend"], options.get("dtype"), options.get("device"), heads)
    host = model.backend.to_numpy
    if kind == "encode":
        texts = sentences(work["count"], work.get("sentences"))
        return Prepared(lambda: model.encode(texts, max_length=LIMIT, truncate=True), lambda out: {"vectors": out})
    batch, labels = batch_of(work)
    if kind == "step":
        return Prepared(
            lambda: step_and_wait(model, batch, labels),
            lambda out: {"loss": np.array([out[0]])} | {name: host(out[1][name]) for name in SAMPLED},
        )
    if kind == "packed":
        return Prepared(lambda: packed_forward(model, batch), lambda out: {"hidden": host(out)})
    return Prepared(lambda: forward_and_wait(model, batch), lambda out: {"hidden": host(out)})


def _require_bfloat16(torch: Any) -> None:
    """Raises `Missing` where the processor has no bfloat16 arithmetic, and PyTorch does it number by number."""
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        raise Missing("this processor has no bfloat16 arithmetic")


def packed_forward(model: Model, batch: refbert.Batch) -> Any:
    """Hidden states [N, H] of the N tokens of a padded batch, in its order."""
    seen = batch.attention_mask.astype(bool)
    ids, types = batch.input_ids[seen], batch.token_type_ids[seen]
    hidden = packed_bert(model.backend, model.parameters, ids, types, batch.lengths, model.choices)
    wait(model.backend, hidden)
    return hidden


@lru_cache(maxsize=1)
def _load(path: str, backend: str, dtype: str | None, device: str | None, heads: tuple[str, ...]) -> Model:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RefbertWarning)  # heads that this work does not use
        try:
            return refbert.load(path, backend=backend, dtype=dtype, device=device, heads=heads)
        except BackendError as error:
            raise Missing(str(error)) from error
