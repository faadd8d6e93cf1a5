"""Standalone scripts that show a failure again, and `replay`, which the longer ones call."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from refbert.cli.terminal import terminal
from refbert.errors import printable
from refbert_conformance.cases.operations import OpCase
from refbert_conformance.engine.measure import Record
from refbert_conformance.engine.property import Property
from refbert_conformance.engine.runner import attempt
from refbert_conformance.engine.subject import Subject
from refbert_conformance.properties.numerics import due
from refbert_conformance.properties.table import selected


def replay(
    backend: str, id: str, example: Any, *, dtype: str, device: str | None = None, model: str | None = None,
    arithmetic: Mapping[str, Any] | None = None,
) -> int:  # fmt: skip
    """Try one example of one property; prints what comes of it, returns the exit status."""
    subject = Subject.named(backend, dtype, device, arithmetic)
    (property,) = selected([id], model)
    message, _ = attempt(property, subject, example, Record(subject.arithmetic))
    with terminal():
        print(f"{id} on {backend} ({dtype}): {message or 'passes'}")
    return 1 if message else 0


def write(
    directory: Path, property: Property, subject: Subject, job: Mapping[str, Any], example: Any, message: str
) -> str:
    """Write the script; returns its path, or "" where nothing can be written."""
    simple = isinstance(example, OpCase) and property.name == "accuracy" and not subject.mode
    body = (_direct if simple else _replaying)(property, subject, job, example)
    path = directory / f"{re.sub(r'[^a-z0-9_]+', '-', property.id.lower())}.py"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        path.write_text(_head(property, subject, job, message) + body, encoding="utf-8")
    except OSError:
        return ""
    return str(path)


def _head(property: Property, subject: Subject, job: Mapping[str, Any], message: str) -> str:
    library = getattr(subject.backend, "library", "")
    lines = (f"{property.id} on {job['given']} ({library}, {subject.dtype}):", message, "", property.says)
    said = "\n".join(map(_quoted, lines))
    text = f'"""{said}\nExits with 1 as long as it fails.\n"""\n\nimport sys\n\nimport numpy as np\n\n'
    if ":" in job["given"]:
        text += f"sys.path.append({os.getcwd()!r})  # where the backend's module may be\n"
    return text


def _quoted(line: str) -> str:
    """A line of others' words as it can stand in a docstring."""
    return printable(line.replace("\\", "\\\\").replace('"""', "'''"))


def _direct(property: Property, subject: Subject, job: Mapping[str, Any], case: OpCase) -> str:
    """Plain calls of the op, with the bound as numbers: nothing of the suite is needed."""
    arrays = "".join(f"    {literal(a)},\n" for a in case.arrays)
    options = "".join(f"    {name!r}: {literal(value)},\n" for name, value in case.options.items())
    allowed = due(property.level, case, subject.arithmetic)
    bounds = "".join(f"    {one.name!r}: {literal(one.bound)},\n" for one in allowed)
    compared = "got, want = [y], [reference]"
    if property.level == "backward":
        compared = f"dy = {literal(case.dy)}\ngot = pullback(backend.asarray(dy))\nwant = reference_pullback(dy)"
    return f"""
from refbert import ops
from refbert.backend import registry

backend = registry.create({job["given"]!r}, dtype={subject.dtype!r}, device={job["device"]!r})
arrays = [
{arrays}]
options = {{
{options}}}
y, pullback = backend.{case.op}(*(backend.asarray(a) for a in arrays), **options)
reference, reference_pullback = ops.{case.op}(*arrays, **options)
{compared}
allowed = {{  # how far rounding may go in the declared arithmetic (refbert_conformance.tolerances)
{bounds}}}
wrong = False
for (name, bound), g, w in zip(allowed.items(), got, want):
    g = np.asarray(backend.to_numpy(g), np.float64)
    error = abs(g - w)
    print(f"{{name}}\\n  got      {{g.tolist()}}\\n  expected {{w.tolist()}}\\n  error    {{error.tolist()}}"
          f"\\n  allowed  {{bound.tolist()}}")
    wrong |= not (error <= bound).all()
sys.exit(int(wrong))
"""


def _replaying(property: Property, subject: Subject, job: Mapping[str, Any], example: Any) -> str:
    kinds = [type(one) for one in (*getattr(example, "__dict__", {}).values(), example)]
    imports = [
        f"from {kind.__module__} import {kind.__name__}\n"
        for kind in kinds
        if kind.__module__.startswith("refbert_conformance")
    ]
    return f"""from refbert_conformance.failures.reproduce import replay
{"".join(imports)}
example = {literal(example)}
sys.exit(replay({job["given"]!r}, {property.id!r}, example, dtype={subject.dtype!r}, device={job["device"]!r}, \
model={job["model"]!r}, arithmetic={job.get("arithmetic")!r}))
"""


def literal(x: Any) -> str:
    """Python that makes x again."""
    if isinstance(x, np.ndarray):
        values = _named(repr(x.tolist()))
        kind = "bool" if x.dtype == np.bool_ else f"np.{x.dtype.newbyteorder('=').name}"
        shaped = f".reshape({x.shape})" if x.size == 0 else ""
        return f"np.array({values}, {kind}){shaped}"
    if isinstance(x, np.generic):
        return _named(repr(x.item()))
    if isinstance(x, float):
        return _named(repr(x))
    if isinstance(x, Mapping):
        return "{" + ", ".join(f"{k!r}: {literal(v)}" for k, v in x.items()) + "}"
    if isinstance(x, tuple):
        return "(" + "".join(f"{literal(v)}, " for v in x).strip() + ")"
    if hasattr(x, "__dataclass_fields__"):
        return f"{type(x).__name__}(" + ", ".join(f"{n}={literal(getattr(x, n))}" for n in x.__dataclass_fields__) + ")"
    if isinstance(x, type):
        return x.__name__
    return repr(x)


def _named(text: str) -> str:
    """inf and nan as NumPy's."""
    return re.sub(r"\b(inf|nan)\b", r"np.\1", text)
