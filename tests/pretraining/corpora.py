"""Corpora of random words, where every token tells which document it is from, and bounds on counts."""

from __future__ import annotations

import random

from refbert.data.settings import Pretraining
from refbert.data.store import build_store
from refbert.text.tokenization import Tokenizer

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def within(count, n, probability):
    """Not in the tails of the binomial distribution that together hold 1e-9."""
    from scipy.stats import binom

    return binom.cdf(count, n, probability) > 5e-10 and binom.sf(count - 1, n, probability) > 5e-10


def small_tokenizer(words=500):
    """Words w0 … (one token each), and letters with their "##" forms: other words fall into several pieces."""
    vocabulary = [*SPECIALS, *LETTERS, *(f"##{c}" for c in LETTERS), ".", *(f"w{i}" for i in range(words))]
    return Tokenizer.from_vocabulary(vocabulary)


def documents_of(count, *, seed, sentences=(1, 12), tokens=(1, 30), words=500, own=False):
    """Documents as lists of sentences. ``own``: document d uses the word wd alone."""
    rng = random.Random(seed)
    return [
        [
            " ".join(f"w{d if own else rng.randrange(words)}" for _ in range(rng.randint(*tokens)))
            for _ in range(rng.randint(*sentences))
        ]
        for d in range(count)
    ]


def text_of(documents):
    return "\n\n".join("\n".join(document) for document in documents) + "\n"


def store_of(directory, documents, tokenizer):
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "corpus.txt"
    file.write_text(text_of(documents), encoding="utf-8")
    return build_store([file], tokenizer, directory / "store")


DYNAMIC = Pretraining(profile="dynamic")
