"""The examples: for each op, arguments with few and short numbers, so that a page can be checked by hand.

A function here bears the name of the op or block that it is for and returns one `Example` or several; the test suite
asks for one for every entry. LayerNorm's gain is not 1 and cotangents are uneven: with ones, a wrong gradient looks
right.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from refbert.ops.cross_entropy import IGNORE
from refbert_inspection.explain import block_examples
from refbert_inspection.explain.catalogue import Entry
from refbert_inspection.explain.numbers import Example, Worked, work


def examples(name: str) -> tuple[Example, ...]:
    """The examples of an entry; none where there is no function of its name."""
    made: Any = globals().get(name) or getattr(block_examples, name, None)
    found = made() if made else ()
    return (found,) if isinstance(found, Example) else tuple(found)


def worked(entry: Entry) -> Iterator[Worked]:
    """Every example of an entry, worked through."""
    for example in examples(entry.name):
        yield work(entry, example)


def _(*rows: Any) -> Any:
    return np.array(rows, dtype=np.float64)


def add() -> Example:
    """Two rows of two."""
    return Example({"x": _([1, -2], [0.5, 3]), "z": _([0.25, 1], [-1, 2])}, (_([1, 2], [3, -1]),))


def linear() -> Example:
    """Two rows from three features to two."""
    return Example(
        {"x": _([1, 2, -1], [0, 1, 3]), "w": _([0.5, 1, -1], [2, 0, 0.25]), "b": _(0.1, -0.2)},
        (_([1, -1], [2, 0.5]),),
        note="w has one row for each output: y[0, 0] = 1·0.5 + 2·1 + (−1)·(−1) + 0.1.",
    )


def layer_norm() -> Example:
    """One row of three: mean 3, deviations −2, −1, 3."""
    return Example(
        {"x": _([1, 2, 6]), "gamma": _(2, 0.5, -1), "beta": _(0.1, 0, 0.3), "eps": 1e-12},
        (_([1, -2, 0.5]),),
        note="dx adds up to 0, and so does dx times xhat: a row may be shifted and scaled without moving xhat.",
    )


def gelu() -> tuple[Example, Example]:
    """Both forms at the same places."""
    x, dy = _(-1, 0, 0.5, 2), _(1, 2, -1, 0.5)
    return (
        Example({"x": x, "form": "erf"}, (dy,), note="Φ(0) = ½, and Φ(−1) = 0.158655 is in every table."),
        Example({"x": x, "form": "tanh"}, (dy,), note="The same x: compare with the form above."),
    )


def relu() -> Example:
    """Below, near and above zero."""
    return Example({"x": _(-1.5, -0.25, 0.5, 2)}, (_(1, 2, -1, 0.5),))


def tanh() -> Example:
    """0, and tanh(½ ln 3) = ½."""
    return Example(
        {"x": _(0, 0.5 * math.log(3), -2)}, (_(1, -2, 3),), note="x[1] = ½ ln 3, where tanh is ½ and 1 − y² is ¾."
    )  # fmt: skip


def softmax() -> Example:
    """Logarithms of small numbers."""
    return Example(
        {"x": np.log(_([1, 2, 5]))}, (_([1, -1, 2]),), note="x = ln 1, ln 2, ln 5: the probabilities are 1/8, 2/8, 5/8."
    )  # fmt: skip


def embedding() -> Example:
    """A row looked up twice, and one never."""
    return Example(
        {"table": _([1, 2], [3, 4], [5, 6]), "ids": np.array([2, 0, 2])}, (_([0.1, 0.2], [1, -1], [0.3, 0.5]),),
        note="Row 2 was looked up twice and gets the sum; row 1 never, and gets 0.",
    )  # fmt: skip


def gather() -> Example:
    """Two sequences of two positions."""
    return Example(
        {"x": _([[1, 2], [3, 4]], [[5, 6], [7, 8]]), "positions": np.array([3, 0, 3])},
        (_([1, -1], [2, 0.5], [0.25, 3]),),
        note="Position 3 is b·S + s = 1·2 + 1: the second of the second sequence.",
    )


def dropout() -> Example:
    """Half of the entries."""
    return Example(
        {"x": _(1, -2, 3, 0.5), "keep": np.array([1, 0, 1, 1]), "rate": 0.25}, (_(1, 2, -1, 0.5),),
        note="What is kept is divided by 1 − 0.25, so that the mean stays.",
    )  # fmt: skip


def attention_probabilities() -> tuple[Example, Example]:
    """Two positions, two heads of one feature; the last key masked in the second example."""
    q, k, dp = _([[1, 2], [-1, 0.5]]), _([[0.5, 1], [2, -1]]), _([[[1, -1], [2, 0.5]], [[0, 1], [-2, 1]]])
    options: dict[str, Any] = {"heads": 2, "mask_value": -math.inf}
    return (
        Example({"q": q, "k": k, "mask": np.array([[1, 1]]), **options}, (dp,), note="D = 1, so that √D = 1."),
        Example(
            {"q": q, "k": k, "mask": np.array([[1, 0]]), **options}, (dp,),
            note="One visible key takes all the probability, and no gradient passes.",
        ),
    )  # fmt: skip


def attention() -> tuple[Example, Example]:
    """One head, three keys of which the last is padding; then two heads with dropout."""
    plain = {
        "q": _([[1, 0.5], [0, 2], [1, 1]]),
        "k": _([[1, -1], [0.5, 1], [2, 2]]),
        "v": _([[1, 0], [0, 2], [3, -1]]),
        "mask": np.array([[1, 1, 0]]), "heads": 1, "mask_value": -math.inf,
    }  # fmt: skip
    dropped = {
        "q": _([[1, 2], [-1, 0.5]]), "k": _([[0.5, 1], [2, -1]]), "v": _([[1, -2], [3, 0.5]]),
        "mask": np.array([[1, 1]]), "heads": 2, "mask_value": -math.inf,
        "keep": np.array([[[[1, 0], [1, 1]], [[1, 1], [0, 1]]]]), "rate": 0.5,
    }  # fmt: skip
    return (
        Example(plain, (_([[1, -1], [0.5, 2], [0, 1]]),), note="The masked key has no weight, k and v no gradient."),
        Example(dropped, (_([[1, -1], [0.5, 2]]),), note="With dropout the weights of a row no longer add up to 1."),
    )  # fmt: skip


def cross_entropy() -> Example:
    """Three rows, one of them not labelled."""
    return Example(
        {"logits": np.log(_([1, 2, 5], [1, 1, 2], [4, 1, 1])), "labels": np.array([1, IGNORE, 0]), "denominator": 2.0},
        (np.array(1.5),),
        note="Row 0: p = 1/8, 2/8, 5/8 and label 1, so −ln ¼; row 2: −ln 4/6. Half their sum.",
    )


def mean_squared_error() -> Example:
    """Two numbers."""
    return Example(
        {"x": _([1], [3.5]), "targets": _([2], [3]), "denominator": 2.0}, (np.array(2.0),),
        note="((1 − 2)² + (3.5 − 3)²)/2 = 0.625.",
    )  # fmt: skip


def reshape() -> Example:
    """Two rows of three as three of two."""
    return Example({"x": _([1, 2, 3], [4, 5, 6]), "shape": (3, 2)}, (_([1, -1], [2, 0.5], [3, 0]),))


def transpose() -> Example:
    """Rows and columns exchanged."""
    return Example({"x": _([1, 2, 3], [4, 5, 6]), "axes": (1, 0)}, (_([1, -1], [2, 0.5], [3, 0]),))


_NEW = ("new p", "new m", "new v")


def bert_adam() -> Example:
    """The second step of two parameters."""
    return Example(
        {"p": _(1, -2), "g": _(0.5, 0.1), "m": _(0.1, 0), "v": _(0.01, 0.04), "lr": 0.1, "beta1": 0.9, "beta2": 0.99,
         "eps": 1e-6, "weight_decay": 0.01}, outputs=_NEW, note="m = 0.9·0.1 + 0.1·0.5 = 0.14 and no correction.",
    )  # fmt: skip


def adamw() -> Example:
    """The same step, corrected."""
    return Example(
        {"p": _(1, -2), "g": _(0.5, 0.1), "m": _(0.1, 0), "v": _(0.01, 0.04), "lr": 0.1, "beta1": 0.9, "beta2": 0.99,
         "eps": 1e-6, "weight_decay": 0.01, "step": 2}, outputs=_NEW, note="1 − 0.9² = 0.19 and 1 − 0.99² = 0.0199.",
    )  # fmt: skip


def lamb() -> Example:
    """A vector of length 5."""
    return Example(
        {"p": _(3, -4), "g": _(0.5, 0.1), "m": _(0.1, 0), "v": _(0.01, 0.04), "lr": 0.1, "beta1": 0.9, "beta2": 0.99,
         "eps": 1e-6, "weight_decay": 0.01, "step": 2}, outputs=_NEW, note="‖p‖ = 5, so p moves by exactly lr·5 = 0.5.",
    )  # fmt: skip


def clip_by_global_norm() -> Example:
    """3, 4 and 12 have the norm 13."""
    return Example(
        {"gradients": {"a": _(3, -4), "b": _([12])}, "max_norm": 6.5}, outputs=("clipped", "norm"),
        note="√(9 + 16 + 144) = 13, twice what is allowed.",
    )  # fmt: skip


def mask_tokens() -> Example:
    """Six tokens, each with another fate."""
    return Example(
        {
            "input_ids": np.array([1, 7, 8, 9, 6, 2]), "special": np.array([1, 0, 0, 0, 0, 1]),
            "select": _(0.05, 0.1, 0.12, 0.02, 0.6, 0.9), "action": _(0, 0.3, 0.85, 0.95, 0.1, 0.5),
            "random_ids": np.array([4, 5, 4, 6, 7, 5]), "rate": 0.15, "mask_id": 3,
        },
        outputs=("input_ids", "labels"),
        note="By position: special; [MASK]; random; chosen but kept; not chosen; special.",
    )  # fmt: skip
