"""What a failure means: its smallest case, a script, what it looks like, and where a model went wrong first."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from refbert_conformance import reproduce
from refbert_conformance.cases import OpCase, Recipe
from refbert_conformance.engine import Result, attempt
from refbert_conformance.inputs import rounded
from refbert_conformance.measure import Record, as_number
from refbert_conformance.minimise import large, minimised, shortened
from refbert_conformance.models import ModelRecipe, Repeated, inference, layer, training
from refbert_conformance.real_sizes import Large
from refbert_conformance.subject import Host, Subject, backward, forward

# A mutant explains a failure if it is this much nearer to the backend than the truth is.
NEAR = 0.1


def explain(result: Result, subject: Subject, job: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a report's "failure" that need the backend again. Never raises: what cannot be had is left out."""
    from refbert_conformance.worker import worst_as_data

    property, example = result.property, result.example
    message, worst = result.message, result.worst
    found: dict[str, Any] = {}

    def fails(one: Any) -> bool:
        return bool(attempt(property, subject, one, Record(subject.arithmetic))[0])

    if isinstance(example, Large | ModelRecipe | Repeated):
        with contextlib.suppress(Exception):
            example = shortened(example, fails)
            message, worst = attempt(property, subject, example, Record(subject.arithmetic))
    if isinstance(example, Recipe):
        with contextlib.suppress(Exception):
            if large(example.build(subject.dtype)):
                example = shortened(example, fails)
            case = example.build(subject.dtype)
            if property.level == "forward":
                case = replace(case, dy=None)
            if not large(case) and fails(case):
                example = minimised(case, fails, subject.dtype)
            message, worst = attempt(property, subject, example, Record(subject.arithmetic))
    found["message"] = message
    found["case"] = shown(example)
    if worst is not None:
        found["worst"] = worst_as_data(worst)
    found["script"] = reproduce.write(Path(job["scripts"]), property, subject, job, example, message) or None
    with contextlib.suppress(Exception):
        found["looks_like"] = looks_like(result, subject, example)
    with contextlib.suppress(Exception):
        found |= diverging(result, subject)
    return found


def shown(example: Any) -> str:
    """A case as people read it."""
    if not isinstance(example, OpCase):
        return repr(example)
    from refbert_conformance.bounds import ARRAYS

    lines = [f"{name} = {_array(a)}" for name, a in zip(ARRAYS[example.op], example.arrays, strict=True)]
    lines += [f"{name} = {_array(v) if isinstance(v, np.ndarray) else repr(v)}" for name, v in example.options.items()]
    if example.dy is not None:
        lines.append(f"dy = {_array(example.dy)}")
    return "\n".join(lines)


def _array(a: Host) -> str:
    text = " ".join(np.array2string(a, separator=", ", threshold=40, max_line_width=100).split())
    return f"{text}  shape {a.shape}" if a.size > 40 or a.size == 0 else text


def looks_like(result: Result, subject: Subject, example: Any) -> str | None:
    """The seeded bug that behaves like this backend, if one does."""
    from refbert_conformance.mutants import MUTANTS

    property = result.property
    dtype = "float64" if subject.dtype == "float64" else "float32"
    related = [m for m in MUTANTS if m.op == property.op]
    if isinstance(example, OpCase) and result.worst is not None:
        got = _outputs(subject.backend, subject, example)
        truth = Subject("reference", lambda: _reference(dtype))
        apart = _distance(got, rounded(_outputs(truth.backend, truth, example), subject.dtype))
        best: tuple[float, str] | None = None
        for mutant in related:
            with contextlib.suppress(Exception):
                other = Subject(mutant.name, lambda mutant=mutant: mutant.make(dtype=dtype))  # type: ignore[misc]
                distance = _distance(got, rounded(_outputs(other.backend, other, example), subject.dtype))
                # An infinite distance is near to nothing.
                if distance < math.inf and distance <= NEAR * apart and (best is None or distance < best[0]):
                    best = (distance, mutant.name)
        return best[1] if best is not None else None
    for mutant in related:  # no numbers to compare: the same property must say the same
        with contextlib.suppress(Exception):
            other = Subject(mutant.name, lambda mutant=mutant: mutant.make(dtype=dtype))  # type: ignore[misc]
            message, _ = attempt(property, other, example, Record(other.arithmetic))
            if message and message == result.message:
                return str(mutant.name)
    return None


def _reference(dtype: str) -> Any:
    from refbert.reference import ReferenceBackend

    return ReferenceBackend(dtype)


def _outputs(backend: Any, subject: Subject, case: OpCase) -> Host:
    """y and the cotangents in one vector."""
    y, pullback = forward(subject, case.op, [backend.asarray(a) for a in case.arrays], case.options, backend)
    parts = [subject.host(y)]
    if case.dy is not None:
        parts += [subject.host(c) for c in backward(pullback, backend.asarray(case.dy), len(case.arrays))]
    return np.concatenate([np.asarray(p, np.float64).reshape(-1) for p in parts])


def _distance(a: Host, b: Host) -> float:
    with np.errstate(all="ignore"):
        difference = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0, a - b)
        return float(np.linalg.norm(np.where(np.isnan(difference), np.inf, difference)))


def diverging(result: Result, subject: Subject) -> dict[str, Any]:
    """For a model: the first op beyond its own bound, and how far the two ways part, place by place."""
    if result.property.level not in ("blocks", "models"):
        return {}
    recipe = result.example
    if not isinstance(recipe, ModelRecipe):
        return {}
    from refbert_conformance.divergence import Lockstep

    lockstep = Lockstep(subject, growing=True)
    if result.property.level == "blocks":
        layer(recipe, subject.dtype, fused="fused" in result.property.name)(lockstep)
    elif result.property.op == "inference":
        inference(recipe, subject.dtype)(lockstep)
    else:
        training(recipe, subject.dtype)(lockstep)
    first = lockstep.first
    if first is None and result.property.op == "objective":
        first = {"where": "objective", "op": "objective", "direction": "forward or backward", "rho": None}
    growth = [{"where": where, "error": as_number(error), "rho": None} for where, error in lockstep.growth.items()]
    return {"first_divergence": first, "growth": growth}
