"""Mixed precision: what is computed in bfloat16, what is not, and why that matters."""

from __future__ import annotations

import numpy as np
import pytest
import small

from refbert.errors import InputError, Unsupported
from refbert.training import Optimizer
from refbert.training.accumulation import loss_and_gradients
from refbert.training.checkpoints import restore, saved
from refbert.training.loop import Saving, train
from refbert.training.precision import MixedPrecision

torch = pytest.importorskip("torch")


def mixed(model):
    return MixedPrecision(model, "bfloat16")


def rounded(x):
    return torch.from_numpy(np.array(x)).to(torch.bfloat16).float().numpy()


def test_gradients_are_those_of_the_rounded_model_in_bfloat16_and_added_up_in_float32():
    """Each piece's gradient has 8 bits of mantissa; the sum over pieces has float32's."""
    model = small.model("torch", "float32")
    batch, labels = small.batch_and_labels(4)
    sums = loss_and_gradients(model, batch, labels, micro_batch=2, precision=mixed(model))
    narrow = small.model("torch", "bfloat16")
    narrow.parameters = {name: narrow.backend.asarray(x) for name, x in model.state_dict().items()}
    pieces = loss_and_gradients(narrow, batch, labels, micro_batch=2)  # the same pieces, added up in bfloat16
    table = "bert.embeddings.token_type_embeddings.weight"
    ours, theirs = (model.backend.to_numpy(s.gradients[table].float()) for s in (sums, pieces))
    assert sums.gradients[table].dtype == torch.float32
    assert np.linalg.norm(ours - theirs) < 0.05 * np.linalg.norm(theirs)
    assert not np.array_equal(ours, rounded(ours))
    exact = loss_and_gradients(model, batch, labels)
    for name, x in exact.gradients.items():
        if name.endswith("key.bias"):  # 0 in exact arithmetic
            continue
        error = torch.linalg.vector_norm(sums.gradients[name] - x) / torch.linalg.vector_norm(x)
        # A dozen roundings to 2^-8 in a row, in the weights and on the way, errors adding up at their worst.
        assert error < 24 * 2.0**-8, (name, float(error))
    assert sums.loss == pytest.approx(exact.loss, rel=24 * 2.0**-8)


def test_updates_below_a_bfloat16_unit_add_up():
    """Two hundred updates of 1e-5 each: 2e-3 in the float32 weights, nothing at all in bfloat16 ones."""
    ends = {}
    for dtype in ("float32", "bfloat16"):
        model = small.model("torch", dtype)
        name = "bert.encoder.layer.0.output.LayerNorm.weight"  # ones: a bfloat16 unit below 1 is 2^-8
        before = model.state_dict()[name]
        precision = mixed(model) if dtype == "float32" else None
        optimizer = Optimizer(weight_decay=0.0)
        train(model, small.Stream(only=1), optimizer=optimizer, rate=lambda step: 1e-5, steps=200, seed=1,
              dropout=False, precision=precision)  # fmt: skip
        ends[dtype] = np.abs(model.state_dict()[name] - before).max()
    assert ends["bfloat16"] == 0
    assert ends["float32"] > 1e-3


def test_resumed_is_bitwise_the_run_that_was_not_stopped(tmp_path):
    def run(model, optimizer, source, steps, **options):
        train(model, source, optimizer=optimizer, rate=lambda step: 1e-3, steps=steps, seed=7, micro_batch=4,
              precision=mixed(model), **options)  # fmt: skip

    whole, half, again = (small.model("torch", "float32", seed=seed) for seed in (1, 1, 2))
    run(whole, Optimizer(), small.Stream(), 6)
    run(half, Optimizer(), small.Stream(), 3, saving=Saving(tmp_path, every=3))
    optimizer, source = Optimizer(), small.Stream()
    source.restore(restore(saved(tmp_path)[-1], again, optimizer).source)
    run(again, optimizer, source, 6)
    for name, x in whole.state_dict().items():
        assert np.array_equal(x, again.state_dict()[name]), name
    assert not np.array_equal(rounded(x), x)  # what was kept is wider than bfloat16


def test_the_numpy_backend_goes_through_the_host():
    """float64 weights, float32 arithmetic: a backend without ``cast``."""
    model = small.model("numpy", "float64")
    batch, labels = small.batch_and_labels(4)
    sums = loss_and_gradients(model, batch, labels, precision=MixedPrecision(model, "float32"))
    exact = loss_and_gradients(model, batch, labels)
    name = "bert.encoder.layer.1.output.dense.weight"
    assert sums.gradients[name].dtype == np.float64
    error = np.linalg.norm(sums.gradients[name] - exact.gradients[name]) / np.linalg.norm(exact.gradients[name])
    assert 0 < error < 24 * 2.0**-24


@pytest.mark.parametrize(
    ("backend", "dtype", "narrow", "error", "says"),
    [
        ("torch", "float32", "float16", InputError, "scaled loss"),
        ("torch", "float32", "float32", InputError, "not narrower"),
        ("torch", "bfloat16", "float32", InputError, "not narrower"),
        ("numpy", "float32", "bfloat16", Unsupported, "does not offer dtype"),
    ],
)
def test_what_it_refuses(backend, dtype, narrow, error, says):
    with pytest.raises(error, match=says):
        MixedPrecision(small.model(backend, dtype), narrow)
