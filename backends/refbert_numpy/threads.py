"""A team of Python threads that each compute their own part, with BLAS held to one thread meanwhile.

NumPy gives up the interpreter lock inside products and elementwise operations, so threads that each run whole layers on
their own rows keep all cores busy; BLAS's own threads would only share the products, with a wait after each, and leave
everything between to one core. In numbers (two cores, bert-base, 8 × 128, forward): 1169 -> 1020 ms.
"""

from __future__ import annotations

import contextvars
import ctypes
import itertools
import os
import threading
from collections.abc import Callable
from functools import cache
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

SHARE = 1 << 22  # multiplications that are worth a thread: 0.1 ms of them
# How OpenBLAS spells its two functions: in NumPy's own wheels, in others', in a distribution's.
_SPELLINGS = tuple(
    (f"{prefix}openblas_get_num_threads{suffix}", f"{prefix}openblas_set_num_threads{suffix}")
    for prefix in ("scipy_", "")
    for suffix in ("64_", "")
)


@cache
def _controls() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """OpenBLAS's (get, set) of its thread count, or None where NumPy's BLAS is another (Accelerate, MKL).

    A symbol is looked up in the library named and in what that was linked with: so the extension module will do.
    """
    try:
        library: Any = ctypes.PyDLL(np._core._multiarray_umath.__file__)  # type: ignore[attr-defined]
    except (AttributeError, OSError):
        return None
    for get, put in _SPELLINGS:
        if hasattr(library, get) and hasattr(library, put):
            read, write = getattr(library, get), getattr(library, put)
            read.argtypes, read.restype = (), ctypes.c_int
            write.argtypes, write.restype = (ctypes.c_int,), None
            return read, write
    return None


def threads() -> int:
    """How many threads NumPy's products use (OPENBLAS_NUM_THREADS and OMP_NUM_THREADS count); 1 if nobody can say."""
    found = _controls()
    return 1 if found is None else max(1, found[0]())


class _OneThreadEach:
    """BLAS on one thread while anybody is inside, then as it was: for the whole process, as OpenBLAS has one count."""

    def __init__(self) -> None:
        self._inside, self._before = 0, 1
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        found = _controls()
        with self._lock:
            self._inside += 1
            if self._inside == 1 and found is not None:
                self._before = found[0]()
                found[1](1)

    def __exit__(self, *_: object) -> None:
        found = _controls()
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and found is not None:
                found[1](self._before)


_one_thread_each = _OneThreadEach()


def shares(n: int, size: int) -> list[slice]:
    """n rows, columns or whatever in ``size`` parts of nearly the same length."""
    return [slice(n * t // size, n * (t + 1) // size) for t in range(size)]


def whole_sequences(starts: Array, size: int) -> list[slice] | None:
    """``size`` shares of whole sequences, given where each one's rows begin, and where the last one's end [B + 1].

    None where the largest share is over 3 % more than it should be. That costs as much as cutting a sequence, for which
    threads wait for each other in every layer: little while both are awake, but after a pause the system was seen to
    keep both on one core, for 5 of the first layer's 18 ms.
    """
    N, B = starts[-1], len(starts) - 1
    cuts = np.abs(starts[:, None] - np.arange(size + 1) * N / size).argmin(axis=0)  # [size + 1]
    cuts[-1] = B  # also where the last sequences have no rows
    if np.diff(starts[cuts]).max() > 1.03 * N / size:
        return None
    return [slice(int(a), int(b)) for a, b in itertools.pairwise(cuts)]


def product(x: Array, w: Array) -> Array:
    """x [N, I] times w [I, O], with the columns of w shared by a team; a small product by the caller alone.

    BLAS's own threads are not used even there: once woken, OpenBLAS's keep their cores busy for 0.1 s, waiting for more
    (bert-base, 1 × 16: the pooler's one row doubled the time of the forward that came after).
    """
    y = np.empty((len(x), w.shape[1]), x.dtype)
    size = min(threads(), x.size * w.shape[1] // SHARE)
    if size < 2:
        with _one_thread_each:
            np.matmul(x, w, out=y)
        return y
    columns = shares(w.shape[1], size)

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

        with _one_at_a_time, _one_thread_each:
            done: SimpleQueue[BaseException | None] = SimpleQueue()
            for t, tasks in enumerate(_workers(self.size - 1), 1):
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


_Tasks = SimpleQueue[tuple[contextvars.Context, Callable[[int], Any], int, SimpleQueue[Any]]]
_one_at_a_time = threading.Lock()  # two teams could each wait for a thread that the other has
_others: list[_Tasks] = []  # one thread's tasks each: as many threads as any team ever needed


def _workers(count: int) -> list[_Tasks]:
    while len(_others) < count:
        tasks: _Tasks = SimpleQueue()
        threading.Thread(target=_serve, args=(tasks,), name=f"refbert-numpy-{len(_others)}", daemon=True).start()
        _others.append(tasks)
    return _others[:count]


def _serve(tasks: _Tasks) -> None:
    while True:
        context, work, t, done = tasks.get()
        done.put(context.run(work, t))
        del context, work, done  # and with them the caller's arrays, for as long as there is nothing to do


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_others.clear)  # threads do not survive a fork
