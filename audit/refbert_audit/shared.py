"""What several claims use: small models and batches, a run of the paper's length, and ways to compare.

The models are small, but no size equals another and no weight is special (gains are not 1, biases are not 0), so that
no mistake hides behind a symmetric case.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np

from refbert.backend import Host
from refbert.backend.reference import ReferenceBackend
from refbert.config import BertConfig
from refbert.config.parameters import shapes
from refbert.config.profiles import get_profile
from refbert.data.settings import Pretraining
from refbert.errors import InputError
from refbert.model import Model
from refbert.text.batching import Batch
from refbert.training.finetuning_settings import PAPER_GRID, Settings
from refbert.training.optimizer import Optimizer
from refbert.training.pretraining_settings import Settings as PretrainingSettings

P = ParamSpec("P")
R = TypeVar("R")

_caches: list[Any] = []


def shared(make: Callable[P, R]) -> Callable[P, R]:
    """`functools.cache` that `clear` empties, so that no run sees what an earlier one made."""
    cached = functools.cache(make)
    _caches.append(cached)
    return cast(Callable[P, R], functools.wraps(make)(cached))


def clear() -> None:
    """Forget all that was made."""
    for cached in _caches:
        cached.cache_clear()


SIZES = BertConfig(
    vocab_size=67, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=56,
    max_position_embeddings=48, num_labels=5,
)  # fmt: skip
BERT = "bert-base-uncased"
LARGE = "bert-large-uncased"
# A pretraining run of the paper's length, all else as it is when nothing is said; its examples and its optimizer.
RUN = PretrainingSettings(files=("corpus.txt",), steps=1_000_000)


def examples_of_a_run(**changes: Any) -> Pretraining:
    """What decides a run's examples."""
    return replace(RUN.data(), **changes)


def optimizer_of_a_run(**changes: Any) -> Optimizer:
    """A run's optimizer before the first update."""
    return replace(RUN.new_optimizer(), m={}, v={}, **changes)


def model(
    heads: Sequence[str] = (),
    *,
    config: BertConfig = SIZES,
    profile: str = "hf",
    pooler: bool = True,
    backend: Any = None,
    scale: float = 0.25,
    seed: int = 0,
) -> Model:
    """A model in float64 with weights of standard deviation ``scale``, gains about 1 and biases about 0."""
    rng = np.random.default_rng(seed)
    weights = {
        name: ("LayerNorm.weight" in name) + scale * rng.standard_normal(shape)
        for name, shape in shapes(config, heads, pooler=pooler).items()
    }
    return Model(config, weights, backend=backend or ReferenceBackend(), profile=get_profile(profile), heads=heads)


def batch(B: int = 3, S: int = 11, *, vocabulary: int = SIZES.vocab_size, ragged: bool = False, seed: int = 0) -> Batch:
    """Random ids in two segments; with ``ragged`` the rows end in padding of different lengths."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, vocabulary, (B, S))
    types = np.tile(np.arange(S) >= S // 2, (B, 1)).astype(np.int64)
    lengths = np.maximum(1, S - np.arange(B) * 3) if ragged else np.full(B, S)
    return Batch(ids, types, (np.arange(S) < lengths[:, None]).astype(np.int64))


def masked_labels(rows: Batch, *, every: int = 4) -> Host:
    """Masked-LM labels on every fourth position, IGNORE (−100) elsewhere."""
    B, S = rows.shape
    return np.where(np.arange(B * S).reshape(B, S) % every == 1, rows.input_ids, -100)


def next_sentence_labels(rows: Batch) -> Host:
    """0, 1, 0, …"""
    return np.arange(len(rows.input_ids)) % 2


def labels_for(heads: Sequence[str], rows: Batch) -> dict[str, Host]:
    """Labels of a step that trains these heads."""
    B, one = len(rows.input_ids), heads[0]
    if one == "question_answering":
        return {"start_positions": np.arange(1, B + 1), "end_positions": np.arange(3, B + 3)}
    if one == "sequence_classification":
        return {"labels": np.arange(B)}
    if one == "token_classification":
        return {"labels": rows.input_ids % SIZES.num_labels}
    both = {"masked_lm": ("labels", masked_labels), "next_sentence": ("next_sentence_label", next_sentence_labels)}
    return {both[head][0]: both[head][1](rows) for head in heads}


def gradients(heads: Sequence[str] = ("masked_lm",), rows: Batch | None = None) -> dict[str, Host]:
    """The gradients of a training step of a model with these heads, without dropout."""
    rows = rows or batch()
    return model(heads).loss_and_gradients(rows, labels_for(heads, rows))[1]


def rows_that_learn(table: str, rows: Batch | None = None) -> Host:
    """Which rows of an embedding table get a gradient from a masked-LM step."""
    return np.asarray(gradients(rows=rows)[f"bert.embeddings.{table}_embeddings.weight"].any(axis=1))


def without_gradient(found: Mapping[str, Host]) -> list[str]:
    """Names of tensors whose gradient is rounding alone."""
    limit = 1e-13 * max(largest(g) for g in found.values())
    return [name for name, g in found.items() if largest(g) < limit]


def hidden_states(one: Model, rows: Batch) -> Sequence[Host]:
    """The embeddings' output and every layer's."""
    found = one(rows, output_hidden_states=True).hidden_states
    assert found is not None
    return found


def attentions(one: Model, rows: Batch) -> Sequence[Host]:
    """Every layer's attention probabilities."""
    found = one(rows, output_attentions=True).attentions
    assert found is not None
    return found


def log_losses(logits: Host, labels: Any) -> Host:
    """−log of the softmax over the last axis at each row's label, written out."""
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return cast(Host, -np.log(np.take_along_axis(p, np.asarray(labels)[..., None], -1)[..., 0]))


def largest(x: Host) -> float:
    """The largest absolute entry."""
    return float(np.abs(x).max())


def refused(work: Callable[[], object], error: type[Exception] = InputError) -> bool:
    """Whether ``work`` raises that error."""
    try:
        work()
    except error:
        return True
    return False


def finetuning(**changes: Any) -> Settings:
    """Settings of fine-tuning as the paper's A.3 has them; nothing is read or run for that."""
    options: dict[str, Any] = {"task": "classify", "model": "m", "train": "t", "dev": "d", **PAPER_GRID, **changes}
    return Settings(**options)


def updated(optimizer: Optimizer, w: float, g: float, lr: float) -> float:
    """One weight, w, after an update with gradient g."""
    new, _ = optimizer.step(ReferenceBackend(), {"w": np.array([w])}, {"w": np.array([g])}, lr=lr)
    return float(new["w"][0])


def spread(share: float, n: int) -> float:
    """Six standard deviations of the share of n independent draws: a chance of 2e-9 to be further off."""
    return float(6 * np.sqrt(share * (1 - share) / n))
