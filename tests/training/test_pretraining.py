"""`refbert pretrain` as a user runs it: killed, stopped, resumed, refused; and what it leaves in its directory."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from calling import same_weights
from launching import finish, launch

import refbert
from refbert.checkpoint.safetensors_file import read_safetensors
from refbert.errors import CheckpointError, InputError, RefbertWarning
from refbert.training import pretraining
from refbert.training.checkpoints import TRAINING, saved, sealed
from refbert.training.metrics import going_on, read_metrics
from refbert.training.pretraining_settings import Settings
from refbert.training.run import RunDirectory

STEPS = 16
CONFIG = {
    "model_type": "bert", "vocab_size": 90, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 32, "max_position_embeddings": 32,
}  # fmt: skip


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A corpus of sixty documents, and a configuration."""
    directory = tmp_path_factory.mktemp("text")
    rng = np.random.default_rng(0)
    sentence = "the cat sat on a mat and dogs ran home under old trees while birds sang"
    with (directory / "corpus.txt").open("w", encoding="utf-8") as file:
        for _ in range(60):
            for _ in range(rng.integers(3, 9)):
                file.write(" ".join(rng.choice(sentence.split(), rng.integers(3, 9))) + ".\n")
            file.write("\n")
    (directory / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    return directory


def arguments(text, **changes):
    chosen = {
        "size": text / "config.json", "vocab-size": 90, "steps": STEPS, "batch-size": 6, "micro-batch": 4,
        "short-length": 16, "long-length": 24, "save-every": 3, "learning-rate": 0.003,
    } | changes  # fmt: skip
    return [text / "corpus.txt", *(x for name, value in chosen.items() for x in (f"--{name}", value))]


def settings(text, **changes):
    chosen = {
        "files": (str(text / "corpus.txt"),), "size": str(text / "config.json"), "vocab_size": 90, "steps": STEPS,
        "batch_size": 6, "micro_batch": 4, "short_length": 16, "long_length": 24, "save_every": 3,
        "learning_rate": 0.003,
    } | changes  # fmt: skip
    return Settings(**chosen)


def command(*arguments):
    return [sys.executable, "-m", "refbert", "pretrain", *map(str, arguments)]


def cli(*arguments, **options):
    return subprocess.run(command(*arguments), capture_output=True, encoding="utf-8", check=False, **options)


@pytest.fixture(scope="module")
def whole(text, tmp_path_factory):
    """A run that was left alone."""
    out = tmp_path_factory.mktemp("whole") / "run"
    pretraining.pretrain(out, settings(text))
    return out


def test_what_is_in_the_directory(whole, text):
    run = RunDirectory(whole)
    assert [p.name for p in sorted(run.checkpoints.iterdir())] == [f"step-{n:08d}" for n in (12, 15, 16)]
    assert [entry["step"] for entry in read_metrics(run.metrics)] == list(range(STEPS))
    page = run.page.read_text(encoding="utf-8")
    assert page.count("<svg") == 6
    assert "<td>warmup</td><td>1</td>" in page  # what was left open, as it came to be
    assert "<td>optimizer</td><td>bert_adam</td>" in page
    assert "14 updates of 16 tokens, 2 updates of 24 tokens" in page
    assert "Resumed" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert str(text / "corpus.txt") in page
    model = refbert.load(whole)
    assert model.heads == ("masked_lm", "next_sentence")
    assert model.tokenizer.vocab_size == model.config.vocab_size
    model(model.batch("the cat [MASK] home"))
    assert run.read()["settings"]["learning_rate"] == 0.003


def test_the_run_is_a_function_of_its_settings(whole, text, tmp_path):
    pretraining.pretrain(tmp_path / "again", settings(text, save_every=5))
    same_weights(whole, tmp_path / "again")
    pretraining.pretrain(tmp_path / "other", settings(text, seed=1))
    with pytest.raises(AssertionError):
        same_weights(whole, tmp_path / "other")
    facts = [RunDirectory(directory).read()["facts"] for directory in (whole, tmp_path / "again", tmp_path / "other")]
    assert facts[0] == facts[1] != facts[2]


@pytest.mark.parametrize("place", [4, 7, 15])
def test_stopped_and_resumed_in_one_process(whole, text, tmp_path, place):
    """In the middle of a phase, at a checkpoint, and where the sequences are long."""
    count = iter(range(1, 99))
    result = pretraining.pretrain(tmp_path, settings(text), stop=lambda: next(count) == place)
    assert (result.updates, result.finished) == (place, False)
    result = pretraining.pretrain(tmp_path, Settings.resumed(tmp_path, {}), resume=True)
    assert result.finished
    same_weights(whole, tmp_path)
    ours, theirs = (list(read_metrics(d / "metrics.jsonl")) for d in (tmp_path, whole))
    timeless = [[{k: v for k, v in entry.items() if k != "seconds"} for entry in entries] for entries in (ours, theirs)]
    assert timeless[0] == timeless[1]


def test_a_run_of_before_there_was_a_setting_goes_on(whole, text, tmp_path):
    """Where the setting says nothing: neither run.json nor the checkpoint, both of then, knows its name."""
    count = iter(range(1, 99))
    pretraining.pretrain(tmp_path, settings(text), stop=lambda: next(count) == 7)
    run = RunDirectory(tmp_path)
    later = ("random_within", "weights", "deduplicate")

    def of_then(content):
        return {name: value for name, value in content.items() if name not in later}

    facts = json.loads(run.file.read_text(encoding="utf-8"))
    assert set(later) <= facts["settings"].keys()
    run.file.write_text(json.dumps(facts | {"settings": of_then(facts["settings"])}), encoding="utf-8")
    for place in saved(run.checkpoints):
        state = json.loads((place / TRAINING).read_text(encoding="utf-8"))
        assert set(later) <= state["settings"].keys()
        state = sealed(state | {"settings": of_then(state["settings"])})
        (place / TRAINING).write_text(json.dumps(state), encoding="utf-8")
    pretraining.pretrain(tmp_path, Settings.resumed(tmp_path, {}), resume=True)
    same_weights(whole, tmp_path)


def test_weights_of_files(text, tmp_path):
    """Stopped and resumed it is the same run; without the weights it is another, and weights cannot change."""
    lines = (text / "corpus.txt").read_text(encoding="utf-8").split("\n\n")
    for name, some in (("a.txt", lines[:20]), ("b.txt", lines[20:])):
        (tmp_path / name).write_text("\n\n".join(some), encoding="utf-8")
    files = [str(tmp_path / name) for name in ("a.txt", "b.txt")]
    rest = arguments(text)[1:]
    assert cli(*files, *rest, "--weights", "2.5,0.5", "--output", tmp_path / "run").returncode == 0
    made = settings(text, files=tuple(files), weights=(2.5, 0.5))
    count = iter(range(1, 99))
    pretraining.pretrain(tmp_path / "stopped", made, stop=lambda: next(count) == 7)
    fails(cli("--output", tmp_path / "stopped", "--resume", "--weights", "2.5,1"), "weights = 2.5 0.5, not 2.5 1.0")
    done = cli("--output", tmp_path / "stopped", "--resume", "--weights", "2.5", "--weights", "0.5")
    assert done.returncode == 0, done.stderr
    same_weights(tmp_path / "run", tmp_path / "stopped")
    pretraining.pretrain(tmp_path / "plain", settings(text, files=tuple(files)))
    with pytest.raises(AssertionError):
        same_weights(tmp_path / "run", tmp_path / "plain")
    for given, says in (("1", "weights: 1, files: 2"), ("1,0", "above 0, not 0"), ("1,x", "'1,x' is not a number")):
        fails(cli(*files, *rest, "--weights", given, "--output", tmp_path / "none"), says)
    assert not (tmp_path / "none").exists()


def killed_at(directory, step, arguments):
    """Start, wait until an update of that number is in the metrics, and kill."""
    process = subprocess.Popen(command(*arguments), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if any(entry["step"] >= step for entry in read_metrics(directory / "metrics.jsonl")):
                break
            time.sleep(0.002)
    finally:
        process.kill()
        process.wait()


def test_killed_twice_and_resumed(whole, text, tmp_path):
    out = tmp_path / "run"
    killed_at(out, 5, [*arguments(text), "--output", out])
    assert not (out / "model.safetensors").exists()
    killed_at(out, 10, ["--output", out, "--resume"])
    with (out / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 15, "seconds": 61.0}\n')  # whenever the kill came
    done = cli("--output", out, "--resume")
    assert done.returncode == 0, done.stderr
    assert re.search(r"going on from step \d+ of 16; the (\d+ updates|update) after it \(1 min \d\d s\)", done.stderr)
    same_weights(whole, out)
    assert [entry["step"] for entry in read_metrics(out / "metrics.jsonl")] == list(range(STEPS))


def test_sigterm_saves_and_says_how_to_go_on(text, tmp_path):
    out = tmp_path / "run"
    process = subprocess.Popen(command(*arguments(text, steps=100000, **{"save-every": 1000}), "--output", out),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")  # fmt: skip
    while not any(entry["step"] >= 4 for entry in read_metrics(out / "metrics.jsonl")):
        time.sleep(0.01)
        assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGTERM)
    stdout, _ = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert f"go on with: refbert pretrain --output {out} --resume" in stdout
    last = RunDirectory(out).last()
    steps = [entry["step"] for entry in read_metrics(out / "metrics.jsonl")]
    assert int(last.name[5:]) == len(steps) == steps[-1] + 1

    fails(cli(*arguments(text), "--output", out), f"holds a run that is at step {len(steps)} of 100000", "--resume")
    fails(cli("--output", out, "--resume", "--learning-rate", "0.1"), "learning_rate = 0.003, not 0.1", "leave it out")


def fails(done, *says, status=2):
    assert done.returncode == status, done
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("refbert: ")
    for words in says:
        assert words in last, last


def test_settings_that_differ_are_named(whole, text):
    for name, value in {"seed": 3, "steps": 99, "batch_size": 7, "examples": "dynamic", "column": "x"}.items():
        with pytest.raises(InputError, match=f"this run has {name} = .*, not {value}; leave it out"):
            Settings.resumed(whole, {name: value})
    with pytest.raises(InputError, match="this run has files = .*corpus.txt, not other.txt; leave it out"):
        Settings.resumed(whole, {"files": ["other.txt"]})
    assert Settings.resumed(whole, {"save_every": 7, "seed": 0}).save_every == 7
    with pytest.warns(refbert.RefbertWarning, match="another backend: the weights will differ by rounding"):
        assert Settings.resumed(whole, {"backend": "torch"}).backend == "torch"


def test_a_checkpoint_of_another_run_is_refused(whole, text, tmp_path):
    """A directory into which somebody copied the checkpoints of another run."""
    import shutil

    shutil.copytree(whole, tmp_path / "run")
    facts = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    facts["settings"]["seed"] = 5
    (tmp_path / "run" / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    with pytest.raises(CheckpointError, match="of a run with seed = 0, not 5"):
        pretraining.pretrain(tmp_path / "run", Settings.resumed(tmp_path / "run", {}), resume=True)


def test_resuming_what_is_finished_and_what_never_began(whole, text, tmp_path):
    before = (whole / "model.safetensors").read_bytes()
    assert pretraining.pretrain(whole, Settings.resumed(whole, {}), resume=True).finished
    assert (whole / "model.safetensors").read_bytes() == before
    out = tmp_path / "run"
    assert cli(*arguments(text), "--output", out, "--resume").returncode == 0
    same_weights(whole, out)


def test_one_process_at_a_time(whole):
    with RunDirectory(whole).owned(), pytest.raises(InputError, match="another process is training here"):
        pretraining.pretrain(whole, Settings.resumed(whole, {}), resume=True)


def test_two_processes(whole, text, tmp_path):
    """The first prepares, all train, the first saves: the weights of one process up to float32's rounding.

    An update moves an entry by about the rate, 0.003, at most; a relative error of 1e-4 in each of 16 updates makes
    5e-6. The key's bias has no gradient but rounding, which Adam scales up to steps of the rate.
    """
    out = tmp_path / "run"
    for message, status in finish(launch(command(*arguments(text), "--output", out))):
        assert status == 0, message
    assert RunDirectory(out).read()["processes"] == 2
    a, b = (read_safetensors(directory / "model.safetensors") for directory in (whole, out))
    for name, x in a.items():
        assert np.abs(b[name] - x).max() <= (0.02 if "key.bias" in name else 1e-5), name
    ours, theirs = (list(read_metrics(directory / "metrics.jsonl")) for directory in (out, whole))
    for one, other in zip(ours, theirs, strict=True):
        assert one["tokens"] == other["tokens"]
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)


def test_stdin(whole, text, tmp_path):
    out = tmp_path / "run"
    with (text / "corpus.txt").open("rb") as file:
        done = cli("-", *arguments(text)[1:], "--output", out, stdin=file)
    assert done.returncode == 0, done.stderr
    same_weights(whole, out)


def test_nothing_on_stdin(text, tmp_path):
    out = tmp_path / "run"
    done = cli("-", *arguments(text)[1:], "--output", out, stdin=subprocess.DEVNULL)
    assert done.returncode == 2
    assert done.stderr.strip().endswith("refbert: no text on stdin")
    assert not out.exists()


def test_begun_from_a_checkpoint(whole, text, tmp_path):
    """--from takes weights and tokenizer; --tokenizer takes that alone."""
    result = cli(*arguments(text, **{"from": whole, "steps": 1, "learning-rate": 1e-30}), "--output", tmp_path / "on")
    assert result.returncode == 0, result.stderr
    same_weights(whole, tmp_path / "on")
    result = cli(*arguments(text, tokenizer=whole, steps=1), "--output", tmp_path / "fresh")
    assert result.returncode == 0, result.stderr
    on, fresh = (refbert.load(tmp_path / name) for name in ("on", "fresh"))
    assert fresh.tokenizer.library.to_str() == on.tokenizer.library.to_str()
    with pytest.raises(AssertionError):
        same_weights(tmp_path / "on", tmp_path / "fresh")
    wrong = cli(*arguments(text, **{"from": tmp_path / "nowhere"}), "--output", tmp_path / "none")
    assert wrong.returncode == 2
    assert "nowhere" in wrong.stderr
    assert wrong.stderr.count("\n") == 1
    assert not (tmp_path / "none").exists()


def test_mixed_precision_is_recorded_and_may_change(text, tmp_path):
    pytest.importorskip("torch")
    made = settings(text, backend="torch", dtype="float32", mixed_precision="bfloat16", steps=2)
    pretraining.pretrain(tmp_path / "run", made)
    assert RunDirectory(tmp_path / "run").read()["settings"]["mixed_precision"] == "bfloat16"
    assert refbert.load(tmp_path / "run").state_dict()["bert.pooler.dense.weight"].dtype == np.float32
    with pytest.warns(RefbertWarning, match="another mixed_precision"):
        assert Settings.resumed(tmp_path / "run", {"mixed_precision": None}).mixed_precision is None


def test_how_far_the_reading_is(text, tmp_path, monkeypatch):
    monkeypatch.setattr(pretraining, "_TELL", -1.0)
    said = []
    pretraining.pretrain(tmp_path / "run", settings(text, steps=1), say=said.append)
    assert said[0] == "learning a vocabulary of 90 pieces"
    assert "tokenizing the text" in said
    assert said[-1] == "tokenizing the text: 100%"


def test_bad_input_leaves_nothing(text, tmp_path):
    (tmp_path / "empty.txt").write_text("", encoding="utf-8")
    (tmp_path / "latin.txt").write_bytes(b"one line\ncaf\xe9\n")
    out = tmp_path / "run"
    rest = arguments(text)[1:]
    fails(cli(tmp_path / "empty.txt", *rest, "--output", out), "empty.txt: no text in it")
    fails(cli(tmp_path / "latin.txt", *rest, "--output", out), "latin.txt", "UTF-8", "2")
    fails(cli("--output", out), "no text: name at least one FILE")
    fails(cli(text / "corpus.txt", "--output", out), "--steps")
    for given, says in [
        ({"files": ("nowhere.txt",)}, "nowhere.txt: no such file"),
        ({"backend": "nonsense"}, "nonsense"),
        ({"size": "bert-enormous"}, "neither a configuration file nor a preset"),
        ({"long_length": 64}, "long_length is 64, but the model has 32 positions"),
        ({"batch_size": 10**6}, "fewer than a batch"),
        ({"learning_rate": 0.0}, "learning_rate must be a number above 0"),
        ({"warmup": 99}, "warmup must be from 0 to the 16 steps"),
        ({"optimizer": "sgd"}, "unknown optimizer"),
        ({"dropout": 1.0}, "dropout must be in"),
        ({"short_length": 25}, "long_length 24 is below short_length 25"),
        ({"save_every": 0}, "save_every must be 1 or more"),
    ]:
        with pytest.raises(refbert.RefbertError, match=says):
            pretraining.pretrain(out, settings(text, **given))
    assert not out.exists()
    said = []
    with pytest.raises(refbert.RefbertError, match="nonsense"):
        pretraining.pretrain(out, settings(text, backend="nonsense"), say=said.append)
    assert not said, "no text is read for it"


def test_a_loss_that_is_not_finite_stops_with_status_1(text, tmp_path):
    out = tmp_path / "run"
    done = cli(*arguments(text, **{"learning-rate": 1e38, "save-every": 1}), "--output", out)
    fails(done, "step 1: ", " is not finite", "the last checkpoint is", "step-00000001", status=1)
    weights = read_safetensors(RunDirectory(out).last() / "model.safetensors")
    assert all(np.isfinite(x).all() for x in weights.values())


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="unavailable: mounting takes root")
def test_a_disk_that_is_full(text, tmp_path):
    """A real file system of 400 kB, where it can be made."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", disk], capture_output=True).returncode:
        pytest.skip("unavailable: this container may not mount")
    try:
        done = cli(*arguments(text, keep=9), "--output", disk / "run")
        fails(done, "cannot be written")
        for place in (disk / "run" / "checkpoints").iterdir():
            assert place.name.startswith("step-")
            refbert.load(place)
            read_safetensors(place / "optimizer.safetensors")
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_torn_line_of_metrics(tmp_path):
    """What a kill leaves in the middle of a write, and what comes after, is made again."""
    from refbert.training.metrics import Metrics, Update

    path = tmp_path / "metrics.jsonl"
    updates = [Update(step, 1.5, {"masked_lm": 1.5}, 0.1, 2.0, 10, 0.25) for step in range(4)]
    path.write_text("".join(u.line() for u in updates[:3]) + updates[3].line()[:20], encoding="utf-8")
    assert [entry["step"] for entry in read_metrics(path)] == [0, 1, 2]
    metrics = Metrics(path, first=2)
    metrics.write(updates[2].line())
    metrics.close()
    assert path.read_text(encoding="utf-8") == "".join(u.line() for u in updates[:3])


def test_what_is_made_again():
    assert going_on(12, 1600, (0, 0.0)) == "going on from step 12 of 1,600; nothing is made again"
    assert going_on(1000, 1600, (1, 2.2)).endswith("step 1,000 of 1,600; the update after it (2 s) is made again")
    assert going_on(1, 9, (4, 7300.0)).endswith("; the 4 updates after it (2 h 01 min) are made again")
