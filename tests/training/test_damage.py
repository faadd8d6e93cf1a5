"""Whatever a disk or a hand does to a run's files, it is noticed before anything is gone on with."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
from calling import same_weights
from runs import fine, pre

import refbert
from refbert.data import Store
from refbert.errors import CheckpointError, InputError, RefbertError, RefbertWarning
from refbert.training import finetuning, pretraining
from refbert.training.checkpoints import Damaged, check_whole, saved
from refbert.training.finetuning_settings import Settings as Fine
from refbert.training.pretraining_settings import Settings as Pre
from refbert.training.run import RunDirectory

pytestmark = pytest.mark.filterwarnings("ignore:drawn afresh")


def flip(path, place=0.5):
    """One bit, somewhere in the middle."""
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 4
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE = {"flipped": flip, "cut": cut, "empty": lambda path: path.write_bytes(b""), "gone": lambda path: path.unlink()}


@pytest.fixture(scope="module")
def stopped(files, tmp_path_factory):
    """(a whole run, one that was stopped at step 5 with checkpoints at 2, 4 and 5)."""
    path = tmp_path_factory.mktemp("stopped")
    settings = pre(files, steps=8)
    pretraining.pretrain(path / "whole", settings)
    count = iter(range(1, 99))
    pretraining.pretrain(path / "part", settings, stop=lambda: next(count) == 5)
    assert [p.name for p in saved(path / "part" / "checkpoints")] == [f"step-{n:08d}" for n in (2, 4, 5)]
    return path


def copied(stopped, tmp_path):
    shutil.copytree(stopped / "part", tmp_path / "run")
    return RunDirectory(tmp_path / "run")


def resumed(run):
    return pretraining.pretrain(run.path, Pre.resumed(run.path, {}), resume=True)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "optimizer.safetensors", "training.json", "config.json", "tokenizer.json", "vocab.txt"],
)
def test_the_one_before_is_gone_on_from(stopped, tmp_path, name, damage):
    """It is said, nothing is lost, and the run ends with the bits that it would have had."""
    run = copied(stopped, tmp_path)
    DAMAGE[damage](run.last() / name)
    said = rf"step-00000005: damaged \({name} .*\); going on from step-00000004, the one before"
    with pytest.warns(RefbertWarning, match=said):
        assert resumed(run).finished
    same_weights(stopped / "whole", run.path)
    assert (run.checkpoints / "damaged-step-00000005").is_dir()
    for place in saved(run.checkpoints):
        check_whole(place)


@pytest.mark.parametrize("place", np.linspace(0, 1, 40))
def test_any_bit(stopped, tmp_path, place):
    """Of what says where the run is: the step, the place in the data, settings, and the digests themselves."""
    run = copied(stopped, tmp_path)
    flip(run.last() / "training.json", place)
    with pytest.raises(Damaged):
        check_whole(run.last())


def test_two_are_damaged(stopped, tmp_path):
    run = copied(stopped, tmp_path)
    for place in saved(run.checkpoints)[1:]:
        flip(place / "model.safetensors")
    with pytest.warns(RefbertWarning, match="going on from step-00000002"):
        assert resumed(run).finished
    same_weights(stopped / "whole", run.path)


def test_none_is_whole(stopped, tmp_path):
    """Nothing is touched, so that what can be saved by hand still can."""
    run = copied(stopped, tmp_path)
    for place in saved(run.checkpoints):
        cut(place / "optimizer.safetensors")
    with pytest.raises(CheckpointError, match="none before it is whole: delete .*checkpoints to begin again at step 0"):
        resumed(run)
    assert len(saved(run.checkpoints)) == 3
    shutil.rmtree(run.checkpoints)
    assert resumed(run).finished
    same_weights(stopped / "whole", run.path)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["ids.bin", "sentences.bin", "documents.bin", "store.json"])
def test_the_tokenized_text(stopped, tmp_path, name, damage):
    """It is tokenized again, if the text is the same; else the run does not go on with another."""
    run = copied(stopped, tmp_path)
    DAMAGE[damage](run.data / name)
    with pytest.warns(RefbertWarning, match="the text is tokenized again"):
        assert resumed(run).finished
    same_weights(stopped / "whole", run.path)
    with Store.open(run.data) as store:
        store.check()


def test_the_tokenized_text_of_another_text(files, stopped, tmp_path):
    text = tmp_path / "x.txt"
    shutil.copy(files / "x.txt", text)
    settings = dataclasses.replace(pre(files), files=(str(text),))
    pretraining.pretrain(tmp_path / "run", settings, stop=lambda: True)
    flip(tmp_path / "run" / "data" / "ids.bin")
    text.write_text("a dog sat .\nthe cat sat .\n\n" * 9, encoding="utf-8")
    with (
        pytest.warns(RefbertWarning, match="again"),
        pytest.raises(CheckpointError, match="not the tokenized data that"),
    ):
        pretraining.pretrain(tmp_path / "run", settings, resume=True)
    text.unlink()
    flip(tmp_path / "run" / "data" / "ids.bin")
    with pytest.warns(RefbertWarning, match="again"), pytest.raises(InputError, match="x.txt: no such file"):
        pretraining.pretrain(tmp_path / "run", settings, resume=True)


@pytest.mark.parametrize("damage", DAMAGE)
def test_the_vocabulary(stopped, tmp_path, damage):
    run = copied(stopped, tmp_path)
    DAMAGE[damage](run.tokenizer / "tokenizer.json")
    with pytest.raises(RefbertError, match="tokenizer|another"):
        resumed(run)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("{", "run.json: not JSON"), ("[]", "run.json: a JSON object"), ("{}", "run.json: damaged"), ("", "not JSON"),
        ('{"format": 2}', "damaged .settings"), ('{"format": 2, "settings": 3, "facts": {}}', "damaged .settings"),
        ("[" * 100_000, "nested too deep"), ('{"format": ' + "9" * 5000 + "}", "digits"),
        ({"steps": "8"}, 'run.json: steps must be a whole number, not \'8\''),
        ({"steps": 8.0}, "run.json: steps must be a whole number, not 8.0"),
        ({"cased": "yes"}, "run.json: cased must be true or false"), ({"files": 3}, "run.json: files must be a list"),
        ({"files": [3]}, "run.json: files must be a list"), ({"dropout": "0"}, "run.json: dropout must be a number or"),
        ({"backend": None}, "run.json: backend must be text"), ({"seed": True}, "run.json: seed must be a whole"),
        ({"learning_rate": [1]}, "run.json: learning_rate must be a number"), ({"colour": 1}, "another kind of run"),
        ({"size": {}}, "run.json: size must be text"), ({"steps": -1}, "run.json: steps must be 1 or more"),
    ],
)  # fmt: skip
def test_a_damaged_run_json_is_one_line(stopped, tmp_path, change, says):
    run = copied(stopped, tmp_path)
    content = run.file.read_text(encoding="utf-8")
    if isinstance(change, dict):
        facts = json.loads(content)
        facts["settings"] |= change
        change = json.dumps(facts)
    run.file.write_text(change, encoding="utf-8")
    with pytest.raises(InputError, match=says) as error:
        resumed(run)
    assert "\n" not in str(error.value)


def test_run_json_that_is_lost(files, stopped, tmp_path):
    """With the run's own settings it goes on all the same; with others, or without --resume, nothing happens."""
    run = copied(stopped, tmp_path)
    run.file.unlink()
    settings = pre(files, steps=8)
    before = sorted(path for path in run.path.rglob("*") if path.name != "damaged")
    with pytest.raises(CheckpointError, match="step-00000005: of a run with seed = 0, not 4"):
        pretraining.pretrain(run.path, pre(files, steps=8, seed=4), resume=True)
    with pytest.raises(InputError, match="but no run.json"):
        pretraining.pretrain(run.path, settings)
    assert sorted(run.path.rglob("*")) == before
    assert pretraining.pretrain(run.path, settings, resume=True).finished
    same_weights(stopped / "whole", run.path)
    assert run.read()["settings"] == settings.to_json()


def test_another_configuration_of_the_base_model(files, tmp_path):
    """What the weights are computed with, for both kinds of training, comes from the directory that they began with."""
    for number, (start, settings) in enumerate(
        ((finetuning.finetune, fine(files)), (pretraining.pretrain, pre(files)))
    ):
        base, out = tmp_path / f"base{number}", tmp_path / f"out{number}"
        shutil.copytree(files / "model", base)
        chosen = {"model": str(base)} if start is finetuning.finetune else {"start_from": str(base)}
        settings = dataclasses.replace(settings, **chosen)
        start(out, settings, stop=lambda: True)
        config = json.loads((base / "config.json").read_text(encoding="utf-8"))
        (base / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 0.5}), encoding="utf-8")
        with pytest.raises(CheckpointError, match="of a run with layer_norm_eps = 1e-12, not 0.5"):
            start(out, settings, resume=True)
        (base / "config.json").write_text(json.dumps(config), encoding="utf-8")
        start(out, settings, resume=True)


class TestFinetuning:
    @pytest.fixture
    def begun(self, files, tmp_path):
        """Three epochs of two updates, stopped in the second; a whole one beside it."""
        shutil.copytree(files, tmp_path / "files")
        here = tmp_path / "files"
        settings = fine(here, dev=str(here / "x.csv"), epochs=(3,), save_every=1, learning_rates=(1e-2,))
        finetuning.finetune(tmp_path / "whole", settings)
        count = iter(range(1, 99))
        finetuning.finetune(tmp_path / "out", settings, stop=lambda: next(count) == 4)
        (run,) = (tmp_path / "out" / "runs").iterdir()
        return tmp_path, run, settings

    def test_what_it_scores_on(self, begun):
        path, _, settings = begun
        (path / "files" / "x.csv").rename(path / "files" / "y.csv")
        other = path / "files" / "x.csv"
        other.write_text("text,label\nthe cat,not\na dog,has\n", encoding="utf-8")
        both = dataclasses.replace(settings, train=str(path / "files" / "y.csv"))
        out = path / "other"
        finetuning.finetune(out, both, stop=lambda: True)
        other.write_text("text,label\nthe cat,not\na dog,not\n", encoding="utf-8")
        with pytest.raises(CheckpointError, match="not the development data that this run began with"):
            finetuning.finetune(out, both, resume=True)

    def test_another_base_model(self, begun):
        path, _, settings = begun
        flip(path / "files" / "model" / "model.safetensors", 0.9)
        with pytest.raises(CheckpointError, match="not the base model's weights that"):
            finetuning.finetune(path / "out", settings, resume=True)

    @pytest.mark.parametrize("which", [0, -1])
    @pytest.mark.parametrize("damage", DAMAGE)
    def test_a_damaged_checkpoint(self, begun, which, damage):
        """The best epoch's or the last one: what is missing is made again, with the same bits."""
        path, run, _ = begun
        places = saved(run / "checkpoints")
        assert len(places) == 2
        DAMAGE[damage](places[which] / "model.safetensors")
        with pytest.warns(RefbertWarning, match=r"damaged \(model.safetensors .*(begun again|the one before)"):
            result = finetuning.finetune(path / "out", Fine.resumed(path / "out", {}), resume=True)
        assert result.best is not None
        same_weights(path / "whole", path / "out")
        (whole,) = (path / "whole" / "runs").iterdir()
        assert (run / "scores.json").read_bytes() == (whole / "scores.json").read_bytes()

    @pytest.mark.parametrize("place", np.linspace(0, 1, 12))
    def test_scores(self, begun, place):
        path, run, settings = begun
        flip(run / "scores.json", place)
        with pytest.raises(InputError, match="scores.json"):
            finetuning.finetune(path / "out", settings, resume=True)

    def test_a_best_model_that_is_damaged_is_not_exported(self, begun, monkeypatch):
        path, run, settings = begun
        keep = finetuning.keep_best

        def damaged(*arguments):
            keep(*arguments)
            for place in saved(run / "checkpoints"):
                flip(place / "model.safetensors", 0.9)

        monkeypatch.setattr(finetuning, "keep_best", damaged)
        with pytest.raises(CheckpointError, match="damaged .*; delete .* and go on with --resume to do that run again"):
            finetuning.finetune(path / "out", settings, resume=True)
        assert not (path / "out" / "model.safetensors").exists()
        shutil.rmtree(run / "checkpoints")
        with pytest.raises(CheckpointError, match="damaged .training.json cannot be read.; delete"):
            finetuning.finetune(path / "out", settings, resume=True)
        assert not (path / "out" / "model.safetensors").exists()
        monkeypatch.undo()
        shutil.rmtree(run)
        finetuning.finetune(path / "out", settings, resume=True)
        refbert.load(path / "out")
        same_weights(path / "whole", path / "out")

    def test_settings_of_the_wrong_type(self, files, tmp_path):
        for name, value in {
            "epochs": ("3",),
            "restarts": 1.5,
            "warmup_share": "x",
            "dev": 3,
            "max_length": "12",
        }.items():
            with pytest.raises(InputError, match=f"{name} must be "):
                fine(files, **{name: value})
