"""Level "training": the optimizer's step, rule by rule, and the norm that clipping needs.

Beyond numbers: training is only resumed, and only debugged, if the same update gives the same bits and leaves p alone.
It may write into g, m and v, so every call here gets arrays of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from refbert.backend import Host, host_dtype
from refbert_conformance.cases.updates import (
    NormCase,
    UpdateCase,
    large_norms,
    large_updates,
    norm_cases,
    norm_corpus,
    update_cases,
    update_corpus,
)
from refbert_conformance.engine.measure import Failure, Record, Unsupported, check_array, same_bits
from refbert_conformance.engine.property import Property, about, first_call
from refbert_conformance.engine.subject import Subject
from refbert_conformance.properties.blocks import must_stay
from refbert_conformance.properties.contract.common import must_refuse
from refbert_conformance.tolerances.bounds import UPDATES, normed, updated

_CALLS = 5
_OFTEN = 150  # for the first of the corpus


def properties() -> list[Property]:
    """Every rule, what is refused, and the norm."""
    norm = about("training", "global_norm")
    return [
        *(p for rule in UPDATES for p in _of(rule)),
        about("contract", "update")(
            "errors", "An unknown rule and a step below 1 are refused, and harm nothing.", _errors,
        ),
        norm("accuracy", "The norm over all gradients is within its rounding bound.", _norm,
             draw=lambda s: norm_cases(s.dtype), corpus=lambda s: norm_corpus(s.dtype),
             larger=lambda s: large_norms(s.dtype)),
        norm("calls", "It repeats bit for bit, and changes no gradient it is given.", _norm_calls,
             draw=lambda s: norm_cases(s.dtype), cost=2),
        norm("not finite", "A gradient that is not finite shows in the norm.", _norm_not_finite),
    ]  # fmt: skip


def _of(rule: str) -> list[Property]:
    def cases(subject: Subject) -> Any:
        return update_cases(rule, subject.dtype)

    def corpus(subject: Subject) -> tuple[UpdateCase, ...]:
        return update_corpus(rule, subject.dtype)

    of = partial(Property, "training", rule, needs=("asarray", "to_numpy", "update"))
    return [
        of("accuracy", "New parameters and moments are within their rounding bounds.", _accuracy, cases, corpus,
           larger=lambda s: large_updates(rule, s.dtype)),
        of("first call", "The very first update of a new instance is as right as any.", first_call(_accuracy),
           corpus=lambda s: corpus(s)[1:2]),
        of("calls", "An update repeats bit for bit, and changes neither p nor old results.", _calls, cases, corpus,
           cost=2),
        of("any layout", "New parameters and moments are right in any order of memory, all or p alone.", _any_layout,
           corpus=lambda s: corpus(s)[1:3]),
        of("not finite", "A scale of NaN, that of gradients without a norm, spoils every entry.", _not_finite,
           corpus=lambda s: corpus(s)[1:3]),
    ]  # fmt: skip


def update(subject: Subject, rule: str, arrays: Sequence[Any], options: Mapping[str, Any]) -> list[Any]:
    """New (p, m, v) of the backend; `Unsupported` for a rule that it says it does not have."""
    try:
        results = subject.op("update")(rule, *arrays, **options)
    except NotImplementedError:
        raise Unsupported(f"the backend's update has no {rule}") from None
    if not isinstance(results, tuple | list) or len(results) != 3:
        raise Failure("update must return (p, m, v)")
    return list(results)


def require_rule(subject: Subject, rule: str) -> None:
    """Raise `Unsupported` for a rule that the backend says it does not have."""
    case = update_corpus(rule, subject.dtype)[1]
    update(subject, rule, _own(subject, case.arrays), case.options)


def _own(subject: Subject, arrays: Sequence[Host]) -> list[Any]:
    """The backend's, which may be written into: no two share memory, nor does the host."""
    return subject.devices(a.copy() for a in arrays)


def _accuracy(subject: Subject, case: UpdateCase, record: Record) -> None:
    results = update(subject, case.rule, _own(subject, case.arrays), case.options)
    subject.judge(record, results, updated(case.rule, case.arrays, case.options, subject.arithmetic))


def _any_layout(subject: Subject, case: UpdateCase, record: Record) -> None:
    want = updated(case.rule, case.arrays, case.options, subject.arithmetic)
    plain = _own(subject, case.arrays)
    found = update(subject, case.rule, plain, case.options)
    try:
        subject.judge(Record(subject.arithmetic), found, want)
    except Failure:
        return  # not the layout's fault: accuracy will tell
    laid: dict[str, Callable[[], list[Any]]] = {
        "in Fortran order": lambda: subject.devices(np.array(a, order="F") for a in case.arrays)
    }
    if subject.has("transpose"):
        turned, axes = [np.array(a.T, order="C") for a in case.arrays], tuple(range(case.arrays[0].ndim))[::-1]
        laid["transposed"] = lambda: [subject.op("transpose")(x, axes)[0] for x in subject.devices(turned)]
    for kind, made in laid.items():
        for what, arrays in (("all", made()), ("p", [made()[0], *_own(subject, case.arrays[1:])])):
            try:
                subject.judge(record, update(subject, case.rule, arrays, case.options), want)
            except Failure as failure:
                raise Failure(f"with {what} {kind}: {failure}", failure.worst) from None


def _calls(subject: Subject, case: UpdateCase, record: Record) -> None:
    shape, free = case.arrays[0].shape, "update" in subject.arithmetic.nondeterministic

    def call(times: int = 1) -> list[tuple[list[Any], list[Any]]]:
        given = _own(subject, case.arrays * times)
        rounds = [given[i : i + 4] for i in range(0, len(given), 4)]
        found = [(arrays, update(subject, case.rule, arrays, case.options)) for arrays in rounds]
        must_stay(subject, (("p", arrays[0], case.arrays[0]) for arrays, _ in found), "{} was written into")
        return found

    ((_, first),) = call()
    kept = [
        np.array(check_array(x, shape, subject.arithmetic, name))
        for name, x in zip("pmv", subject.hosts(first), strict=True)
    ]
    often = case.options == update_corpus(case.rule, subject.dtype)[0].options and shape == (2, 3)
    for _ in range((_OFTEN if often else _CALLS) // _CALLS):
        again = [x for _, results in call(_CALLS) for x in results]
        if not free:
            must_stay(subject, zip("pmv" * _CALLS, again, kept * _CALLS, strict=True),
                      "a later call with the same arguments gives another {}")  # fmt: skip
    update(subject, case.rule, subject.devices(a + 1 for a in case.arrays), case.options)
    must_stay(subject, zip("pmv", first, kept, strict=True), "a later call changed an earlier {}")
    if free:
        return
    for i, name in enumerate("pgmv"):  # one new array where the others are the last call's, or come from it
        ((_, (p, m, v)),) = call()
        _one_new(subject, case, [p, subject.device(case.arrays[1].copy()), m, v], i, name)
        ((given, _),) = call()
        _one_new(subject, case, given, i, name)


def _one_new(subject: Subject, case: UpdateCase, last: list[Any], i: int, name: str) -> None:
    changed = [subject.device(abs(case.arrays[i]) + 1) if at == i else x for at, x in enumerate(last)]
    fresh = subject.devices(np.array(x, np.float64) for x in subject.hosts(changed))
    results = [subject.hosts(update(subject, case.rule, arrays, case.options)) for arrays in (changed, fresh)]
    for output, a, b in zip("pmv", *results, strict=True):
        if not same_bits(a, b):
            raise Failure(f"only {name} is new, and {output} is not what it is where every array is new")


def _wide(subject: Subject, x: Any) -> Host:
    return np.array(subject.host(x), np.float64)


def _not_finite(subject: Subject, case: UpdateCase, record: Record) -> None:
    results = update(subject, case.rule, _own(subject, case.arrays), {**case.options, "scale": math.nan})
    for name, x in zip("pmv", results, strict=True):
        if not np.isnan(_wide(subject, x)).all():
            raise Failure(f"with a scale of NaN every entry must be NaN, {name} is {_wide(subject, x)}")


def _errors(subject: Subject, example: Any, record: Record) -> None:
    for rule in UPDATES[1:]:
        case = update_corpus(rule, subject.dtype)[1]
        _refused(subject, rule, {**case.options, "step": 0}, "step 0", ValueError, NotImplementedError)
    _refused(subject, "sgd", case.options, 'the rule "sgd"', NotImplementedError)


def _refused(subject: Subject, rule: str, options: Mapping[str, Any], what: str, *errors: type[Exception]) -> None:
    arrays = [subject.device(np.ones(2)) for _ in "pgmv"]
    must_refuse(partial(subject.op("update"), rule, *arrays, **options), what, "it must raise", *errors)
    for name, x in zip("pgmv", arrays, strict=True):
        if not np.array_equal(subject.host(x), np.ones(2)):
            raise Failure(f"{what} was refused, but {name} has changed")


def _norm(subject: Subject, case: NormCase, record: Record) -> None:
    norm = subject.op("global_norm")({name: subject.device(g) for name, g in case.gradients.items()})
    record.compare(np.asarray(float(norm), host_dtype(subject.dtype)), normed(case.gradients, subject.arithmetic))


def _norm_calls(subject: Subject, case: NormCase, record: Record) -> None:
    norm, free = subject.op("global_norm"), "global_norm" in subject.arithmetic.nondeterministic
    gradients = {name: subject.device(g.copy()) for name, g in case.gradients.items()}
    first = float(norm(gradients))
    must_stay(subject, ((name, g, case.gradients[name]) for name, g in gradients.items()), "{} was written into")
    for number in range(2, _CALLS * 4):
        now = float(norm(gradients))
        if not free and now != first and not math.isnan(first):
            raise Failure(f"call {number} with the same gradients gives the norm {now}, was {first}")


def _norm_not_finite(subject: Subject, example: Any, record: Record) -> None:
    for bad in (math.nan, math.inf, -math.inf):
        gradients = {"a": subject.device(np.ones((2, 3))), "b": subject.device(np.array([1.0, bad]))}
        norm = float(subject.op("global_norm")(gradients))
        if math.isfinite(norm):
            raise Failure(f"with a gradient of {bad} the norm is {norm}")
