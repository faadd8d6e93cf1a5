"""A process that has computed may fork: what the child computes is what the parent does."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("name", ["reference", "numpy", "torch"])
def test_a_forked_child_computes_as_well(name):
    """In a process of its own, in which all libraries have their threads; with numpy while another thread computes."""
    pytest.importorskip("torch") if name == "torch" else None
    environment = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "2")}
    environment["OMP_WAIT_POLICY"] = "passive"
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _FORKS, name],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (found.stdout, found.returncode) == ("the same\n", 0), found.stderr


_FORKS = """
import os, signal, sys, threading, numpy as np, refbert
config = refbert.BertConfig(vocab_size=60, hidden_size=128, num_hidden_layers=1, num_attention_heads=4)
model = refbert.from_config(config, backend=sys.argv[1], heads=("masked_lm",))
batch = refbert.Batch(np.random.default_rng(0).integers(0, 60, (4, 40)))
def compute():
    loss, gradients = model.loss_and_gradients(batch, batch.input_ids)
    return [model(batch).last_hidden_state, *gradients.values()]
if sys.argv[1] == "torch":
    import torch
    torch.set_num_threads(1)  # as in the child
    want = compute()
    torch.set_num_threads(2)
    compute()
else:
    want = compute()
stop = threading.Event()
def work():
    while not stop.is_set():
        model(batch)
thread = threading.Thread(target=work)
if sys.argv[1] == "numpy":
    thread.start()
child = os.fork()
if not child:
    signal.alarm(60)  # a child that waits forever does not outlive the test
    same = all(np.array_equal(a, b) for a, b in zip(want, compute()))
    os.write(1, b"the same\\n" if same else b"other numbers\\n")
    os._exit(0)
stop.set()
os.waitpid(child, 0)
"""
