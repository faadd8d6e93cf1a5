"""What a run says of itself: its page, the time left, and how much of its batches is padding."""

from __future__ import annotations

import json
import re

import pytest
from runs import fine, pre

from refbert.cli import progress
from refbert.cli.progress import TrainingProgress
from refbert.training import finetuning, pretraining
from refbert.training.metrics import Update
from refbert.training.page import render
from refbert.training.pretraining_settings import Settings
from refbert.training.run import RunDirectory
from refbert.training.session import PaddingWatch

pytestmark = pytest.mark.filterwarnings("ignore:drawn afresh", "ignore:.*going on with another", "ignore:.*not used")


def update(step, *, seconds=1.0, loss=2.0):
    return Update(step, loss, {"masked_lm": loss - 0.5, "next_sentence": 0.5}, 0.1, 1.0, 100, seconds, 0.25)


def written(path, count):
    path.write_text("".join(update(step).line() for step in range(count)), encoding="utf-8")
    return path


def chart(page, name):
    """The part of a page that is the chart of that name."""
    return next(part for part in page.split("<h2>") if part.startswith(f"{name}</h2>"))


class TestPage:
    def test_development_text_beside_training(self, tmp_path):
        """Loss beside loss, head by head; what training has no curve of stands alone."""
        scores = {"loss": 1.25, "perplexity": 3.5, "accuracy": 0.5, "next_sentence_loss": 0.75}
        dev = [{"step": step, **scores} for step in (2, 4)]
        page = render(written(tmp_path / "m", 4), title="t", settings={}, dev=dev)
        for name, value in (("loss", 2.0), ("loss, masked lm", 1.25), ("loss, next sentence", 0.75)):
            part = chart(page, name)
            assert part.count("<polyline") == 2
            assert "training" in part
            assert f"<title>step 4: {value:g}</title>" in part
        for name in ("development: accuracy", "development: perplexity"):
            assert chart(page, name).count("<polyline") == 1
        assert chart(page, "gradient norm").count("<circle") == 0
        # The end of the curve is the last update: nothing is drawn outside the chart.
        xs = [float(x) for x in re.findall(r'cx="([0-9.]+)"', page)]
        assert max(xs) <= 720

    def test_scores_that_are_not_numbers(self, tmp_path):
        page = render(written(tmp_path / "m", 4), title="t", settings={}, dev=[{"step": 2, "loss": None}, {"step": 3}])
        assert "<circle" not in page

    def test_lines_that_somebody_has_changed(self, tmp_path):
        path = written(tmp_path / "m", 4)
        with path.open("a", encoding="utf-8") as file:
            file.write('{"step": 4}\n{"step": 5, "loss": "x"}\n')
        assert "4 updates, 400 tokens, 25% of the batches padding" in render(path, title="t", settings={})

    def test_text_of_others_is_escaped(self, tmp_path):
        bad = "<script>"
        entry = {"at": bad, "step": bad, "made_again": bad, "changed": {bad: bad}}
        page = render(
            written(tmp_path / "m", 2), title=bad, settings={bad: bad}, dev=[{"step": 1, bad: 1.0}], resumes=[entry]
        )
        assert "<script" not in page

    def test_each_resume(self, files, tmp_path):
        """With the step, what was made again, and what has changed."""
        out = tmp_path / "run"
        settings = pre(files, steps=6)
        count = iter(range(1, 99))
        pretraining.pretrain(out, settings, stop=lambda: next(count) == 3)
        with (out / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(update(3).line() + update(4).line())
        pretraining.pretrain(out, Settings.resumed(out, {"micro_batch": 2}), resume=True)
        page = RunDirectory(out).page.read_text(encoding="utf-8")
        part = chart(page, "Resumed")
        assert re.search(r"<td>at step 3</td><td>20\d\d-[^;]*; 2 updates made again; micro_batch 2</td>", part)
        (entry,) = RunDirectory(out).read()["resumes"]
        assert (entry["step"], entry["made_again"], entry["changed"]) == (3, 2, {"micro_batch": 2})
        assert "<td>micro_batch</td><td>2</td>" in page  # as it is now; run.json keeps what it was
        assert RunDirectory(out).read()["settings"]["micro_batch"] == 32

    def test_of_fine_tuning(self, files, tmp_path):
        settings = fine(files, dev=str(files / "x.csv"), epochs=(2,))
        finetuning.finetune(tmp_path / "out", settings, stop=lambda: True)
        finetuning.finetune(tmp_path / "out", settings, resume=True)
        (page,) = (tmp_path / "out" / "runs").glob("*/run.html")
        text = page.read_text(encoding="utf-8")
        assert chart(text, "development: accuracy").count("<circle") == 2
        assert "<td>at step 1</td>" in chart(text, "Resumed")
        assert "<td>optimizer</td><td>adamw</td>" in text


class TestTimeLeft:
    """Ten updates of one second, then ten that cost five times as much."""

    PHASES = ((10, 2.0, 128), (10, 10.0, 512))

    def left(self, capsys, monkeypatch, done, seconds):
        monkeypatch.setattr(progress, "_EVERY", 0.0)
        shown = TrainingProgress(20, done, self.PHASES)
        shown.add(update(done, seconds=seconds))
        return capsys.readouterr().err

    def test_the_long_ones_take_longer(self, capsys, monkeypatch):
        """At once, before one of them has been seen."""
        assert "  0:59 left" not in self.left(capsys, monkeypatch, 0, 1.0)
        assert self.left(capsys, monkeypatch, 0, 1.0).endswith("0:59 (0:09 at 128, 0:50 at 512 tokens) left\n")

    def test_once_they_have_come(self, capsys, monkeypatch):
        """What they take is measured."""
        assert self.left(capsys, monkeypatch, 9, 1.0).endswith("  0:50 left\n")
        assert self.left(capsys, monkeypatch, 10, 7.0).endswith("  1:03 left\n")
        assert self.left(capsys, monkeypatch, 19, 7.0).endswith("  0:00 left\n")

    def test_over_the_turn(self, capsys, monkeypatch):
        """The mean over recent updates is of time by cost: it does not jump where the sequences grow."""
        monkeypatch.setattr(progress, "_EVERY", 0.0)
        shown = TrainingProgress(20, 0, self.PHASES)
        for step in range(12):
            shown.add(update(step, seconds=1.0 if step < 10 else 5.0))
        assert capsys.readouterr().err.endswith("  0:40 left\n")


class TestPadding:
    def watched(self, shares, kind=7):
        said = []
        watch = PaddingWatch(said.append, lambda kind, share: f"{kind} {share:.2f}")
        for share in shares:
            watch.add(kind, share)
        return said

    def test_much_of_it_is_said_once(self):
        assert self.watched([0.6] * 30) == ["60% of what is computed is padding: 7 0.60"]
        assert self.watched([0.4] * 30) == self.watched([0.9] * 9) == []

    def test_by_length(self, files, tmp_path):
        """Documents of three tokens leave most of 16."""
        said = []
        pretraining.pretrain(
            tmp_path / "run", pre(files, steps=112, short_length=8, long_length=16, save_every=999), say=said.append
        )
        assert not [line for line in said if "--short-length" in line]
        text = files / "short.txt"
        text.write_text("the cat .\n\na dog .\n\n" * 30, encoding="utf-8")
        said.clear()
        settings = pre(files, "short.txt", steps=112, short_length=8, long_length=16, save_every=999)
        settings = type(settings)(**{**vars(settings), "next_sentence": False, "short_length": 16})
        pretraining.pretrain(tmp_path / "short", settings, say=said.append)
        (line,) = [line for line in said if "padding" in line]
        assert re.match(r"\d\d% of what is computed is padding: of 16 tokens a sequence fills [5-7] on average", line)
        assert "a smaller --short-length costs less" in line

    def test_what_an_update_says(self, files, tmp_path):
        made = []
        pretraining.pretrain(tmp_path / "run", pre(files), on_update=made.append)
        for entry in made:
            assert entry.tokens == pytest.approx((1 - entry.padding) * 4 * 8)
        line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0])
        assert line["padding"] == made[0].padding

    def test_of_fine_tuning(self, files, tmp_path):
        texts = files / "uneven.csv"
        texts.write_text("text,label\n" + f"{'the cat ' * 6},has\na,not\na,not\na,not\n" * 4, encoding="utf-8")
        said = []
        settings = fine(files, train=str(texts), batch_sizes=(16,), epochs=(12,))
        finetuning.finetune(tmp_path / "out", settings, say=said.append)
        assert [line for line in said if "padding" in line and "--max-length" in line]
