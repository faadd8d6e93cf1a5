"""A model that one thread trains and others use: every call sees one update's weights, and none in between."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest

import refbert
from refbert.training import Optimizer
from refbert.updating import snapshot, updating

CONFIG = refbert.BertConfig(vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2)


class Slow(dict):
    """Parameters that take their time to change, so that a reader would find some old and some new."""

    def __init__(self, *given):
        super().__init__(*given)
        self.changing, self.read = threading.Event(), threading.Event()

    def __setitem__(self, name, value):
        super().__setitem__(name, value)
        self.changing.set()
        self.read.wait(0.002)


@pytest.mark.parametrize("backend", ["reference", "numpy", "torch"])
def test_a_call_during_an_update_sees_none_of_it_or_all(backend):
    pytest.importorskip("torch") if backend == "torch" else None
    model = refbert.from_config(CONFIG, backend=backend, heads=("masked_lm",), seed=1)
    model.parameters = Slow(model.parameters)
    batch = refbert.Batch(np.arange(12).reshape(2, 6))
    seen, stop = [], threading.Event()

    def read():
        model.parameters.changing.wait(30)
        while not stop.is_set():
            seen.append(model(batch).last_hidden_state)
            model.parameters.read.set()

    reader = threading.Thread(target=read)
    reader.start()
    optimizer, right = Optimizer(), [model(batch).last_hidden_state]
    for _ in range(3):
        model.train_step(batch, batch.input_ids, optimizer, lr=0.1)
        right.append(model(batch).last_hidden_state)
    stop.set()
    reader.join(30)
    assert seen
    assert all(any(np.array_equal(one, known) for known in right) for one in seen)


def test_steps_in_two_threads_are_two_updates():
    """Each whole, one after the other: the moments are those of the gradients in one of the two orders."""
    one = refbert.from_config(CONFIG, backend="reference", heads=("masked_lm",), seed=1)
    optimizer, gradients = Optimizer(), [{}, {}]
    for seed, found in enumerate(gradients):
        rng = np.random.default_rng(seed)
        found.update({name: rng.standard_normal(x.shape) for name, x in one.parameters.items()})
    orders = []
    for order in ((0, 1), (1, 0)):
        parameters, alone = dict(one.parameters), Optimizer()
        for i in order:
            alone.apply(one.backend, parameters, dict(gradients[i]), lr=0.1)
        orders.append(parameters)
    parameters = dict(one.parameters)
    together, interval = threading.Barrier(2), sys.getswitchinterval()

    def step(i):
        together.wait(30)
        optimizer.apply(one.backend, parameters, dict(gradients[i]), lr=0.1)

    everyone = [threading.Thread(target=step, args=(i,)) for i in range(2)]
    sys.setswitchinterval(1e-6)
    try:
        for thread in everyone:
            thread.start()
        for thread in everyone:
            thread.join(30)
    finally:
        sys.setswitchinterval(interval)
    assert optimizer.updates == 2
    assert any(all(np.array_equal(parameters[n], right[n]) for n in right) for right in orders)


def test_who_updates_may_read_and_an_error_ends_the_update():
    parameters = {"w": 1}

    def fail():
        with updating(parameters), updating(parameters):
            assert snapshot(parameters) == parameters
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    found = []
    thread = threading.Thread(target=lambda: found.append(snapshot(parameters)), daemon=True)
    thread.start()
    thread.join(10)
    assert found == [{"w": 1}]


def test_a_tokenizer_set_while_another_thread_reads_the_checkpoints_stays():
    model = refbert.from_config(CONFIG, seed=1)
    mine = object()

    def make():
        model.tokenizer = mine
        return object()

    model._make_tokenizer = make
    assert model.tokenizer is mine
