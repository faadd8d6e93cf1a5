"""A backend in several threads: each call gives what it gives alone, bit for bit, wherever and beside what it runs."""

from __future__ import annotations

import itertools
import sys
import threading

import numpy as np
import pytest

import refbert
from refbert.backend import registry
from refbert.spec.choices import Choices
from refbert.spec.scope import Scope
from refbert_numpy import layer, threads, updates
from refbert_numpy import objective as numpy_objective

NAMES = ("reference", "numpy", "torch")
SIZES = refbert.BertConfig(
    vocab_size=60, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96,
    max_position_embeddings=64,
)  # fmt: skip
HEADS = ("masked_lm", "next_sentence")


@pytest.fixture(autouse=True, params=[1, 2], ids=lambda n: f"blas-{n}")
def hurried(request, monkeypatch):
    """Threads that hand over to each other a thousand times as often as usually; BLAS on one core, and on two."""
    monkeypatch.setattr(numpy_objective, "ENOUGH", 1)  # small cases go where large ones do
    monkeypatch.setattr(layer, "FEW", 16)
    monkeypatch.setattr(updates, "BLOCK", 1 << 12)
    monkeypatch.setattr(threads, "SHARE", 1 << 10)
    get, put = threads._controls() or (lambda: 1, lambda n: None)
    count, interval = get(), sys.getswitchinterval()
    put(request.param)
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(interval)
    put(count)


def at_once(*tasks, rounds=12):
    """Run every task ``rounds`` times, each in a thread of its own, all begun together: their results in order."""
    together, results, errors = threading.Barrier(len(tasks)), {}, []

    def work(t, task):
        try:
            together.wait(30)
            results[t] = [task() for _ in range(rounds)]
        except BaseException as error:  # noqa: BLE001  raised below, in the test's own thread
            errors.append(error)

    everyone = [threading.Thread(target=work, args=one) for one in enumerate(tasks)]
    for one in everyone:
        one.start()
    for one in everyone:
        one.join(120)
    if errors:
        raise errors[0]
    assert not any(one.is_alive() for one in everyone)
    return [results[t] for t in range(len(tasks))]


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(itertools.starmap(same, zip(a, b, strict=True)))
    return np.array_equal(a, b, equal_nan=True)


def check(*tasks, rounds=12):
    alone = [task() for task in tasks]
    for want, found in zip(alone, at_once(*tasks, rounds=rounds), strict=True):
        assert all(same(one, want) for one in found)


def made(name, dtype=None):
    pytest.importorskip("torch") if name == "torch" else None
    return registry.create(name, dtype=dtype)


def model(backend, seed=1, **more):
    return refbert.from_config(SIZES, backend=backend, heads=HEADS, seed=seed, **more)


def batch(seed, B, S, mask=True):
    rng = np.random.default_rng(seed)
    seen = (np.arange(S) < rng.integers(1, S + 1, B)[:, None]).astype(int) if mask else np.ones((B, S), int)
    return refbert.Batch(rng.integers(0, 60, (B, S)), attention_mask=seen)


def labels(one, seed=0):
    rng = np.random.default_rng(seed)
    found = np.where(rng.random(one.shape) < 0.3, rng.integers(0, 60, one.shape), -100)
    found[0, 0] = 3
    return {"labels": found, "next_sentence_label": rng.integers(0, 2, len(found))}


def op_tasks(backend, seed):
    """Operations with their pullbacks, on shapes that differ from thread to thread."""
    rng = np.random.default_rng(seed)
    B, S, A, D = 2 + seed, 9 + 5 * seed, 4, 8
    x, q, k, v = (backend.asarray(rng.standard_normal((B, S, A * D))) for _ in range(4))
    w, bias, gamma = (backend.asarray(rng.standard_normal(shape)) for shape in ((A * D, A * D), A * D, A * D))
    mask = batch(seed, B, S).attention_mask

    def run():
        found = []
        for op, arrays, options in (
            ("linear", (x, w, bias), {}),
            ("layer_norm", (x, gamma, bias), {"eps": 1e-12}),
            ("gelu", (x,), {"form": "erf"}),
            ("softmax", (x,), {}),
            ("attention", (q, k, v), {"mask": mask, "heads": A, "mask_value": -np.inf}),
            ("attention_probabilities", (q, k), {"mask": mask, "heads": A, "mask_value": -10000.0}),
        ):
            y, back = getattr(backend, op)(*arrays, **options)
            found.append([backend.to_numpy(one).copy() for one in (y, *back(y))])
        return found

    return run


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_operations(name, dtype):
    backend = made(name, dtype)
    check(*(op_tasks(backend, seed) for seed in range(3)), rounds=6)


@pytest.mark.parametrize("name", ["numpy", "torch"])
@pytest.mark.parametrize("size", [(1, 5), (3, 20), (12, 60)])  # by BLAS's own threads, by heads, by rows
def test_fused_layers(name, size):
    backend = made(name)
    ours = model(backend)
    p = Scope(ours.parameters, "bert.encoder.layer.0.")
    c = Choices.of(SIZES, ours.profile)
    options = {"heads": c.heads, "activation": c.activation, "eps": c.layer_norm_eps}

    def padded(seed):
        B, S = size[0], size[1] - seed
        x, mask = backend.asarray(np.random.default_rng(seed).standard_normal((B, S, 48))), batch(seed, B, S)
        return lambda: backend.to_numpy(
            backend.encoder_layer(x, p, mask=mask.attention_mask, mask_value=-np.inf, **options)
        ).copy()

    def packed(seed):
        lengths = np.random.default_rng(seed).integers(1, size[1] + 1, size[0])
        x = backend.asarray(np.random.default_rng(seed).standard_normal((lengths.sum(), 48)))
        return lambda: backend.to_numpy(backend.packed_encoder_layer(x, p, lengths=lengths, **options)).copy()

    check(padded(0), padded(1), packed(2), packed(3))


@pytest.mark.parametrize("name", NAMES)
def test_models(name):
    """The whole model: forward, loss and gradients, and a change of what is asked for."""
    backend = made(name)
    ours = model(backend)
    one, other = batch(0, 3, 12), batch(1, 5, 30)

    def gradients(given, draws):
        return lambda: ours.loss_and_gradients(given, labels(given), dropout=draws)

    check(
        lambda: ours(one).last_hidden_state,
        lambda: ours(other, output_attentions=True).attentions,
        gradients(other, None),
        gradients(one, refbert.Dropout(3)),
        rounds=5,
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_pullback_belongs_to_its_own_forward(name, checkpointing):
    """Made here, called elsewhere, and by two at once, with other steps between and other parameters by then."""
    from dataclasses import replace

    from refbert.spec.bert import objective

    backend = made(name)
    ours, other = model(backend), model(backend, seed=2)
    c = replace(Choices.of(SIZES, ours.profile), gradient_checkpointing=checkpointing)
    step = getattr(backend, "objective", None) or (lambda *a, **k: objective(backend, *a, **k))
    given, else_given = batch(0, 4, 20), batch(1, 6, 31)
    one = backend.asarray(np.ones(()))

    def numbers(found):
        return {key: backend.to_numpy(x).copy() for key, x in found.items()}

    def forward(parameters, of):
        return step(parameters, of, labels(of), HEADS, c)[2]

    want, want_other = (numbers(forward(m.parameters, of)(one)) for m, of in ((ours, given), (other, else_given)))
    parameters = dict(ours.parameters)
    pullback = forward(parameters, given)
    parameters.update(other.parameters)  # as an optimizer does, name by name
    found = at_once(
        lambda: numbers(pullback(one)), lambda: numbers(pullback(one)),
        lambda: numbers(forward(other.parameters, else_given)(one)), rounds=2,
    )  # fmt: skip
    for results, right in zip(found, (want, want, want_other), strict=True):
        assert all(same(result, right) for result in results)


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_updates(name):
    backend = made(name)
    rng = np.random.default_rng(0)
    first = [rng.random((300, 700)).astype(np.float32) for _ in range(4)]
    options = {"lr": 0.1, "beta1": 0.9, "beta2": 0.999, "eps": 1e-6, "weight_decay": 0.01, "step": 3}

    def update():
        new = backend.update("adamw", *(backend.asarray(x.copy()) for x in first), scale=0.3, **options)
        norm = backend.global_norm({"g": backend.asarray(first[1])})
        return [backend.to_numpy(x).copy() for x in new], norm

    ours = model(backend)
    check(update, update, lambda: ours(batch(0, 12, 60)).last_hidden_state, rounds=5)


def test_another_instance_is_another():
    """One instance beside another, of this dtype or that: the process's own settings are nobody's alone."""
    tasks = []
    for dtype in ("float32", "float64", "float32"):
        ours, given = model(made("numpy", dtype)), batch(0, 12, 60)
        tasks.append(lambda ours=ours, given=given: ours(given).last_hidden_state)
    check(*tasks, rounds=4)
