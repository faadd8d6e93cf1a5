"""What every op is tried on: strategies for shapes, regimes, masks, ids and options. `corpus` has what is always tried.

A strategy draws a `Recipe` of a few small numbers, which is what Hypothesis shrinks; `Recipe.build` makes the arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
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
        return BUILDERS[self.op](self, dtype)

    def array(self, i: int, shape: tuple[int, ...], dtype: str) -> Host:
        """Array number i (negative: the cotangent)."""
        return fill(shape, self.regimes[i], (self.seed, i % 16), dtype)

    def rng(self, salt: int) -> np.random.Generator:
        """For ids, masks and labels."""
        return np.random.default_rng((self.seed, salt))


def _finished(recipe: Recipe, arrays: tuple[Host, ...], options: Mapping[str, Any], dtype: str) -> OpCase:
    with np.errstate(all="ignore"):
        y, _ = getattr(ops, recipe.op)(*arrays, **options)
    return OpCase(recipe.op, arrays, options, recipe.array(-1, y.shape, dtype))


def _shape(recipe: Recipe, letters: str) -> tuple[int, ...]:
    return tuple(recipe.sizes[letter] for letter in letters)


def _leading(recipe: Recipe) -> tuple[int, ...]:
    """None to three leading axes: an op must not care."""
    return tuple(recipe.sizes[letter] for letter in "BSE" if letter in recipe.sizes)


def _unary(recipe: Recipe, dtype: str) -> OpCase:
    options = {name: recipe.options[name] for name in ("form",) if name in recipe.options}
    return _finished(recipe, (recipe.array(0, (*_leading(recipe), recipe.sizes["H"]), dtype),), options, dtype)


def _add(recipe: Recipe, dtype: str) -> OpCase:
    # −1 axes: losses are added, too.
    shape = () if recipe.options.get("axes") == -1 else (*_leading(recipe), recipe.sizes["H"])
    return _finished(recipe, (recipe.array(0, shape, dtype), recipe.array(1, shape, dtype)), {}, dtype)


def _reshape(recipe: Recipe, dtype: str) -> OpCase:
    B, S, H = _shape(recipe, "BSH")
    shape = {"merge": (B * S, H), "split": (B, S, H, 1), "turn": (H, S, B), "flat": (B * S * H,)}[recipe.options["to"]]
    return _finished(recipe, (recipe.array(0, (B, S, H), dtype),), {"shape": shape}, dtype)


def _transpose(recipe: Recipe, dtype: str) -> OpCase:
    axes = recipe.options["axes"]
    shape = _shape(recipe, "BSHE"[: len(axes)])
    return _finished(recipe, (recipe.array(0, shape, dtype),), {"axes": axes}, dtype)


def _embedding(recipe: Recipe, dtype: str) -> OpCase:
    V, H = _shape(recipe, "VH")
    ids = _ids(recipe, V, _leading(recipe))
    return _finished(recipe, (recipe.array(0, (V, H), dtype),), {"ids": ids}, dtype)


def _gather(recipe: Recipe, dtype: str) -> OpCase:
    leading = _leading(recipe)
    positions = _ids(recipe, math.prod(leading), (recipe.options["rows"],))
    x = recipe.array(0, (*leading, recipe.sizes["H"]), dtype)
    return _finished(recipe, (x,), {"positions": positions}, dtype)


def _ids(recipe: Recipe, limit: int, shape: tuple[int, ...]) -> Host:
    """Few different ids, so that they repeat; the first and the last among them."""
    if not limit:
        return np.zeros((0,), np.int64)
    rng = recipe.rng(7)
    some = np.concatenate([[limit - 1, 0], rng.integers(0, limit, 3)])
    return np.asarray(rng.choice(some, shape), np.int64)


def _linear(recipe: Recipe, dtype: str) -> OpCase:
    n_in, n_out = _shape(recipe, "IO")
    x = recipe.array(0, (*_leading(recipe), n_in), dtype)
    arrays = (x, recipe.array(1, (n_out, n_in), dtype), recipe.array(2, (n_out,), dtype))
    return _finished(recipe, arrays, {}, dtype)


def _layer_norm(recipe: Recipe, dtype: str) -> OpCase:
    H = recipe.sizes["H"]
    x = recipe.array(0, (*_leading(recipe), H), dtype)
    arrays = (x, recipe.array(1, (H,), dtype), recipe.array(2, (H,), dtype))
    return _finished(recipe, arrays, {"eps": recipe.options["eps"]}, dtype)


def _dropout(recipe: Recipe, dtype: str) -> OpCase:
    x = recipe.array(0, (*_leading(recipe), recipe.sizes["H"]), dtype)
    return _finished(recipe, (x,), {"keep": _keep(recipe, x.shape), "rate": recipe.options["rate"]}, dtype)


def _keep(recipe: Recipe, shape: tuple[int, ...]) -> Host:
    """The mask is an input: nothing says that the share kept is what the rate promises."""
    below = {"rate": recipe.options["rate"], "half": 0.5, "every": 0.0}[recipe.options.get("kept", "rate")]
    return np.asarray(recipe.rng(3).random(shape) >= below)


def _mask(recipe: Recipe) -> Host:
    """Visible keys: all, a ragged right padding, holes anywhere, one key only, or rows without any."""
    B, S = _shape(recipe, "BS")
    rng = recipe.rng(5)
    kind = recipe.options["mask"]
    if kind == "all":
        return np.ones((B, S), np.int64)
    if kind == "ragged":
        return np.asarray(np.arange(S) < rng.integers(1, S + 1, (B, 1)), np.int64)
    if kind == "holes":
        mask = (rng.random((B, S)) < 0.6).astype(np.int64)
        mask[np.arange(B), rng.integers(0, S, B)] = 1
        return mask
    if kind == "one":
        return np.asarray(np.arange(S) == rng.integers(0, S, (B, 1)), np.int64)
    mask = (np.arange(S) < rng.integers(0, S + 1, (B, 1))).astype(np.int64)
    mask[rng.integers(0, B) :: 2] = 0  # "none": some rows see nothing
    return mask


MASKS = ("all", "ragged", "holes", "one", "none")


def _attention_inputs(recipe: Recipe, dtype: str, count: int) -> tuple[tuple[Host, ...], dict[str, Any]]:
    B, S, A, D = _shape(recipe, "BSAD")
    arrays = tuple(recipe.array(i, (B, S, A * D), dtype) for i in range(count))
    value = recipe.options["mask_value"]
    return arrays, {"mask": _mask(recipe), "heads": A, "mask_value": value}


def _attention_probabilities(recipe: Recipe, dtype: str) -> OpCase:
    arrays, options = _attention_inputs(recipe, dtype, 2)
    return _finished(recipe, arrays, options, dtype)


def _attention(recipe: Recipe, dtype: str) -> OpCase:
    arrays, options = _attention_inputs(recipe, dtype, 3)
    rate = recipe.options["rate"]
    if rate is not None:
        B, S, A = _shape(recipe, "BSA")
        options |= {"rate": rate}
        if recipe.options.get("kept") != "no mask":  # without one nothing is dropped, at any rate
            options |= {"keep": _keep(recipe, (B, A, S, S))}
    return _finished(recipe, arrays, options, dtype)


def _cross_entropy(recipe: Recipe, dtype: str) -> OpCase:
    shape = (*_leading(recipe), recipe.sizes["C"])
    rng = recipe.rng(2)
    labels = rng.integers(0, shape[-1], shape[:-1])
    labels[rng.random(labels.shape) < recipe.options["ignored"]] = ops.IGNORE
    count = int((labels != ops.IGNORE).sum())
    denominator = {"mean": count, "google": count + 1e-5, "shards": 2 * count + 3, "one": 1, "half": 0.5, "nothing": 0}[
        recipe.options["over"]
    ]
    options = {"labels": labels, "denominator": float(denominator)}
    case = _finished(recipe, (recipe.array(0, shape, dtype),), options, dtype)
    return replace(case, dy=_one(recipe, dtype))


def _mean_squared_error(recipe: Recipe, dtype: str) -> OpCase:
    shape = _shape(recipe, "BH"[: recipe.options["axes"]])
    targets = recipe.array(1, shape, dtype)
    denominator = {"mean": math.prod(shape), "one": 1, "nothing": 0}[recipe.options["over"]]
    options = {"targets": targets, "denominator": float(denominator)}
    case = _finished(recipe, (recipe.array(0, shape, dtype),), options, dtype)
    return replace(case, dy=_one(recipe, dtype))


def _one(recipe: Recipe, dtype: str) -> Host:
    """A loss's cotangent: neither 1 nor of another sign than it ought to be."""
    return rounded(np.asarray(recipe.rng(9).normal(1, 2)), dtype)


BUILDERS: Mapping[str, Callable[[Recipe, str], OpCase]] = {
    "add": _add,
    "reshape": _reshape,
    "transpose": _transpose,
    "embedding": _embedding,
    "gather": _gather,
    "linear": _linear,
    "layer_norm": _layer_norm,
    "gelu": _unary,
    "relu": _unary,
    "tanh": _unary,
    "softmax": _unary,
    "attention_probabilities": _attention_probabilities,
    "attention": _attention,
    "dropout": _dropout,
    "cross_entropy": _cross_entropy,
    "mean_squared_error": _mean_squared_error,
}

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
