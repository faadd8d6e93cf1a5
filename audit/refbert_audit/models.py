"""Small models and batches, their labels, and what several claims look at of them.

The models are small, but no size equals another and no weight is special (gains are not 1, biases are not 0), so that
no mistake hides behind a symmetric case.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import numpy as np

from refbert.backend import Host
from refbert.backend.reference import ReferenceBackend
from refbert.config import BertConfig
from refbert.config.parameters import shapes
from refbert.config.profiles import get_profile
from refbert.model import Model
from refbert.text.batching import Batch

Maker = TypeVar("Maker", bound=Callable[..., Any])
_caches: list[Any] = []


def shared(make: Maker) -> Maker:
    """`functools.cache` that `clear` empties, so that no run sees what an earlier one made."""
    _caches.append(functools.cache(make))
    return cast(Maker, _caches[-1])


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


def model(
    heads: Sequence[str] = (), *, config: BertConfig = SIZES, profile: str = "hf", pooler: bool = True,
    backend: Any = None, scale: float = 0.25,
) -> Model:  # fmt: skip
    """A model in float64 with weights of standard deviation ``scale``, gains about 1 and biases about 0."""
    rng = np.random.default_rng(0)
    weights = {
        name: ("LayerNorm.weight" in name) + scale * rng.standard_normal(shape)
        for name, shape in shapes(config, heads, pooler=pooler).items()
    }
    return Model(config, weights, backend=backend or ReferenceBackend(), profile=get_profile(profile), heads=heads)


def batch(B: int = 3, S: int = 11, *, vocabulary: int = SIZES.vocab_size, ragged: bool = False) -> Batch:
    """Random ids in two segments; with ``ragged`` the rows end in padding of different lengths."""
    ids = np.random.default_rng(0).integers(1, vocabulary, (B, S))
    types = np.tile(np.arange(S) >= S // 2, (B, 1)).astype(np.int64)
    lengths = np.maximum(1, S - np.arange(B) * 3) if ragged else np.full(B, S)
    return Batch(ids, types, (np.arange(S) < lengths[:, None]).astype(np.int64))


def other_end(rows: Batch) -> Batch:
    """The same rows with another last word."""
    ids = rows.input_ids.copy()
    ids[:, -1] = (ids[:, -1] + 1) % SIZES.vocab_size
    return Batch(ids, rows.token_type_ids, rows.attention_mask)


def masked_labels(rows: Batch) -> Host:
    """Masked-LM labels on every fourth position, IGNORE (−100) elsewhere."""
    return np.where(np.arange(rows.input_ids.size).reshape(rows.shape) % 4 == 1, rows.input_ids, -100)


def next_sentence_labels(rows: Batch) -> Host:
    """0, 1, 0, …"""
    return np.arange(len(rows.input_ids)) % 2


def labels_for(heads: Sequence[str], rows: Batch) -> dict[str, Host]:
    """Labels of a step that trains these heads."""
    B = len(rows.input_ids)
    labels: dict[str, dict[str, Host]] = {
        "masked_lm": {"labels": masked_labels(rows)},
        "next_sentence": {"next_sentence_label": next_sentence_labels(rows)},
        "sequence_classification": {"labels": np.arange(B)},
        "token_classification": {"labels": rows.input_ids % SIZES.num_labels},
        "question_answering": {"start_positions": np.arange(1, B + 1), "end_positions": np.arange(3, B + 3)},
    }
    return {name: y for head in heads for name, y in labels[head].items()}


def gradients(heads: Sequence[str] = ("masked_lm",)) -> dict[str, Host]:
    """The gradients of a training step of a model with these heads, without dropout."""
    return model(heads).loss_and_gradients(batch(), labels_for(heads, batch()))[1]


def loss_and_logits(head: str, labels: Host | dict[str, Host], rows: Batch) -> tuple[float, Host]:
    """What a random model with this head alone makes of a batch."""
    one = model((head,))
    return one.loss_and_gradients(rows, labels)[0], one(rows).logits[head]


def rows_that_learn(table: str) -> Host:
    """Which rows of an embedding table get a gradient from a masked-LM step."""
    return np.asarray(gradients()[f"bert.embeddings.{table}_embeddings.weight"].any(axis=1))


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
