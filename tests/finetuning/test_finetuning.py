"""`refbert finetune`, `evaluate` and `run` as a user calls them: what is learned, chosen, resumed, refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace

import numpy as np
import pytest
from calling import cli, same_weights
from labelled_files import write_classes, write_model, write_questions, write_sets, write_tags
from tuning import LEARN, fails, settings

import refbert
from refbert.checkpoint.safetensors_file import read_safetensors
from refbert.data.labelled import read
from refbert.data.tables import Columns
from refbert.errors import InputError, RefbertWarning
from refbert.evaluation.tasks import evaluate, score_names
from refbert.training.finetuning import Outcome, best_epoch, best_of, finetune
from refbert.training.finetuning_settings import PAPER_GRID, Settings
from refbert.training.loop import NotFinite
from refbert.training.metrics import read_metrics

pytestmark = pytest.mark.filterwarnings("ignore::refbert.errors.RefbertWarning")


def weights(directory):
    return {name: np.array(x) for name, x in read_safetensors(directory / "model.safetensors").items()}


@pytest.mark.parametrize("task", LEARN)
def test_it_learns(tmp_path, capsys, task):
    """Trained on some examples, right on others; and `refbert evaluate` finds the score that training found."""
    write, name, metric, least, n = LEARN[task]
    write(tmp_path / name, n, seed=0)
    dev = write(tmp_path / f"dev-{name}", 40, seed=1)
    write_model(tmp_path / "model")
    chosen = settings(
        tmp_path, task, train=str(tmp_path / name), dev=str(dev), epochs=(6,), learning_rates=(5e-3,), max_length=24,
        doc_stride=8,
    )  # fmt: skip
    result = finetune(tmp_path / "out", chosen)
    assert result.best.scores[metric] >= least
    status, out, _ = cli(capsys, "evaluate", "--model", tmp_path / "out", "--json", dev)
    assert status == 0
    found = json.loads(out)
    assert found["task"] == task
    assert found["scores"] == pytest.approx(result.best.scores, rel=1e-5)
    labels = tuple(refbert.load(tmp_path / "out").config.id2label.values())
    read_again = read(task, dev, chosen.columns, to_learn=False)
    assert set(score_names(task, labels, read_again)) == set(found["scores"])
    assert score_names(task, labels, read_again)[0] == metric


def test_several_labels_a_text(tmp_path, capsys):
    """The checkpoint says it, or the task; the head is gone on with where it is of the same kind."""
    train = write_sets(tmp_path / "x.csv")
    write_model(tmp_path / "model")
    (tmp_path / "plain").mkdir()
    first = finetune(tmp_path / "plain" / "out", settings(tmp_path, "multi-label", train=str(train)))
    assert first.best is not None
    made = refbert.load(tmp_path / "plain" / "out")
    assert made.config.problem_type == "multi_label_classification"
    assert made.config.id2label == {0: "cat", 1: "dog"}
    again = replace(settings(tmp_path, "classify", train=str(train)), model=str(tmp_path / "plain" / "out"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RefbertWarning)  # nothing is drawn afresh
        finetune(tmp_path / "again", again)
    assert refbert.load(tmp_path / "again").config.problem_type == "multi_label_classification"
    _, out, _ = cli(capsys, "evaluate", "--model", tmp_path / "again", "--task", "classify", "--json", train)
    assert set(json.loads(out)["scores"]) == {"micro_f1", "macro_f1", "accuracy"}
    _, out, _ = cli(capsys, "run", "--model", tmp_path / "again", "--json", "the cat")
    assert set(json.loads(out)) == {"text", "label", "labels", "scores"}
    other = finetune(tmp_path / "other", settings(tmp_path, train=str(write_classes(tmp_path / "y.csv"))))
    assert other.best is not None
    data = read("multi-label", train, Columns())
    with pytest.raises(InputError, match="score it with the task classify"):
        evaluate(refbert.load(tmp_path / "other"), "multi-label", data)


def test_what_the_directory_holds(tmp_path, capsys):
    train = write_classes(tmp_path / "x.csv")
    write_model(tmp_path / "model")
    places = ["--model", tmp_path / "model", "--train", train, "--output", tmp_path / "out"]
    command = ["finetune", "--task", "classify", *places]
    status, out, _ = cli(capsys, *command, "--epochs", 2, "--batch-size", 8)
    assert status == 0
    assert "done" in out
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "run.json", "runs", "model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json",
        "vocab.txt",
    }  # fmt: skip
    (run,) = (tmp_path / "out" / "runs").iterdir()
    assert {path.name for path in run.iterdir()} == {"metrics.jsonl", "run.html", "scores.json"}
    assert [entry["step"] for entry in read_metrics(run / "metrics.jsonl")] == list(range(10))
    assert refbert.load(tmp_path / "out").config.id2label == {0: "has", 1: "not"}
    assert "holds a fine-tuned model already" in fails(capsys, *command)


class TestChoice:
    """Grid, restarts, and the development set's word."""

    def test_the_best_run_and_epoch_come_out(self, tmp_path, capsys):
        train, dev = write_classes(tmp_path / "x.csv"), write_classes(tmp_path / "dev.csv", seed=1)
        write_model(tmp_path / "model")
        status, out, _ = cli(
            capsys, "finetune", "--task", "classify", "--model", tmp_path / "model", "--train", train, "--dev", dev,
            "--output", tmp_path / "out", "--learning-rate", "1e-3,5e-3", "--batch-size", 8, "--batch-size", 16,
            "--epochs", 3, "--restarts", 2,
        )  # fmt: skip
        assert status == 0
        runs = sorted((tmp_path / "out" / "runs").iterdir())
        assert len(runs) == 8
        scores = [
            entry["scores"]["accuracy"] for run in runs for entry in json.loads((run / "scores.json").read_text())
        ]
        assert len(scores) == 24
        assert len(set(scores)) > 3
        data = read("classify", dev, settings(tmp_path, train=str(train)).columns)
        model = refbert.load(tmp_path / "out")
        assert evaluate(model, "classify", data).scores["accuracy"] == max(scores)
        assert out.count("(best)") == 1
        assert not list((tmp_path / "out").rglob("checkpoints"))

    def test_an_early_epoch_can_be_the_best(self, tmp_path):
        train, dev = write_classes(tmp_path / "x.csv"), tmp_path / "dev.csv"
        swapped = train.read_text().replace(",has", ",x").replace(",not", ",has").replace(",x", ",not")
        dev.write_text(swapped)  # the more is learned, the worse
        chosen = settings(
            tmp_path, train=str(train), dev=str(dev), epochs=(5,), metric="matthews", learning_rates=(5e-3,)
        )
        result = finetune(tmp_path / "out", chosen)
        (run,) = (tmp_path / "out" / "runs").iterdir()
        scores = [entry["scores"]["matthews"] for entry in json.loads((run / "scores.json").read_text())]
        assert scores[-1] < max(scores)  # or this shows nothing
        assert result.best.epoch == 1 + scores.index(max(scores))
        data = read("classify", dev, chosen.columns)
        found = evaluate(refbert.load(tmp_path / "out"), "classify", data).scores
        assert found["matthews"] == pytest.approx(max(scores))

    def test_an_undefined_score_loses_and_where_all_are_the_last_epoch_is_taken(self, tmp_path):
        train = write_classes(tmp_path / "x.csv", numbers=True)
        (tmp_path / "dev.csv").write_text("text,label\nthe cat,1.0\na dog,1.0\n")  # a constant: no correlation
        chosen = settings(tmp_path, "regress", train=str(train), dev=str(tmp_path / "dev.csv"), epochs=(3,))
        with pytest.warns(RefbertWarning, match="spearman is undefined in every epoch"):
            result = finetune(tmp_path / "out", chosen)
        assert result.best.epoch == 3
        scores = [{"m": None}, {"m": 0.25}, {"m": -0.5}]
        told = [{"epoch": i, "scores": one} for i, one in enumerate(scores, start=1)]
        assert best_epoch(told, "m")["epoch"] == 2
        assert best_epoch([told[0], told[2]], "m")["epoch"] == 3
        assert best_of([Outcome(str(i), 1, 1, one) for i, one in enumerate(scores)], "m").name == "1"
        with pytest.raises(InputError, match='no score "other"'):
            best_epoch(told, "other")

    def test_a_run_that_diverges_leaves_the_others(self, tmp_path):
        train, dev = write_classes(tmp_path / "x.csv"), write_classes(tmp_path / "dev.csv", seed=1)
        chosen = settings(tmp_path, train=str(train), dev=str(dev), learning_rates=(1e38, 1e-3), weight_decay=10.0)
        with np.errstate(all="ignore"):
            result = finetune(tmp_path / "out", chosen)
        assert "not finite" in result.outcomes[0].failed
        assert result.best.name.startswith("rate0.001")

    def test_alone_it_is_an_error(self, tmp_path):
        chosen = settings(
            tmp_path, train=str(write_classes(tmp_path / "x.csv")), learning_rates=(1e38,), weight_decay=10.0
        )
        with (
            np.errstate(all="ignore"),
            pytest.raises(
                NotFinite, match="^step [0-9]+: .* the last checkpoint is|^step [0-9]+: .* no checkpoint yet"
            ),
        ):
            finetune(tmp_path / "out", chosen)

    def test_the_grid_of_the_paper(self, tmp_path):
        chosen = settings(tmp_path, train="x", dev="y", **PAPER_GRID)
        assert len(chosen.plans()) == 18
        assert len({plan.name for plan in chosen.plans()}) == 18
        with pytest.raises(InputError, match="18 runs: name a --dev file"):
            settings(tmp_path, train="x", **PAPER_GRID)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run with dropout, a development set and two restarts, never stopped."""
    path = tmp_path_factory.mktemp("whole")
    write_model(path / "model", dropout=0.1)
    train, dev = write_classes(path / "x.csv"), write_classes(path / "dev.csv", seed=1)
    chosen = settings(path, train=str(train), dev=str(dev), restarts=2)
    finetune(path / "out", chosen)
    return path, chosen


class TestGoingOn:
    @pytest.mark.parametrize("often", [1, 4, 5, 13])
    def test_stopped_and_resumed_it_is_the_same_bit_by_bit(self, whole, tmp_path, often):
        path, chosen = whole
        rounds = 0
        while True:
            asked = 0

            def stop():
                nonlocal asked
                asked += 1
                return asked >= often

            result = finetune(tmp_path / "out", Settings.resumed(tmp_path / "out", {}) if rounds else chosen,
                              resume=rounds > 0, stop=stop)  # fmt: skip
            rounds += 1
            if result.best is not None:
                break
        assert rounds >= 20 // often - 1
        same_weights(path / "out", tmp_path / "out")
        for run in (path / "out" / "runs").iterdir():
            other = tmp_path / "out" / "runs" / run.name
            assert (other / "scores.json").read_text() == (run / "scores.json").read_text()
            losses = [[entry["loss"] for entry in read_metrics(r / "metrics.jsonl")] for r in (run, other)]
            assert losses[0] == losses[1]

    @pytest.mark.slow
    def test_killed_and_resumed(self, whole, tmp_path):
        path, chosen = whole
        command = [sys.executable, "-m", "refbert", "finetune", "--output", str(tmp_path / "out"), "--resume"]
        first = [
            "--task", "classify", "--model", chosen.model, "--train", chosen.train, "--dev", chosen.dev,
            "--restarts", "2", "--batch-size", "8", "--learning-rate", "2e-3", "--epochs", "2", "--save-every", "3",
        ]  # fmt: skip
        process = subprocess.Popen([*command, *first], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not list((tmp_path / "out").glob("runs/*/checkpoints/step-*")) and time.monotonic() < deadline:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        same_weights(path / "out", tmp_path / "out")

    @pytest.mark.slow
    def test_a_signal_saves_and_says_how_to_go_on(self, whole, tmp_path):
        _, chosen = whole
        out = tmp_path / "out"
        process = subprocess.Popen(
            [sys.executable, "-m", "refbert", "finetune", "--output", str(out), "--task", "classify",
             "--model", chosen.model, "--train", chosen.train, "--epochs", "1000", "--save-every", "7"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while not list(out.glob("runs/*/checkpoints/step-*")) and time.monotonic() < deadline:
            time.sleep(0.005)
        process.terminate()
        said, _ = process.communicate()
        assert process.returncode == 128 + signal.SIGTERM
        assert said == f"{out}: stopped and saved; go on with: refbert finetune --output {out} --resume\n"
        (run,) = (out / "runs").iterdir()
        updates = len(list(read_metrics(run / "metrics.jsonl")))
        assert (run / "checkpoints" / f"step-{updates:08d}").is_dir()

    def test_few_checkpoints_at_a_time(self, tmp_path):
        train = str(write_classes(tmp_path / "x.csv"))
        chosen = settings(tmp_path, train=train, dev=train, batch_sizes=(4,), save_every=1)
        seen = []

        def count(update):
            seen.append(len(list((tmp_path / "out").glob("runs/*/checkpoints/*"))))

        finetune(tmp_path / "out", chosen, on_update=count)
        assert len(seen) == 20
        assert max(seen) <= 2  # the best epoch's and the last, before the next is written

    def test_finished_it_is_left_alone(self, whole):
        path, _ = whole
        before = (path / "out" / "model.safetensors").stat().st_mtime_ns
        result = finetune(path / "out", Settings.resumed(path / "out", {}), resume=True)
        assert result.best is not None
        assert (path / "out" / "model.safetensors").stat().st_mtime_ns == before

    def test_other_settings_are_refused(self, whole, capsys):
        path, _ = whole
        line = fails(capsys, "finetune", "--output", path / "out", "--resume", "--epochs", 5)
        assert "this run has epochs = 2, not 5" in line

    def test_an_unfinished_run_is_not_overwritten(self, whole, tmp_path, capsys):
        _, chosen = whole
        assert finetune(tmp_path / "out", chosen, stop=lambda: True).best is None
        line = fails(capsys, "finetune", "--task", "classify", "--model", chosen.model, "--train", chosen.train,
                     "--output", tmp_path / "out")  # fmt: skip
        assert "holds a run that is not done; go on with --resume" in line

    def test_changed_data_is_refused(self, tmp_path):
        chosen = settings(tmp_path, train=str(write_classes(tmp_path / "x.csv")))
        finetune(tmp_path / "out", chosen, stop=lambda: True)
        write_classes(tmp_path / "x.csv", seed=9)
        with pytest.raises(refbert.errors.CheckpointError, match="data"):
            finetune(tmp_path / "out", chosen, resume=True)


class TestHeads:
    def test_a_fine_tuned_head_is_gone_on_with(self, tmp_path):
        train = write_classes(tmp_path / "x.csv")
        finetune(tmp_path / "first", settings(tmp_path, train=str(train)))
        chosen = settings(tmp_path, train=str(train), learning_rates=(1e-12,))
        again = Settings(**{**vars(chosen), "model": str(tmp_path / "first")})
        finetune(tmp_path / "second", again)
        for name, x in weights(tmp_path / "second").items():
            assert x == pytest.approx(weights(tmp_path / "first")[name], abs=1e-6), name

    def test_with_other_labels_it_is_drawn_afresh(self, tmp_path):
        finetune(tmp_path / "first", settings(tmp_path, train=str(write_classes(tmp_path / "x.csv"))))
        other = write_classes(tmp_path / "y.csv", numbers=True)
        chosen = settings(tmp_path, train=str(other), epochs=(1,))
        with pytest.warns(refbert.errors.RefbertWarning, match="drawn afresh: classifier.weight"):
            finetune(tmp_path / "second", Settings(**{**vars(chosen), "model": str(tmp_path / "first")}))
        assert refbert.load(tmp_path / "second").config.id2label[0] == "0"

    def test_no_answer_and_its_threshold(self, tmp_path, capsys):
        train = write_questions(tmp_path / "x.json", unanswerable=True)
        write_model(tmp_path / "model")
        finetune(tmp_path / "out", settings(tmp_path, "answer", train=str(train), max_length=24, doc_stride=8))
        found = json.loads(cli(capsys, "evaluate", "--model", tmp_path / "out", "--json", train)[1])["scores"]
        assert found["best_f1"] >= found["f1"]
        at_best = cli(capsys, "evaluate", "--model", tmp_path / "out", "--json", train, "--null-threshold",
                      found["best_f1_threshold"])  # fmt: skip
        assert json.loads(at_best[1])["scores"]["f1"] == pytest.approx(found["best_f1"])
        never = cli(capsys, "evaluate", "--model", tmp_path / "out", "--json", train, "--null-threshold", 1e9)
        assert json.loads(never[1])["scores"]["no_answer_f1"] == 0.0

    def test_in_googles_numbers(self, tmp_path, capsys):
        train = write_classes(tmp_path / "x.csv")
        chosen = settings(tmp_path, train=str(train), dev=str(train), profile="google", epochs=(1,))
        result = finetune(tmp_path / "out", chosen)
        assert refbert.load(tmp_path / "out").choices.activation == "gelu_tanh"
        status, out, _ = cli(capsys, "evaluate", "--model", tmp_path / "out", "--json", train)
        assert status == 0
        assert json.loads(out)["scores"] == pytest.approx(result.best.scores, rel=1e-5)

    def test_predictions_are_written(self, tmp_path, capsys):
        train = write_tags(tmp_path / "x.conll")
        write_model(tmp_path / "model")
        finetune(tmp_path / "out", settings(tmp_path, "tag", train=str(train), epochs=(1,)))
        out = tmp_path / "predictions.jsonl"
        assert cli(capsys, "evaluate", "--model", tmp_path / "out", train, "--predictions", out)[0] == 0
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        assert len(rows) == 30
        assert all(len(row["words"]) == len(row["prediction"]) for row in rows)
