"""Small fine-tuning runs, and commands that are refused."""

from __future__ import annotations

from calling import cli
from labelled_files import write_choices, write_classes, write_model, write_questions, write_sets, write_tags

from refbert.training.finetuning_settings import Settings


def fails(capsys, *arguments):
    """The one line of a command that is refused."""
    status, out, err = cli(capsys, *arguments)
    assert (status, out) == (2, "")
    lines = [line for line in err.splitlines() if not line.startswith("refbert: warning")]
    assert len(lines) == 1, err
    return lines[0]


def settings(path, task="classify", **changes):
    if not (path / "model").is_dir():
        write_model(path / "model", dropout=changes.pop("model_dropout", 0.1))
    common = {"batch_sizes": (8,), "learning_rates": (2e-3,), "epochs": (2,), "save_every": 3}
    return Settings(task=task, model=str(path / "model"), **common | changes)


# By task: what writes a file, its name, the score that decides, what it must reach, and examples.
LEARN = {
    "classify": (write_classes, "x.csv", "accuracy", 0.95, 160),
    "multi-label": (write_sets, "x.jsonl", "micro_f1", 0.95, 160),
    "tag": (write_tags, "x.conll", "f1", 0.95, 120),
    "answer": (write_questions, "x.json", "f1", 90.0, 60),
    "choose": (write_choices, "x.jsonl", "accuracy", 0.95, 80),
    "regress": (lambda path, n, seed: write_classes(path, n, seed=seed, numbers=True), "x.csv", "spearman", 0.8, 160),
}
