"""How numbers are added up: in how many bits, rounded how, and in which order.

Width: with M = 2^m, M + 1 − M is 1 as long as the accumulator has more than m bits, if M and 1 meet first; of the three
orders in which a, b, c can be added, one of the arrangements of (M, 1, −M) has them meet first. What sums of blocks, or
the result, are rounded to afterwards shows in 1 + 2⁻ᵏ.

Order: FPRev (Xie, Gu, Wang et al. 2025, "FPRev: Revealing the order of floating-point summation", USENIX ATC). Among n
ones let number i be M and number j be −M, with M so large that ones added to it are lost. What comes out is the number
of ones that are added after M and −M have met: n minus the leaves of the smallest subtree that holds i and j. From
these sizes follows the tree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import numpy as np

from refbert.backend import Host
from refbert_conformance.probe.rounding import AGAIN, POWERS, RANDOM, ROUNDINGS, UNKNOWN, rounding
from refbert_conformance.tolerances.arithmetic import FORMATS

Add = Callable[[Host], float]
Tree = Any  # a number of a term, or a tuple of trees that are added at once

LONGEST = 1 << 13
# What an accumulator may be called, the tightest first.
_NAMES = ("float64", "float32", "float32-truncated", "float16", "bfloat16")


@dataclass(frozen=True)
class Accumulator:
    """bits: of its significand; None if more than can be told. rounding: of what does not fit. short: how many ones
    it takes until their sum is wrong, if it ever is. then: what a sum is rounded to on its way to the result, where
    that loses more than storing the result to nearest."""

    bits: int | None
    rounding: str
    short: int | None = None
    then: Accumulator | None = None

    @property
    def narrowest(self) -> int | None:
        """The fewest bits that a sum goes through."""
        return min((one for one in (self.bits, self.then and self.then.bits) if one), default=None)

    @property
    def name(self) -> str | None:
        """The tightest format that covers it; None where too little can be told."""
        if self.then is not None:
            both = {self.then.name, replace(self, then=None).name}
            return next(name for name in reversed(_NAMES) if name in both)
        if self.short is not None:
            return next((name for name in reversed(_NAMES) if 1 / FORMATS[name][0] >= self.short / 2), "bfloat16")
        if self.bits is None:
            return None
        u = 2.0**-self.bits if self.rounding.startswith("to nearest") else 2.0 ** (1 - self.bits)
        return next((name for name in _NAMES if FORMATS[name][0] >= u), _NAMES[-1])

    def __str__(self) -> str:
        said = "more bits than can be told" if self.bits is None else f"{self.bits} bits, {self.rounding}"
        said += f", then {self.then}" if self.then is not None else ""
        return said if self.short is None else f"{said}; {self.short} ones do not add up to {self.short}"


# Numbers to count with, and the largest power of 2 of them: in the range of float32, float16 and the widest float8.
_UNITS = ((1.0, 100), (2.0**-14, 29), (2.0**-6, 14))


def units(add: Add) -> tuple[float, int]:
    """A number to count with, and the largest power of 2 of it, both of which survive in the operation."""
    for one, most in _UNITS:
        if add(np.array([one, 0, 0])) == one and add(np.array([2.0**most * one, 0, 0])) == 2.0**most * one:
            return one, most
    return _UNITS[-1]


def fixed(add: Add, stored: int) -> bool:
    """Whether a sum of small numbers loses bits that one of larger ones keeps."""
    if units(add) != _UNITS[0]:
        return False

    def kept(size: float, bits: int) -> bool:
        return add(np.array([size, 2.0**-bits * size])) == (1 + 2.0**-bits) * size

    return any(kept(2.0**10, bits) and not kept(2.0**-10, bits) for bits in range(1, stored))


def afterwards(add: Add, stored: int) -> Accumulator | None:
    """What a sum of two numbers is rounded to; None where that is no more than to the ``stored`` bits, to nearest."""
    one, most = units(add)
    large = 2.0 ** min(most, 60) * one
    bits = 1
    while bits < min(stored, most - 1) and add(np.array([large, 2.0**-bits * large])) == (1 + 2.0**-bits) * large:
        bits += 1
    if bits > most - 4:
        return None  # the next would be too small

    # Beside a power of 2 alone: another number may be rounded as an operand, and three in a sum twice.
    how = _plainly(rounding(lambda pairs: np.array([add(large * pair) for pair in pairs]) / large, bits, POWERS))
    return None if bits >= stored and how.startswith("to nearest") else Accumulator(bits, how)


def accumulator(add: Add, longest: int = LONGEST, stored: int = 0) -> Accumulator:
    """What ``add`` adds up in. ``longest``: of the sums of ones that are tried. ``stored``: the bits of results, if
    what sums are rounded to afterwards is of interest."""
    found = _meeting(add, longest)
    then = afterwards(add, stored) if stored else None
    same = then is not None and (then.bits, then.rounding) == (found.bits, found.rounding)
    return found if same else replace(found, then=then)


def _meeting(add: Add, longest: int) -> Accumulator:
    """What two numbers that meet first are added in."""
    one, most = units(add)

    def losing(m: int) -> tuple[float, ...] | None:
        orders = permutations((2.0**m * one, one, -(2.0**m) * one))
        return next((order for order in orders if add(np.array(order)) != one), None)

    kept, lost = 0, min(most, 60)
    order = losing(lost)
    if order is None:
        return Accumulator(None, "", _short(add, one, longest))
    while lost - kept > 1:
        m = (kept + lost) // 2
        if (found := losing(m)) is None:
            kept = m
        else:
            lost, order = m, found
    return Accumulator(lost, _rounding(add, order, one, 2.0**lost), _short(add, one, longest))


_BESIDE = (1.5, -1.5, 0.5, -0.5, 1.0, 3.0, -1.0, -3.0)


def _rounding(add: Add, order: Sequence[float], one: float, M: float) -> str:
    """What becomes of 1.5, 0.5 and their negatives beside an M at which numbers are 2 apart, in the order that loses
    1."""
    places = [int(np.sign(t)) if abs(t) != one else 0 for t in order]  # of M, of the number, of −M

    def of(x: float) -> float:
        terms = {1: M if x > 0 else -M, 0: x, -1: -M if x > 0 else M}
        return add(np.array([terms[place] * one for place in places])) / one

    found = [of(x) for x in _BESIDE]
    if any(found != [of(x) for x in _BESIDE] for _ in range(AGAIN)):
        return RANDOM
    return next((_plainly(name) for name, rule in ROUNDINGS.items() if found == [2 * rule(x / 2) for x in _BESIDE]),
                UNKNOWN)  # fmt: skip


def _plainly(rounding: str) -> str:
    """The usual one without its ties."""
    return rounding.removesuffix(", ties to even")


def _short(add: Add, one: float, longest: int) -> int | None:
    n = 64
    while n <= longest:
        if add(np.full(n, one)) != n * one:
            return n
        n *= 2
    return None


def order(add: Add, n: int) -> Tree | None:
    """The tree by which n numbers are added; None if even the largest are not so large that others are lost."""
    one, most = units(add)
    M = 2.0**most * one
    known: dict[tuple[int, int], int] = {}

    def size(i: int, j: int) -> int:
        """How many leaves the smallest subtree with both has."""
        if (i, j) not in known:
            v = np.full(n, one)
            v[i], v[j] = M, -M
            known[i, j] = n - round(add(v) / one)
        return known[i, j]

    def tree(leaves: Sequence[int]) -> Tree:
        first, *others = leaves
        found: Tree = first
        by_size: dict[int, list[int]] = {}
        for j in others:
            by_size.setdefault(size(first, j), []).append(j)
        for s, group in sorted(by_size.items()):
            found = (found, *_parts(group, s))
        return found

    def _parts(group: list[int], s: int) -> list[Tree]:
        """The subtrees that are added at once with another: one, but where several numbers are added in one step."""
        parts = []
        while group:
            first, *others = group
            together = [first, *(j for j in others if size(first, j) < s)]
            parts.append(tree(together))
            group = [j for j in others if j not in together]
        return parts

    if n > 2 and all(size(0, j) <= 2 for j in range(1, n)):
        return None  # nothing is lost but the two themselves
    return tree(range(n))


def described(tree: Tree | None, n: int) -> str:
    """The order in words, where it has any; else the tree itself."""
    if tree is None:
        return "nothing is lost, so that it does not show"
    if tree == tuple(range(n)):
        return "all at once"
    leaves = list(range(n))
    wholes = {
        f"{k} at once, one such sum after the other": _in_groups(leaves, k) for k in range(3, n // 2 + 1)
    } | {
        "one after the other": _in_turn(leaves), "from the last to the first": _in_turn(leaves[::-1]),
        "in pairs: halves of halves": _in_pairs(leaves),
    }  # fmt: skip
    for name, whole in wholes.items():
        if _same(tree, whole):
            return name
    for k in (k for k in (2, 4, 8, 16) if 2 * k <= n):
        m = n // k
        divided = {
            f"{k} sums, of every {k}th number": [leaves[i::k] for i in range(k)],
            f"{k} sums, of {m} in a row": [leaves[i : i + m] for i in range(0, n, m)],
        }
        for name, parts in divided.items():
            joined = _joined(_sorted(tree), [_sorted(_in_turn(part)) for part in parts])
            if _leaves(joined) == k:
                return f"{name}, joined as {shown(joined)}"
    return shown(tree)


def _joined(tree: Tree, parts: Sequence[Tree]) -> Tree:
    """The tree with each of these parts as the number that it has."""
    if tree in parts:
        return parts.index(tree)
    return tuple(_joined(one, parts) for one in tree) if isinstance(tree, tuple) else tree


def _leaves(tree: Tree) -> int:
    return sum(map(_leaves, tree)) if isinstance(tree, tuple) else 1


def _in_turn(parts: Sequence[Tree]) -> Tree:
    found = parts[0]
    for part in parts[1:]:
        found = (found, part)
    return found


def _in_groups(leaves: Sequence[int], k: int) -> Tree:
    """k numbers at once, and with their sum the next k."""
    found: Tree = tuple(leaves[:k])
    for i in range(k, len(leaves), k):
        found = (found, *leaves[i : i + k])
    return found


def _in_pairs(parts: Sequence[Tree]) -> Tree:
    """Halves of halves."""
    half = len(parts) // 2
    return (_in_pairs(parts[:half]), _in_pairs(parts[half:])) if half else parts[0]


def _same(a: Tree, b: Tree) -> bool:
    """Whether two trees add alike: a + b is b + a."""
    return bool(_sorted(a) == _sorted(b))


def _sorted(tree: Tree) -> Tree:
    return tuple(sorted(map(_sorted, tree), key=_first)) if isinstance(tree, tuple) else tree


def _first(tree: Tree) -> int:
    while isinstance(tree, tuple):
        tree = tree[0]
    return int(tree)


def shown(tree: Tree) -> str:
    """A tree as sums in brackets."""
    return "(" + " + ".join(map(shown, tree)) + ")" if isinstance(tree, tuple) else str(tree)
