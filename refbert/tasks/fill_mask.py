"""From text to an answer: what `refbert run` does with a model, for use from Python.

fill_mask   Devlin et al. 2019 §3.1: the masked LM's distribution at every [MASK].
embed       one vector per text, from the last hidden states.

What fine-tuned models do has files of its own: `refbert.tasks.classifying` (classify, regress, choose, next_sentence),
`refbert.tasks.tagging` (tag) and `refbert.tasks.answering` (answer).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from refbert import ops
from refbert.config.heads import HEADS, PRETRAINING
from refbert.errors import InputError
from refbert.model import Model
from refbert.text.batching import Text, by_length

TASKS = ("fill-mask", "embed", "classify", "tag", "answer", "next-sentence")


@dataclass(frozen=True)
class Prediction:
    """One candidate for a [MASK]: the token, its id, and its probability under the model."""

    token: str
    token_id: int
    score: float


@dataclass(frozen=True)
class Mask:
    """One [MASK]: its position among the tokens ([CLS] is 0), and the candidates, best first."""

    position: int
    predictions: tuple[Prediction, ...]


@dataclass(frozen=True)
class Filled:
    """A text's tokens ([CLS] and [SEP] included) and its masks, in order."""

    text: Text
    tokens: tuple[str, ...]
    masks: tuple[Mask, ...]


@dataclass(frozen=True)
class Embedded:
    """A text's tokens ([CLS], [SEP] and a prompt's included) and its vector [E]."""

    text: Text
    tokens: tuple[str, ...]
    embedding: npt.NDArray[np.floating[Any]]


def default_task(model: Model, texts: Sequence[Text]) -> str:
    """Choose the task that fits: a fine-tuned head's; fill-mask if some text has a [MASK] to fill; otherwise embed."""
    for name in model.heads:
        task = HEADS[name].tasks[0]
        if name not in PRETRAINING and task in TASKS:
            return task
    if "masked_lm" not in model.heads:
        return "embed"
    return "fill-mask" if has_mask(model, texts) else "embed"


def has_mask(model: Model, texts: Sequence[Text]) -> bool:
    """Whether some text spells out [MASK]."""
    mask = model.tokenizer.mask_token
    return any(mask in side for text in texts for side in ((text,) if isinstance(text, str) else text))


def fill_mask(
    model: Model,
    texts: Sequence[Text],
    *,
    top_k: int = 5,
    batch_size: int = 32,
    truncate: bool = False,
    max_length: int | None = None,
    need_mask: bool = True,
    progress: Callable[[int], object] | None = None,
) -> list[Filled]:
    """Find the ``top_k`` likeliest tokens for every [MASK] of every text, in input order.

    Scores are probabilities over the whole vocabulary. A text without a [MASK] gets no masks; raises `InputError` if
    none of the texts has one (unless ``need_mask`` is false), or if the model has no masked-LM head.
    """
    if "masked_lm" not in model.heads:
        raise InputError(f"fill-mask needs a masked-LM head; this model has: {', '.join(model.heads) or 'no head'}")
    if not 1 <= top_k <= model.config.vocab_size:
        raise InputError(f"top-k must be between 1 and the vocabulary's {model.config.vocab_size}, not {top_k}")
    tokenizer = model.tokenizer
    out: list[Any] = [None] * len(texts)
    encodings = tokenizer.encode(list(texts), max_length=model.limit(max_length), truncate=truncate)
    for places, batch in by_length(tokenizer, encodings, batch_size, progress):
        rows, columns = np.nonzero((batch.input_ids == tokenizer.mask_id) & (batch.attention_mask == 1))
        S = batch.input_ids.shape[1]
        logits = model.logits(batch, ("masked_lm",), masked_lm_positions=rows * S + columns)["masked_lm"]
        scores, _ = ops.softmax(logits.astype(np.float64))  # [P, V]
        best = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]  # [P, k]
        for row, place in enumerate(places):
            masks = []
            for n in np.flatnonzero(rows == row):
                found = (Prediction(tokenizer.token(int(t)), int(t), float(scores[n, t])) for t in best[n])
                masks.append(Mask(int(columns[n]), tuple(found)))
            out[place] = Filled(texts[place], encodings[place].tokens, tuple(masks))
    if need_mask and out and not any(filled.masks for filled in out):
        raise InputError(f"no text has a {tokenizer.mask_token} to fill")
    return out


def embed(
    model: Model,
    texts: Sequence[Text],
    *,
    prompt: str | None = None,
    truncate: bool | None = None,
    max_length: int | None = None,
    **how: Any,
) -> list[Embedded]:
    """Make one vector per text, in input order; the keywords are those of `Model.encode`."""
    encodings, skip = model.tokens_to_embed(list(texts), prompt=prompt, truncate=truncate, max_length=max_length)
    vectors = model.encode_tokens(encodings, skip=skip, **how)
    return [Embedded(text, read.tokens, x) for text, read, x in zip(texts, encodings, vectors, strict=True)]
