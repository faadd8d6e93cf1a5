"""The backends numpy and torch: every op and its gradient against refbert.ops in float64, within derived bounds."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from op_cases import BAD_ARGUMENTS, CASES, RATES, check, model_difference

from refbert import ops
from refbert.backend import UNIT_ROUNDOFF, Backend, FusedEncoderLayer, methods, registry

BACKENDS = ("numpy", "torch")
WIDE = ("float64", "float32")


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES)
def test_op(case, backend, dtype):
    check(registry.create(backend, dtype=dtype), case)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("profile", ["hf", "google"])
def test_every_head_with_dropout(backend, profile):
    """The bounds count roundings: see test_cupy.test_the_spec_on_the_stand_in."""
    assert model_difference(registry.create(backend, dtype="float64"), profile) < 2**-40
    assert model_difference(registry.create(backend, dtype="float32"), profile) < 2**-11


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_signatures_are_the_contracts(backend):
    made = registry.create(backend)
    for protocol in (Backend, FusedEncoderLayer):
        for name in methods(protocol):
            if hasattr(made, name):
                ours = inspect.signature(getattr(made, name)).parameters.values()
                theirs = list(inspect.signature(getattr(protocol, name)).parameters.values())[1:]
                assert [(p.name, p.kind, p.default) for p in ours] == [(p.name, p.kind, p.default) for p in theirs], (
                    name
                )


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
@pytest.mark.parametrize(("op", "shapes", "options", "error"), BAD_ARGUMENTS)
def test_bad_arguments_raise_what_the_reference_raises(backend, op, shapes, options, error):
    made = registry.create(backend)
    with pytest.raises(error):
        getattr(made, op)(*(made.asarray(np.ones(shape)) for shape in shapes), **options)


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rule", ["bert_adam", "adamw", "lamb"])
def test_updates(rule, backend, dtype):
    rng = np.random.default_rng(0)
    arrays = [x.astype(dtype).astype(np.float64) for x in (*rng.standard_normal((3, 5, 4)), rng.random((5, 4)))]
    options = RATES | ({} if rule == "bert_adam" else {"step": 3})
    made = registry.create(backend, dtype=dtype)
    got = made.update(rule, *(made.asarray(a.copy()) for a in arrays), scale=1.0, step=3, **RATES)
    u = UNIT_ROUNDOFF[dtype]
    for ours, reference in zip(got, getattr(ops, rule)(*arrays, **options), strict=True):
        # About 20 roundings in a row and, in LAMB, norms over 20 entries; the numbers are of size 1.
        assert np.abs(made.to_numpy(ours) - reference).max() <= 40 * u * max(1, np.abs(reference).max())


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_norm(backend):
    rng = np.random.default_rng(0)
    gradients = {"a": rng.standard_normal((5, 4)), "b": rng.standard_normal(3)}
    made = registry.create(backend, dtype="float64")
    _, norm = ops.clip_by_global_norm(gradients, max_norm=1.0)
    ours = made.global_norm({name: made.asarray(g) for name, g in gradients.items()})
    assert abs(ours - norm) <= 23 * 2**-53 * norm  # a sum over 23 squares, in any order


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_a_rule_that_is_not_there(backend):
    made = registry.create(backend)
    with pytest.raises(NotImplementedError, match="sgd"):
        made.update("sgd", *(made.asarray(np.ones(2)) for _ in range(4)), scale=1.0, step=1, **RATES)


def cuda():
    import torch

    return torch.cuda.is_available()


@pytest.mark.gpu
@pytest.mark.skipif(not cuda(), reason="no CUDA device")
class TestTorchOnTheGpu:
    @pytest.mark.parametrize("dtype", WIDE)
    @pytest.mark.parametrize("case", CASES)
    def test_op(self, case, dtype):
        check(registry.create("torch", dtype=dtype, device="cuda"), case)

    @pytest.mark.parametrize("profile", ["hf", "google"])
    def test_every_head_with_dropout(self, profile):
        assert model_difference(registry.create("torch", dtype="float64", device="cuda"), profile) < 2**-40
        assert model_difference(registry.create("torch", dtype="float32", device="cuda"), profile) < 2**-11


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_torch_adds_up_the_gradients_of_layer_norm_in_float32(dtype):
    """In bfloat16 the sum of ones stops at 256, where the next number is 258."""
    backend = registry.create("torch", dtype=dtype)
    x = np.random.default_rng(0).standard_normal((1000, 4))
    _, pullback = backend.layer_norm(*(backend.asarray(a) for a in (x, np.ones(4), np.zeros(4))), eps=1e-12)
    _, _, dbeta = pullback(backend.asarray(np.ones((1000, 4))))
    assert np.array_equal(backend.to_numpy(dbeta), np.full(4, 1000.0))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("op", ["embedding", "gather"])
def test_torch_adds_up_the_gradients_of_rows_that_repeat_in_float32(op, dtype):
    """5000 ones stop at 256 in bfloat16, at 2048 in float16. A row that nobody takes gets 0."""
    backend = registry.create("torch", dtype=dtype)
    index = np.tile([[3, 0], [3, 3]], (2500, 1))
    index = index if op == "embedding" else index.reshape(-1)
    y, pullback = getattr(backend, op)(backend.asarray(np.arange(8.0).reshape(4, 2)), index)
    assert np.array_equal(backend.to_numpy(y), np.arange(8.0).reshape(4, 2)[index])
    (gradient,) = pullback(backend.asarray(np.ones((*index.shape, 2))))
    want = backend.to_numpy(backend.asarray(np.array([[2500.0] * 2, [0, 0], [0, 0], [7500] * 2])))
    assert np.array_equal(backend.to_numpy(gradient), want)
