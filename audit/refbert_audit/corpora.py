"""A tokenizer with a small vocabulary, corpora of its words, and what the data code makes of them."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from refbert.backend import Host
from refbert.config.profiles import get_profile
from refbert.data.draws import Draws, generator
from refbert.data.pairs import Example, examples
from refbert.data.settings import Phase
from refbert.data.store import Store, build_store
from refbert.data.stream import PretrainingSource
from refbert.model import Model
from refbert.text.tokenization import Tokenizer
from refbert_audit.shared import SIZES, examples_of_a_run, model, shared

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@shared
def tokenizer(profile: str = "hf") -> Tokenizer:
    """Words w0 … w499, letters with their "##" forms, some Chinese characters and punctuation."""
    pieces = [
        *SPECIALS,
        *LETTERS,
        *(f"##{c}" for c in LETTERS),
        *".,?[]",
        *"我喜欢吃苹果",
        *(f"w{i}" for i in range(500)),
    ]
    return Tokenizer.from_vocabulary(pieces, profile=get_profile(profile))


def reader(**options: Any) -> Model:
    """A random `model` that answers questions in the words of `tokenizer`; ``options``: of its sizes, and ``scale``."""
    scale = options.pop("scale", 0.25)
    config = SIZES.replace(vocab_size=tokenizer().vocab_size, **options)
    one = model(("question_answering",), config=config, scale=scale)
    one.tokenizer = tokenizer()
    return one


def texts(count: int, *, sentences: tuple[int, int], tokens: tuple[int, int], seed: int = 0) -> list[list[str]]:
    """Documents as lists of sentences of random words; both bounds are included."""
    rng = np.random.default_rng(seed)
    return [
        [
            " ".join(f"w{i}" for i in rng.integers(0, 500, rng.integers(tokens[0], tokens[1] + 1)))
            for _ in range(rng.integers(sentences[0], sentences[1] + 1))
        ]
        for _ in range(count)
    ]


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="refbert-audit-")  # removed when Python ends


def store(documents: Sequence[Sequence[str]], name: str) -> Store:
    """A tokenized corpus of these documents."""
    directory = Path(_folder().name) / name
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "corpus.txt"
    file.write_text("\n\n".join("\n".join(d) for d in documents) + "\n", encoding="utf-8")
    return build_store([file], tokenizer(), directory / "store")


@shared
def corpus() -> Store:
    """400 documents of 1 to 40 sentences of 5 to 45 tokens."""
    return store(texts(400, sentences=(1, 40), tokens=(5, 45)), "typical")


@shared
def pretraining_rows(masking: str = "budget", S: int = 128, batches: int = 30) -> dict[str, Host]:
    """Batches of the corpus as pretraining sees them, one under the other: ids, labels, lengths, special, next."""
    settings = examples_of_a_run(masking=masking)
    source = PretrainingSource(corpus(), tokenizer(), seed=1, phases=(Phase(batches, S, 64),), settings=settings)
    made = [source.next(step) for step in range(batches)]
    ids = np.concatenate([b.input_ids for b, _ in made])
    labels = np.concatenate([y["labels"] for _, y in made])
    mask = np.concatenate([b.attention_mask for b, _ in made]).astype(bool)
    types = np.concatenate([b.token_type_ids for b, _ in made])
    original = np.where(labels == -100, ids, labels)
    special = np.isin(original, (tokenizer().cls_id, tokenizer().sep_id)) & mask
    return {
        "ids": ids, "labels": labels, "mask": mask, "types": types, "original": original, "special": special,
        "next": np.concatenate([y["next_sentence_label"] for _, y in made]),
    }  # fmt: skip


class Coins(Draws):
    """Draws that record how often a uniform number was asked for, and whether a shorter length was drawn."""

    def __init__(self, *key: object) -> None:
        super().__init__(*key)
        self.tossed = 0
        self.shorter: bool | None = None
        self._rest = generator("rest", *key)

    def uniform(self) -> float:
        """As `Draws.uniform`."""
        self.tossed += 1
        return super().uniform()

    def between(self, low: int, high: int) -> int:
        """As `Draws.between`, not recorded; the first that is asked for, if it is 2 or more, is a target length."""
        if self.shorter is None:
            self.shorter = low == 2
        return int(self._rest.integers(low, high + 1))


@shared
def pairs(S: int = 128, rounds: int = 3) -> tuple[list[Example], int]:
    """(examples of all documents of the corpus, packed as a run packs them; coins that chunks of them tossed)."""
    found: list[Example] = []
    coins = 0
    for number in range(rounds):
        for document in range(corpus().documents):
            draws = Coins("pairs", number, document)
            found += examples(corpus(), document, S, examples_of_a_run(), draws)
            coins += draws.tossed - 1  # the first is about the length
    return found, coins
