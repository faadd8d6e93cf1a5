"""How an op's arguments lie in memory: in any order, as one array several times, as any type of the host's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from refbert_conformance.cases.corpus import corpus
from refbert_conformance.cases.inputs import masks
from refbert_conformance.cases.operations import OpCase, Recipe, recipes
from refbert_conformance.engine.measure import Failure, Record
from refbert_conformance.engine.property import Property, about
from refbert_conformance.engine.subject import Subject, backward_if_any, forward
from refbert_conformance.properties.contract.arrays import variants
from refbert_conformance.properties.contract.common import run, same
from refbert_conformance.tolerances.bounds import Expected, expected

# Host arrays among the options of an op, and what else they may come as.
_HOST_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "embedding": ("ids",),
    "gather": ("positions",),
    "attention_probabilities": ("mask",),
    "attention": ("mask", "keep"),
    "dropout": ("keep",),
    "cross_entropy": ("labels",),
    "mean_squared_error": ("targets",),
}
# Ops whose array arguments may all have one shape.
_ALIKE = ("add", "attention", "attention_probabilities")
_ORDERS = ("Fortran order", "negative strides", "every other entry")


def properties(op: str) -> list[Property]:
    """Of an op with a pullback; host arrays only where it has some."""
    of = about("contract", op, draw=recipes(op))
    found = [
        of("any layout", "Arrays in any order of memory, the backend's own transposes among them.", _any_layout,
           corpus=(*corpus(op)[:2], *_wide(op)), cost=8.0)
    ]  # fmt: skip
    if op in _ALIKE:
        found.append(of("same array", "One array may be several arguments at once.", _same_array, cost=2.0))
    if op in _HOST_OPTIONS:
        said = f"{' and '.join(_HOST_OPTIONS[op])}: any type, any layout."
        found.append(of("host arrays", said, _host_options, cost=2.0))
    return found


def _wide(op: str) -> list[Recipe]:
    """As wide as models and their heads are: kernels are chosen by the width, and read strides or do not."""
    small = corpus(op)[1]
    letter = next(letter for letter in "DICHO" if letter in small.axes)
    return [small.resized(**{letter: width}) for width in ((64, 256) if letter == "D" else (768,))]


def _any_layout(subject: Subject, example: Recipe | OpCase, record: Record) -> None:
    """Within the bounds and not bit for bit: a matrix product may take another order of summation."""
    case = example.build(subject.dtype)
    want = expected(case.op, case.arrays, case.options, subject.arithmetic, case.dy)
    inputs = [np.asarray(x) for x in (*case.arrays, case.dy)]
    plain = subject.devices(inputs)
    try:
        _within(subject, case, plain[:-1], plain[-1], want, Record(subject.arithmetic))
    except Failure:
        return  # not the layout's fault: the accuracy properties will tell
    laid = {kind: subject.devices(variants(x).get(kind, x) for x in inputs) for kind in _ORDERS}
    if subject.has("transpose"):
        transpose = subject.op("transpose")
        turned = subject.devices(np.array(x.T, order="C") for x in inputs)
        laid["transposed"] = [transpose(x, tuple(range(len(x.shape)))[::-1])[0] for x in turned]
    for kind, (*arrays, dy) in laid.items():
        try:
            _within(subject, case, arrays, dy, want, record)
        except Failure as failure:
            raise Failure(f"with {kind} arrays: {failure}", failure.worst) from None


def _within(subject: Subject, case: OpCase, arrays: list[Any], dy: Any, want: list[Expected], record: Record) -> None:
    y, pullback = forward(subject, case.op, arrays, case.options)
    found = (y, *backward_if_any(subject, pullback, dy, len(arrays)))
    subject.judge(record, found, want[: len(found)])


def _same_array(subject: Subject, example: Recipe | OpCase, record: Record) -> None:
    case = example.build(subject.dtype)
    x = case.arrays[0]
    case = OpCase(case.op, (x,) * len(case.arrays), case.options, case.dy)
    want = expected(case.op, case.arrays, case.options, subject.arithmetic, case.dy)
    _within(subject, case, [subject.device(x)] * len(case.arrays), subject.device(np.array(case.dy)), want, record)


def _host_options(subject: Subject, example: Recipe | OpCase, record: Record) -> None:
    case = example.build(subject.dtype)
    nondeterministic = case.op in subject.arithmetic.nondeterministic
    first = run(subject, case)
    for name in _HOST_OPTIONS[case.op]:
        value = case.options.get(name)
        if value is None:
            continue
        kinds: tuple[Any, ...] = (np.int32, np.int16)
        if name in ("ids", "positions", "labels") and int(abs(value).max(initial=0)) < 128:
            kinds = (*kinds, np.int8)
        if name in ("mask", "keep"):
            kinds = (np.bool_, np.int64, np.int32, np.uint8, np.float32, np.float64)
        elif name == "targets":
            kinds = (np.float64,)
        elif value.size and int(value.min()) >= 0:
            kinds = (*kinds, np.uint8, np.uint16, np.uint32, np.uint64) if int(value.max()) < 256 else kinds
        for kind in kinds:
            converted = value.astype(kind)
            for layout, variant in {"plain": converted, **variants(converted)}.items():
                if layout == "broadcast" or (layout != "plain" and kind is not kinds[0]):
                    continue
                got = run(subject, OpCase(case.op, case.arrays, {**case.options, name: variant}, case.dy))
                if not nondeterministic:
                    same(case, first, got, f"with {name} as {layout} {np.dtype(kind)}")
        if name in ("mask", "keep") and not nondeterministic:
            for what, other in masks(value).items():
                got = run(subject, OpCase(case.op, case.arrays, {**case.options, name: other}, case.dy))
                same(case, first, got, f"with {name} that says yes by {what}")
