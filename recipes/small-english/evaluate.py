"""How well the model fills in what is hidden in text that it has not seen, next to two baselines.

    python evaluate.py heldout-*.txt --model DIR --output scores.json --train train/*.txt       prints a Markdown table
    python evaluate.py heldout-*.txt --tokenizer DIR --output scores.json --train train/*.txt   the baselines alone

Examples and masks are those of refbert's own pretraining data (profile "dynamic", budget of 15 %, 80/10/10) under fixed
seeds, made once for each file and given to all: model, unigram, trigram (baselines.py). All chosen positions count,
also the tenth that shows a random word and the tenth that shows the word itself.

    accuracy     share of the chosen positions at which the likeliest token is the right one
    perplexity   exp of the mean of −ln p(right token) over the chosen positions
    NSP          share of the pairs told rightly; "majority" always says what is more frequent. Random second parts come
                 from the same file, that is the same source. Not of the files named as --lists: there no sentence
                 follows from the last
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from baselines import Trigram, Unigram

from refbert.data import Phase, Pretraining, PretrainingSource, Store, build_store
from refbert.errors import RefbertError
from refbert.ops.cross_entropy import IGNORE
from refbert.text.batching import Batch
from refbert.text.tokenization import Tokenizer

SEED, ROUNDS, LENGTH, BATCH = 20180, 2, 64, 32

Ids = npt.NDArray[np.int64]
# A batch and its labels [B, S] -> log-probabilities [n, V] at the chosen positions, and next-sentence guesses [B].
Predict = Callable[[Batch, Ids], tuple[npt.NDArray[np.float64], Ids | None]]


@dataclass
class Score:
    """Sums, so that files can be added up."""

    masked: int = 0
    right: int = 0
    nats: float = 0.0
    pairs: int = 0
    pairs_right: int = 0

    def __add__(self, other: Score) -> Score:
        return Score(*(a + b for a, b in zip(asdict(self).values(), asdict(other).values(), strict=True)))

    def figures(self) -> dict[str, float | int | None]:
        """Accuracy, perplexity, next-sentence accuracy (None where it was not predicted), and of how many."""
        return {
            "masked_lm_accuracy": self.right / self.masked,
            "masked_lm_perplexity": math.exp(self.nats / self.masked),
            "next_sentence_accuracy": self.pairs_right / self.pairs if self.pairs else None,
            "masked_tokens": self.masked,
            "pairs": self.pairs,
        }


def masked_batches(
    store: Store, tokenizer: Tokenizer, *, length: int, rounds: int = ROUNDS, seed: int = SEED
) -> Iterator[tuple[Batch, Ids, Ids]]:
    """(batch, labels [B, S], next-sentence labels [B]) of ``rounds`` rounds; the last batch is filled from the next."""
    source = PretrainingSource(
        store, tokenizer, seed=seed, phases=[Phase(1, length, BATCH)], settings=Pretraining(profile="dynamic")
    )
    step = 0
    while source.state()["round"] < rounds:
        batch, labels = source.next(step)
        yield batch, np.asarray(labels["labels"]), np.asarray(labels["next_sentence_label"])
        step += 1


def score(predict: Predict, batches: Sequence[tuple[Batch, Ids, Ids]], *, pairs: bool = True) -> Score:
    """One predictor's sums over batches; ``pairs``: whether what it says of them counts."""
    total = Score()
    for batch, labels, is_random in batches:
        chosen = labels != IGNORE
        log_p, guesses = predict(batch, labels)
        target = labels[chosen]
        total += Score(
            masked=len(target),
            right=int((log_p.argmax(axis=1) == target).sum()),
            nats=float(-log_p[np.arange(len(target)), target].sum()),
            pairs=0 if guesses is None or not pairs else len(is_random),
            pairs_right=0 if guesses is None or not pairs else int((guesses == is_random).sum()),
        )
    return total


def of_model(model: Any) -> Predict:
    """What a refbert model predicts."""

    def predict(batch: Batch, labels: Ids) -> tuple[npt.NDArray[np.float64], Ids | None]:
        heads = [head for head in ("masked_lm", "next_sentence") if head in model.heads]
        out = model(batch, heads=heads, masked_lm_positions=np.flatnonzero(labels != IGNORE))
        logits = out.logits["masked_lm"].astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        pair = out.logits.get("next_sentence")
        return log_p, None if pair is None else pair.argmax(axis=1)

    return predict


def of_unigram(unigram: Unigram, majority: int) -> Predict:
    """The frequencies everywhere; of pairs always the same."""
    log_p = np.log(unigram.p)

    def predict(batch: Batch, labels: Ids) -> tuple[npt.NDArray[np.float64], Ids | None]:
        return np.tile(log_p, (int((labels != IGNORE).sum()), 1)), np.full(len(labels), majority)

    return predict


def of_trigram(trigram: Trigram, specials: Sequence[int]) -> Predict:
    """The neighbours' counts."""

    def predict(batch: Batch, labels: Ids) -> tuple[npt.NDArray[np.float64], Ids | None]:
        ids = batch.input_ids
        special = np.isin(ids, specials)
        rows, positions = np.nonzero(labels != IGNORE)
        found = [trigram(ids[row], int(at), special[row]) for row, at in zip(rows, positions, strict=True)]
        return np.log(np.stack(found)), None

    return predict


def documents_of(store: Store) -> list[Ids]:
    """The ids of each document."""
    out = []
    for number in range(store.documents):
        begins = store.boundaries(*store.document(number))
        out.append(store.ids(int(begins[0]), int(begins[-1])))
    return out


def markdown(results: dict[str, dict[str, dict[str, Any]]]) -> str:
    """The table of the model card."""
    lines = [
        "| text | predictor | masked tokens: accuracy | perplexity | next sentence: accuracy |",
        "| --- |" + " --- |" * 4,
    ]
    for text, predictors in results.items():
        for name, figures in predictors.items():
            pairs = figures["next_sentence_accuracy"]
            lines.append(
                f"| {text} | {name} | {figures['masked_lm_accuracy']:.1%} | {figures['masked_lm_perplexity']:.1f} | "
                f"{'' if pairs is None else f'{pairs:.1%}'} |"
            )
    return "\n".join(lines)


def evaluate(
    files: Sequence[Path],
    train: Sequence[Path],
    tokenizer: Tokenizer,
    model: Any | None,
    *,
    length: int,
    lists: Sequence[Path] = (),
) -> dict[str, dict[str, dict[str, Any]]]:
    """By file, and "all": by predictor: the figures."""
    results: dict[str, dict[str, Score]] = {}
    with tempfile.TemporaryDirectory() as work:
        with build_store(train, tokenizer, Path(work, "train")) as store:
            documents = documents_of(store)
        trigram = Trigram(documents, tokenizer.vocab_size, tokenizer.sep_id)
        for file in files:
            with build_store([file], tokenizer, Path(work, file.stem)) as store:
                batches = list(masked_batches(store, tokenizer, length=length))
            majority = int(np.concatenate([pair for _, _, pair in batches]).mean() >= 0.5)
            specials = [tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id]
            predictors = {"model": of_model(model)} if model is not None else {}
            predictors |= {"trigram": of_trigram(trigram, specials), "unigram": of_unigram(trigram.unigram, majority)}
            results[file.stem] = {
                name: score(predict, batches, pairs=file not in lists) for name, predict in predictors.items()
            }
    names = list(next(iter(results.values())))
    if len(results) > 1:
        results["all"] = {name: sum((scores[name] for scores in results.values()), Score()) for name in names}
    return {text: {name: score.figures() for name, score in scores.items()} for text, scores in results.items()}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="held-out text, one sentence per line")
    parser.add_argument("--model", help="what `refbert pretrain` or export.py wrote")
    parser.add_argument("--tokenizer", type=Path, help="a directory with a tokenizer, to score the baselines alone")
    parser.add_argument("--train", type=Path, nargs="+", required=True, help="the text that the baselines count")
    parser.add_argument("--lists", type=Path, nargs="*", default=[], help="files whose sentences do not follow")
    parser.add_argument("--length", type=int, default=LENGTH, help="tokens of an example (default: %(default)s)")
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--output", type=Path, required=True, help="a JSON file for the figures")
    given = parser.parse_args()
    if (given.model is None) == (given.tokenizer is None):
        parser.error("name a --model or a --tokenizer")
    try:
        model = None
        if given.model is not None:
            import refbert

            model = refbert.load(given.model, backend=given.backend)
        tokenizer = Tokenizer.from_directory(given.tokenizer) if model is None else model.tokenizer
        results = evaluate(given.files, given.train, tokenizer, model, length=given.length, lists=given.lists)
    except RefbertError as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 2
    settings = {"seed": SEED, "rounds": ROUNDS, "length": given.length, "batch": BATCH}
    given.output.write_text(json.dumps({"settings": settings, "results": results}, indent=2) + "\n", encoding="utf-8")
    print(markdown(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
