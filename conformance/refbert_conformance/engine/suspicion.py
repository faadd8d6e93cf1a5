"""A second verdict, "suspect": whether errors that are all within their bounds are, taken together, those of rounding.

Every op is asked for many results of inputs drawn at random. Two things are looked at, against what `moments` derives
from the declared arithmetic (b, σ): the mean of the errors along a direction, and their mean square.

    z = d·clip(e/τ, −1, 1), τ = σ + b       |E z| ≤ E |d| b/τ: but for b, e is symmetric, and so is what is left of it
                                            by clipping, which moves no two numbers apart
    q = min((|e| − b)₊²/σ², 4)              E q ≤ 1

Directions d follow from the inputs alone: 1 (too large); the sign of the result (too far from 0); the sign of what the
result does when the first argument grows, for the quarter of the entries that do most of it (as if a constant before it
were off).

Entries that share an input are one sample, by their mean. Samples are independent: each has inputs of its own, and what
they share (weights, which only multiply; what is added has few bits) is fixed. The mean of n independent numbers from
an interval of length r, whose sample variance is V, is with a probability of at most δ further from its expectation, to
one side, than

    √(2V ln(2/δ)/n) + 7r ln(2/δ)/(3(n − 1))

(Maurer & Pontil 2009, "Empirical Bernstein bounds and sample variance penalization", Thm 11). A limit therefore needs
no more of the distribution of errors than the two expectations above. Each output has seven such tests, two sides of
three directions and one of squares, and there are fewer than 35: δ = 10⁻¹² makes that 10⁻⁹ for four dtypes together.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np

from refbert import ops
from refbert.backend import Host
from refbert_conformance.cases.inputs import rounded
from refbert_conformance.engine.measure import Failure, check_array
from refbert_conformance.engine.subject import Subject, backward, forward
from refbert_conformance.tolerances.bounds import ARRAYS, OUTPUTS
from refbert_conformance.tolerances.moments import Moments, moments

DELTA = 1e-12
CHANCE = 1e-9
_LOG = math.log(2 / DELTA)
_SQUARES = 4.0  # where q ends
BARS = 21
_GROWN = 2.0**-10

Counts = Annotated[tuple[int, ...], "counts"]


@dataclass(frozen=True, kw_only=True)
class Errors:
    """What was seen of one output.

    case: what it was asked for. samples: independent ones, of ``elements`` in all. direction: that in which ``mean``,
    the one of z, is largest for its ``limit``. share: how much of the result (or of the argument) the error is there.
    square: the mean of q. bars: counts of sign(y)·e/τ in equal parts of [−edge, edge], the outer ones with all that is
    beyond. suspect: what this looks like, if a limit is passed.
    """

    op: str
    output: str
    case: str
    elements: int
    samples: int
    direction: str
    mean: float
    limit: float
    share: float
    square: float
    square_limit: float
    edge: float
    bars: Counts
    suspect: str | None

    @property
    def id(self) -> str:
        """Its place among the properties."""
        return f"{'forward' if self.output == 'y' else 'backward'}/{self.op}"


@dataclass(frozen=True)
class Trial:
    """One call. axes: output -> the axis along which its entries have inputs of their own."""

    says: str
    arrays: tuple[Host, ...]
    options: Mapping[str, Any]
    dy: Host | None
    axes: Mapping[str, int]


Draw = Callable[..., Host]


def _short(x: Host) -> Host:
    """Of few bits, for what is added to every sample: a rounding would take the same low bits off all of them."""
    return np.asarray(np.rint(4 * x) / 4)


def _linear(n: Draw) -> Iterator[Trial]:
    yield Trial("sums of 4", (n(8192, 4), n(4, 4), _short(n(4))), {}, n(8192, 4), {"y": 0, "dx": 0})
    yield Trial("sums of 256", (n(2048, 256), n(4, 256), _short(n(4))), {}, None, {"y": 0})
    yield Trial("sums of 64", (n(64, 4), n(4096, 4), n(4096)), {}, n(64, 4096), {"dw": 0, "db": 0})


def _layer_norm(n: Draw) -> Iterator[Trial]:
    yield Trial("rows of 256", (n(1024, 256), n(256), _short(n(256, scale=0.2))), {"eps": 1e-12}, None, {"y": 0})
    yield Trial("rows of 32", (n(2048, 32), n(32), n(32)), {"eps": 1e-12}, n(2048, 32), {"dx": 0})


def _elementwise(n: Draw, **options: Any) -> Iterator[Trial]:
    yield Trial(", ".join(map(str, options.values())), (n(16384),), options, n(16384), {"y": 0, "dx": 0})


def _gelu(n: Draw) -> Iterator[Trial]:
    yield from _elementwise(n, form="erf")
    yield from _elementwise(n, form="tanh")


def _softmax(n: Draw) -> Iterator[Trial]:
    yield Trial("rows of 128", (n(2048, 128),), {}, None, {"y": 0})
    yield Trial("rows of 32", (n(2048, 32),), {}, n(2048, 32), {"dx": 0})


def _attention(n: Draw, count: int = 3) -> Iterator[Trial]:
    B, S = 2048, 4
    for D, outputs in ((64, ("y",)), (16, ("dq", "dk", "dv")[:count])):
        # Scores of 9 on either side: what scales them shows in small probabilities. Each key's value has features of
        # its own, so that a result is one probability times a number.
        scale = 6 / D**0.25
        own = np.repeat(np.eye(S), D // S, axis=1)
        arrays = (n(B, S, D, scale=scale), n(B, S, D, scale=scale), n(B, S, D) * own)[:count]
        options = {"mask": np.ones((B, S), np.int64), "heads": 1, "mask_value": -math.inf}
        dy = n(B, S, D) if count == 3 else n(B, 1, S, S)
        yield Trial(f"{S} keys of {D}", arrays, options, dy, dict.fromkeys(outputs, 0))


def _add(n: Draw) -> Iterator[Trial]:
    yield Trial("", (n(16384), n(16384)), {}, None, {"y": 0})


def _dropout(n: Draw) -> Iterator[Trial]:
    keep = np.ones(16384, bool)
    yield Trial("rate 0.25", (n(16384),), {"keep": keep, "rate": 0.25}, n(16384), {"y": 0, "dx": 0})


def _embedding(n: Draw) -> Iterator[Trial]:
    yield Trial("sums of 32", (n(2, 2048),), {"ids": np.arange(64) % 2}, n(64, 2048), {"dtable": 1})


def _gather(n: Draw) -> Iterator[Trial]:
    yield Trial("sums of 32", (n(2, 2048),), {"positions": np.arange(64) % 2}, n(64, 2048), {"dx": 1})


# A loss is one number: its gradient has many. Denominators and cotangents of 1, so that no constant is rounded.
def _cross_entropy(n: Draw) -> Iterator[Trial]:
    options = {"labels": np.arange(2048) % 64, "denominator": 1.0}
    yield Trial("64 classes", (n(2048, 64),), options, np.ones(()), {"dlogits": 0})


def _mean_squared_error(n: Draw) -> Iterator[Trial]:
    yield Trial("", (n(16384),), {"targets": n(16384), "denominator": 1.0}, np.ones(()), {"dx": 0})


TRIALS: Mapping[str, Callable[[Draw], Iterator[Trial]]] = {
    "add": _add, "embedding": _embedding, "gather": _gather, "linear": _linear, "layer_norm": _layer_norm,
    "gelu": _gelu, "tanh": _elementwise, "softmax": _softmax,
    "attention_probabilities": partial(_attention, count=2), "attention": _attention, "dropout": _dropout,
    "cross_entropy": _cross_entropy, "mean_squared_error": _mean_squared_error,
}  # fmt: skip


def measured(subject: Subject, op: str, levels: Sequence[str], seed: int = 0) -> list[Errors]:
    """What the subject's op is like, of its result ("forward" among the levels) and its cotangents ("backward")."""
    dtype, found = subject.dtype, list[Errors]()
    number = int.from_bytes(hashlib.blake2b(f"{seed}/{op}".encode(), digest_size=8).digest(), "big")
    rng = np.random.default_rng(number)

    def normal(*shape: int, scale: float = 1.0) -> Host:
        return rounded(scale * rng.standard_normal(shape), dtype)

    for trial in TRIALS[op](normal):
        wanted = [name for name in trial.axes if ("forward" if name == "y" else "backward") in levels]
        if wanted:
            found += _tried(subject, op, trial, wanted)
    return found


def _tried(subject: Subject, op: str, trial: Trial, wanted: Sequence[str]) -> Iterator[Errors]:
    dy = None if wanted == ["y"] else trial.dy
    arrays = subject.devices(trial.arrays)
    y, pullback = forward(subject, op, arrays, trial.options)
    results = [y, *(() if dy is None else backward(pullback, subject.device(dy), len(arrays)))]
    due = moments(op, trial.arrays, trial.options, subject.arithmetic, dy)
    grown = _grown(op, trial, dy)
    for name, result, one, more in zip(OUTPUTS[op], results, due, grown, strict=False):
        if name in wanted:
            got = check_array(subject.host(result, one.y.shape, name), one.y.shape, subject.arithmetic, name)
            yield errors(op, trial.says, got, one, more, trial.axes[name])


def _grown(op: str, trial: Trial, dy: Host | None) -> list[Host]:
    """What the reference gives where the first argument is a little larger."""
    first, *others = trial.arrays
    y, pullback = getattr(ops, op)(first * (1 + _GROWN), *others, **trial.options)
    return [y, *(() if dy is None else pullback(dy))]


def errors(op: str, case: str, got: Host, due: Moments, grown: Host, axis: int) -> Errors:
    """The statistics of one output. ``grown``: what it is for a first argument larger by the share of 2⁻¹⁰."""
    y, b, sigma = due.y, due.bias, due.spread
    with np.errstate(all="ignore"):
        tau = b + sigma
        judged = np.isfinite(tau) & (tau > 0)
        e = np.where(judged, np.asarray(got, np.float64) - y, 0)
        ratio = np.where(judged, e / tau, 0)
        allowed = np.where(judged, b / tau, 0)
        rest = np.where(e == 0, 0, np.maximum(abs(e) - b, 0) / sigma)
    if not np.isfinite(ratio).all():
        raise Failure(f"{due.name} is not finite where it should be")
    z, moved = np.clip(ratio, -1, 1), _moved(y, (grown - y) / _GROWN, np.where(judged, tau, np.inf))

    def along(d: Host) -> tuple[float, float]:
        """The mean of z in the direction, and its limit."""
        mean, off = _mean(np.sign(d) * z, axis, 2 * _most(d, axis))
        return mean, float(allowed[d != 0].sum() / d.size) + off

    directions = {"out": y, "up": np.ones_like(y), "argument": moved}
    found = {name: along(d) for name, d in directions.items()}
    direction, (mean, limit) = max(found.items(), key=lambda one: abs(one[1][0]) / one[1][1])
    d = directions[direction]
    square, off = _mean(np.minimum(rest * rest, _SQUARES), axis, _SQUARES)
    norm = float((d * d).sum()) if direction != "up" else float(abs(y).sum())
    share = float((e * d).sum()) / norm if norm else 0.0
    edge, bars = _bars(np.sign(y) * ratio)
    return Errors(
        op=op, output=due.name, case=case, elements=y.size, samples=y.shape[axis], direction=direction, mean=mean,
        limit=limit, share=share, square=square, square_limit=1 + off, edge=edge, bars=bars,
        suspect=_looks_like(direction, mean / limit, share, square / (1 + off)),
    )  # fmt: skip


def _moved(y: Host, slope: Host, tau: Host) -> Host:
    """The slope, where it is large for τ; 0 elsewhere, and where it is nothing but rounding of the reference. Low bits
    must not decide where that is: sizes that differ by a thousandth are the same."""
    size = np.where(abs(slope) > 1e-3 * abs(y), abs(slope) / tau, 0)
    return np.where((size > 0) & (size >= 0.999 * np.quantile(size, 0.75)), slope, 0)


def _samples(x: Host, axis: int) -> Host:
    """The mean of each."""
    return np.asarray(np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1).mean(axis=1))


def _most(d: Host, axis: int) -> float:
    """The largest share of its entries that a sample has in the direction."""
    return float(_samples(d != 0, axis).max())


def _mean(x: Host, axis: int, length: float) -> tuple[float, float]:
    """The mean, and how far it is from its expectation at most: samples come from an interval of that length."""
    samples = _samples(x, axis)
    n = len(samples)
    off = math.sqrt(2 * float(samples.var(ddof=1)) * _LOG / n) + 7 * length * _LOG / (3 * (n - 1))
    # Where a direction has no entry, nothing can be off.
    return float(samples.mean()), off or math.inf


def _bars(x: Host) -> tuple[float, tuple[int, ...]]:
    """A histogram on as small a scale, by powers of two, as holds 99 of 100."""
    most = float(np.quantile(abs(x), 0.99))
    edge = 2.0 ** math.ceil(math.log2(max(most, 2.0**-20)))
    counts, _ = np.histogram(np.clip(x, -edge, edge), BARS, (-edge, edge))
    return edge, tuple(map(int, counts))


def _looks_like(direction: str, mean: float, share: float, square: float) -> str | None:
    """What passes a limit looks like: ``mean`` and ``square`` by their limits, and the larger of them names it."""
    if max(abs(mean), square) <= 1:
        return None
    if square > abs(mean):
        return "errors larger than these roundings make: a step or operands in a narrower format than declared"
    more, size = mean > 0, f"{abs(share):.1e}"
    if direction == "up":
        return f"too {'large' if more else 'small'} on average: rounding {'up' if more else 'down'}"
    if direction == "out":
        cause = "a divisor too small, or a factor too large" if more else "truncation, or a factor too small"
        return f"too {'far from' if more else 'near to'} 0 by {size} of the result: {cause}"
    way = "larger" if more else "smaller"
    return f"as if the first argument were {size} of itself {way}: a constant off, or truncation"


assert set(TRIALS) <= set(ARRAYS)
