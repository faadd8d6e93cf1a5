"""Tags of words, and the entities that they spell: Devlin et al. 2019 §5.3. A word's tag is its first piece's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from refbert import ops
from refbert.errors import InputError
from refbert.evaluation.entities import spans
from refbert.model import Model
from refbert.tasks.classifying import label_names
from refbert.tasks.reading import Batching, logits_of, require

if TYPE_CHECKING:
    from refbert.data.features import Words


@dataclass(frozen=True)
class Entity:
    """An entity of a text: its type, its characters [start, stop), what stands there."""

    type: str
    start: int
    stop: int
    text: str


@dataclass(frozen=True)
class Tagged:
    """Words, the likeliest tag of each with its probability; "O" and 0 for a word that was cut off."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True)
class TaggedText:
    """A text, its words' tags, and the entities in them."""

    text: str
    tagged: Tagged
    entities: tuple[Entity, ...]


def tag_words(
    model: Model, sentences: Sequence[Sequence[str]], *, max_length: int | None = None, **how: Unpack[Batching]
) -> list[Tagged]:
    """Tag sentences that are split into words; a long one is cut, with a `RefbertWarning`."""
    from refbert.data.features import encode_words  # here: other tasks need nothing of refbert.data

    require(model, "token_classification", "tag")
    encoded = encode_words(model.tokenizer, sentences, max_length=model.limit(max_length))
    return _tag(model, sentences, encoded, **how)


def tag(
    model: Model,
    texts: Sequence[Any],
    *,
    truncate: bool = False,
    max_length: int | None = None,
    **how: Unpack[Batching],
) -> list[TaggedText]:
    """Tag running text, whose words are the tokenizer's: split at white space and punctuation.

    Raises `InputError` for pairs.
    """
    from refbert.data.features import Words, whole_ends  # here, as in `tag_words`

    require(model, "token_classification", "tag")
    if not all(isinstance(text, str) for text in texts):
        raise InputError("tag takes single texts, not pairs")
    encodings = model.tokenizer.encode(list(texts), max_length=model.limit(max_length), truncate=truncate)
    places: list[list[tuple[int, int]]] = []
    encoded: list[Words] = []
    for text, encoding in zip(texts, encodings, strict=True):
        whole = model.tokenizer.library.encode(text)
        left = len(encoding.input_ids) - 1 if len(encoding.input_ids) < len(whole.ids) else len(whole.ids)  # cut: [SEP]
        found: dict[int, tuple[int, int]] = {}
        firsts: dict[int, int | None] = {}
        for i, (word, (start, stop)) in enumerate(zip(whole.word_ids, whole.offsets, strict=True)):
            if word is not None:
                found[word] = (found.get(word, (start, stop))[0], stop)
                firsts.setdefault(word, i if i < left else None)
        spots = list(found.values())
        places.append([(start, end) for (start, _), end in zip(spots, whole_ends(text, spots), strict=True)])
        encoded.append(Words(encoding, tuple(firsts.values())))
    words = [[text[a:b] for a, b in spots] for text, spots in zip(texts, places, strict=True)]
    out = []
    for text, spots, tagged in zip(texts, places, _tag(model, words, encoded, **how), strict=True):
        entities = []
        for span in spans(tagged.tags):
            start, stop = spots[span.start][0], spots[span.stop - 1][1]
            entities.append(Entity(span.type, start, stop, text[start:stop]))
        out.append(TaggedText(text, tagged, tuple(entities)))
    return out


def _tag(model: Model, sentences: Sequence[Sequence[str]], encoded: Sequence[Words], **how: Any) -> list[Tagged]:
    names = label_names(model.config)
    other = names.index("O") if "O" in names else 0
    out = []
    rows = logits_of(model, "token_classification", [words.encoding for words in encoded], **how)
    for sentence, words, logits in zip(sentences, encoded, rows, strict=True):
        probabilities, _ = ops.softmax(logits)  # [S, K]
        tags, scores = [], []
        for first in words.firsts:
            k = other if first is None else int(np.argmax(probabilities[first]))
            tags.append(names[k])
            scores.append(0.0 if first is None else float(probabilities[first, k]))
        out.append(Tagged(tuple(sentence), tuple(tags), tuple(scores)))
    return out
