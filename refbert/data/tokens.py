"""What pretraining data needs of a tokenizer beyond `refbert.text`: sentences in bulk, and which pieces go on.

"[MASK]" and its like, spelled out in a corpus, are ordinary text here, as for Google's tokenizer: a [SEP] in the middle
of a sentence would tell the model of a boundary that is not there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from refbert.files.digests import digest
from refbert.text.tokenization import Tokenizer


def encode_sentences(tokenizer: Tokenizer, sentences: Sequence[str]) -> list[list[int]]:
    """Return the ids of each sentence, nothing added; empty where nothing is left to read."""
    inner = tokenizer.library
    before = inner.encode_special_tokens
    inner.encode_special_tokens = True
    try:
        return [e.ids for e in inner.encode_batch_fast(list(sentences), add_special_tokens=False)]
    finally:
        inner.encode_special_tokens = before


def continues(tokenizer: Tokenizer) -> npt.NDArray[np.bool_]:
    """[V]: whether the piece of that id goes on with a word ("##…")."""
    return np.array([token.startswith("##") for token in tokenizer.tokens(range(tokenizer.vocab_size))])


def tokenizer_fingerprint(tokenizer: Tokenizer) -> str:
    """Return a digest of all that decides how text becomes ids."""
    return digest([tokenizer.library.to_str()])
