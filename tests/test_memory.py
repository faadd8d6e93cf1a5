"""A forward without gradients keeps no activations: its peak does not grow with the number of layers."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import refbert


def peak(backend, layers, *, backward=False):
    config = refbert.BertConfig(
        vocab_size=50, hidden_size=64, num_hidden_layers=layers, num_attention_heads=4, intermediate_size=256
    )
    model = refbert.from_config(config, heads=("masked_lm",), backend=backend)
    again = refbert.from_config(config, heads=("masked_lm",), backend=backend)  # numpy's keeps memory for the next step
    batch = refbert.Batch(input_ids=np.ones((4, 64), int))
    labels = np.where(np.arange(64) == 3, 5, np.full((4, 64), -100))

    def work(model):
        return model.loss_and_gradients(batch, labels) if backward else model(batch, heads=())

    work(again)
    tracemalloc.start()
    work(model)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


@pytest.mark.parametrize("backend", ["reference", "numpy"])
def test_the_forward_forgets(backend):
    assert peak(backend, 8) <= 1.1 * peak(backend, 2)


@pytest.mark.parametrize("backend", ["reference", "numpy"])
def test_the_measurement_sees_what_is_kept(backend):
    assert peak(backend, 8, backward=True) > 2 * peak(backend, 2, backward=True)
