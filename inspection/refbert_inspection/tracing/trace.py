"""`refbert trace`: one text through a model, with all that is made of it on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from refbert import ops
from refbert.backend import Host
from refbert.errors import InputError
from refbert.model import Model
from refbert.ops.cross_entropy import IGNORE
from refbert.spec import heads as head
from refbert.text.batching import Batch, Text
from refbert.text.tokenization import Encoding
from refbert_inspection.tracing.names import hidden_state_names
from refbert_inspection.tracing.passes import Pass, run_pass


@dataclass(frozen=True)
class Trace:
    """A pass, and what a reader needs to make sense of it.

    tokens: as the model saw them. special: 1 for the [CLS] and [SEP] that were added. segments: 0 or 1.
    targets: (position, token) of every label that the loss is made of. about_loss: what the gradients are of, in words.
    """

    model: Model
    text: Text
    tokens: tuple[str, ...]
    special: tuple[int, ...]
    segments: tuple[int, ...]
    run: Pass
    lens: Lens | None
    targets: tuple[tuple[int, str], ...]
    about_loss: str

    @property
    def masks(self) -> tuple[int, ...]:
        """Where a [MASK] stands."""
        return tuple(s for s, token in enumerate(self.tokens) if token == self.model.tokenizer.mask_token)

    @property
    def hidden_states(self) -> list[Host]:
        """L + 1 arrays [1, S, H], the embeddings' output first."""
        return hidden_states(self.run)

    @property
    def attentions(self) -> list[Host]:
        """L arrays [A, S, S]."""
        made = self.run.tensors()
        return [made[f"bert.encoder.layer.{i}.attention.self.probabilities"][0] for i in range(self.run.choices.layers)]


def hidden_states(run: Pass) -> list[Host]:
    """The outputs of the embeddings and of every layer."""
    made = run.tensors()
    return [made[name] for name in hidden_state_names(run.choices.layers)]


def trace(
    model: Model,
    text: Text,
    *,
    backward: bool = False,
    masked: Sequence[int] = (),
    labels: Sequence[str] = (),
    truncate: bool = False,
    top_k: int = 5,
) -> Trace:
    """One text, or a pair, through a model.

    ``masked``: positions ([CLS] is 0) whose tokens are replaced by [MASK]. ``backward``: the gradients, too, of the
    masked-LM loss. Its labels: at ``masked`` positions the tokens that were there; at the text's own [MASK]s the
    ``labels``, in order, or else the model's own first guesses; without any [MASK] every token but the specials is its
    own label. A model without a masked-LM head has no such loss: then of a fixed random projection of its last hidden
    states. Raises `InputError` for positions, labels and texts that do not fit.
    """
    (encoding,) = model.tokenizer.encode([text], max_length=model.limit(None), truncate=truncate)
    ids = np.array(encoding.input_ids)
    if "masked_lm" not in model.heads and (masked or labels):
        raise InputError("this model has no masked-LM head, so there is nothing to mask or label")
    if masked:
        ids[_positions(masked, encoding, model)] = model.tokenizer.mask_id
    batch = Batch(ids[None], np.array([encoding.token_type_ids]))
    batch.check(model.config)
    wanted, about = _labels(model, batch, encoding, masked, labels) if backward else (None, "")
    run = run_pass(
        model.backend, model.parameters, batch, model.choices, model.heads,
        labels=None if wanted is None else {"labels": wanted}, backward=backward,
    )  # fmt: skip
    targets: tuple[tuple[int, str], ...] = ()
    if wanted is not None:
        targets = tuple((int(s), model.tokenizer.token(int(wanted[0, s]))) for s in np.flatnonzero(wanted[0] != IGNORE))
    return Trace(
        model, text, tuple(model.tokenizer.tokens(ids.tolist())), encoding.special_tokens_mask,
        encoding.token_type_ids, run, lens(model, hidden_states(run), top_k=top_k), targets, about,
    )  # fmt: skip


def _positions(masked: Sequence[int], encoding: Encoding, model: Model) -> list[int]:
    for s in masked:
        if not 0 <= s < len(encoding.tokens):
            raise InputError(f"there is no token {s} to mask: the text has tokens 0 to {len(encoding.tokens) - 1}")
        if encoding.special_tokens_mask[s]:
            raise InputError(f"token {s} is {encoding.tokens[s]}, which is not part of the text and is not masked")
        if encoding.input_ids[s] == model.tokenizer.mask_id:
            raise InputError(f"token {s} is a {model.tokenizer.mask_token} already")
    return list(masked)


def _labels(
    model: Model, batch: Batch, encoding: Encoding, masked: Sequence[int], words: Sequence[str]
) -> tuple[Host | None, str]:
    """(labels [1, S] or None, what the loss is of)."""
    if "masked_lm" not in model.heads:
        return None, "a fixed random projection of the last hidden states (this model has no masked-LM head)"
    original, special = np.array(encoding.input_ids), np.array(encoding.special_tokens_mask, bool)
    own = np.flatnonzero((original == model.tokenizer.mask_id) & ~special)
    labels = np.full(batch.shape, IGNORE)
    labels[0, list(masked)] = original[list(masked)]
    about = "the masked-LM loss at the masked positions"
    if len(own):
        if words and len(words) != len(own):
            raise InputError(f"{len(words)} labels for {len(own)} {model.tokenizer.mask_token} in the text")
        labels[0, own] = [_id(model, word) for word in words] if words else _guesses(model, batch, own)
        about += "" if words else ", for the model's own first guesses"
    elif words:
        raise InputError(f"labels are for a {model.tokenizer.mask_token} in the text, and there is none")
    if not len(own) and not masked:
        labels[0, ~special] = original[~special]
        about = "the masked-LM loss, with every token its own label (nothing is masked)"
        if special.all():
            raise InputError("an empty text has no token to take a loss of")
    return labels, about


def _guesses(model: Model, batch: Batch, positions: Host) -> Host:
    logits = model.logits(batch, ("masked_lm",), masked_lm_positions=positions)["masked_lm"]
    return np.asarray(logits.argmax(axis=-1))


def _id(model: Model, word: str) -> int:
    (encoding,) = model.tokenizer.encode([word], max_length=model.limit(None))
    ids = [i for i, added in zip(encoding.input_ids, encoding.special_tokens_mask, strict=True) if not added]
    if len(ids) != 1:
        pieces = " ".join(model.tokenizer.tokens(ids))
        raise InputError(f'a label must be one token; "{word}" is {len(ids)}: {pieces}')
    return ids[0]


CHUNK = 64  # positions at a time: a row of logits is as long as the vocabulary


@dataclass(frozen=True)
class Lens:
    """What the masked-LM head says of every layer: a prediction of the last alone, of the others a way of looking.

    ids, scores: [L+1, S, k], the likeliest tokens of every layer (0: the embeddings) and their probabilities.
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
