"""What the numpy backend's training step stands on: threads, memory that is used again, updates in place."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
import warnings

import numpy as np
import pytest

from refbert import ops
from refbert.backend import registry
from refbert.training import Optimizer
from refbert_numpy import memory, threads, updates
from refbert_numpy.memory import Recycler


def test_memory_is_used_again_only_when_nobody_holds_it():
    memory = Recycler("float32")
    x = memory.take(30, 40)
    address = x.ctypes.data
    assert address % 64 == 0
    views = [x[3:], x.reshape(-1)[7:], x.T[:, ::2], memoryview(x), np.asarray(memoryview(x))]
    del x
    while views:
        assert memory.take(30, 40).ctypes.data != address
        views.pop(0)
    gc.collect()
    assert address in {memory.take(30, 40).ctypes.data for _ in range(2)} | {
        one.ctypes.data for one in [memory.take(30, 40), memory.take(30, 40)]
    }


def test_memory_is_not_wasted_on_small_arrays_nor_kept_for_shapes_gone_by():
    memory = Recycler("float64")
    large = memory.take(1000).ctypes.data
    assert memory.take(100).ctypes.data != large
    assert memory.take(900).ctypes.data == large
    memory.forget()
    assert memory.take(900).ctypes.data == large  # taken since
    memory.forget()
    memory.forget()
    assert not memory._free


@pytest.mark.parametrize("dtype", ["float32", "float64", bool])
@pytest.mark.parametrize("size", [1, 1000, 1 << 20])
def test_memory_begins_with_a_cache_line(size, dtype):
    arrays = [memory.aligned(size, dtype) for _ in range(3)]
    assert {array.ctypes.data % 64 for array in arrays} == {0}
    assert {(array.shape, array.dtype) for array in arrays} == {((size,), np.dtype(dtype))}
    for array in arrays:
        array.fill(1)
    assert memory.aligned(0, dtype).shape == (0,)


def test_scratch_is_a_threads_own_and_used_again():
    single, double = np.dtype("float32"), np.dtype("float64")
    first = memory.scratch(12, single)
    assert first.size >= 12
    assert not np.shares_memory(memory.scratch(12, single), first)  # an interrupt that computes
    memory.give_back(first)
    assert memory.scratch(7, single) is first
    memory.give_back(first)
    assert memory.scratch(12, double).dtype == double
    found = []
    thread = threading.Thread(target=lambda: found.append(memory.scratch(7, single)))
    thread.start()
    thread.join()
    assert not np.shares_memory(found[0], first)
    assert len(memory.scratch(len(first) + 1, single)) > len(first)


def test_a_call_within_a_call_has_a_workspace_of_its_own():
    backend = registry.create("numpy")
    first, second = backend._workspace(), backend._workspace()
    assert first is not second
    p = {"attention.self.query.bias": np.zeros(4)}
    with pytest.raises(KeyError):  # what an interrupt would leave to a thread that is still writing
        backend.packed_encoder_layer(np.ones((2, 4)), p, lengths=np.array([2]), heads=2, activation="relu", eps=1e-5)
    assert not backend._idle


def test_no_two_threads_get_the_same_memory():
    recycler, wrong = Recycler("float32"), []

    def work(t):
        for i in range(3000):
            array = recycler.take(50 + i % 3)
            array.fill(t)
            mine = [array, recycler.take(50)]
            mine[1].fill(t)
            wrong.extend(x for x in mine if not (x == t).all())

    everyone = [threading.Thread(target=work, args=(t,)) for t in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for one in everyone:
            one.start()
        for one in everyone:
            one.join(60)
    finally:
        sys.setswitchinterval(interval)
    assert not wrong


def test_every_thread_works_and_waits_for_the_others():
    team, seen, after = threads.Team(3), set(), []

    def work(t):
        seen.add(t)
        team.sync()
        after.append(len(seen))

    team.run(work)
    assert seen == {0, 1, 2}
    assert after == [3, 3, 3]


@pytest.mark.parametrize("who", [0, 2])
def test_an_error_in_one_thread_ends_the_others_and_the_team_goes_on(who):
    team, before = threads.Team(3), threads.threads()

    def work(t):
        if t == who:
            raise ZeroDivisionError("this one")
        team.sync()

    for _ in range(2):
        with pytest.raises(ZeroDivisionError, match="this one"):
            team.run(work)
    team.run(lambda t: team.sync())
    assert threads.threads() == before


@pytest.fixture
def blas(monkeypatch):
    """Stands for OpenBLAS's count, which the tests' own process holds at one: [4]."""
    count = [4]
    monkeypatch.setattr(threads, "_controls", lambda: (lambda: count[0], lambda n: count.__setitem__(0, n)))
    return count


def test_blas_has_one_thread_meanwhile_and_its_own_again_afterwards(blas):
    inside = []
    threads.Team(2).run(lambda t: inside.append((blas[0], threads.threads())))
    assert inside == [(1, 4), (1, 4)]  # how much work a thread gets does not depend on who else is at work
    assert blas == [4]


def test_threads_obey_the_callers_error_state():
    team = threads.Team(2)
    with np.errstate(divide="ignore"):
        team.run(lambda t: np.divide(np.ones(1), 0))
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        team.run(lambda t: np.divide(np.ones(1), t))


def test_teams_of_several_callers_take_turns():
    done = []

    def caller():
        team = threads.Team(3)
        for _ in range(20):
            team.run(lambda t: team.sync())
        done.append(True)

    callers = [threading.Thread(target=caller) for _ in range(3)]
    for one in callers:
        one.start()
    for one in callers:
        one.join(60)
    assert done == [True] * 3


def test_blas_keeps_one_thread_until_the_last_caller_leaves(blas):
    with threads.alone(each=True):
        with threads.alone(each=True), threads.alone(each=False):
            pass
        assert blas == [1]
    assert blas == [4]


@pytest.mark.parametrize("each", [True, False])
@pytest.mark.parametrize("count", [1, 4])
def test_with_several_threads_one_caller_computes_at_a_time(blas, each, count):
    blas[0] = count
    entered, leave = threading.Event(), threading.Event()

    def other():
        with threads.alone(each=each):
            entered.set()

    thread = threading.Thread(target=other)
    with threads.alone(each=False):
        thread.start()
        assert entered.wait(0.2) is (count == 1)
    assert entered.wait(30)
    leave.set()
    thread.join(30)
    assert blas == [count]


def test_an_interrupt_may_compute_with_a_team_of_its_own(blas):
    """As a signal's handler does that runs in the midst of the caller's own part."""
    found = []

    def work(t):
        team.sync()
        if t == 0:
            inner = threads.Team(2)
            inner.run(lambda t: (inner.sync(), found.append(t)))
        team.sync()

    team = threads.Team(2)
    caller = threading.Thread(target=team.run, args=(work,), daemon=True)
    caller.start()
    caller.join(30)
    assert not caller.is_alive()
    assert sorted(found) == [0, 1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_fork_waits_for_who_has_the_turn_and_the_child_computes(blas):
    entered = threading.Event()

    def holder():
        with threads.alone(each=True):
            entered.set()
            time.sleep(0.3)

    thread = threading.Thread(target=holder)
    thread.start()
    entered.wait(30)
    child = os.fork()
    if child == 0:
        inside = [blas[0]]
        threads.Team(2).run(lambda t: inside.append(blas[0]))
        os._exit(0 if inside == [4, 1, 1] and blas == [4] else 1)
    for _ in range(300):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.1)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        status = -1
    thread.join(30)
    assert status == 0


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("share", [1, 40, 1 << 22])
@pytest.mark.parametrize("shape", [(0, 4, 3), (1, 4, 7), (5, 4, 2), (5, 0, 3), (6, 4, 0)])
def test_a_product_is_the_product_and_blas_shares_none_of_it(monkeypatch, blas, size, share, shape):
    monkeypatch.setattr(threads, "SHARE", share)
    blas[0] = size
    N, rows, columns = shape
    rng = np.random.default_rng(0)
    x, w = rng.integers(-9, 9, (N, rows)).astype(float), rng.integers(-9, 9, (columns, rows)).astype(float)
    inside, product = [], np.matmul
    with monkeypatch.context() as patch:
        patch.setattr(np, "matmul", lambda *a, **k: (inside.append(blas[0]), product(*a, **k))[1])
        y = threads.product(x, w.T)
    assert np.array_equal(y, x @ w.T)  # whole numbers: no rounding
    assert y.shape == (N, columns)
    assert 1 <= len(inside) <= size
    assert set(inside) == {1}
    assert blas == [size]


def test_without_control_of_blas_there_is_one_thread(monkeypatch):
    monkeypatch.setattr(threads, "_controls", lambda: None)
    assert threads.threads() == 1
    threads.Team(2).run(lambda t: None)


OPTIONS = {"lr": 0.1, "beta1": 0.9, "beta2": 0.999, "eps": 1e-6, "weight_decay": 0.01}


@pytest.mark.parametrize("rule", ["bert_adam", "adamw", "lamb"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_update_in_place_has_the_references_bits(monkeypatch, rule, dtype):
    monkeypatch.setattr(updates, "BLOCK", 16)
    monkeypatch.setattr(threads, "threads", lambda: 3)
    rng = np.random.default_rng(0)
    p, g, m, v = (rng.random((7, 11)).astype(dtype) for _ in range(4))
    options = OPTIONS | ({} if rule == "bert_adam" else {"step": 3})
    expected = getattr(ops, rule)(p, g * 0.3, m, v, **options)
    old = p.copy()
    p.flags.writeable = False
    got = registry.create("numpy", dtype=dtype).update(rule, p, g, m, v, scale=0.3, step=3, **OPTIONS)
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == np.dtype(dtype)
        assert np.array_equal(one, other)
    assert np.array_equal(p, old)


def test_moments_that_cannot_be_written_to_are_copied():
    p, g, m, v = (np.full(5, 0.5, np.float32) for _ in range(4))
    m.flags.writeable = v.flags.writeable = g.flags.writeable = False
    new = registry.create("numpy").update("bert_adam", p, g, m, v, scale=1.0, step=1, **OPTIONS)
    assert not any(np.shares_memory(x, y) for x in new for y in (p, g, m, v))


def test_the_norm_is_the_references(monkeypatch):
    monkeypatch.setattr(updates, "BLOCK", 16)
    rng = np.random.default_rng(0)
    gradients = {"a": rng.standard_normal((7, 11)), "b": rng.standard_normal(3), "c": np.zeros((0, 2))}
    _, expected = ops.clip_by_global_norm(gradients, max_norm=1.0)
    assert abs(updates.global_norm(gradients) - expected) <= 80 * 2.0**-53 * expected
    assert updates.global_norm({}) == 0
    assert updates.global_norm({"a": np.array([1.0, np.nan])}) != updates.global_norm({"a": np.ones(2)})


def test_a_step_leaves_the_gradients_and_apply_takes_them():
    rng = np.random.default_rng(0)
    backend = registry.create("numpy")
    parameters = {"w": rng.standard_normal((3, 4)).astype(np.float32)}
    gradients = {"w": rng.standard_normal((3, 4)).astype(np.float32)}
    old = {name: x.copy() for name, x in (parameters | {"g": gradients["w"]}).items()}
    stepping, applying = Optimizer(), Optimizer()
    new, norm = stepping.step(backend, parameters, gradients, lr=0.1)
    assert np.array_equal(gradients["w"], old["g"])
    taken = dict(parameters)
    with warnings.catch_warnings():
        assert applying.apply(backend, taken, gradients, lr=0.1) == norm
    assert not gradients
    assert np.array_equal(taken["w"], new["w"])
    assert np.array_equal(parameters["w"], old["w"])
    assert np.array_equal(applying.m["w"], stepping.m["w"])
