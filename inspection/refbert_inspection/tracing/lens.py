"""What the masked-LM head would say of every layer's hidden states: how a prediction comes about, layer by layer.

The head was trained on the last layer only; on the others it is a way of looking ("logit lens"), not a prediction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from refbert import ops
from refbert.backend import Host
from refbert.model import Model
from refbert.spec import heads as head

CHUNK = 64  # positions at a time: a row of logits is as long as the vocabulary


@dataclass(frozen=True)
class Lens:
    """ids, scores: [L+1, S, k], the likeliest tokens of every layer (0: the embeddings) and their probabilities.

    final: [L+1, S], the probability, at every layer, of what the last layer says.
    """

    ids: Host
    scores: Host
    final: Host


def lens(model: Model, hidden_states: list[Host], *, top_k: int = 5) -> Lens | None:
    """Of one text's hidden states, each [1, S, H]; None for a model without a masked-LM head."""
    if "masked_lm" not in model.heads:
        return None
    S = hidden_states[0].shape[1]
    k = min(top_k, model.config.vocab_size)
    shape = (len(hidden_states), S)
    ids, scores, final = np.zeros((*shape, k), np.int64), np.zeros((*shape, k)), np.zeros(shape)
    backend: Any = model.backend
    for start in range(0, S, CHUNK):
        rows = np.arange(start, min(start + CHUNK, S))
        said = np.zeros(len(rows), np.int64)
        for layer in reversed(range(len(hidden_states))):
            x = backend.asarray(hidden_states[layer])
            logits, _ = head.masked_lm(backend, model.parameters, x, rows, model.choices)
            p, _ = ops.softmax(np.asarray(backend.to_numpy(logits), np.float64))  # [rows, V]
            best = np.argpartition(-p, k - 1, axis=1)[:, :k]
            best = np.take_along_axis(best, np.argsort(-np.take_along_axis(p, best, 1), axis=1, kind="stable"), 1)
            ids[layer, rows], scores[layer, rows] = best, np.take_along_axis(p, best, 1)
            if layer == len(hidden_states) - 1:
                said = best[:, 0]
            final[layer, rows] = p[np.arange(len(rows)), said]
    return Lens(ids, scores, final)
