"""Level "training": what the optimizer updates promise beyond numbers. Training is only resumed, and only debugged, if
the same update gives the same bits and leaves alone what it is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

from refbert import ops
from refbert.backend import Host
from refbert_conformance.cases.updates import ClipCase, UpdateCase, clip_cases, update_cases, update_corpus
from refbert_conformance.engine.measure import Failure, Record, check_array, same_bits
from refbert_conformance.engine.property import Property
from refbert_conformance.engine.subject import Subject
from refbert_conformance.tolerances.bounds import UPDATES

_CALLS = 5
_OFTEN = 150  # for the first of the corpus


def properties() -> list[Property]:
    """Every rule, and clipping."""
    found = [
        Property(
            "training", rule, "calls", "An update repeats bit for bit, and changes neither inputs nor old results.",
            check=_update, draw=_cases(rule), corpus=_corpus(rule), needs=("asarray", "to_numpy", rule), cost=2,
        )
        for rule in UPDATES
    ]  # fmt: skip
    clip: dict[str, Any] = {"needs": ("asarray", "to_numpy", "clip_by_global_norm")}
    return [
        *found,
        Property(
            "forward", "mask_tokens", "kinds", "Any shape, rate 0, any mask and equal tokens: the reference's.",
            check=_mask_tokens, draw=st.integers(0, 2**20), needs=("mask_tokens",), cost=2,
        ),
        Property(
            "contract", "mask_tokens", "errors", "Rates that are none, and shapes that differ, raise ValueError.",
            check=_mask_tokens_errors, needs=("mask_tokens",),
        ),
        Property(
            "training", "clip_by_global_norm", "calls", "It repeats bit for bit, and changes no gradient it is given.",
            check=_clip, draw=lambda s: clip_cases(s.dtype), cost=2, **clip,
        ),
        Property(
            "training", "clip_by_global_norm", "not finite", "A norm that is not finite is told, and spoils them all.",
            check=_not_finite, **clip,
        ),
    ]  # fmt: skip


def _cases(rule: str) -> Callable[[Subject], Any]:
    return lambda subject: update_cases(rule, subject.dtype)


def _corpus(rule: str) -> Callable[[Subject], tuple[UpdateCase, ...]]:
    return lambda subject: update_corpus(rule, subject.dtype)


def _changed(subject: Subject, given: Mapping[str, Any], before: Mapping[str, Host]) -> None:
    for name, array in given.items():
        if not same_bits(np.array(subject.host(array)).astype(np.float64), before[name]):
            raise Failure(f"{name} was written into")


def _update(subject: Subject, case: UpdateCase, record: Record) -> None:
    rule = subject.op(case.op)
    before = dict(zip("pgmv", case.arrays, strict=True))
    arrays = {name: subject.device(a.copy()) for name, a in before.items()}

    def call() -> list[Any]:
        results = rule(*arrays.values(), **case.options)
        if not isinstance(results, tuple | list) or len(results) != 3:
            raise Failure(f"{case.op} must return (p, m, v)")
        return list(results)

    first = call()
    kept = [
        np.array(check_array(subject.host(x, before["p"].shape, name), before["p"].shape, subject.arithmetic, name))
        for name, x in zip("pmv", first, strict=True)
    ]
    _changed(subject, arrays, before)
    often = case.options == update_corpus(case.op, subject.dtype)[0].options and case.arrays[0].shape == (2, 3)
    for number in range(2, (_OFTEN if often else _CALLS) + 1):
        for name, x, was in zip("pmv", call(), kept, strict=True):
            if case.op not in subject.arithmetic.nondeterministic and not same_bits(np.array(subject.host(x)), was):
                raise Failure(f"call {number} with the same arguments gives another {name}")
    rule(*(subject.device(a + 1) for a in case.arrays), **case.options)
    for name, x, was in zip("pmv", first, kept, strict=True):
        if not same_bits(np.array(subject.host(x)), was):
            raise Failure(f"a later call changed an earlier {name}")
    if case.op in subject.arithmetic.nondeterministic:
        return
    for i, name in enumerate("pgmv"):  # one new array where the others are those of the last call, or come from it
        p, m, v = call()
        for last in ([p, arrays["g"], m, v], list(arrays.values())):
            _one_new(subject, case, last, i, name)


def _one_new(subject: Subject, case: UpdateCase, last: list[Any], i: int, name: str) -> None:
    rule = subject.op(case.op)
    changed = [subject.device(abs(case.arrays[i]) + 1) if at == i else x for at, x in enumerate(last)]
    fresh = [subject.device(np.array(subject.host(x)).astype(np.float64)) for x in changed]
    for output, a, b in zip("pmv", rule(*changed, **case.options), rule(*fresh, **case.options), strict=True):
        if not same_bits(np.array(subject.host(a)), np.array(subject.host(b))):
            raise Failure(f"only {name} is new, and {output} is not what it is where every array is new")


def _clip(subject: Subject, case: ClipCase, record: Record) -> None:
    clip = subject.op("clip_by_global_norm")
    gradients = {name: subject.device(g.copy()) for name, g in case.gradients.items()}
    first, norm = clip(gradients, **case.options)
    kept = {name: np.array(subject.host(g)) for name, g in first.items()}
    _changed(subject, gradients, case.gradients)
    for number in range(2, _CALLS * 4):
        # ε is 0 where none is given.
        again, norm_again = clip(gradients, **{**({"epsilon": 0.0} if number == 2 else {}), **case.options})
        if "clip_by_global_norm" in subject.arithmetic.nondeterministic:
            continue
        was, now = float(norm), float(norm_again)
        if now != was and not math.isnan(was):
            raise Failure(f"call {number} with the same gradients gives the norm {now}, was {was}")
        for name, g in again.items():
            if not same_bits(np.array(subject.host(g)), kept[name]):
                raise Failure(f"call {number} with the same gradients gives another {name}")
    clip({name: subject.device(2 * g) for name, g in case.gradients.items()}, **case.options)
    for name, g in first.items():
        if not same_bits(np.array(subject.host(g)), kept[name]):
            raise Failure(f"a later call changed an earlier {name}")


def _not_finite(subject: Subject, example: Any, record: Record) -> None:
    for bad in (math.nan, math.inf, -math.inf):
        gradients = {"a": np.ones((2, 3)), "b": np.array([1.0, bad])}
        device = {name: subject.device(g) for name, g in gradients.items()}
        clipped, norm = subject.op("clip_by_global_norm")(device, max_norm=1.0)
        if math.isfinite(float(norm)):
            raise Failure(f"with a gradient of {bad} the norm is {float(norm)}")
        for name, g in clipped.items():
            if not np.isnan(np.array(subject.host(g))).all():
                raise Failure(f"with a gradient of {bad} every clipped gradient must be NaN, {name} is not")


# One sequence, an empty batch, one token, more axes; and more than a block.
_TOKENS = ((7,), (0, 5), (1, 1), (2, 3, 4), (2, 5), (3, 700))


def _tokens(seed: int) -> tuple[tuple[Host, Host], dict[str, Any]]:
    """Few different ids, so that [MASK], the random token and the token itself are often the same."""
    rng = np.random.default_rng(seed)
    shape = _TOKENS[seed % len(_TOKENS)]
    largest = (4, 70_000)[seed // 7 % 2]
    rate = (0.0, 1.0, 0.5, 0.15)[seed // 5 % 4]
    # Draws next to the rate: in a narrower dtype they would be the rate itself.
    select = np.where(rng.random(shape) < 0.2, np.nextafter(rate, 0), rng.random(shape))
    ids, random_ids = (rng.integers(largest - 4, largest + 1, shape) for _ in range(2))
    kind = (np.bool_, np.int64, np.int32, np.float32)[seed // 3 % 4]
    options = {
        "select": select, "action": rng.random(shape), "random_ids": random_ids,
        "rate": rate, "mask_id": largest - 2,
    }  # fmt: skip
    return (ids, (rng.random(shape) < 0.3).astype(kind)), options


def _mask_tokens(subject: Subject, seed: int, record: Record) -> None:
    arrays, options = _tokens(seed)
    got = subject.op("mask_tokens")(*arrays, **options)
    for name, one, want in zip(("input_ids", "labels"), got, ops.mask_tokens(*arrays, **options), strict=True):
        if np.asarray(one).shape != want.shape or not np.array_equal(one, want):
            raise Failure(f"{name} are not refbert.ops.mask_tokens'")


def _mask_tokens_errors(subject: Subject, example: Any, record: Record) -> None:
    arrays, options = _tokens(4)
    bad: list[tuple[str, Any]] = [("rate", rate) for rate in (-0.1, 1.1, math.nan)]
    bad += [(name, options[name][:1]) for name in ("select", "action", "random_ids")]
    for name, value in [*bad, ("special", arrays[1][:1])]:
        special = value if name == "special" else arrays[1]
        changed = options if name == "special" else {**options, name: value}
        try:
            subject.op("mask_tokens")(arrays[0], special, **changed)
        except ValueError:
            continue
        what = value if name == "rate" else f"of shape {value.shape} for ids of {arrays[0].shape}"
        raise Failure(f"{name} {what}: accepted; refbert.ops.mask_tokens raises ValueError")


__all__ = ["properties"]
