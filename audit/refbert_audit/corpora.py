"""A tokenizer with a small vocabulary, corpora of its words, and what the data code makes of them."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from string import ascii_lowercase

import numpy as np

from refbert.backend import Host
from refbert.data.draws import Draws, generator
from refbert.data.pairs import Example, examples
from refbert.data.settings import Phase
from refbert.data.store import Store, build_store
from refbert.data.stream import PretrainingSource
from refbert.model import Model
from refbert.ops.cross_entropy import IGNORE
from refbert.text.tokenization import Tokenizer
from refbert_audit.models import SIZES, model, shared
from refbert_audit.runs import examples_of_a_run

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@shared
def tokenizer() -> Tokenizer:
    """Words w0 … w499, letters with their "##" forms, some Chinese characters and punctuation."""
    words = (f"w{i}" for i in range(500))
    return Tokenizer.from_vocabulary(
        [*SPECIALS, *ascii_lowercase, *(f"##{c}" for c in ascii_lowercase), *".,?[]", *"我喜欢吃苹果", *words]
    )


def reader(scale: float = 0.25, **sizes: int) -> Model:
    """A random `model` that answers questions in the words of `tokenizer`."""
    config = SIZES.replace(vocab_size=tokenizer().vocab_size, **sizes)
    one = model(("question_answering",), config=config, scale=scale)
    one.tokenizer = tokenizer()
    return one


def texts(count: int, *, sentences: tuple[int, int], tokens: tuple[int, int]) -> list[list[str]]:
    """Documents as lists of sentences of random words; both bounds are included."""
    rng = np.random.default_rng(0)
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
def pretraining_rows(S: int = 128, batches: int = 30) -> dict[str, Host]:
    """Batches of the corpus as pretraining sees them, one under the other.

    ids, labels, types, mask: as the model is given them.   original: the ids before masking.
    chosen: what has a label.   special: [CLS] and [SEP].
    """
    phases = (Phase(batches, S, 64),)
    source = PretrainingSource(corpus(), tokenizer(), seed=1, phases=phases, settings=examples_of_a_run())
    made = [source.next(step) for step in range(batches)]
    columns = ((b.input_ids, y["labels"], b.token_type_ids, b.attention_mask > 0) for b, y in made)
    ids, labels, types, mask = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    chosen = labels != IGNORE
    original = np.where(chosen, labels, ids)
    special = np.isin(original, (tokenizer().cls_id, tokenizer().sep_id)) & mask
    return {
        "ids": ids, "labels": labels, "types": types, "mask": mask, "original": original, "chosen": chosen,
        "special": special,
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
def pairs() -> tuple[list[Example], int]:
    """(three rounds of the corpus's examples, packed as a run packs them; coins that their chunks tossed)."""
    found: list[Example] = []
    coins = 0
    for number, document in product(range(3), range(corpus().documents)):
        draws = Coins("pairs", number, document)
        found += examples(corpus(), document, 128, examples_of_a_run(), draws)
        coins += draws.tossed - 1  # the first is about the length
    return found, coins
