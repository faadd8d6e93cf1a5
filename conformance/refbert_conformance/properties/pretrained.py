"""Level "pretrained": a real checkpoint on real text, layer by layer.

Random weights are kind: trained ones have rows of outliers, near-degenerate LayerNorms and sharp attention.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np
from hypothesis import strategies as st

from refbert.backend import Host
from refbert.model import Model
from refbert.spec.bert import bert
from refbert.spec.encoder import Watch
from refbert.spec.heads import masked_lm
from refbert.text.batching import Batch
from refbert_conformance.cases.inputs import rounded
from refbert_conformance.cases.model_cases import on
from refbert_conformance.engine.divergence import judge_ops
from refbert_conformance.engine.measure import Record
from refbert_conformance.engine.property import Property
from refbert_conformance.engine.subject import Subject
from refbert_conformance.properties.blocks import SPEC

# Plain sentences, a pair, other scripts, numbers and code, one word, and a long one.
TEXTS: tuple[Any, ...] = (
    "Paris is the capital of France.",
    "The quick brown fox jumps over the lazy dog.",
    ("How many people live in Berlin?", "Berlin had a population of 3,520,031 in an area of 891.82 km²."),
    "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding",
    "Ünïcödé wörds, Ελληνικά, русский и 中文 in one line.",
    "def f(x): return x ** 2 + 1  # a comment",
    "Yes.",
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, "
    "it was the epoch of belief, it was the epoch of incredulity, it was the season of Light.",
)


def properties(model: str) -> list[Property]:
    """The forward pass and the gradient of a projection of it."""
    chosen = st.sets(st.integers(0, len(TEXTS) - 1), min_size=1, max_size=3).map(sorted).map(tuple)
    of = partial(Property, "pretrained", "model", draw=chosen, needs=SPEC)
    return [
        of("accuracy", f"Every layer's hidden states on real text: the reference's ({model}).",
           partial(_accuracy, model), cost=20),
        of("gradients", f"So is the gradient of a random projection of the last one ({model}).",
           partial(_gradients, model), cost=30),
    ]  # fmt: skip


def check_model(model: str) -> None:
    """Raise what `refbert.load` raises for a model that cannot be had, before any work is done."""
    _loaded(model)


@lru_cache(maxsize=1)
def _loaded(model: str) -> Model:
    from refbert.loading import load

    return load(model, backend="reference")


def _batch(model: Model, chosen: tuple[int, ...]) -> Batch:
    return model.batch([TEXTS[i] for i in chosen], truncate=True)


def _forward(model: Model, batch: Batch, dtype: str) -> Callable[[Any], dict[str, Host]]:
    parameters = {name: rounded(np.asarray(x), dtype) for name, x in model.parameters.items()}

    def run(backend: Any) -> dict[str, Host]:
        watch: Watch[Any] = Watch(want_hidden_states=True)
        p = on(backend, parameters)
        encoded, _ = bert(backend, p, batch, model.choices, pooled=model.has_pooler, gradients=False, watch=watch)
        found = {f"hidden_states[{i}]": x for i, x in enumerate(watch.hidden_states)}
        if encoded.pooled is not None:
            found["pooler_output"] = encoded.pooled
        if "masked_lm" in model.heads:
            found["logits"] = masked_lm(backend, p, encoded.hidden, np.arange(batch.shape[1]), model.choices)[0]
        return {name: backend.to_numpy(x) for name, x in found.items()}

    return run


def _backward(model: Model, batch: Batch, dtype: str) -> Callable[[Any], dict[str, Host]]:
    parameters = {name: rounded(np.asarray(x), dtype) for name, x in model.parameters.items()}
    B, S = batch.shape
    dhidden = rounded(np.random.default_rng(0).standard_normal((B, S, model.config.hidden_size)), dtype)

    def run(backend: Any) -> dict[str, Host]:
        _, pullback = bert(backend, on(backend, parameters), batch, model.choices, pooled=False)
        return {name: backend.to_numpy(g) for name, g in pullback(backend.asarray(dhidden), None).items()}

    return run


def _accuracy(name: str, subject: Subject, chosen: tuple[int, ...], record: Record) -> None:
    model = _loaded(name)
    judge_ops(subject, _forward(model, _batch(model, chosen), subject.dtype), record)


def _gradients(name: str, subject: Subject, chosen: tuple[int, ...], record: Record) -> None:
    model = _loaded(name)
    judge_ops(subject, _backward(model, _batch(model, chosen[:1]), subject.dtype), record)
