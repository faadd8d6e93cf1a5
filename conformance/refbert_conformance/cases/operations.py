"""What every op is tried on: strategies for shapes, regimes, masks, ids and options. `corpus` has what is always tried.

A strategy draws a `Recipe` of a few small numbers, which is what Hypothesis shrinks; `Recipe.build` makes the arrays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import Any

import numpy as np
from hypothesis import strategies as st

from refbert import ops
from refbert.backend import Host
from refbert_conformance.cases.inputs import REGIMES, fill, rounded
from refbert_conformance.tolerances.bounds import ARRAYS


@dataclass(frozen=True)
class OpCase:
    """One call of one op: its arrays (float64, exact in the dtype), its options, and the cotangent of y (or None)."""

    op: str
    arrays: tuple[Host, ...]
    options: Mapping[str, Any]
    dy: Host | None = None

    def build(self, dtype: str) -> OpCase:
        """Itself, as it is."""
        return self


@dataclass(frozen=True)
class Recipe:
    """A case in a few numbers. sizes: of its axes, by letter. regimes: one per array, and last the cotangent's. seed:
    of them all.
    """

    op: str
    sizes: Mapping[str, int]
    regimes: tuple[str, ...]
    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def axes(self) -> Mapping[str, int]:
        """What may be shrunk, by name."""
        return self.sizes

    def resized(self, **axes: int) -> Recipe:
        """The same with other sizes."""
        return replace(self, sizes={**self.sizes, **axes})

    def build(self, dtype: str) -> OpCase:
        """The arrays themselves."""
        shapes, options = _inputs(self, dtype)
        arrays = tuple(self.array(i, shape, dtype) for i, shape in enumerate(shapes))
        if self.op in ("cross_entropy", "mean_squared_error"):
            # A loss's cotangent: neither 1 nor of another sign than it ought to be.
            return OpCase(self.op, arrays, options, rounded(np.asarray(self.rng(9).normal(1, 2)), dtype))
        with np.errstate(all="ignore"):
            y, _ = getattr(ops, self.op)(*arrays, **options)
        return OpCase(self.op, arrays, options, self.array(-1, y.shape, dtype))

    def array(self, i: int, shape: tuple[int, ...], dtype: str) -> Host:
        """Array number i (negative: the cotangent)."""
        return fill(shape, self.regimes[i], (self.seed, i % 16), dtype)

    def rng(self, salt: int) -> np.random.Generator:
        """For ids, masks and labels."""
        return np.random.default_rng((self.seed, salt))


def _inputs(r: Recipe, dtype: str) -> tuple[tuple[tuple[int, ...], ...], dict[str, Any]]:
    """The shapes of its arrays, and its options."""
    # None to three leading axes: an op must not care.
    lead = tuple(r.sizes[letter] for letter in "BSE" if letter in r.sizes)

    def of(letters: str) -> tuple[int, ...]:
        return tuple(r.sizes[letter] for letter in letters)

    match r.op:
        case "gelu" | "relu" | "tanh" | "softmax":
            return ((*lead, *of("H")),), {name: r.options[name] for name in ("form",) if name in r.options}
        case "add":  # −1 axes: losses are added, too
            return (() if r.options.get("axes") == -1 else (*lead, *of("H")),) * 2, {}
        case "reshape":
            B, S, H = of("BSH")
            to = {"merge": (B * S, H), "split": (B, S, H, 1), "turn": (H, S, B), "flat": (B * S * H,)}
            return ((B, S, H),), {"shape": to[r.options["to"]]}
        case "transpose":
            axes = r.options["axes"]
            return (of("BSHE"[: len(axes)]),), {"axes": axes}
        case "embedding":
            return (of("VH"),), {"ids": _ids(r, r.sizes["V"], lead)}
        case "gather":
            return ((*lead, *of("H")),), {"positions": _ids(r, math.prod(lead), (r.options["rows"],))}
        case "linear":
            return ((*lead, *of("I")), of("OI"), of("O")), {}
        case "layer_norm":
            return ((*lead, *of("H")), of("H"), of("H")), {"eps": r.options["eps"]}
        case "dropout":
            shape = (*lead, *of("H"))
            return (shape,), {"keep": _keep(r, shape), "rate": r.options["rate"]}
        case "attention" | "attention_probabilities":
            B, S, A, D = of("BSAD")
            options = {"mask": _mask(r), "heads": A, "mask_value": r.options["mask_value"]}
            if r.op == "attention" and r.options["rate"] is not None:
                options["rate"] = r.options["rate"]
                if r.options.get("kept") != "no mask":  # without one nothing is dropped, at any rate
                    options["keep"] = _keep(r, (B, A, S, S))
            return ((B, S, A * D),) * COUNT[r.op], options
        case "cross_entropy":
            rng, C = r.rng(2), r.sizes["C"]
            labels = rng.integers(0, C, lead)
            labels[rng.random(labels.shape) < r.options["ignored"]] = ops.IGNORE
            n = int((labels != ops.IGNORE).sum())
            over = {"mean": n, "google": n + 1e-5, "shards": 2 * n + 3, "one": 1, "half": 0.5, "nothing": 0}
            return ((*lead, C),), {"labels": labels, "denominator": float(over[r.options["over"]])}
    shape = of("BH"[: r.options["axes"]])  # mean_squared_error
    over = {"mean": math.prod(shape), "one": 1, "nothing": 0}
    return (shape,), {"targets": r.array(1, shape, dtype), "denominator": float(over[r.options["over"]])}


def _ids(recipe: Recipe, limit: int, shape: tuple[int, ...]) -> Host:
    """Few different ids, so that they repeat; the first and the last among them."""
    if not limit:
        return np.zeros((0,), np.int64)
    rng = recipe.rng(7)
    some = np.concatenate([[limit - 1, 0], rng.integers(0, limit, 3)])
    return np.asarray(rng.choice(some, shape), np.int64)


def _keep(recipe: Recipe, shape: tuple[int, ...]) -> Host:
    """The mask is an input: nothing says that the share kept is what the rate promises."""
    below = {"rate": recipe.options["rate"], "half": 0.5, "every": 0.0}[recipe.options.get("kept", "rate")]
    return np.asarray(recipe.rng(3).random(shape) >= below)


MASKS = ("all", "ragged", "holes", "one", "none")


def _mask(recipe: Recipe) -> Host:
    """Visible keys: all, a ragged right padding, holes anywhere, one key only, or rows without any."""
    B, S = recipe.sizes["B"], recipe.sizes["S"]
    rng = recipe.rng(5)
    match recipe.options["mask"]:
        case "all":
            return np.ones((B, S), np.int64)
        case "ragged":
            return np.asarray(np.arange(S) < rng.integers(1, S + 1, (B, 1)), np.int64)
        case "holes":
            mask = (rng.random((B, S)) < 0.6).astype(np.int64)
            mask[np.arange(B), rng.integers(0, S, B)] = 1
            return mask
        case "one":
            return np.asarray(np.arange(S) == rng.integers(0, S, (B, 1)), np.int64)
    mask = (np.arange(S) < rng.integers(0, S + 1, (B, 1))).astype(np.int64)
    mask[rng.integers(0, B) :: 2] = 0  # "none": some rows see nothing
    return mask


_SMALL = st.integers(1, 6)
# Around the widths of registers, tiles and blocks, where kernels switch code paths.
_WIDE = st.one_of(st.integers(1, 9), st.sampled_from([15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 96, 127, 128, 129, 257]))
COUNT: Mapping[str, int] = {op: len(names) for op, names in ARRAYS.items()}

EPS = (1e-12, 1e-5, 1e-6, 1e-3, 0.5)
RATES = (0.1, 0.25, 0.9, 0.5, 0.0)
_KEPT = ("rate", "half", "every")
_AXES = {"axes": st.sampled_from([2, 1, 3, 0])}
_ATTENTION = {"mask": st.sampled_from(MASKS), "mask_value": st.sampled_from([-math.inf, -10000.0, -3.0])}
# op -> (sizes by letter, options)
DRAWN: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "add": ({"H": _WIDE}, {"axes": st.sampled_from([2, 1, 3, 0, -1])}),
    "reshape": ({"H": _WIDE}, {"to": st.sampled_from(["merge", "split", "turn", "flat"])}),
    "transpose": (
        {"H": _WIDE},
        {"axes": st.sampled_from([(1, 0, 2), *(axes for n in (1, 2, 3, 4) for axes in permutations(range(n)))])},
    ),
    "embedding": ({"V": _WIDE, "H": _WIDE}, _AXES),
    "gather": ({"H": _WIDE}, {"rows": st.integers(0, 7), "axes": st.sampled_from([2, 1, 3])}),
    "linear": ({"I": _WIDE, "O": _WIDE}, _AXES),
    "layer_norm": ({"H": _WIDE}, {"eps": st.sampled_from(EPS)} | _AXES),
    "gelu": ({"H": _WIDE}, {"form": st.sampled_from(["erf", "tanh"])} | _AXES),
    "relu": ({"H": _WIDE}, _AXES),
    "tanh": ({"H": _WIDE}, _AXES),
    "softmax": ({"H": _WIDE}, _AXES),
    "attention_probabilities": ({"A": st.integers(1, 4), "D": st.sampled_from([2, 3, 1, 5, 8, 16])}, _ATTENTION),
    "attention": (
        {"A": st.integers(1, 4), "D": st.sampled_from([2, 3, 1, 5, 8, 16])},
        {"rate": st.sampled_from([None, *RATES]), "kept": st.sampled_from([*_KEPT, "no mask"])} | _ATTENTION,
    ),
    "dropout": ({"H": _WIDE}, {"rate": st.sampled_from(RATES), "kept": st.sampled_from(_KEPT)} | _AXES),
    "cross_entropy": (
        {"C": _WIDE},
        {
            "ignored": st.sampled_from([0.0, 0.4, 1.0]),
            "over": st.sampled_from(["mean", "google", "shards", "one", "half", "nothing"]),
        }
        | _AXES,
    ),
    "mean_squared_error": (
        {"H": _WIDE},
        {"over": st.sampled_from(["mean", "one", "nothing"]), "axes": st.sampled_from([2, 1, 0])},
    ),
}


def recipe(
    op: str, sizes: Mapping[str, int], regimes: tuple[str, ...], seed: int, options: Mapping[str, Any]
) -> Recipe:
    """The recipe, with those of the sizes that are an axis of its arrays: they are what a person reads. E is an extra
    axis, the third of the leading ones or the fourth to transpose.
    """
    every = {"E": 3 if op == "transpose" else 2, **sizes}
    return Recipe(op, {letter: every[letter] for letter in _letters(op, options)}, regimes, seed, options)


def _letters(op: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    axes = options.get("axes", 2)
    if op == "transpose":
        return tuple("BSHE"[: len(axes)])
    if op == "mean_squared_error":
        return tuple("BH"[:axes])
    if axes == -1:
        return ()
    return (*("", "S", "BS", "BSE")[axes], *DRAWN[op][0])


def recipes(op: str, *, regimes: tuple[str, ...] = tuple(REGIMES)) -> st.SearchStrategy[Recipe]:
    """Recipes for one op. No two sizes need be equal, and mostly they are not."""
    sizes, options = DRAWN[op]
    regime = st.sampled_from(regimes)
    count = COUNT[op]
    return st.builds(
        recipe,
        op=st.just(op),
        sizes=st.fixed_dictionaries({"B": st.integers(1, 3), "S": _SMALL} | dict(sizes)),
        # γ, weights and cotangents of their own regime: an input that is nice everywhere hides bugs.
        regimes=st.tuples(*[regime] * count, st.sampled_from(["normal", "integers", "mixed"])),
        seed=st.integers(0, 2**20),
        options=st.fixed_dictionaries(dict(options)),
    )


# Options that decide about numbers and not about shapes.
_FREE = ("eps", "form", "rate", "kept", "mask", "mask_value", "ignored", "over")


def another(recipe: Recipe) -> Recipe:
    """A call of the same shapes with nothing else in common: other numbers, other heads, the next of every option."""
    options = dict(recipe.options)
    for name, strategy in DRAWN[recipe.op][1].items():
        if name in _FREE and options.get(name) in strategy.elements:
            options[name] = strategy.elements[(strategy.elements.index(options[name]) + 1) % len(strategy.elements)]
    sizes = dict(recipe.sizes)
    if recipe.op == "attention":  # probabilities are [B, A, S, S]
        sizes |= {"A": sizes["D"], "D": sizes["A"]}
    return replace(recipe, sizes=sizes, options=options, seed=recipe.seed + 1)
