"""What `refbert finetune` and `evaluate` refuse, and what they cut or leave behind."""

from __future__ import annotations

import json

import pytest
from calling import cli
from labelled_files import write_classes, write_model, write_questions
from tuning import LEARN, fails, settings

import refbert
from refbert.data.labelled import read
from refbert.data.tables import Columns
from refbert.errors import InputError
from refbert.evaluation.tasks import Limits, evaluate, score_names
from refbert.training.finetuning import finetune

pytestmark = pytest.mark.filterwarnings("ignore::refbert.errors.RefbertWarning")


class TestMistakes:
    """One line, status 2, and no directory left behind."""

    @pytest.fixture
    def command(self, tmp_path):
        write_model(tmp_path / "model")
        (tmp_path / "good.csv").write_text("text,label\nthe cat,has\na dog,not\n")
        base = {"--task": "classify", "--model": tmp_path / "model", "--train": tmp_path / "good.csv",
                "--output": tmp_path / "out"}  # fmt: skip
        return lambda **changes: ["finetune", *(x for pair in (base | changes).items() for x in pair)]

    @pytest.mark.parametrize(
        ("name", "content", "says"),
        [
            ("missing.csv", None, "missing.csv: no such file"),
            ("x.csv", "", "x.csv: empty"),
            ("x.csv", "text,label\nthe cat,has\na\n", "x.csv, line 3: 1 fields"),
            ("x.csv", "text,label\nthe cat,has\na,has\n", "one label only"),
            ("x.csv", "sentence,label\na,b\n", "--text-column"),
        ],
    )
    def test_in_the_training_file(self, tmp_path, capsys, command, name, content, says):
        if content is not None:
            (tmp_path / name).write_text(content)
        assert says in fails(capsys, *command(**{"--train": tmp_path / name}))
        assert not (tmp_path / "out").exists()

    def test_in_the_development_file(self, tmp_path, capsys, command):
        (tmp_path / "dev.csv").write_text("text,label\nthe cat,has\na dog,maybe\n")
        line = fails(capsys, *command(**{"--dev": tmp_path / "dev.csv"}))
        assert 'dev.csv, line 3: the label "maybe" is not in the set (has, not)' in line
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("option", "value", "says"),
        [
            ("--learning-rate", "0", "above 0"),
            ("--learning-rate", "x", "not a number"),
            ("--batch-size", "0", "1 or more"),
            ("--epochs", "1,2", "--dev"),
            ("--restarts", "9" * 30, "at most 10,000"),
            ("--warmup-share", "2", "from 0 to 1"),
            ("--max-length", "33", "32 positions"),
            ("--metric", "speed", "no score"),
            ("--model", "/nowhere/at/all", "/nowhere/at/all"),
            ("--backend", "nope", "nope"),
        ],
    )
    def test_in_the_settings(self, tmp_path, capsys, command, option, value, says):
        assert says in fails(capsys, *command(**{option: value}))
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("task", "metric", "there_are"),
        [
            ("classify", "f1_micro", "accuracy, macro_f1, matthews, f1"),
            ("regress", "accuracy", "spearman, pearson, mean_squared_error"),
            ("tag", "f1_LOC", "f1, precision, recall, f1_CAT, f1_DOG, accuracy"),
            ("answer", "best_f1", "f1, exact_match"),
            ("answer", "has_answer_f1", "f1, exact_match"),
            ("choose", "f1", "accuracy"),
        ],
    )
    def test_a_score_that_is_not_made(self, tmp_path, task, metric, there_are):
        write, name, _, _, n = LEARN[task]
        dev = write(tmp_path / name, n, seed=0)
        chosen = settings(tmp_path, task, train=str(dev), dev=str(dev), metric=metric, max_length=24, doc_stride=8)
        with pytest.raises(InputError) as caught:
            finetune(tmp_path / "out", chosen)
        assert str(caught.value).endswith(f'no score "{metric}" is made of {dev} (there are: {there_are})')
        assert not (tmp_path / "out").exists()

    def test_the_scores_of_questions_without_answers(self, tmp_path):
        dev = write_questions(tmp_path / "x.json", 8, unanswerable=True)
        data = read("answer", dev, Columns(), to_learn=False)
        write_model(tmp_path / "model", heads=("question_answering",))
        made = evaluate(refbert.load(tmp_path / "model"), "answer", data, Limits(max_length=24, doc_stride=8)).scores
        assert set(score_names("answer", (), data)) == {name for name in made if not name.endswith("threshold")}

    def test_long_texts_are_cut_and_counted(self, tmp_path, capsys, command):
        (tmp_path / "x.csv").write_text(f"text,label\n{'the cat ' * 40},has\na dog,not\n")
        arguments = command(**{"--train": tmp_path / "x.csv", "--epochs": 1})
        status, _, err = cli(capsys, *arguments)
        assert status == 0
        assert err.count("1 text cut to 32 tokens: 50 tokens lost") == 1

    def test_lengths_and_columns_are_those_of_training(self, tmp_path, capsys, command):
        (tmp_path / "x.csv").write_text("s,y\nthe cat sat on the mat,has\na dog,not\n")
        options = {"--text-column": "s", "--label-column": "y", "--max-length": 5, "--epochs": 1}
        assert cli(capsys, *command(**{"--train": tmp_path / "x.csv"}, **options))[0] == 0
        status, out, err = cli(capsys, "evaluate", "--model", tmp_path / "out", "--json", tmp_path / "x.csv")
        assert status == 0
        assert json.loads(out)["examples"] == 2
        assert "1 text cut to 5 tokens: 3 tokens lost" in err
        assert '"other"' in fails(
            capsys, "evaluate", "--model", tmp_path / "out", tmp_path / "x.csv", "--text-column", "other"
        )

    def test_nothing_is_left_where_it_cannot_begin(self, tmp_path, monkeypatch):
        def full(*_):
            raise InputError("run.json: cannot be written (No space left on device)")

        monkeypatch.setattr("refbert.training.run.RunDirectory.begin", full)
        with pytest.raises(InputError, match="No space"):
            finetune(tmp_path / "out", settings(tmp_path, train=str(write_classes(tmp_path / "x.csv"))))
        assert not (tmp_path / "out").exists()

    def test_in_several_processes(self, capsys, command, monkeypatch):
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert "one process" in fails(capsys, *command())

    def test_evaluating(self, tmp_path, capsys, command):
        assert "no fine-tuned head" in fails(capsys, "evaluate", "--model", tmp_path / "model", tmp_path / "good.csv")
        cli(capsys, *command())
        (tmp_path / "x.csv").write_text("text,label\nthe cat,bird\n")
        line = fails(capsys, "evaluate", "--model", tmp_path / "out", tmp_path / "x.csv")
        assert 'line 2: the label "bird" is not in the set' in line
