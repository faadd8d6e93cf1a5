"""Choose the tokens of a batch to mask: the original's budget, whole words, or a toss for each token.

Source   Devlin et al. 2019 §3.1, Task #1 and A.1; create_masked_lm_predictions of Google's create_pretraining_data.py:

    budget = min(most, max(1, round(n · rate)))
                    n: tokens of the sequence, [CLS] and [SEP] included; round is Python's, half to even
    tokens other than [CLS] and [SEP] in a random order, until the budget is used up
    whole words: "##" pieces belong to the piece before them, a word that does not fit into what is left is skipped

Each chosen token is then [MASK], random or kept by its own draw: `refbert.ops.mask_tokens`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from refbert.data.settings import Pretraining
from refbert.ops.mask_tokens import mask_tokens

Ids = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Draw = npt.NDArray[np.float64]


def mask_batch(
    ids: Ids, special: Mask, lengths: Ids, draws: Draw, settings: Pretraining, *, mask_id: int, continues: Mask,
) -> tuple[Ids, Ids]:  # fmt: skip
    """Mask a batch; returns (corrupted ids, labels), each [B, S].

    ``special`` [B, S]: [CLS], [SEP] and padding. ``lengths`` [B]: tokens that are not padding. ``draws`` [B, 3, S]
    uniform in [0, 1): which, what, and the random word. ``continues`` [V]: the pieces that go on with a word.
    """
    select, action, word = draws[:, 0], draws[:, 1], draws[:, 2]
    S = ids.shape[1]
    starts = None
    if settings.whole_word:
        starts = _word_starts(~special, continues[ids])
        select = np.take_along_axis(select, starts, axis=1)  # the pieces of a word share its draw
    if settings.masking == "independent":
        chosen = (select < settings.rate) & ~special
    else:
        budget = np.minimum(settings.most_predictions(S), np.maximum(1, np.rint(lengths * settings.rate)))
        if starts is None:
            chosen = _smallest(np.where(special, np.inf, select), budget.astype(np.int64)) & ~special
        else:
            chosen = _whole_words(select, starts, special, budget.astype(np.int64))
    corrupted, labels = mask_tokens(
        ids,
        ~chosen,
        select=np.zeros_like(select),  # all that may be chosen is
        action=action,
        random_ids=np.floor(word * len(continues)).astype(np.int64),
        rate=1.0,
        mask_id=mask_id,
    )
    return corrupted.astype(np.int64, copy=False), labels.astype(np.int64, copy=False)


def _smallest(values: Draw, counts: Ids) -> Mask:
    """[B, S]: the ``counts`` smallest of each row; uniform draws make them a random choice."""
    order = np.argsort(values, axis=1, kind="stable")
    out = np.zeros(values.shape, dtype=np.bool_)
    np.put_along_axis(out, order, np.arange(values.shape[1]) < counts[:, None], axis=1)
    return out


def _word_starts(token: Mask, goes_on: Mask) -> Ids:
    """[B, S]: the position at which the word of each token starts; special positions are words of their own.

    As in Google's code a "##" piece at the start of B, cut there by the truncation, belongs to A's last word; one at
    the start of A has nothing before it and starts a word.
    """
    S = token.shape[1]
    starts = token & ~goes_on
    starts[np.arange(len(token)), np.argmax(token, axis=1)] = True  # the first token of each row
    latest = np.maximum.accumulate(np.where(starts, np.arange(S), 0), axis=1)
    return np.where(token, latest, np.arange(S))


def _whole_words(select: Draw, starts: Ids, special: Mask, budget: Ids) -> Mask:
    chosen = np.zeros(special.shape, dtype=np.bool_)
    for row in range(len(special)):
        sizes = np.bincount(starts[row][~special[row]], minlength=special.shape[1])
        words = np.flatnonzero(sizes)
        left, taken = int(budget[row]), np.zeros(special.shape[1], dtype=np.bool_)
        for word in words[np.argsort(select[row, words], kind="stable")]:
            if left == 0:
                break
            if sizes[word] <= left:
                taken[word] = True
                left -= int(sizes[word])
        chosen[row] = taken[starts[row]] & ~special[row]
    return chosen
