"""What a failure means: its smallest case, a script, what explains it, and where a model went wrong first."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from refbert.backend import Host
from refbert_conformance.cases.large import Large
from refbert_conformance.cases.model_cases import ModelRecipe, Repeated, inference, layer, training
from refbert_conformance.cases.operations import OpCase, Recipe
from refbert_conformance.engine.divergence import Divergence, Lockstep, Place
from refbert_conformance.engine.measure import Record
from refbert_conformance.engine.runner import Result, attempt
from refbert_conformance.engine.subject import Subject
from refbert_conformance.failures import reproduce
from refbert_conformance.failures.likeness import Trial, explained
from refbert_conformance.failures.minimise import large, minimised, shortened
from refbert_conformance.process.records import Diagnosis
from refbert_conformance.tolerances.bounds import ARRAYS


def explain(result: Result, subject: Subject, job: Mapping[str, Any], known: Diagnosis) -> tuple[str, Diagnosis]:
    """The message, and what is ``known`` of a failure with all that needs the backend again. Never raises: what cannot
    be had is left out.
    """
    property, example = result.property, result.example
    message, worst = result.message, result.worst
    found: dict[str, Any] = {}

    def fails(one: Any) -> bool:
        return result.excuse(one) is None and bool(attempt(property, subject, one, Record(subject.arithmetic))[0])

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
    script = reproduce.write(Path(job["scripts"]), property, subject, job, example, message) or None
    known = replace(known, case=shown(example), worst=worst or known.worst, script=script)
    with contextlib.suppress(Exception):
        failing = [example] if example is result.example else [example, result.example]
        found |= explained(Trial(property, subject, failing, job.get("passed", ()), job.get("alive", lambda: None)))
    with contextlib.suppress(Exception):
        found |= diverging(result, subject)
    return message, replace(known, **found)


def shown(example: Any) -> str | None:
    """A case as people read it; None of a property that has but one."""
    if example is None:
        return None
    if not isinstance(example, OpCase):
        return repr(example)
    lines = [f"{name} = {_array(a)}" for name, a in zip(ARRAYS[example.op], example.arrays, strict=True)]
    lines += [f"{name} = {_array(v) if isinstance(v, np.ndarray) else repr(v)}" for name, v in example.options.items()]
    if example.dy is not None:
        lines.append(f"dy = {_array(example.dy)}")
    return "\n".join(lines)


def _array(a: Host) -> str:
    text = " ".join(np.array2string(a, separator=", ", threshold=40, max_line_width=100).split())
    return f"{text}  shape {a.shape}" if a.size > 40 or a.size == 0 else text


def diverging(result: Result, subject: Subject) -> dict[str, Any]:
    """For a model: the first op beyond its own bound, and how far the two ways part, place by place."""
    property, recipe = result.property, result.example
    if property.level not in ("blocks", "models") or not isinstance(recipe, ModelRecipe):
        return {}
    lockstep = Lockstep(subject, growing=True)
    if property.level == "blocks":
        layer(recipe, subject.dtype, fused="fused" in property.name)(lockstep)
    else:
        (inference if property.op == "inference" else training)(recipe, subject.dtype)(lockstep)
    first = lockstep.first
    if first is None and property.op == "objective":
        first = Divergence("objective", "objective", "forward or backward", None)
    growth = [Place(where, error) for where, error in lockstep.growth.items()]
    return {"first_divergence": first, "growth": growth}
