"""Text that is not learned from: `pretrain --dev` and `evaluate --task masked-lm` say the same, and it is right."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys

import numpy as np
import pytest
from calling import cli, same_weights
from launching import finish, launch
from runs import pre

import refbert
from refbert.data import Pretraining, Rows, Store, build_store
from refbert.errors import CheckpointError, InputError
from refbert.evaluation.masked_lm import Sums
from refbert.training import pretraining
from refbert.training.checkpoints import saved
from refbert.training.metrics import read_metrics
from refbert.training.pretraining_settings import Settings
from refbert.training.run import RunDirectory


@pytest.fixture(scope="module")
def dev(files):
    path = files / "dev.txt"
    path.write_text("a cat sat on the mat .\nthe dog .\na mat .\n\nthe dog sat .\non a mat the cat sat .\n\n" * 9)
    return path


@pytest.fixture(scope="module")
def whole(files, dev, tmp_path_factory):
    """A run whose sequences grow at the eighth of its nine steps, scored at 2, 4, 6, 8 and 9."""
    out = tmp_path_factory.mktemp("whole") / "run"
    settings = pre(files, dev=(str(dev),), score_every=2, steps=9, long_length=14, learning_rate=1e-2)
    pretraining.pretrain(out, settings)
    return out, settings


def scores_of(out):
    return list(read_metrics(out / "dev.jsonl"))


def test_the_scores_are_those_of_their_definitions(files, dev, tmp_path):
    """One example at a time, from probabilities in float64, on the reference."""
    model = refbert.load(files / "model", backend="reference", dtype="float64", profile="google")
    with build_store([dev], model.tokenizer, tmp_path) as store:
        rows = Rows(store, model.tokenizer, Pretraining(), seed=0)
        sums, losses, right, pairs, pairs_right, count = Sums(), [], [], [], [], 0
        for batch, labels in rows.once(12, 5):
            sums.add(model, batch, labels)
            for row in range(len(batch.input_ids)):
                count += 1
                n = int(batch.lengths[row])
                alone = refbert.Batch(batch.input_ids[row : row + 1, :n], batch.token_type_ids[row : row + 1, :n])
                logits = model(alone).logits
                for place in np.flatnonzero(labels["labels"][row] != -100):
                    p = np.exp(logits["masked_lm"][0, place])
                    losses.append(-np.log(p[labels["labels"][row, place]] / p.sum()))
                    right.append(p.argmax() == labels["labels"][row, place])
                p = np.exp(logits["next_sentence"][0])
                pairs.append(-np.log(p[labels["next_sentence_label"][row]] / p.sum()))
                pairs_right.append(p.argmax() == labels["next_sentence_label"][row])
        assert count == sum(len(rows.of(document, 12, 0)) for document in range(store.documents))
    found = sums.scores()
    wanted = {
        "loss": np.mean(losses), "perplexity": np.exp(np.mean(losses)), "accuracy": np.mean(right),
        "next_sentence_loss": np.mean(pairs), "next_sentence_accuracy": np.mean(pairs_right),
    }  # fmt: skip
    assert list(found) == list(wanted)
    for name, value in wanted.items():
        # float64's rounding in a few hundred additions of what some thousand operations made
        assert abs(found[name] - value) <= 1e6 * 2**-53 * abs(value), name


def test_every_example_once_and_the_same_each_time(files, dev, tmp_path):
    """In batches of any size: the hidden words, the pairs and what stands in them."""
    tokenizer = refbert.load(files / "model").tokenizer
    with build_store([dev], tokenizer, tmp_path) as store:
        seen = []
        for size in (1, 4, 1000):
            rows = Rows(store, tokenizer, Pretraining(), seed=3)
            found = []
            for batch, labels in rows.once(10, size):
                for ids, mask, hidden in zip(batch.input_ids, batch.attention_mask, labels["labels"], strict=True):
                    n = mask.sum()
                    assert not mask[n:].any()
                    assert (hidden[n:] == -100).all()
                    found.append((ids[:n].tolist(), hidden[:n].tolist()))
            seen.append(sorted(found))
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0]) >= 18


def test_scored_as_it_goes(whole):
    """Each scoring is that of the model at that step, at the length of its phase; the last is `evaluate`'s."""
    out, settings = whole
    found = scores_of(out)
    assert [entry["step"] for entry in found] == [2, 4, 6, 8, 9]
    run = RunDirectory(out)
    with Store.open(run.dev_data) as store:
        for step, length in ((8, 8), (9, 14)):
            model = refbert.load(run.checkpoints / f"step-{step:08d}", profile="google")
            sums = Sums()
            for batch, labels in Rows(store, model.tokenizer, settings.data(), seed=0).once(
                length, settings.micro_batch
            ):
                sums.add(model, batch, labels)
            assert next(entry for entry in found if entry["step"] == step) == {"step": step, **sums.scores()}


def test_it_does_not_change_the_run(whole, tmp_path):
    out, settings = whole
    pretraining.pretrain(tmp_path / "run", dataclasses.replace(settings, dev=()))
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
    assert not (tmp_path / "run" / "dev.jsonl").exists()


@pytest.mark.parametrize("place", [1, 4, 7])
def test_stopped_and_resumed(whole, tmp_path, place):
    out, settings = whole
    count = iter(range(1, 99))
    pretraining.pretrain(tmp_path / "run", settings, stop=lambda: next(count) == place)
    with (tmp_path / "run" / "dev.jsonl").open("a") as file:
        file.write('{"step": 10, "loss": 1.0}\n{"step": 1')  # what a kill after the checkpoint leaves
    pretraining.pretrain(tmp_path / "run", Settings.resumed(tmp_path / "run", {}), resume=True)
    assert (tmp_path / "run" / "dev.jsonl").read_bytes() == (out / "dev.jsonl").read_bytes()


def test_two_processes(whole, tmp_path):
    """They share the batches; the sums are one process's but for the order of additions and float32's weights."""
    pytest.importorskip("torch.distributed", reason="several processes need PyTorch")
    out, settings = whole
    command = [sys.executable, "-m", "refbert", "pretrain", *settings.files, "--dev", *settings.dev, "--from",
               settings.start_from, "--steps", 9, "--score-every", 2, "--batch-size", 4, "--short-length", 8,
               "--long-length", 14, "--save-every", 2, "--learning-rate", 1e-2, "--output",
               tmp_path / "run"]  # fmt: skip
    for message, status in finish(launch(command)):
        assert status == 0, message
    assert (tmp_path / "run" / "best" / "model.safetensors").is_file()
    ours, theirs = scores_of(tmp_path / "run"), scores_of(out)
    assert [entry["step"] for entry in ours] == [entry["step"] for entry in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["next_sentence_loss"] == pytest.approx(other["next_sentence_loss"], rel=1e-4)


def steps_kept(out):
    return [int(place.name[5:]) for place in saved(out / "checkpoints")]


@pytest.fixture(scope="module")
def unsteady(files, dev, tmp_path_factory):
    """A run whose best scoring is neither the first nor the last, nor at a checkpoint that is written anyhow."""
    out = tmp_path_factory.mktemp("unsteady") / "run"
    settings = pre(files, dev=(str(dev),), score_every=3, save_every=4, keep=1, steps=14, learning_rate=0.1)
    said = []
    pretraining.pretrain(out, settings, say=said.append)
    return out, settings, said


def test_the_best_scoring_is_kept(unsteady, tmp_path):
    """Whatever `keep` says: the model at that step, of which nothing else stays; the directory's is the last."""
    out, settings, said = unsteady
    best = min(scores_of(out), key=lambda entry: entry["loss"])
    assert best["step"] == 9
    assert steps_kept(out) == [9, 14]
    assert said[-1] == f"the development text's loss was best at step 9, {best['loss']:.4g}: {out / 'best'}"
    every = dataclasses.replace(settings, dev=(), save_every=1, keep=99)
    pretraining.pretrain(tmp_path / "run", every)
    same_weights(out / "best", tmp_path / "run" / "checkpoints" / "step-00000009")
    same_weights(out, tmp_path / "run")
    names = {path.name for path in (out / "best").iterdir()}
    assert names == {path.name for path in (tmp_path / "run" / "checkpoints" / "step-00000009").iterdir()} - {
        "training.json", "optimizer.safetensors",
    }  # fmt: skip
    on = dataclasses.replace(every, start_from=str(out / "best"), steps=1, learning_rate=1e-30)
    pretraining.pretrain(tmp_path / "on", on)
    same_weights(tmp_path / "on", out / "best")


@pytest.mark.parametrize("place", [2, 7, 9, 10, 12])
def test_the_best_is_known_after_a_stop(unsteady, tmp_path, place):
    """Before it and after it, and where it is the checkpoint that the run goes on from."""
    out, settings, _ = unsteady
    count, said = iter(range(1, 99)), []
    pretraining.pretrain(tmp_path / "run", settings, stop=lambda: next(count) == place, say=said.append)
    scored = [entry for entry in scores_of(out) if entry["step"] <= place]
    assert not (tmp_path / "run" / "best").exists()
    if scored:
        step = min(scored, key=lambda entry: entry["loss"])["step"]
        assert said[-1].endswith(f"{tmp_path / 'run' / 'checkpoints' / f'step-{step:08d}'}")
        assert step in steps_kept(tmp_path / "run")
    pretraining.pretrain(tmp_path / "run", Settings.resumed(tmp_path / "run", {}), resume=True)
    assert steps_kept(tmp_path / "run") == [9, 14]
    same_weights(tmp_path / "run" / "best", out / "best")


def test_a_best_that_is_lost_or_damaged(unsteady, tmp_path):
    """The best of what is there: a run of before the best was kept, or one whose file is damaged."""
    out, settings, _ = unsteady
    run = tmp_path / "run"
    count = iter(range(1, 99))
    pretraining.pretrain(run, settings, stop=lambda: next(count) == 10)
    weights = run / "checkpoints" / "step-00000009" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    resumed = Settings.resumed(run, {})
    with pytest.raises(CheckpointError, match=r"step-00000009: damaged .*; delete it, and --resume takes the best of"):
        pretraining.pretrain(run, resumed, resume=True)
    same_weights(run, out)
    assert not (run / "best").exists()
    shutil.rmtree(weights.parent)
    said = []
    pretraining.pretrain(run, resumed, resume=True, say=said.append)
    assert "best at step 14" in said[-1]
    same_weights(run / "best", run)


def test_the_best_is_of_the_last_length(unsteady, tmp_path):
    """Losses of longer sequences are others: what has not learned the last positions is no candidate."""
    _, settings, _ = unsteady
    pretraining.pretrain(
        tmp_path / "run", dataclasses.replace(settings, steps=22, long_length=14, learning_rate=0.05, keep=9)
    )
    found = scores_of(tmp_path / "run")
    assert min(found, key=lambda entry: entry["loss"])["step"] < 20
    best = min(found[-2:], key=lambda entry: entry["loss"])["step"]
    same_weights(tmp_path / "run" / "best", tmp_path / "run" / "checkpoints" / f"step-{best:08d}")


def test_evaluate_says_what_training_said(whole, dev, capsys):
    """Lengths and what is hidden are those of training; another seed hides others."""
    out, _ = whole
    command = ["evaluate", "--model", out, "--task", "masked-lm", "--json", dev]
    status, said, _ = cli(capsys, *command)
    assert status == 0
    found = json.loads(said)
    last = {name: value for name, value in scores_of(out)[-1].items() if name != "step"}
    # Batches of another size: float32 adds up in another order.
    assert found["scores"] == pytest.approx(last, rel=1e-5)
    assert found["examples"] > 18
    assert json.loads(cli(capsys, *command)[1]) == found
    assert json.loads(cli(capsys, *command, "--seed", 1)[1])["scores"] != found["scores"]
    assert json.loads(cli(capsys, *command, "--max-length", 8)[1])["scores"] != found["scores"]
    assert "next_sentence_accuracy" in cli(capsys, *command[:-2], dev)[1]


def test_what_cannot_be_evaluated(whole, files, dev, tmp_path, capsys):
    out, _ = whole
    base = ["evaluate", "--task", "masked-lm", "--model", out]
    empty = tmp_path / "one.txt"
    empty.write_text("the cat sat .\n")
    for arguments, says in (
        ([*base, tmp_path / "none.txt"], "none.txt: cannot be read"),
        ([*base, empty], "the corpus is one document"),
        ([*base, "--format", "csv", dev], "masked-lm reads lines, raw, parquet, not csv"),
        ([*base, "--predictions", tmp_path / "x", dev], "--predictions is for labelled texts"),
        ([*base, "--max-length", "99", dev], "16 positions"),
        (["evaluate", "--model", out, dev], "scored with --task masked-lm"),
    ):
        status, said, err = cli(capsys, *arguments)
        assert (status, said) == (2, ""), err
        assert says in err
    (tmp_path / "run").mkdir()
    for file in out.iterdir():
        if file.is_file():
            (tmp_path / "run" / file.name).write_bytes(file.read_bytes())
    facts = json.loads((out / "run.json").read_text())
    facts["settings"]["long_length"] = "14"
    (tmp_path / "run" / "run.json").write_text(json.dumps(facts))
    status, _, err = cli(capsys, "evaluate", "--task", "masked-lm", "--model", tmp_path / "run", dev)
    assert status == 2
    assert "run.json: long_length must be a whole number" in err


def test_bad_development_text(files, dev, tmp_path):
    (tmp_path / "one.txt").write_text("the cat sat .\na dog .\n")
    for name, says in (("none.txt", "none.txt: no such file"), ("one.txt", "one.txt: the corpus is one document")):
        with pytest.raises(InputError, match=says):
            pretraining.pretrain(tmp_path / "run", pre(files, dev=(str(tmp_path / name),)))
    with pytest.raises(InputError, match="bad.txt, line 2001: not UTF-8"):
        pretraining.pretrain(tmp_path / "run", pre(files, dev=(str(files / "bad.txt"),)))
    assert not (tmp_path / "run").exists()


def test_its_sentences_are_left_out_when_deduplicating(files, dev, tmp_path):
    """And the run says how many went; resumed, damaged text is made again to the same."""
    text = tmp_path / "text.txt"
    rest = "the dog sat on a mat .\nthe mat sat .\n\na dog .\non the cat .\nthe mat sat .\n\n"
    text.write_text("a cat sat on the mat .\n\n" + rest + dev.read_text(), encoding="utf-8")
    settings = pre(files, text, dev=(str(dev),), deduplicate="sentences", batch_size=2)
    said = []
    pretraining.pretrain(tmp_path / "run", settings, say=said.append, stop=lambda: True)
    run = RunDirectory(tmp_path / "run")
    with Store.open(run.data) as store, Store.open(run.dev_data) as held_out:
        learned, scored = ([tuple(ids) for piece in one.pieces() for ids in piece] for one in (store, held_out))
    assert (len(learned), len(set(learned)), len(scored)) == (4, 4, 45)
    assert not set(learned) & set(scored)
    assert "47 of 51 sentences are left out, as they stood before or are in the development text" in said
    (run.data / "ids.bin").write_bytes(b"")
    with pytest.warns(refbert.errors.RefbertWarning, match="tokenized again"):
        assert pretraining.pretrain(tmp_path / "run", Settings.resumed(tmp_path / "run", {}), resume=True).finished


def test_other_development_text(whole, files, dev, tmp_path):
    """A run goes on with the text that it was scored on, whatever happens to the file: it is kept in the directory."""
    settings = pre(files, dev=(str(tmp_path / "dev.txt"),), score_every=2)
    (tmp_path / "dev.txt").write_bytes(dev.read_bytes())
    pretraining.pretrain(tmp_path / "run", settings, stop=lambda: True)
    (tmp_path / "dev.txt").write_text("the cat .\na dog .\n\non a mat .\nthe cat .\n\n")
    (tmp_path / "run" / "dev-data" / "ids.bin").write_bytes(b"")
    with (
        pytest.warns(refbert.errors.RefbertWarning, match="tokenized again"),
        pytest.raises(refbert.errors.CheckpointError, match="not the development data"),
    ):
        pretraining.pretrain(tmp_path / "run", settings, resume=True)
