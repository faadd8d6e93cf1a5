"""The examples: for each op and block, arguments with few and short numbers, so that a page can be checked by hand.

LayerNorm's gain is not 1 and cotangents are uneven: with ones, a wrong gradient looks right.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from refbert.ops.cross_entropy import IGNORE
from refbert_inspection.explain.block_examples import BLOCKS
from refbert_inspection.explain.catalogue import Entry
from refbert_inspection.explain.worked_examples import Example, Worked, work


def examples(name: str) -> Sequence[Example]:
    """The examples of an entry."""
    return OPS[name] if name in OPS else BLOCKS.get(name, ())


def worked(entry: Entry) -> Iterator[Worked]:
    """Every example of an entry, worked through."""
    for example in examples(entry.name):
        yield work(entry, example)


def _(*rows: Any) -> Any:
    return np.array(rows, dtype=np.float64)


def _op(*, dy: Any = None, outputs: tuple[str, ...] = (), note: str = "", **arguments: Any) -> Example:
    return Example(arguments, () if dy is None else (dy,), outputs, note)


# An update: the second step of two parameters.
_STEP: dict[str, Any] = {
    "p": _(1, -2), "g": _(0.5, 0.1), "m": _(0.1, 0), "v": _(0.01, 0.04), "lr": 0.1, "beta1": 0.9, "beta2": 0.99,
    "eps": 1e-6, "weight_decay": 0.01, "outputs": ("new p", "new m", "new v"),
}  # fmt: skip
# Attention: two positions, two heads of one feature.
_QK: dict[str, Any] = {"q": _([[1, 2], [-1, 0.5]]), "k": _([[0.5, 1], [2, -1]])}
_TWO_HEADS: dict[str, Any] = {"heads": 2, "mask_value": -math.inf}
_DP = _([[[1, -1], [2, 0.5]], [[0, 1], [-2, 1]]])

OPS: Mapping[str, Sequence[Example]] = {
    "add": [_op(x=_([1, -2], [0.5, 3]), z=_([0.25, 1], [-1, 2]), dy=_([1, 2], [3, -1]))],
    "linear": [_op(
        x=_([1, 2, -1], [0, 1, 3]), w=_([0.5, 1, -1], [2, 0, 0.25]), b=_(0.1, -0.2), dy=_([1, -1], [2, 0.5]),
        note="w has one row for each output: y[0, 0] = 1·0.5 + 2·1 + (−1)·(−1) + 0.1.",
    )],
    # Mean 3, deviations −2, −1, 3
    "layer_norm": [_op(
        x=_([1, 2, 6]), gamma=_(2, 0.5, -1), beta=_(0.1, 0, 0.3), eps=1e-12, dy=_([1, -2, 0.5]),
        note="dx adds up to 0, and so does dx times xhat: a row may be shifted and scaled without moving xhat.",
    )],
    "gelu": [
        _op(x=_(-1, 0, 0.5, 2), form="erf", dy=_(1, 2, -1, 0.5),
            note="Φ(0) = ½, and Φ(−1) = 0.158655 is in every table."),
        _op(x=_(-1, 0, 0.5, 2), form="tanh", dy=_(1, 2, -1, 0.5), note="The same x: compare with the form above."),
    ],
    "relu": [_op(x=_(-1.5, -0.25, 0.5, 2), dy=_(1, 2, -1, 0.5))],
    "tanh": [_op(
        x=_(0, 0.5 * math.log(3), -2), dy=_(1, -2, 3), note="x[1] = ½ ln 3, where tanh is ½ and 1 − y² is ¾."
    )],
    "softmax": [_op(
        x=np.log(_([1, 2, 5])), dy=_([1, -1, 2]), note="x = ln 1, ln 2, ln 5: the probabilities are 1/8, 2/8, 5/8."
    )],
    "embedding": [_op(
        table=_([1, 2], [3, 4], [5, 6]), ids=np.array([2, 0, 2]), dy=_([0.1, 0.2], [1, -1], [0.3, 0.5]),
        note="Row 2 was looked up twice and gets the sum; row 1 never, and gets 0.",
    )],
    "gather": [_op(
        x=_([[1, 2], [3, 4]], [[5, 6], [7, 8]]), positions=np.array([3, 0, 3]), dy=_([1, -1], [2, 0.5], [0.25, 3]),
        note="Position 3 is b·S + s = 1·2 + 1: the second of the second sequence.",
    )],
    "dropout": [_op(
        x=_(1, -2, 3, 0.5), keep=np.array([1, 0, 1, 1]), rate=0.25, dy=_(1, 2, -1, 0.5),
        note="What is kept is divided by 1 − 0.25, so that the mean stays.",
    )],
    "attention_probabilities": [
        _op(**_QK, mask=np.array([[1, 1]]), **_TWO_HEADS, dy=_DP, note="D = 1, so that √D = 1."),
        _op(**_QK, mask=np.array([[1, 0]]), **_TWO_HEADS, dy=_DP,
            note="One visible key takes all the probability, and no gradient passes."),
    ],
    "attention": [
        _op(
            q=_([[1, 0.5], [0, 2], [1, 1]]), k=_([[1, -1], [0.5, 1], [2, 2]]), v=_([[1, 0], [0, 2], [3, -1]]),
            mask=np.array([[1, 1, 0]]), heads=1, mask_value=-math.inf, dy=_([[1, -1], [0.5, 2], [0, 1]]),
            note="The masked key has no weight, k and v no gradient.",
        ),
        _op(
            **_QK, v=_([[1, -2], [3, 0.5]]), mask=np.array([[1, 1]]), **_TWO_HEADS,
            keep=np.array([[[[1, 0], [1, 1]], [[1, 1], [0, 1]]]]), rate=0.5, dy=_([[1, -1], [0.5, 2]]),
            note="With dropout the weights of a row no longer add up to 1.",
        ),
    ],
    "cross_entropy": [_op(
        logits=np.log(_([1, 2, 5], [1, 1, 2], [4, 1, 1])), labels=np.array([1, IGNORE, 0]), denominator=2.0,
        dy=np.array(1.5), note="Row 0: p = 1/8, 2/8, 5/8 and label 1, so −ln ¼; row 2: −ln 4/6. Half their sum.",
    )],
    "mean_squared_error": [_op(
        x=_([1], [3.5]), targets=_([2], [3]), denominator=2.0, dy=np.array(2.0),
        note="((1 − 2)² + (3.5 − 3)²)/2 = 0.625.",
    )],
    "reshape": [_op(x=_([1, 2, 3], [4, 5, 6]), shape=(3, 2), dy=_([1, -1], [2, 0.5], [3, 0]))],
    "transpose": [_op(x=_([1, 2, 3], [4, 5, 6]), axes=(1, 0), dy=_([1, -1], [2, 0.5], [3, 0]))],
    "bert_adam": [_op(**_STEP, note="m = 0.9·0.1 + 0.1·0.5 = 0.14 and no correction.")],
    "adamw": [_op(**_STEP, step=2, note="1 − 0.9² = 0.19 and 1 − 0.99² = 0.0199.")],
    "lamb": [_op(**_STEP | {"p": _(3, -4)}, step=2, note="‖p‖ = 5, so p moves by exactly lr·5 = 0.5.")],
    "clip_by_global_norm": [_op(
        gradients={"a": _(3, -4), "b": _([12])}, max_norm=6.5, outputs=("clipped", "norm"),
        note="√(9 + 16 + 144) = 13, twice what is allowed.",
    )],
    "mask_tokens": [_op(
        input_ids=np.array([1, 7, 8, 9, 6, 2]), special=np.array([1, 0, 0, 0, 0, 1]),
        select=_(0.05, 0.1, 0.12, 0.02, 0.6, 0.9), action=_(0, 0.3, 0.85, 0.95, 0.1, 0.5),
        random_ids=np.array([4, 5, 4, 6, 7, 5]), rate=0.15, mask_id=3, outputs=("input_ids", "labels"),
        note="By position: special; [MASK]; random; chosen but kept; not chosen; special.",
    )],
}  # fmt: skip
