"""Small labelled files over the words of tests/small_checkpoint.py, with something to learn in each."""

from __future__ import annotations

import json
import random

import refbert
from refbert.text.tokenization import Tokenizer

WORDS = ["the", "a", "cat", "sat", "on", "mat", "dog", "."]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "##s"]


def write_model(directory, *, heads=(), positions=32, dropout=0.0, seed=1, **changes):
    """A tiny checkpoint with a tokenizer, without a task's head unless ``heads`` names one."""
    sizes = {
        "vocab_size": len(VOCABULARY), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": positions, "initializer_range": 0.3,
        "hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout,
    } | changes  # fmt: skip
    model = refbert.from_config(refbert.BertConfig(**sizes), heads=heads, seed=seed)
    model.tokenizer = Tokenizer.from_vocabulary(VOCABULARY)
    model.save(directory)
    return directory


def written(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def _sentence(draw, n):
    return [draw.choice(WORDS) for _ in range(n)]


def write_classes(path, n=40, *, seed=0, numbers=False):
    """ "has" or "not": whether there is a cat; or how many."""
    draw = random.Random(seed)
    lines = ["text,label"]
    for i in range(n):
        words = _sentence(draw, 3 + i % 4)
        label = words.count("cat") if numbers else "has" if "cat" in words else "not"
        lines.append(f"{' '.join(words)},{label}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_sets(path, n=40, *, seed=0):
    """Which of the animals there are, some in all, or none: a list in JSON, names with commas in a table."""
    draw = random.Random(seed)
    lines = [] if path.suffix == ".jsonl" else ["text,label"]
    for i in range(n):
        words = _sentence(draw, 3 + i % 4)
        found = [name for name in ("cat", "dog") if name in words]
        text, listed = " ".join(words), ",".join(found)
        lines.append(json.dumps({"text": text, "label": found}) if path.suffix == ".jsonl" else f'{text},"{listed}"')
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_tags(path, n=30, *, seed=0):
    """Animals; a full stop belongs to the cat before it."""
    draw = random.Random(seed)
    lines = []
    for i in range(n):
        before = "O"
        for word in _sentence(draw, 3 + i % 4):
            before = {"cat": "B-CAT", "dog": "B-DOG"}.get(word, "I-CAT" if word == "." and before == "B-CAT" else "O")
            lines.append(f"{word}\t{before}")
        lines.append("")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_questions(path, n=16, *, seed=0, unanswerable=False, length=24):
    """Where is the animal? In a passage that is longer than a window of 16 tokens."""
    draw = random.Random(seed)
    paragraphs = []
    for i in range(n):
        words = [word for word in _sentence(draw, length) if word not in ("cat", "dog")]
        words.insert(draw.randrange(len(words)), "cat")
        context = " ".join(words)
        item = {
            "id": f"q{i}",
            "question": "the cat",
            "answers": [{"text": "cat", "answer_start": context.index("cat")}],
        }
        if unanswerable:
            item["is_impossible"] = i % 4 == 0
            if item["is_impossible"]:
                item |= {"question": "the dog", "answers": []}
        paragraphs.append({"context": context, "qas": [item]})
    path.write_text(json.dumps({"version": "x", "data": [{"title": "t", "paragraphs": paragraphs}]}), encoding="utf-8")
    return path


def write_choices(path, n=20, *, seed=0):
    """The choice with a cat is right."""
    draw = random.Random(seed)
    lines = []
    for _ in range(n):
        label = draw.randrange(3)
        choices = ["cat sat" if k == label else draw.choice(["dog sat", "mat .", "a dog"]) for k in range(3)]
        lines.append(json.dumps({"text": "the", "choices": choices, "label": label}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
