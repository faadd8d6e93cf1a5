"""What reading a corpus takes: the peak of a process that tokenizes one and draws batches from it, by its size.

    python benchmarks/corpus_memory.py TEXT --work DIR                          # 2 MB and 2 GB
    python benchmarks/corpus_memory.py TEXT --work DIR --megabytes 2 20 --out memory.json

TEXT: sentences, one per line, blank lines between documents. Its documents are repeated, each time in another order,
until a corpus has its size; the vocabulary is learned from TEXT once. Each size is read in a process of its own, whose
peak (VmHWM) is reported. Linux.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from pathlib import Path

from refbert.benchmark import peak_process_bytes
from refbert.data import Phase, Pretraining, PretrainingSource, build_store, read_sentences, train_wordpiece
from refbert.text.tokenization import Tokenizer

BATCHES = 200


def write_corpus(documents: list[str], path: Path, size: int) -> None:
    """A file of at least ``size`` bytes."""
    order = random.Random(0)
    written = 0
    with path.open("w", encoding="utf-8") as file:
        while written < size:
            order.shuffle(documents)
            for document in documents:
                written += len(document.encode()) + 2
                file.write(document + "\n\n")
                if written >= size:
                    break


def measure(corpus: Path, tokenizer_directory: Path, store_directory: Path) -> dict[str, object]:
    """In this process: tokenize, draw batches, say what it took."""
    tokenizer = Tokenizer.from_directory(tokenizer_directory)
    started = time.perf_counter()
    with build_store([str(corpus)], tokenizer, store_directory) as store:
        built = time.perf_counter()
        phases = (Phase(BATCHES, 128, 32),)
        source = PretrainingSource(store, tokenizer, seed=0, phases=phases, settings=Pretraining(profile="dynamic"))
        for step in range(BATCHES):
            source.next(step)
        drawn = time.perf_counter()
        tokens = store.tokens
    return {
        "corpus_bytes": corpus.stat().st_size, "tokens": tokens, "peak_bytes": peak_process_bytes(),
        "build_seconds": round(built - started, 1), "seconds_for_200_batches": round(drawn - built, 2),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--megabytes", type=float, nargs="+", default=[2, 2000])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    vocabulary = given.work / "tokenizer"
    if given.measure is not None:
        print(json.dumps(measure(given.measure, vocabulary, given.measure.with_suffix(".store"))))
        return 0
    vocabulary.mkdir(parents=True, exist_ok=True)
    sentences = (s for s in read_sentences([str(given.text)]) if s is not None)
    train_wordpiece(sentences, size=8192, cased=False).save(vocabulary)
    documents = given.text.read_text(encoding="utf-8").strip().split("\n\n")
    results = []
    for size in given.megabytes:
        corpus = given.work / f"{size:g}.txt"
        write_corpus(documents, corpus, int(size * 1e6))
        command = [sys.executable, __file__, str(given.text), "--work", str(given.work), "--measure", str(corpus)]
        results.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        print(json.dumps(results[-1]), flush=True)
        corpus.unlink()
    if given.out is not None:
        given.out.write_text(json.dumps({"batches": BATCHES, "sizes": results}, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
