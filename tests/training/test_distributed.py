"""Two processes over gloo: the gradient of one, the same weights after ten steps, and what happens when one dies."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import small
import worker
from launching import finish, launch
from oracles import U

from refbert.training import Optimizer
from refbert.training.accumulation import loss_and_gradients
from refbert.training.checkpoints import restore, saved
from refbert.training.loop import train

pytest.importorskip("torch.distributed", reason="several processes need PyTorch")


def start(out, *arguments, **environment):
    return launch([sys.executable, worker.__file__, out, *arguments], **environment)


@pytest.fixture(scope="module", params=["numpy", "torch"])
def ten_steps(request, tmp_path_factory):
    """(backend, what the two processes had in the end)."""
    out = tmp_path_factory.mktemp("two")
    results = finish(start(out, 10, request.param))
    assert all(status == 0 for _, status in results), results
    return request.param, [np.load(out / f"rank{rank}.npz") for rank in (0, 1)], out


def test_half_batches_give_the_gradient_of_one_process(ten_steps):
    """Rows hold from no to six labels, so the halves do not weigh the same."""
    backend, ends, _ = ten_steps
    model = small.model(backend)
    batch, labels = small.batch_and_labels(0)
    counts = [(labels["labels"][rows] != -100).sum() for rows in (slice(0, 3), slice(3, 6))]
    assert counts[0] < counts[1] / 2
    whole = loss_and_gradients(model, batch, labels)
    for end in ends:
        assert abs(end["loss"] - whole.loss) <= 100 * U * whole.loss
        for name, gradient in whole.gradients.items():
            reference = model.backend.to_numpy(gradient)
            found = end[f"gradient {name}"]
            assert np.linalg.norm(found - reference) <= 500 * U * (np.linalg.norm(reference) + 1e-3), name


def test_the_same_weights_in_the_end(ten_steps):
    """Bitwise the same in both; as of one process, up to rounding.

    Each step adds rounding of 1e-13 of a gradient's size to an update, divided by ε = 1e-3 at most, times the rate
    0.01: 1e-12 a step, 1e-11 in ten.
    """
    backend, (first, second), out = ten_steps
    model = small.model(backend)
    train(model, small.Stream(), optimizer=Optimizer(eps=1e-3), rate=lambda step: 0.01, steps=10, seed=worker.SEED)
    for name, x in model.state_dict().items():
        assert np.array_equal(first[name], second[name]), name
        assert np.abs(first[name] - x).max() <= 1e-11, name
    assert [p.name for p in saved(out / "checkpoints")] == [f"step-{n:08d}" for n in (2, 4, 6, 8, 10)]


def test_a_killed_process_ends_the_run(tmp_path):
    started = start(tmp_path, 1000, "numpy", "die", 1, 5)
    (message, status), (_, killed) = finish(started)
    assert killed == -9
    assert status == 2, message
    assert "Traceback" not in message
    assert "process 0 of 2 has lost another process" in message
    assert "at step 6; the last checkpoint is" in message
    places = saved(tmp_path / "checkpoints")
    assert [p.name for p in places] == ["step-00000002", "step-00000004", "step-00000006"]
    for place in places:
        restore(place, small.model(), Optimizer())


def test_one_that_wants_to_stop_stops_all(tmp_path):
    results = finish(start(tmp_path, 1000, "numpy", STOP_AT=3))
    assert all(status == 0 for _, status in results), results
    assert [np.load(tmp_path / f"rank{rank}.npz")["done"] for rank in (0, 1)] == [3, 3]
    assert [p.name for p in saved(tmp_path / "checkpoints")] == ["step-00000002", "step-00000003"]


def test_other_arguments_in_one_process(tmp_path):
    for message, status in finish(start(tmp_path, 1, "numpy", odd={"SEED_OF_THIS": "8"})):
        assert status == 2
        assert "the processes do not have the same seed" in message
