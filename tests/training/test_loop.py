"""The loop: the same steps on every backend, bitwise resumption, and what stops it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import small

from refbert.errors import CheckpointError, InputError
from refbert.training import Optimizer, learning_rate
from refbert.training.checkpoints import restore, saved
from refbert.training.loop import NotFinite, Saving, train


def rate(step):
    return learning_rate(step, peak=0.01, warmup=3, total=12, from_zero=True)


def run(model, source, steps, **options):
    optimizer = options.pop("optimizer", None) or Optimizer()
    train(model, source, optimizer=optimizer, rate=options.pop("rate", rate), steps=steps, seed=7, **options)
    return optimizer


@pytest.mark.parametrize("rule", ["bert_adam", "adamw", "lamb"])
def test_ten_steps_agree_across_backends(rule):
    """float64, dropout on, in micro-batches: every parameter to 1e-9 relative.

    Biases start away from 0: the gradient of the key's is 0 in exact arithmetic and rounding here (1e-17), which Adam
    divides by ε = 1e-6 at least, so such a bias wanders by 1e-11 · rate, which is nothing next to 0.1 and all of 0.
    LAMB scales every tensor's step to its weights, rounding included: there the key's bias says nothing.
    """
    start = small.model("reference").state_dict()
    rng = np.random.default_rng(3)
    start = {name: x + 0.1 * rng.standard_normal(x.shape) for name, x in start.items()}
    ends = {}
    for backend in ("reference", "numpy", "torch"):
        model = small.model(backend)
        model.parameters = {name: model.backend.asarray(x.copy()) for name, x in start.items()}
        run(model, small.Stream(), 10, optimizer=Optimizer(rule=rule), micro_batch=4)
        ends[backend] = model.state_dict()
    for backend in ("numpy", "torch"):
        for name, reference in ends["reference"].items():
            if rule == "lamb" and name.endswith("key.bias"):
                continue
            difference = np.linalg.norm(ends[backend][name] - reference)
            assert difference <= 1e-9 * np.linalg.norm(reference), (backend, name)
    for name, x in start.items():
        assert np.linalg.norm(x - ends["reference"][name]) > (0 if "key.bias" in name else 1e-4), name


def test_googles_optimization_test():
    """optimization_test.py in float64: 100 steps at 0.2 for the loss mean((x − w)²); paper-facts' numbers to 1e-6."""
    from refbert.backend.reference import ReferenceBackend

    x = np.array([0.4, 0.2, -0.5])
    parameters = {"w": np.array([0.1, -0.2, -0.1])}
    optimizer = Optimizer(weight_decay=0.0, max_norm=None)
    path = []
    for _ in range(100):
        gradients = {"w": 2 * (parameters["w"] - x) / 3}
        parameters, _ = optimizer.step(ReferenceBackend(), parameters, gradients, lr=0.2)
        path.append(parameters["w"])
    assert np.abs(path[0] - [0.73235555, 0.43238054, -0.73238054]).max() < 1e-6
    assert np.abs(path[99] - [0.40164604, 0.19782445, -0.49782445]).max() < 1e-6


@pytest.mark.parametrize(("backend", "dtype"), [("numpy", "float32"), ("torch", "float32"), ("reference", "float64"),
                                                ("torch", "bfloat16")])  # fmt: skip
@pytest.mark.parametrize("rule", ["bert_adam", "adamw"])
def test_resumed_is_bitwise_the_run_that_was_not_stopped(tmp_path, backend, dtype, rule):
    whole = small.model(backend, dtype)
    optimizer = run(whole, small.Stream(), 9, optimizer=Optimizer(rule=rule), micro_batch=4)
    first = small.model(backend, dtype)
    saving = Saving(tmp_path, every=2, keep=2)
    run(first, small.Stream(), 5, optimizer=Optimizer(rule=rule), micro_batch=4, saving=saving)
    assert [p.name for p in saved(tmp_path)] == ["step-00000004", "step-00000005"]
    for place in saved(tmp_path):
        second, source, again = small.model(backend, dtype, seed=99), small.Stream(), Optimizer(rule=rule)
        source.restore(restore(place, second, again).source)
        assert again.updates == int(place.name[5:])
        run(second, source, 9, optimizer=again, micro_batch=4)
        for name, x in whole.state_dict().items():
            assert np.array_equal(second.state_dict()[name], x), name
        host = whole.backend.to_numpy
        for kind in "mv":
            ours, theirs = getattr(again, kind), getattr(optimizer, kind)
            assert all(np.array_equal(host(ours[name]), host(theirs[name])) for name in theirs)


def test_checkpoints_load_in_refbert_and_transformers(tmp_path):
    import torch
    import transformers

    import refbert

    model = small.model("numpy", "float32")
    run(model, small.Stream(), 3, saving=Saving(tmp_path, every=3))
    (place,) = saved(tmp_path)
    batch, _ = small.batch_and_labels(0)
    ours = model(batch).last_hidden_state
    # Padding is masked by −10000 or −∞, which differ by less than the smallest float32.
    assert np.array_equal(refbert.load(place)(batch).last_hidden_state, ours)
    theirs = transformers.BertForPreTraining.from_pretrained(place).eval()
    with torch.no_grad():
        hidden = theirs.bert(
            torch.from_numpy(batch.input_ids), torch.from_numpy(batch.attention_mask),
            torch.from_numpy(batch.token_type_ids),
        ).last_hidden_state.numpy()  # fmt: skip
    assert np.abs(hidden - ours)[batch.attention_mask == 1].max() < 1e-5


def test_overfits_a_handful():
    model = small.model("numpy", "float32", config=small.CONFIG.replace(initializer_range=0.2))
    losses = []
    run(model, small.Stream(only=1), 300, rate=lambda step: 0.01, dropout=False,
        on_update=lambda u: losses.append(u.loss))  # fmt: skip
    assert losses[0] > 3
    assert losses[-1] < 0.02


class Poisoned(small.Stream):
    """At the step 5 the named parameter has become something else."""

    def __init__(self, model, name, value):
        super().__init__()
        self.model, self.name, self.value = model, name, value

    def next(self, step):
        if step == 5:
            bad = self.model.backend.to_numpy(self.model.parameters[self.name]).copy()
            bad.reshape(-1)[2] = self.value
            self.model.parameters[self.name] = self.model.backend.asarray(bad)
        return super().next(step)


@pytest.mark.parametrize("max_norm", [1.0, None])
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_a_weight_that_is_not_finite(tmp_path, backend, max_norm):
    model, name = small.model(backend), "bert.encoder.layer.1.output.dense.bias"
    optimizer = Optimizer(max_norm=max_norm)
    with pytest.raises(NotFinite, match="step 5: the loss is nan, .*layer.1.output.dense.bias is not finite; nothing "
                       "was updated; the last checkpoint is .*step-00000004") as error:  # fmt: skip
        run(model, Poisoned(model, name, np.nan), 9, optimizer=optimizer, saving=Saving(tmp_path, every=2, keep=1))
    assert (error.value.step, error.value.parameter) == (5, name)
    assert optimizer.updates == 5
    (place,) = saved(tmp_path)
    restore(place, again := small.model(backend), Optimizer())
    assert all(np.isfinite(x).all() for x in again.state_dict().values())


def test_a_gradient_that_is_not_finite(monkeypatch):
    model, name = small.model(), "cls.predictions.transform.dense.bias"
    part = model.part_of_loss_and_gradients

    def spoiled(*arguments, **options):
        loss, losses, gradients = part(*arguments, **options)
        gradients[name][3] = np.inf
        return loss, losses, gradients

    before = model.state_dict()
    monkeypatch.setattr(model, "part_of_loss_and_gradients", spoiled)
    with pytest.raises(NotFinite, match=f"step 0: .* the gradient of {name} is not finite; .*no checkpoint yet"):
        run(model, small.Stream(), 3)
    assert all(np.array_equal(x, before[k]) for k, x in model.state_dict().items())


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    """An update may overflow; the loss shows it a step later, and a checkpoint must not be written in between."""
    model = small.model("numpy", "float32")
    with np.errstate(all="ignore"), pytest.raises(NotFinite, match="step 3: bert.* is not finite after the update"):
        run(model, small.Stream(), 4, rate=lambda step: 0.0 if step < 3 else 3e38, saving=Saving(tmp_path, every=2))
    assert [p.name for p in saved(tmp_path)] == ["step-00000002"]


def _full(monkeypatch, module, name, *, after=0):
    """The disk is full from a certain write on."""
    import errno

    real, count = getattr(module, name), iter(range(10**6))

    def write(*arguments, **options):
        if next(count) >= after:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments, **options)

    monkeypatch.setattr(module, name, write)


@pytest.mark.parametrize("where", ["write_safetensors", "sync"])
def test_full_disk(tmp_path, monkeypatch, where):
    from refbert.files import writing
    from refbert.training import checkpoints

    model = small.model()
    run(model, small.Stream(), 2, saving=Saving(tmp_path, every=2))
    _full(monkeypatch, writing if where == "sync" else checkpoints, where, after=1 if where == "sync" else 0)
    source = small.Stream()
    source.position = 2
    optimizer = Optimizer(updates=2)
    with pytest.raises(CheckpointError, match="step-00000004: cannot be written .No space left on device.*are whole"):
        run(model, source, 4, optimizer=optimizer, saving=Saving(tmp_path, every=2, keep=1))
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000002"]
    monkeypatch.undo()
    restore(tmp_path / "step-00000002", small.model(), Optimizer())


def test_what_a_killed_process_leaves_is_cleared(tmp_path):
    from refbert.files.writing import clear_partial

    (tmp_path / ".partial-step-00000009").mkdir()
    (tmp_path / ".partial-step-00000009" / "model.safetensors").write_bytes(b"half")
    run(small.model(), small.Stream(), 1, saving=Saving(tmp_path, every=1))
    assert [p.name for p in saved(tmp_path)] == ["step-00000001"]
    clear_partial(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


def test_damaged_and_foreign_checkpoints(tmp_path):
    run(small.model(), small.Stream(), 1, saving=Saving(tmp_path, every=1))
    (place,) = saved(tmp_path)
    with pytest.raises(CheckpointError, match="another model"):
        restore(place, small.model(config=small.CONFIG.replace(num_hidden_layers=1)), Optimizer())
    (place / "training.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"step-00000001: damaged \(training.json cannot be read\)"):
        restore(place, small.model(), Optimizer())
    (place / "training.json").write_text(json.dumps({"format": 9}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="another release"):
        restore(place, small.model(), Optimizer())


def test_stopping_saves(tmp_path):
    asked = iter([False, False, True])
    optimizer = run(small.model(), small.Stream(), 9, saving=Saving(tmp_path, every=100), stop=lambda: next(asked))
    assert optimizer.updates == 3
    assert [p.name for p in saved(tmp_path)] == ["step-00000003"]


def test_saving_settings_are_checked(tmp_path):
    with pytest.raises(InputError, match="every 0 updates"):
        Saving(tmp_path, every=0)
    with pytest.raises(InputError, match="to keep"):
        Saving(tmp_path, every=1, keep=0)


def test_what_on_update_is_told():
    updates = []
    run(small.model(), small.Stream(), 2, on_update=updates.append)
    batch, labels = small.batch_and_labels([0, 0])
    first = updates[0]
    assert [u.step for u in updates] == [0, 1]
    assert set(first.losses) == set(small.PRETRAINING)
    assert first.loss == pytest.approx(sum(first.losses.values()), rel=1e-12)
    assert first.tokens == batch.attention_mask.sum()
    assert (first.learning_rate, updates[1].learning_rate) == (0.0, rate(1))
    from refbert.randomness import Dropout

    loss, gradients = small.model().loss_and_gradients(batch, labels, dropout=Dropout(7, 0))
    assert first.loss == loss
    # The first update has rate 0, so the second loss is of the same weights, with the next batch and masks.
    second, _ = small.model().loss_and_gradients(*small.batch_and_labels([0, 1]), dropout=Dropout(7, 1))
    assert updates[1].loss == second
    norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
    assert first.gradient_norm == pytest.approx(norm, rel=1e-12)


class Clock:
    """Time that passes by a second an update, and by as much as is said while a checkpoint is written."""

    def __init__(self, monkeypatch, cost=0.0):
        from refbert.training import checkpoints, loop

        self.now, save = 0.0, checkpoints.save

        def slow(*arguments):
            self.now += cost
            return save(*arguments)

        monkeypatch.setattr(loop.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(checkpoints, "save", slow)

    def tick(self, update):
        self.now += 1


@pytest.mark.parametrize(
    ("keep", "seconds", "there"),
    [
        (None, 4, [5, 10, 15, 20, 25, 30, 35, 40]), (3, 4, [20, 35, 40]), (2, 4, [35, 40]), (1, 4, [40]),
        (None, None, [20, 40]), (None, 1e9, [20, 40]),
    ],
)  # fmt: skip
def test_checkpoints_by_the_clock(tmp_path, monkeypatch, keep, seconds, there):
    """Those in between do not push out those of every twentieth update."""
    saving = Saving(tmp_path, every=20, keep=keep, seconds=seconds)
    run(small.model(), small.Stream(), 40, saving=saving, on_update=Clock(monkeypatch).tick)
    assert [int(p.name[5:]) for p in saved(tmp_path)] == there


def test_checkpoints_that_take_long_are_fewer(tmp_path, monkeypatch):
    """One takes as long as two updates: forty are worth the next."""
    clock = Clock(monkeypatch, 2.0)
    run(small.model(), small.Stream(), 130, saving=Saving(tmp_path, every=1000, seconds=1), on_update=clock.tick)
    assert [int(p.name[5:]) for p in saved(tmp_path)] == [2, 43, 84, 125, 130]


@pytest.mark.parametrize("place", range(3))
def test_resumed_from_one_in_between_it_is_the_same(tmp_path, monkeypatch, place):
    whole = small.model()
    run(whole, small.Stream(), 20)
    clock = Clock(monkeypatch)
    run(small.model(), small.Stream(), 17, saving=Saving(tmp_path, every=100, seconds=4), on_update=clock.tick)
    model, source, optimizer = small.model(seed=9), small.Stream(), Optimizer()
    source.restore(restore(saved(tmp_path)[place], model, optimizer).source)
    assert optimizer.updates == 5 * (place + 1)
    run(model, source, 20, optimizer=optimizer)
    assert all(np.array_equal(x, model.state_dict()[name]) for name, x in whole.state_dict().items())
