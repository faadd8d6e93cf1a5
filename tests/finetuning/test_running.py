"""`refbert run` on fine-tuned models."""

from __future__ import annotations

import json

import numpy as np
import pytest
from calling import cli
from labelled_files import write_classes, write_model, write_questions, write_tags
from tuning import fails, settings

import refbert
from refbert.training.finetuning import finetune

pytestmark = pytest.mark.filterwarnings("ignore::refbert.errors.RefbertWarning")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("made")
    write_model(path / "model", heads=("masked_lm", "next_sentence"))
    files = {"classify": write_classes(path / "x.csv"), "tag": write_tags(path / "x.conll"),
             "answer": write_questions(path / "x.json")}  # fmt: skip
    for task, file in files.items():
        finetune(path / task, settings(path, task, train=str(file), epochs=(4,), learning_rates=(5e-3,)))
    finetune(path / "regress", settings(path, "regress", train=str(write_classes(path / "y.csv", numbers=True))))
    return path


class TestRun:
    """Every kind of head."""

    def test_classify(self, made, capsys):
        _, out, _ = cli(capsys, "run", "--model", made / "classify", "--json", "--top-k", 1, "the cat", "a dog")
        first, second = (json.loads(line) for line in out.splitlines())
        assert first["text"] == "the cat"
        assert first["scores"] == [{"label": first["label"], "score": first["scores"][0]["score"]}]
        assert second["label"] in ("has", "not")
        _, out, _ = cli(capsys, "run", "--model", made / "classify", "the cat")
        assert first["label"] in out

    def test_regress(self, made, capsys):
        _, out, _ = cli(capsys, "run", "--model", made / "regress", "--task", "classify", "--json", "the cat")
        assert set(json.loads(out)) == {"text", "value"}

    def test_tag(self, made, capsys):
        _, out, _ = cli(capsys, "run", "--model", made / "tag", "--json", "the cat sat.")
        found = json.loads(out)
        assert [word["word"] for word in found["words"]] == ["the", "cat", "sat", "."]
        assert {word["tag"] for word in found["words"]} <= {"O", "B-CAT", "I-CAT", "B-DOG"}
        assert all("the cat sat."[e["start"] : e["stop"]] == e["text"] for e in found["entities"])
        assert "answer" in cli(capsys, "run", "--model", made / "tag", "the cat sat.")[1]
        assert "single texts" in fails(capsys, "run", "--model", made / "tag", "--pair", "a", "cat")

    def test_answer(self, made, capsys):
        command = ["run", "--model", made / "answer", "--pair", "the cat", "a mat . the Cat sat", "--json"]
        found = json.loads(cli(capsys, *command, "--top-k", 2)[1])
        assert len(found["answers"]) == 2
        best = found["answers"][0]
        assert found["answer"] == best["text"] == "a mat . the Cat sat"[best["start"] : best["stop"]]
        assert json.loads(cli(capsys, *command, "--null-threshold", -1e9)[1])["answer"] == ""
        assert "(no answer)" in cli(capsys, *command[:-1], "--null-threshold", -1e9)[1]
        assert "--pair" in fails(capsys, "run", "--model", made / "answer", "the cat")

    def test_next_sentence(self, made, capsys):
        command = ["run", "--model", made / "model", "--task", "next-sentence"]
        found = json.loads(cli(capsys, *command, "--pair", "--json", "the cat", "a dog")[1])
        scores = {row["label"]: row["score"] for row in found["scores"]}
        model = refbert.load(made / "model", backend="reference")
        z = model(model.batch([("the cat", "a dog")])).seq_relationship_logits[0]
        assert scores["IsNext"] == pytest.approx(1 / (1 + np.exp(z[1] - z[0])), abs=1e-6)
        assert scores["NotNext"] == pytest.approx(1 - scores["IsNext"])
        assert "--pair" in fails(capsys, *command, "the cat")

    def test_a_model_without_the_head(self, made, capsys):
        for task in ("classify", "tag", "answer"):
            assert "head" in fails(capsys, "run", "--model", made / "model", "--task", task, "--pair", "the", "cat")
