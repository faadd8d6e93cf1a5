"""Cut a document into the spans of its examples: sentence pairs, half of them with a random second part.

Source   Devlin et al. 2019 §3.1, Task #2 ("50% of the time B is the actual next sentence that follows A … 50% of the
         time it is a random sentence from the corpus") and A.2; create_instances_from_document and truncate_seq_pair of
         Google's create_pretraining_data.py, step by step:

    target length T: the longest that fits (length − 3), or, with short_sequence_probability, 2 … length − 3; per
    document. Sentences are gathered until they hold T tokens or the document ends. Of the gathered:
        A     the first 1 … n − 1 of them (all, if there is one)
        B     random, if there is one or a coin says so: from a random sentence of another document on, until A and B
              hold T; the sentences that A did not use are put back
              actual otherwise: the rest
    What is too long loses tokens one by one: the longer of the two (B if equal), at its front or back as a coin says.

    A chunk of one sentence has no next, so its B is random whatever the coin says: more than half are, 53 to 55 % in
    typical documents and all in documents of one sentence. The paper says 50 %; the code does this, and so do we.

    Google tries ten times for another document and then takes the same one, which labels text from the same document
    as random. The dynamic profile draws among the others in the first place.

    Where a corpus is of several sources, a random B mostly gives itself away by its style. With random_within r it is
    of a document at most r before or behind A's: the sources stand one after the other.
"""

from __future__ import annotations

from typing import NamedTuple

from refbert.data.draws import Draws
from refbert.data.settings import Pretraining
from refbert.data.store import Store

_TRIES = 10
IS_NEXT, RANDOM_NEXT = 0, 1


class Example(NamedTuple):
    """Where A and B lie among the store's tokens, and the label of the next-sentence task; B is empty without it."""

    a_start: int
    a_stop: int
    b_start: int
    b_stop: int
    label: int


def examples(store: Store, document: int, length: int, settings: Pretraining, draws: Draws) -> list[Example]:
    """Make the examples of one document for sequences of up to ``length`` tokens, [CLS] and [SEP] included."""
    first, last = store.document(document)
    begins = store.boundaries(first, last).tolist()  # of sentence i of this document: begins[i] … begins[i + 1]
    sentences = last - first
    most = length - settings.specials
    target = most
    if draws.uniform() < settings.short_sequence_probability:
        target = draws.between(2, most)
    out: list[Example] = []
    start = 0  # of the chunk; [start, i] are its sentences
    i = 0
    while i < sentences:
        if i < sentences - 1 and begins[i + 1] - begins[start] < target:
            i += 1
            continue
        gathered = i + 1 - start
        if not settings.next_sentence:
            a = _cut((begins[start], begins[i + 1]), max(0, begins[i + 1] - begins[start] - most), draws)
            out.append(Example(*a, a[1], a[1], IS_NEXT))
            start = i = i + 1
            continue
        a_end = start + (1 if gathered == 1 else draws.between(1, gathered - 1))
        a = (begins[start], begins[a_end])
        if gathered == 1 or draws.uniform() < 0.5:
            label = RANDOM_NEXT
            b = _random_span(store, document, target - (a[1] - a[0]), settings, draws)
            start = i = a_end
        else:
            label = IS_NEXT
            b = (begins[a_end], begins[i + 1])
            start = i = i + 1
        a, b = _shortened(a, b, most, draws)
        out.append(Example(*a, *b, label))
    return out


def _random_span(store: Store, document: int, target: int, settings: Pretraining, draws: Draws) -> tuple[int, int]:
    """From a random sentence of another document on, until ``target`` tokens; at least one sentence."""
    low, high = 0, store.documents - 1
    if settings.random_within is not None:
        low, high = max(low, document - settings.random_within), min(high, document + settings.random_within)
    if settings.profile == "google":
        for _ in range(_TRIES):
            other = draws.between(low, high)
            if other != document:
                break
    else:
        other = draws.between(low, high - 1)
        other += other >= document
    first, last = store.document(other)
    start = draws.between(first, last - 1)
    # No sentence is empty, so ``target`` of them are enough.
    begins = store.boundaries(start, min(last, start + max(1, target)))
    stop = next((int(end) for end in begins[1:] if end - begins[0] >= target), int(begins[-1]))
    return int(begins[0]), stop


def _shortened(
    a: tuple[int, int], b: tuple[int, int], most: int, draws: Draws
) -> tuple[tuple[int, int], tuple[int, int]]:
    """truncate_seq_pair in one go: how many tokens each loses is settled by the lengths, at which end by the coins."""
    n_a, n_b = a[1] - a[0], b[1] - b[0]
    over = n_a + n_b - most
    if over <= 0:
        return a, b
    # The longer loses until it is as long as the other; from then on they take turns, B first.
    lose_a, lose_b = min(over, max(0, n_a - n_b)), min(over, max(0, n_b - n_a))
    rest = over - lose_a - lose_b
    return _cut(a, lose_a + rest // 2, draws), _cut(b, lose_b + rest - rest // 2, draws)


def _cut(span: tuple[int, int], tokens: int, draws: Draws) -> tuple[int, int]:
    front = draws.heads(tokens)
    return span[0] + front, span[1] - (tokens - front)
