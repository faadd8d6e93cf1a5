"""Small runs of both kinds, and what they are made from."""

from __future__ import annotations

import refbert
from refbert.config import BertConfig
from refbert.text.tokenization import Tokenizer
from refbert.training.finetuning_settings import Settings as Fine
from refbert.training.pretraining_settings import Settings as Pre

WORDS = ["the", "a", "cat", "sat", "on", "mat", "dog", "."]
SIZES = {
    "vocab_size": 13, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
    "max_position_embeddings": 16,
}  # fmt: skip


def write_files(path):
    """A model, labelled texts, a corpus and a corpus that cannot be used."""
    model = refbert.from_config(BertConfig(**SIZES), heads=("masked_lm", "next_sentence"), seed=1)
    model.tokenizer = Tokenizer.from_vocabulary(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])
    model.save(path / "model")
    (path / "x.csv").write_text("text,label\n" + "the cat,has\na dog,not\n" * 4, encoding="utf-8")
    (path / "x.txt").write_text("the cat sat .\na dog sat on a mat .\n\n" * 8, encoding="utf-8")
    (path / "bad.txt").write_bytes(b"the cat\n" * 2000 + b"\xff\n")
    return path


def fine(files, **changes):
    chosen = {"task": "classify", "model": str(files / "model"), "train": str(files / "x.csv"), "epochs": (1,),
              "batch_sizes": (4,)}  # fmt: skip
    return Fine(**chosen | changes)


def pre(files, text="x.txt", **changes):
    chosen = {"files": (str(files / text),), "start_from": str(files / "model"), "steps": 4, "batch_size": 4,
              "short_length": 8, "long_length": 8, "save_every": 2}  # fmt: skip
    return Pre(**chosen | changes)
