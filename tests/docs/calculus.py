"""Plain numbers and loops for the equations of the docstrings, and derivatives by the complex step.

f(x + ih) = f(x) + ih f′(x) − h² f″(x)/2 − …: with h = 1e-30 the imaginary part over h is the derivative to the last
digit, without a difference that could cancel. So every evaluator here must also take complex numbers.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

U = 2.0**-53
STEP = 1e-30
# An evaluation here is a few hundred operations on numbers of size 1, each rounded once: their bound, with room for
# the size of sums. What an equation that is wrong is off by is at least a thousand million times as much.
ROUNDINGS = 2000


@dataclass(frozen=True)
class Equations:
    """module: whose docstring shows the lines. check(rng): raises AssertionError where they do not hold."""

    module: str
    lines: tuple[str, ...]
    check: Callable


CHECKED: list[Equations] = []


def shown(module, *lines):
    """Register a check of these lines, as they stand in the module's docstrings."""

    def register(check):
        CHECKED.append(Equations(module, lines, check))
        return check

    return register


def agree(ours, expected, what=""):
    """Equal but for rounding."""
    ours, expected = np.asarray(ours), np.asarray(expected)
    assert ours.shape == expected.shape, (what, ours.shape, expected.shape)
    allowed = ROUNDINGS * U * (1 + np.abs(expected).max(initial=0))
    assert np.abs(ours - expected).max(initial=0) <= allowed, (what, ours, expected)


def gradients(f, arrays, dy):
    """For L = Σ dy·f(*arrays): dL/d(each array), by complex steps. f takes and returns nested lists."""
    out = []
    for k, x in enumerate(arrays):
        gradient = np.zeros(np.shape(x))
        for index in np.ndindex(gradient.shape):
            moved = [np.array(a, complex) for a in arrays]
            moved[k][index] += 1j * STEP
            y = np.asarray(f(*(a.tolist() for a in moved)), complex)
            gradient[index] = (np.asarray(dy) * y).sum().imag / STEP
        out.append(gradient)
    return out


def jacobian(f, x):
    """∂f_i/∂x_j of a list of numbers f(x), as [i][j]; [j] where f is one number."""
    columns = []
    for j in range(len(x)):
        moved = [complex(v) for v in x]
        moved[j] += 1j * STEP
        columns.append(np.asarray(f(moved), complex).imag / STEP)
    return np.array(columns).T


def forward_and_back(op, f, arrays, dy, **options):
    """The op and its pullback against the evaluator and its complex step; returns the gradients."""
    y, pullback = op(*arrays, **options)
    agree(y, np.real(f(*(np.asarray(a, complex).tolist() for a in arrays))), "forward")
    expected = gradients(f, arrays, dy)
    for ours, theirs in zip(pullback(dy), expected, strict=True):
        agree(ours, theirs, "gradient")
    return expected


def product(a, b):
    """a b of two matrices as lists of rows."""
    return [[sum(a[i][k] * b[k][j] for k in range(len(b))) for j in range(len(b[0]))] for i in range(len(a))]


def transposed(a):
    return [list(column) for column in zip(*a, strict=True)]


def plus(*matrices):
    """The sum of matrices; a list of numbers is added to every row."""
    rows = len(matrices[0])
    whole = [m if isinstance(m[0], list) else [m] * rows for m in matrices]
    return [[sum(m[i][j] for m in whole) for j in range(len(whole[0][0]))] for i in range(rows)]


def times(a, b):
    """Entry by entry."""
    return [[x * y for x, y in zip(r, s, strict=True)] for r, s in zip(a, b, strict=True)]


def rows_added(a):
    return [sum(column) for column in zip(*a, strict=True)]


def largest(x):
    return max(x, key=lambda v: v.real)


def softmax(x):
    m = largest(x)
    e = [cmath.exp(v - m) for v in x]
    return [v / sum(e) for v in e]


def lse(x):
    m = largest(x)
    return m + cmath.log(sum(cmath.exp(v - m) for v in x))


def erf(z):
    """Its power series; for |z| up to 2 the largest term is below e⁴, which costs two digits."""
    return 2 / math.sqrt(math.pi) * sum(
        (-1) ** n * z ** (2 * n + 1) / (math.factorial(n) * (2 * n + 1)) for n in range(50)
    )  # fmt: skip


def normalised(x, gamma, beta, eps):
    """LayerNorm of one row."""
    H = len(x)
    mu = sum(x) / H
    r = 1 / cmath.sqrt(sum((v - mu) ** 2 for v in x) / H + eps)
    return [g * (v - mu) * r + b for v, g, b in zip(x, gamma, beta, strict=True)]


def delta(i, j):
    return 1.0 if i == j else 0.0
