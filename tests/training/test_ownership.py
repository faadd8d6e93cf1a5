"""One directory, one run at a time; what has begun is never removed, and what never began leaves nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from runs import fine, pre

import refbert
from refbert.errors import InputError, RefbertWarning
from refbert.training import finetuning, ownership, pretraining
from refbert.training.metrics import read_metrics
from refbert.training.run import RunDirectory

pytestmark = pytest.mark.filterwarnings("ignore:drawn afresh")


def race(what, settings, folder, *, rounds, processes=3):
    """[what each of the processes that started at once said] for each round."""
    folder.mkdir()
    given = [f"{name}={json.dumps(value)}" for name, value in settings.to_json().items()]
    script = Path(__file__).with_name("racing.py")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script, what, str(rounds), str(processes), folder, *given],
        capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(sys, "getdlopenflags"), reason="unavailable: processes are forked")
@pytest.mark.parametrize(("what", "rounds"), [("finetune", 20), ("pretrain", 6)])
def test_of_those_that_start_at_once_one_trains(files, tmp_path, what, rounds):
    """The one is done and its model is whole; the others have changed nothing, and say why they did not begin."""
    settings = fine(files) if what == "finetune" else pre(files)
    told = race(what, settings, tmp_path / "runs", rounds=rounds)
    assert len(told) == rounds
    for number, answers in enumerate(told):
        out = tmp_path / "runs" / str(number)
        assert sorted(answer == "done" for answer in answers) == [False, False, True], answers
        for answer in answers:
            assert answer == "done" or "another process is training here" in answer or "holds a" in answer, answer
        refbert.load(out)
        assert RunDirectory(out).read()["settings"] == settings.to_json()
        assert not list(out.glob(".*"))
    assert sum("another process" in answer for answers in told for answer in answers) > rounds / 2


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(sys, "getdlopenflags"), reason="unavailable: processes are forked")
def test_of_those_that_fail_at_once_nothing_stays(files, tmp_path):
    """But for an empty directory, where it was there when the last one came; whose that is, it cannot know."""
    told = race("pretrain", pre(files, "bad.txt"), tmp_path / "runs", rounds=12)
    for answers in told:
        assert all("not UTF-8" in answer or "another process" in answer for answer in answers), answers
    assert not list((tmp_path / "runs").glob("*/*"))


@pytest.mark.parametrize("what", ["finetune", "pretrain"])
def test_run_json_that_vanishes(files, tmp_path, what):
    """The model stays, and so does what says how it was made."""
    out = tmp_path / "out"

    def vanish(update):
        (out / "run.json").unlink(missing_ok=True)

    settings = fine(files) if what == "finetune" else pre(files)
    with pytest.warns(RefbertWarning, match=r"run.json: had gone, and was written again"):
        (finetuning.finetune if what == "finetune" else pretraining.pretrain)(out, settings, on_update=vanish)
    refbert.load(out)
    assert RunDirectory(out).read()["settings"] == settings.to_json()


@pytest.mark.parametrize("what", ["finetune", "pretrain"])
@pytest.mark.parametrize("again", [True, False])
def test_a_directory_that_is_removed_or_replaced(files, tmp_path, what, again):
    """Another may have it by now: nothing more is written."""
    out = tmp_path / "out"

    def remove(update):
        shutil.rmtree(out, ignore_errors=True)
        if again:
            out.mkdir()
            (out / "mine.txt").write_text("mine", encoding="utf-8")

    settings = fine(files) if what == "finetune" else pre(files)
    with pytest.raises(InputError, match="was removed or replaced while this run was writing"):
        (finetuning.finetune if what == "finetune" else pretraining.pretrain)(out, settings, on_update=remove)
    left = sorted(path.name for path in out.rglob("*")) if out.exists() else []
    assert "model.safetensors" not in left
    assert ("mine.txt" in left) == again


@pytest.mark.parametrize("what", ["finetune", "pretrain"])
def test_beside_a_living_run(files, tmp_path, what):
    """Neither a second run nor a resumed one; the first is not disturbed."""
    out = tmp_path / "out"
    start, settings = (finetuning.finetune, fine(files)) if what == "finetune" else (pretraining.pretrain, pre(files))
    refused = []

    def beside(update):
        for resume in (True, False):
            with pytest.raises(InputError, match=r"another process is training here|holds a run") as error:
                start(out, settings, resume=resume)
            refused.append(str(error.value))

    start(out, settings, on_update=beside)
    assert len(refused) == 2 * len(list(read_metrics(next(out.rglob("metrics.jsonl")))))
    assert sum("another process is training here" in line for line in refused) == len(refused) / 2
    refbert.load(out)


def test_the_lock_goes_with_its_process(files, tmp_path):
    out = tmp_path / "out"
    code = "import sys, os; from pathlib import Path; from refbert.training.ownership import Claim\n" \
           "c = Claim(Path(sys.argv[1])); print(1, flush=True); sys.stdin.read()"  # fmt: skip
    holder = subprocess.Popen([sys.executable, "-c", code, out], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    holder.stdout.read(1)
    with pytest.raises(InputError, match="another process is training here"):
        ownership.Claim(out)
    holder.kill()
    holder.wait()
    holder.stdin.close()
    holder.stdout.close()
    ownership.Claim(out).release()


def test_where_directories_cannot_be_locked(tmp_path, monkeypatch):
    """A network file system: the lock is on a file. Without any locks a warning says so."""
    import errno
    import fcntl

    real, some = fcntl.flock, ["directory"]

    def flock(handle, how):
        if "directory" in some and Path(f"/proc/self/fd/{handle}").is_dir():
            raise OSError(errno.EBADF, "Bad file descriptor")
        if "file" in some:
            raise OSError(errno.ENOLCK, "No locks available")
        return real(handle, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    claim = ownership.Claim(tmp_path / "out")
    with pytest.raises(InputError, match="another process"):
        ownership.Claim(tmp_path / "out")
    claim.check()
    claim.release(remove=True)
    assert not (tmp_path / "out").exists()
    some.append("file")
    with pytest.warns(RefbertWarning, match="no locks"):
        claim = ownership.Claim(tmp_path / "out")
    claim.check()
    claim.release()


@pytest.mark.parametrize("name", ["tokenizer", "data", "checkpoints", "runs", "stdin.txt"])
@pytest.mark.parametrize("resume", [True, False])
def test_files_of_no_run_are_left_alone(files, tmp_path, name, resume):
    """A directory that is somebody's: `refbert pretrain --output .`"""
    mine = tmp_path / name if "." in name else tmp_path / name / "mine"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine", encoding="utf-8")
    for start, settings in ((finetuning.finetune, fine(files)), (pretraining.pretrain, pre(files))):
        with pytest.raises(InputError, match=f"holds {name}, but no run.json; name another directory"):
            start(tmp_path, settings, resume=resume)
    assert mine.read_text(encoding="utf-8") == "mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_model_that_no_run_made_is_not_overwritten(files, tmp_path):
    shutil.copytree(files / "model", tmp_path / "out")
    for start, settings in ((finetuning.finetune, fine(files)), (pretraining.pretrain, pre(files))):
        for resume in (True, False):
            with pytest.raises(InputError, match="holds a model already"):
                start(tmp_path / "out", settings, resume=resume)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (files / "model/model.safetensors").read_bytes()


def test_what_a_preparation_that_was_killed_has_left_goes(files, tmp_path):
    out = tmp_path / "out"
    code = "import os, sys, json\nfrom refbert.training import pretraining\n" \
           "from refbert.training.pretraining_settings import Settings\n" \
           "pretraining.PretrainingSource = lambda *_, **__: os._exit(9)\n" \
           "pretraining.pretrain(sys.argv[1], Settings(**json.loads(sys.argv[2])))"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code, out, json.dumps(pre(files).to_json())], check=False)
    assert done.returncode == 9
    assert {path.name for path in out.iterdir()} == {".preparing", "tokenizer", "data"}
    (out / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="not UTF-8"):
        pretraining.pretrain(out, pre(files, "bad.txt"))
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    assert pretraining.pretrain(out, pre(files)).finished
    assert not (out / ".preparing").exists()


def test_a_directory_that_was_there_stays(files, tmp_path):
    with pytest.raises(InputError, match="not UTF-8"):
        pretraining.pretrain(tmp_path, pre(files, "bad.txt"))
    assert not list(tmp_path.iterdir())


def test_other_settings_beside_what_another_began(files, tmp_path):
    """With resume: the directory was empty when the settings were read, and is not any more."""
    for start, one, other in (
        (finetuning.finetune, fine(files), fine(files, seed=3)),
        (pretraining.pretrain, pre(files), pre(files, seed=3)),
    ):
        start(tmp_path / start.__name__, one, stop=lambda: True)
        with pytest.raises(InputError, match="this run has seed = 0, not 3"):
            start(tmp_path / start.__name__, other, resume=True)
