"""Time against S, B, L, H and threads, forward and step, and where it goes: products, attention, Python, the rest.

The cost is taken apart from outside, so that any implementation can be: the bare products of the linear maps, those of
attention, and the forward (or step) of a model as deep but of the smallest sizes, which is nearly only Python. What is
left is elementwise work (softmax, GELU, LayerNorm, biases) and memory.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from speed.cases import Case, Contender, hugging_face, refbert
from speed.inputs import config_of
from speed.report import operations

# H = 768 as in bert-base, but four layers: the times are a third, the picture is the same.
DEFAULT = {"S": 128, "B": 8, "L": 4, "H": 768}
AXES: Mapping[str, tuple[int, ...]] = {
    "S": (16, 32, 64, 128, 256, 512),
    "B": (1, 2, 4, 8, 16, 32),
    "L": (1, 2, 4, 8, 12),
    "H": (128, 256, 512, 768, 1024),
}
OURS, PEER = "refbert numpy", "Hugging Face sdpa"
PRODUCTS, ATTENTION, PYTHON, REST = "linear products", "attention products", "Python", "elementwise and the rest"
_TINY = {"hidden_size": 12, "num_attention_heads": 1, "intermediate_size": 12, "vocab_size": 64}


def cases(threads: int) -> list[Case]:
    """A case for each point of each axis; axis and value are in its work."""
    points = {axis: tuple(values) for axis, values in AXES.items()} | {"threads": tuple(range(1, threads + 1))}
    return [case(kind, axis, at) for kind in ("forward", "step") for axis, values in points.items() for at in values]


def case(kind: str, axis: str, at: int) -> Case:
    """One point: everything at its default but this axis."""
    point = DEFAULT | {axis: at}
    H = point["H"]
    sizes = {
        "hidden_size": H,
        "num_attention_heads": H // 64,
        "intermediate_size": 4 * H,
        "num_hidden_layers": point["L"],
    }
    work: dict[str, Any] = {
        "kind": kind, "model": "bert-base-uncased", "sizes": sizes, "B": point["B"], "S": point["S"],
        "axis": axis, "at": at,
    }  # fmt: skip
    if axis == "threads":
        work["threads"] = at
    least = {"B": 1, "S": 2, "sizes": sizes | _TINY, "tiny": True}
    contenders = (
        refbert("numpy"),
        hugging_face("sdpa"),
        Contender(PRODUCTS, "products", {"name": PRODUCTS}, work={"part": "products"}, alike=False),
        Contender(ATTENTION, "products", {"name": ATTENTION}, work={"part": "attention"}, alike=False),
        Contender(PYTHON, "refbert", {"backend": "numpy", "fresh": True}, work=least, alike=False),
    )
    return Case(f"scale-{kind}-{axis}-{at}", f"scale-{axis}", work, contenders)


def costs(found: Mapping[str, Any]) -> dict[str, Any] | None:
    """Where the time of one point goes (seconds by part), the model's operations by part, GFLOP/s; None if unknown.

    The parts are measured apart from each other, so the rest can come out a little under 0 where it is nearly nothing:
    it is given as it comes.
    """
    contenders = found["contenders"]
    if any(not contenders.get(name, {}).get("values") for name in (OURS, PRODUCTS, ATTENTION, PYTHON)):
        return None
    time = {name: statistics.median(contenders[name]["values"]) for name in (OURS, PRODUCTS, ATTENTION, PYTHON)}
    total = time.pop(OURS)
    seconds = time | {REST: total - sum(time.values())}
    work = found["work"]
    config = config_of(work)
    passes = 3 if work["kind"] == "step" else 1
    attention = passes * 4 * work["S"] * config.hidden_size * config.num_hidden_layers * work["B"] * work["S"]
    every = operations(work) or 0
    return {
        "total": total,
        "seconds": seconds,
        "operations": {PRODUCTS: every - attention, ATTENTION: attention},
        "gflop_per_second": every / total / 1e9,
    }
