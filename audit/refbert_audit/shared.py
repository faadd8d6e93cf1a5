"""What several claims look at, made once a run: small models, a tokenizer, a corpus, and backends that watch and count.

The models are small, but no size equals another and no weight is special (gains are not 1, biases are not 0), so that
no mistake hides behind a symmetric case.
"""

from __future__ import annotations

import functools
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np
import numpy.typing as npt

from refbert.backend.reference import ReferenceBackend
from refbert.backend.wrapper import Wrapper
from refbert.config import BertConfig
from refbert.config.parameters import shapes
from refbert.config.profiles import get_profile
from refbert.data.draws import Draws, generator
from refbert.data.pairs import Example, examples
from refbert.data.settings import Phase, Pretraining
from refbert.data.store import Store, build_store
from refbert.data.stream import PretrainingSource
from refbert.errors import InputError
from refbert.model import Model
from refbert.randomness import Dropout
from refbert.text.batching import Batch
from refbert.text.tokenization import Tokenizer
from refbert.training.finetuning_settings import PAPER_GRID, Settings
from refbert.training.optimizer import Optimizer
from refbert.training.pretraining_settings import Settings as PretrainingSettings

Host = npt.NDArray[Any]
P = ParamSpec("P")
R = TypeVar("R")

_caches: list[Any] = []


def shared(make: Callable[P, R]) -> Callable[P, R]:
    """`functools.cache` that `clear` empties, so that no run sees what an earlier one made."""
    cached = functools.cache(make)
    _caches.append(cached)
    return cast(Callable[P, R], functools.wraps(make)(cached))


def clear() -> None:
    """Forget all that was made."""
    for cached in _caches:
        cached.cache_clear()


# Models

SIZES = BertConfig(
    vocab_size=67, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=56,
    max_position_embeddings=48, num_labels=5,
)  # fmt: skip
BERT = "bert-base-uncased"
LARGE = "bert-large-uncased"
PRETRAINING = ("masked_lm", "next_sentence")
# A pretraining run of the paper's length, all else as it is when nothing is said; its examples and its optimizer.
RUN = PretrainingSettings(files=("corpus.txt",), steps=1_000_000)


def examples_of_a_run(**changes: Any) -> Pretraining:
    """What decides a run's examples."""
    return replace(RUN.data(), **changes)


def optimizer_of_a_run(**changes: Any) -> Optimizer:
    """A run's optimizer before the first update."""
    return replace(RUN.new_optimizer(), m={}, v={}, **changes)


def model(
    heads: Sequence[str] = (),
    *,
    config: BertConfig = SIZES,
    profile: str = "hf",
    pooler: bool = True,
    backend: Any = None,
    scale: float = 0.25,
    seed: int = 0,
) -> Model:
    """A model in float64 with weights of standard deviation ``scale``, gains about 1 and biases about 0."""
    rng = np.random.default_rng(seed)
    weights = {
        name: ("LayerNorm.weight" in name) + scale * rng.standard_normal(shape)
        for name, shape in shapes(config, heads, pooler=pooler).items()
    }
    return Model(config, weights, backend=backend or ReferenceBackend(), profile=get_profile(profile), heads=heads)


def batch(B: int = 3, S: int = 11, *, vocabulary: int = SIZES.vocab_size, ragged: bool = False, seed: int = 0) -> Batch:
    """Random ids in two segments; with ``ragged`` the rows end in padding of different lengths."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, vocabulary, (B, S))
    types = np.tile(np.arange(S) >= S // 2, (B, 1)).astype(np.int64)
    lengths = np.maximum(1, S - np.arange(B) * 3) if ragged else np.full(B, S)
    return Batch(ids, types, (np.arange(S) < lengths[:, None]).astype(np.int64))


def masked_labels(rows: Batch, *, every: int = 4) -> Host:
    """Masked-LM labels on every fourth position, IGNORE (−100) elsewhere."""
    B, S = rows.shape
    return np.where(np.arange(B * S).reshape(B, S) % every == 1, rows.input_ids, -100)


def next_sentence_labels(rows: Batch) -> Host:
    """0, 1, 0, …"""
    return np.arange(len(rows.input_ids)) % 2


def labels_for(heads: Sequence[str], rows: Batch) -> dict[str, Host]:
    """Labels of a step that trains these heads."""
    B, one = len(rows.input_ids), heads[0]
    if one == "question_answering":
        return {"start_positions": np.arange(1, B + 1), "end_positions": np.arange(3, B + 3)}
    if one == "sequence_classification":
        return {"labels": np.arange(B)}
    if one == "token_classification":
        return {"labels": rows.input_ids % SIZES.num_labels}
    both = {"masked_lm": ("labels", masked_labels), "next_sentence": ("next_sentence_label", next_sentence_labels)}
    return {both[head][0]: both[head][1](rows) for head in heads}


def gradients(heads: Sequence[str] = ("masked_lm",), rows: Batch | None = None) -> dict[str, Host]:
    """The gradients of a training step of a model with these heads, without dropout."""
    rows = rows or batch()
    return model(heads).loss_and_gradients(rows, labels_for(heads, rows))[1]


def rows_that_learn(table: str, rows: Batch | None = None) -> Host:
    """Which rows of an embedding table get a gradient from a masked-LM step."""
    return np.asarray(gradients(rows=rows)[f"bert.embeddings.{table}_embeddings.weight"].any(axis=1))


def without_gradient(found: Mapping[str, Host]) -> list[str]:
    """Names of tensors whose gradient is rounding alone."""
    limit = 1e-13 * max(largest(g) for g in found.values())
    return [name for name, g in found.items() if largest(g) < limit]


def hidden_states(one: Model, rows: Batch) -> Sequence[Host]:
    """The embeddings' output and every layer's."""
    found = one(rows, output_hidden_states=True).hidden_states
    assert found is not None
    return found


def attentions(one: Model, rows: Batch) -> Sequence[Host]:
    """Every layer's attention probabilities."""
    found = one(rows, output_attentions=True).attentions
    assert found is not None
    return found


def log_losses(logits: Host, labels: Any) -> Host:
    """−log of the softmax over the last axis at each row's label, written out."""
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return cast(Host, -np.log(np.take_along_axis(p, np.asarray(labels)[..., None], -1)[..., 0]))


def largest(x: Host) -> float:
    """The largest absolute entry."""
    return float(np.abs(x).max())


def refused(work: Callable[[], object], error: type[Exception] = InputError) -> bool:
    """Whether ``work`` raises that error."""
    try:
        work()
    except error:
        return True
    return False


# Backends that look on


class Watching(Wrapper):
    """The reference backend, with a record of every call: its op, the shapes of its arrays, its options."""

    def __init__(self) -> None:
        super().__init__(ReferenceBackend())
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def call(self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Noted, and called."""
        if name not in ("asarray", "to_numpy"):
            self.calls.append((name, tuple(getattr(x, "shape", x) for x in arguments), options))
        return function(*arguments, **options)

    @classmethod
    def forward(cls, heads: Sequence[str] = (), **options: Any) -> Watching:
        """A record of a pass of a `model` over a `batch`."""
        watching = cls()
        model(heads, backend=watching, **options)(batch())
        return watching

    @classmethod
    def step(cls, dropout: Dropout | None = None, **options: Any) -> Watching:
        """A record of a training step of a `model` with a masked-LM head."""
        watching, rows = cls(), batch()
        model(("masked_lm",), backend=watching, **options).loss_and_gradients(
            rows, masked_labels(rows), dropout=dropout
        )
        return watching

    @property
    def ops(self) -> list[str]:
        """The ops in the order of their calls."""
        return [name for name, _, _ in self.calls]

    @property
    def counts(self) -> Counter[str]:
        """Op -> calls."""
        return Counter(self.ops)


class Multiplied(np.ndarray):
    """An array that tells how many operations the matrix products it takes part in cost; 2·m·k·n for [m, k] @ [k, n].

    It is NumPy's own `matmul` that is counted, as refbert.ops calls it: no formula of an op's cost is used.
    """

    flops = 0

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        plain = [np.asarray(x) if isinstance(x, np.ndarray) else x for x in inputs]
        if "out" in options:
            options["out"] = tuple(np.asarray(x) for x in options["out"])
        result = getattr(ufunc, method)(*plain, **options)
        if ufunc is np.matmul:
            Multiplied.flops += 2 * result.size * plain[0].shape[-1]
        return result.view(Multiplied) if isinstance(result, np.ndarray) else result


class Counting(ReferenceBackend):
    """The reference backend on arrays that count the operations of matrix products."""

    def asarray(self, x: Host, /) -> Any:
        """x as a counting array."""
        return np.asarray(x, dtype=self.dtype).view(Multiplied)


def flops_of(work: Callable[[], Any]) -> tuple[int, Any]:
    """(operations of the matrix products that ``work`` does on `Counting` arrays, what it returns)."""
    before = Multiplied.flops
    result = work()
    return Multiplied.flops - before, result


class Sites(Dropout):
    """Dropout's draws, with a record of where masks were asked for, at what rate, and how much they kept."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        object.__setattr__(self, "seen", [])

    seen: list[tuple[str, float, float]]

    def keep(self, site: str, shape: tuple[int, ...], rate: float) -> npt.NDArray[np.bool_]:
        """As `Dropout.keep`."""
        made = super().keep(site, shape, rate)
        self.seen.append((site, rate, float(made.mean())))
        return made


def finetuning(**changes: Any) -> Settings:
    """Settings of fine-tuning as the paper's A.3 has them; nothing is read or run for that."""
    options: dict[str, Any] = {"task": "classify", "model": "m", "train": "t", "dev": "d", **PAPER_GRID, **changes}
    return Settings(**options)


def updated(optimizer: Optimizer, w: float, g: float, lr: float) -> float:
    """One weight, w, after an update with gradient g."""
    new, _ = optimizer.step(ReferenceBackend(), {"w": np.array([w])}, {"w": np.array([g])}, lr=lr)
    return float(new["w"][0])


@shared
def dropout_sites(heads: tuple[str, ...]) -> tuple[tuple[str, float, float], ...]:
    """(site, rate, share kept) of every mask that a training step of a model with these heads draws."""
    rows, draws = batch(4, 16), Sites()
    model(heads).loss_and_gradients(rows, labels_for(heads, rows), dropout=draws)
    return tuple(draws.seen)


# Text

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


def spread(share: float, n: int) -> float:
    """Six standard deviations of the share of n independent draws: a chance of 2e-9 to be further off."""
    return float(6 * np.sqrt(share * (1 - share) / n))
