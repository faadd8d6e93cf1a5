"""Tolerances for what is composed of many ops: the reference itself, run with noise of the size of every op's bound.

Adding up worst cases through twelve layers gives a bound that no bug exceeds. Rounding errors do not conspire, and
their joint effect can be measured on the reference. Every op's result, forward and backward, is moved at random
in [−E, E], entry by entry, with E the op's own bound in ``probable`` arithmetic (`bounds`, `running_error`); the rest
of the computation carries the noise on, with its true sensitivities, through everything that is nonlinear. (Monte Carlo
arithmetic: Parker 1997; for the same idea by one backward pass, √Σ(∂s/∂z_i E_i)², see Wilkinson's statistical error
analysis and Higham & Mary 2019, Thm 2.4.)

    s̃ − s ≈ Σ_i g_i δ_i,      δ_i uniform in [−E_i, E_i], independent,     σ² = Σ g_i² E_i²/3

A uniform δ is sub-Gaussian with its own variance (Bobkov & Chistyakov's "strictly sub-Gaussian"; directly, E[e^{λδ}] =
sinh(λE)/(λE) ≤ e^{λ²E²/6}), so P(|s̃ − s| > tσ) ≤ 2 e^{−t²/2}: t = 7.5 makes that 10⁻¹². The variance is the mean over
SAMPLES noisy runs, taken row by row over the last axis; a row's share is not taken below a quarter of the tensor's
average, so that a lucky row does not fail anyone.

That s̃ − s is a sum of single δ holds while the output depends on some of them to first order. Where it does not, as
where a LayerNorm over one feature lets no gradient pass, what rounding leaves is a product of k such sums, whose tail
is longer: if |X_1 ⋯ X_k| > t^k σ_1 ⋯ σ_k, then some |X_i| > t σ_i, which has probability 2k e^{−t²/2}. So T^k takes the
place of T. `orders` measures k: with STRONGER times the same noise, errors grow STRONGER^k times.

That errors are independent is an assumption: E_i takes every function to be as bad as the worst that is allowed, and
every sum to be in the worst order, several times what an op really commits, and that is the room that it needs. Correct
backends use a hundredth to a sixth of the tolerance. It is never used for a single op.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np

from refbert import ops
from refbert.backend import Host
from refbert.backend.reference import ReferenceBackend
from refbert.backend.wrapper import Wrapper
from refbert_conformance.tolerances.arithmetic import Arithmetic
from refbert_conformance.tolerances.bounds import ARRAYS, Expected, expecting, normed, updated

SAMPLES = 6
FEW = 4  # where a run takes long: rows are long then, and their norms differ less from run to run
T = 7.5
STRONGER = 8

Run = Callable[[Any], Mapping[str, Host]]


class Noisy(Wrapper):
    """refbert.ops in float64, every result moved by up to ``times`` E. E comes from the first run and is used again in
    the others: the inputs of an op change by no more than the noise, and E by no more than that share of itself."""

    def __init__(
        self, arithmetic: Arithmetic, seed: int, sizes: list[Any] | None = None, *, times: float = 1.0
    ) -> None:
        super().__init__(ReferenceBackend())
        self._arithmetic = arithmetic
        self._rng = np.random.default_rng(seed)
        self._recorded = sizes
        self.sizes: list[Any] = [] if sizes is None else sizes
        self._next = 0
        self._times = times

    def moved(self, values: Iterable[Host], due: Callable[[], Sequence[Expected]]) -> list[Host]:
        """Each value moved within its bound, which is computed or remembered."""
        if self._recorded is None:
            self.sizes.append([one.bound if np.any(one.bound) else None for one in due()])
        found = self.sizes[self._next]
        self._next += 1
        return [
            np.asarray(v) if e is None else v + self._times * e * self._rng.uniform(-1, 1, np.shape(v))
            for v, e in zip(values, found, strict=True)
        ]

    def call(self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """The reference's result, moved."""
        if name in ARRAYS:
            return self._op(name, function, arguments, options)
        if name == "update":
            due = partial(updated, arguments[0], arguments[1:], options, self._arithmetic)
            p, m, v = self.moved(function(*arguments, **options), due)
            return p, m, np.maximum(v, 0)
        if name == "global_norm":
            (norm,) = self.moved([function(*arguments)], lambda: [normed(arguments[0], self._arithmetic)])
            return float(norm)
        return function(*arguments, **options)

    def _op(
        self, op: str, function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[Host, Callable[[Host], tuple[Host, ...]]]:
        arrays, options = by_name(op, arguments, options)
        y, back = function(*arrays, **options)
        bounds = lru_cache(1)(lambda: expecting(op, arrays, options, self._arithmetic))
        (y,) = self.moved([y], lambda: [bounds()[0]])
        return y, lambda dy: tuple(self.moved(back(dy), lambda: bounds()[1](dy)))


def by_name(op: str, arguments: Sequence[Any], options: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """An op's arrays, and by name all else that it was given: shape, axes, ids and positions may come by position."""
    given = dict(zip(_names(op), arguments, strict=False), **options)
    return tuple(given.pop(name) for name in ARRAYS[op]), given


@cache
def _names(op: str) -> tuple[str, ...]:
    return tuple(inspect.signature(getattr(ops, op)).parameters)


def runs(
    run: Run, arithmetic: Arithmetic, *, samples: int = SAMPLES, times: float = 1.0
) -> Iterator[Mapping[str, Host]]:
    """What ``run(backend)`` returns on the reference, and then on the reference with ``times`` the noise, ``samples``
    times."""
    arithmetic = replace(arithmetic, probable=True)
    yield run(ReferenceBackend())
    sizes: list[Any] | None = None
    for seed in range(samples):
        noisy = Noisy(arithmetic, seed, sizes, times=times)
        yield run(noisy)
        sizes = noisy.sizes


def allowed(variance: Host) -> Host:
    """How far rounding may take rows whose squared distance is so much on average."""
    floor = variance.mean() / 16 if variance.size else 0.0
    distance = T * np.sqrt(np.maximum(variance, floor))
    return np.where(np.isnan(distance), np.inf, distance)


def tolerances(run: Run, arithmetic: Arithmetic, *, samples: int = SAMPLES) -> list[Expected]:
    """The reference of everything that ``run(backend)`` returns, and what each row of it may be off by, by name.

    ``bound`` has the output's shape, with one number per row: compare norms of rows (`measure.row_worst`), not entries.
    """
    return due(*distances(run, arithmetic, samples=samples))


def due(reference: Mapping[str, Host], squares: Mapping[str, Host]) -> list[Expected]:
    """`tolerances`, of `distances`."""
    return [Expected(name, np.asarray(y), np.asarray(allowed(squares[name]))) for name, y in reference.items()]


def orders(run: Run, arithmetic: Arithmetic, squares: Mapping[str, Host], *, samples: int = SAMPLES) -> dict[str, Host]:
    """Of every row of everything that ``run(backend)`` returns: of how many errors its own error is a product.

    squares: those that `distances` gives for as many ``samples``.
    """
    _, more = distances(run, arithmetic, samples=samples, times=STRONGER)
    with np.errstate(all="ignore"):
        grown = {name: np.log(more[name] / square) / np.log(STRONGER**2) for name, square in squares.items()}
    return {name: np.maximum(np.where(np.isfinite(k), np.rint(k), 1), 1) for name, k in grown.items()}


def distances(
    run: Run, arithmetic: Arithmetic, *, samples: int = SAMPLES, times: float = 1.0
) -> tuple[Mapping[str, Host], dict[str, Host]]:
    """The reference, and the mean square of how far ``times`` the noise takes each row of it, by name."""
    with np.errstate(all="ignore"):
        results = runs(run, arithmetic, samples=samples, times=times)
        reference = next(results)
        squares = {name: np.zeros(np.shape(y)[:-1]) for name, y in reference.items()}
        for noisy in results:
            for name, y in noisy.items():
                squares[name] = squares[name] + (np.atleast_1d(y - reference[name]) ** 2).sum(axis=-1) / samples
        return reference, squares
