"""A team of Python threads that each compute their own part, with BLAS held to one thread meanwhile.

NumPy gives up the interpreter lock inside products and elementwise operations, so threads that each run whole layers on
their own rows keep all cores busy; BLAS's own threads would only share the products, with a wait after each, and leave
everything between to one core. In numbers (two cores, bert-base, 8 × 128, forward): 1169 -> 1020 ms.

BLAS has one thread count for the whole process, and the last bits of a product depend on it. So whoever computes with
several threads, BLAS's own or a team's, does so alone (`alone`): callers in several threads take turns and get the bits
that each of them gets by itself. With BLAS on one thread to begin with (OPENBLAS_NUM_THREADS=1) nobody waits.
"""

from __future__ import annotations

import contextvars
import ctypes
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache
from queue import SimpleQueue
from typing import Any

import numpy as np

from refbert_numpy.memory import Array
from refbert_numpy.partition import partition

SHARE = 1 << 22  # multiplications that are worth a thread: 0.1 ms of them


# How OpenBLAS spells its two functions: in NumPy's own wheels, in others', in a distribution's.
_SPELLINGS = ("scipy_openblas_{}_num_threads64_", "scipy_openblas_{}_num_threads",
              "openblas_{}_num_threads64_", "openblas_{}_num_threads")  # fmt: skip


@cache
def _controls() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """OpenBLAS's (get, set) of its thread count, or None where NumPy's BLAS is another (Accelerate, MKL).

    A symbol is looked up in the library named and in what that was linked with: so the extension module will do.
    Not threadpoolctl: it sets the count for the first thread that asks, and for any other does nothing, silently.
    """
    try:
        library: Any = ctypes.PyDLL(np._core._multiarray_umath.__file__)  # type: ignore[attr-defined]
    except (AttributeError, OSError):
        return None
    for spelling in _SPELLINGS:
        read, write = (getattr(library, spelling.format(verb), None) for verb in ("get", "set"))
        if read and write:
            read.argtypes, read.restype = (), ctypes.c_int
            write.argtypes, write.restype = (ctypes.c_int,), None
            return read, write
    return None


def threads() -> int:
    """How many threads NumPy's products use (OPENBLAS_NUM_THREADS and OMP_NUM_THREADS count); 1 if nobody can say.

    While a team computes, that is how many they used before: no caller's share of the work depends on another's.
    """
    found = _controls()
    if found is None:
        return 1
    while True:
        changes, before = _turn.changes, _turn.before
        count = found[0]()
        if changes == _turn.changes:
            return max(1, before or count)


class _Turn:
    """The process's one turn at computing with several threads; inside, BLAS is on one of them.

    A thread that has it may take it again (a signal's handler that computes, say).
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.changes = 0
        self.before: int | None = None  # BLAS's count, while it is held to one
        self._depth = 0

    def __enter__(self) -> None:
        self.lock.acquire()
        self._depth += 1
        found = _controls()
        if self._depth == 1 and found is not None:
            self.before = found[0]()
            self.changes += 1  # before the count is another: `threads` looks twice
            found[1](1)

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        found = _controls()
        if self._depth == 0 and self.before is not None and found is not None:
            found[1](self.before)
            self.changes += 1
            self.before = None
        self.lock.release()


_turn = _Turn()


def alone(*, each: bool) -> AbstractContextManager[object]:
    """Inside, no other thread computes with several threads; ``each``: BLAS on one thread, for a team's members."""
    if threads() == 1:
        return nullcontext()
    return _turn if each else _turn.lock


def product(x: Array, w: Array) -> Array:
    """x [N, I] times w [I, O], with the columns of w shared by a team; a small product by the caller alone.

    BLAS's own threads are not used even there: once woken, OpenBLAS's keep their cores busy for 0.1 s, waiting for more
    (bert-base, 1 × 16: the pooler's one row doubled the time of the forward that came after).
    """
    y = np.empty((len(x), w.shape[1]), x.dtype)
    size = min(threads(), x.size * w.shape[1] // SHARE)
    if size < 2:
        with alone(each=True):
            np.matmul(x, w, out=y)
        return y
    columns = partition(w.shape[1], size)

    def part(t: int) -> None:
        np.matmul(x, w[:, columns[t]], out=y[:, columns[t]])

    Team(size).run(part)
    return y


class Team:
    """``size`` threads, the caller's among them. ``run`` calls work(0) … work(size − 1) at once.

    Inside, ``sync`` waits for all. If one fails, the others stop at their next ``sync``, and ``run`` raises its error.

    Queues instead of `concurrent.futures` and `threading.Barrier`: a run takes 13 µs where it took 39, a sync 5 instead
    of 15. A layer has one of the one, and three of the other.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._begin()

    def _begin(self) -> None:
        self._arrivals = itertools.count()
        # Two gates by turns: who hurries on to the next sync finds nothing there that was meant for a slower one.
        self._gates: tuple[SimpleQueue[bool], SimpleQueue[bool]] = (SimpleQueue(), SimpleQueue())

    def run(self, work: Callable[[int], None]) -> None:
        """Call work(t) for every t, each in a copy of the caller's context (NumPy's errstate is part of it)."""
        if self.size == 1:
            with alone(each=False):
                work(0)
            return

        def guarded(t: int) -> BaseException | None:
            try:
                work(t)
            except BaseException as error:  # noqa: BLE001  raised below, once the other threads have stopped
                for gate in self._gates:
                    for _ in range(self.size):
                        gate.put(False)
                return error
            return None

        with alone(each=True), _lent(self.size - 1) as workers:
            done: SimpleQueue[BaseException | None] = SimpleQueue()
            for t, tasks in enumerate(workers, 1):
                tasks.put((contextvars.copy_context(), guarded, t, done))
            errors = [error for error in (guarded(0), *(done.get() for _ in range(1, self.size))) if error is not None]
        if errors:
            self._begin()
            raise next((e for e in errors if not isinstance(e, threading.BrokenBarrierError)), errors[0])

    def sync(self) -> None:
        """Wait until every thread is here."""
        if self.size == 1:
            return
        turn, place = divmod(next(self._arrivals), self.size)
        gate = self._gates[turn % 2]
        if place == self.size - 1:
            for _ in range(place):
                gate.put(True)
        elif not gate.get():
            raise threading.BrokenBarrierError


_Task = tuple[contextvars.Context, Callable[[int], Any], int, SimpleQueue[Any]]
_Tasks = SimpleQueue[_Task | None]
_idle: list[_Tasks] = []  # the tasks of one thread each that has nothing to do


@contextmanager
def _lent(count: int) -> Iterator[list[_Tasks]]:
    """Threads that are the caller's alone: two teams could each wait for a thread that the other has."""
    workers = [_taken() for _ in range(count)]
    try:
        yield workers
    except BaseException:  # an interrupt: they may still be at work
        for tasks in workers:
            tasks.put(None)
        raise
    _idle.extend(reversed(workers))


def _taken() -> _Tasks:
    with suppress(IndexError):
        return _idle.pop()
    tasks: _Tasks = SimpleQueue()
    threading.Thread(target=_serve, args=(tasks,), name=f"refbert-numpy-{next(_numbers)}", daemon=True).start()
    return tasks


_numbers = itertools.count()


def _serve(tasks: _Tasks) -> None:
    while (task := tasks.get()) is not None:
        context, work, t, done = task
        done.put(context.run(work, t))
        del task, context, work, done  # and with them the caller's arrays, for as long as there is nothing to do


def _after_fork() -> None:
    """In the child: threads do not survive a fork."""
    _idle.clear()
    _turn.lock.release()


if hasattr(os, "register_at_fork"):
    # Not while another thread computes: the child would find BLAS, and the turn, as that thread had them.
    os.register_at_fork(before=_turn.lock.acquire, after_in_parent=_turn.lock.release, after_in_child=_after_fork)
