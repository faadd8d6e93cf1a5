"""A kit's files: written, the same bytes every time, and read.

manifest.json             what to compute, case by case; manifest.schema.json says what is in it
inputs.safetensors        every array that goes in
expected.safetensors      what the reference has for every output, float64
bounds.safetensors        how far off each entry of it (or the norm of a row) may be; infinite: not judged
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from refbert.backend import VERSION, Host, host_dtype
from refbert.checkpoint.safetensors_file import read_safetensors, write_safetensors
from refbert.errors import InputError
from refbert.files.json import jsonable, read_object, write_json
from refbert.files.reading import shown
from refbert.files.writing import atomic_directory, writing
from refbert_conformance.cases.model_cases import ModelRecipe
from refbert_conformance.cases.operations import Recipe
from refbert_conformance.engine.property import Property
from refbert_conformance.kit.asking import digest
from refbert_conformance.kit.recording import Recorded, left_out
from refbert_conformance.process.facts import versions
from refbert_conformance.process.records import Wrong, check
from refbert_conformance.properties.symmetries.attention import Seen
from refbert_conformance.properties.symmetries.common import Probe
from refbert_conformance.tolerances.arithmetic import Arithmetic

FORMAT = "refbert-kit/1"
SCHEMA = Path(__file__).with_name("manifest.schema.json")
_VERSIONS = ("refbert", "numpy", "scipy", "hypothesis")
_MOST = 1 << 28  # bytes of a manifest


@dataclass(frozen=True)
class Asked:
    """What the cases are recorded for: the arguments of `recording.record`, and the pattern of the properties."""

    dtype: str
    arithmetic: Mapping[str, Any]
    effort: str
    seed: int
    only: str | None


def write_kit(
    place: Path, asked: Asked, properties: Sequence[Property], recorded: Recorded,
    tell: Callable[[str, str], object] = lambda what, far: None,
) -> None:  # fmt: skip
    """Write a directory that is not there yet, or empty; raises `InputError` if that cannot be."""
    arithmetic = Arithmetic.of(asked.dtype, asked.arithmetic)
    inputs, wanted, bounds = _Tensors(asked.dtype), {}, {}
    listed: list[dict[str, Any]] = []
    count = len(recorded.cases)
    width = max(4, len(str(count)))
    for number, case in enumerate(recorded.cases, start=1):
        tell("bounds", f"{number}/{count}")
        name, call = f"{number:0{width}d}", case.call
        outputs = {}
        for one in call.due(arithmetic, case.dy):
            if one.name in case.outputs:
                tensor = f"{name}/{one.name}"
                wanted[tensor] = one.y
                bounds[tensor] = np.asarray(one.bound).astype(host_dtype(asked.dtype))
                outputs[tensor] = {"shape": list(one.y.shape), "properties": list(case.outputs[one.name])}
        arrays = {n: x for n, x in call.options.items() if isinstance(x, np.ndarray)}
        listed.append({
            "case": name,
            "op": call.op,
            "inputs": {n: inputs.name(f"{name}/{n}", x) for n, x in call.arrays.items()},
            "host_arrays": {n: inputs.name(f"{name}/{n}", x) for n, x in arrays.items()},
            "options": {n: jsonable(x) for n, x in call.options.items() if n not in arrays},
            "cotangent": None if case.dy is None else inputs.name(f"{name}/dy", case.dy),
            "outputs": outputs,
            "digest": call.digest,
            "cotangent_digest": None if case.dy is None else digest(case.dy),
        })  # fmt: skip
    here = versions()
    manifest = {
        "format": FORMAT,
        "contract": VERSION,
        "versions": {name: here[name] for name in _VERSIONS},
        **vars(asked),
        "properties": {id: [_as_json(one) for one in examples] for id, examples in recorded.examples.items()},
        "left_out": reasons(properties),
        "cases": listed,
    }
    require_new(place)
    with writing(place), atomic_directory(place) as part:
        write_json(part / "manifest.json", manifest, indent=1)
        shutil.copyfile(SCHEMA, part / SCHEMA.name)
        write_safetensors(part / "inputs.safetensors", inputs.arrays)
        write_safetensors(part / "expected.safetensors", wanted)
        write_safetensors(part / "bounds.safetensors", bounds)


def require_new(place: Path) -> None:
    """Raise `InputError` for anything but a directory that is empty, or not there yet."""
    with writing(place):
        if place.exists() and not (place.is_dir() and not any(place.iterdir())):
            raise InputError(f"{place}: is there already; name another directory, or remove it")


def reasons(properties: Sequence[Property]) -> dict[str, list[str]]:
    """Why properties are left out -> which."""
    found: dict[str, list[str]] = {}
    for property in properties:
        if why := left_out(property):
            found.setdefault(why, []).append(property.id)
    return found


class _Tensors:
    """Arrays by name, each once: floating point in the dtype, all else as it is."""

    def __init__(self, dtype: str) -> None:
        self.arrays: dict[str, Host] = {}
        self._dtype = host_dtype(dtype)
        self._names: dict[str, str] = {}

    def name(self, name: str, x: Host) -> str:
        """What the array is called: the name, unless the same array has another already."""
        stored = x.astype(self._dtype) if x.dtype.kind == "f" else x
        known = self._names.setdefault(digest(stored), name)
        self.arrays.setdefault(known, stored)
        return known


_EXAMPLES = {kind.__name__: kind for kind in (Recipe, Probe, Seen, ModelRecipe)}


def _as_json(example: Any) -> Any:
    return example if isinstance(example, int) else {type(example).__name__: jsonable(vars(example))}


def example_of(data: Any) -> Any:
    """An example as it was; raises `Wrong` for what is none."""
    if isinstance(data, int):
        return data
    try:
        ((kind, members),) = data.items()
        return _EXAMPLES[kind](**{name: _restored(value) for name, value in members.items()})
    except (AttributeError, KeyError, TypeError, ValueError):
        raise Wrong(f"{shown(data)} is no example") from None


def _restored(value: Any) -> Any:
    """What JSON has no form for: tuples, infinity."""
    if isinstance(value, dict):
        return {name: _restored(one) for name, one in value.items()}
    if isinstance(value, list):
        return tuple(map(_restored, value))
    return float(value) if value in ("inf", "-inf") else value


_DECLARED = {
    "accumulation": "a text", "matmul_inputs": "a text", "intermediates": "a text", "flush_to_zero": "yes or no",
    "nondeterministic": "texts", "functions": "an object", "preset": "a text",
}  # fmt: skip


def check_arithmetic(dtype: str, declared: Any) -> None:
    """Raise `Wrong` or `BackendError` for what no backend may declare."""
    check("arithmetic", declared, _DECLARED, optional=_DECLARED)
    Arithmetic.of(dtype, declared)


_MANIFEST = {
    "dtype": "a text", "arithmetic": "an object", "effort": "a text", "seed": "a whole number",
    "only": "a text or null", "versions": "an object", "properties": "an object", "cases": "a list",
}  # fmt: skip
_CASE = {
    "case": "a text", "op": "a text", "digest": "a text", "cotangent_digest": "a text or null", "outputs": "an object",
}  # fmt: skip


def read_manifest(place: Path) -> dict[str, Any]:
    """The manifest of a kit's directory, checked, its examples as they were; raises `InputError` for anything else."""
    path = place / "manifest.json"
    manifest = read_object(path, most=_MOST)
    if manifest.get("format") != FORMAT:
        raise InputError(f'{path}: not a manifest in format "{FORMAT}"; write one with: refbert kit DIR')
    try:
        check("the manifest", manifest, _MANIFEST)
        check_arithmetic(manifest["dtype"], manifest["arithmetic"])
        for id, examples in manifest["properties"].items():
            check("the properties", {id: examples}, {id: "a list"})
            manifest["properties"][id] = tuple(map(example_of, examples))
        for number, case in enumerate(manifest["cases"], start=1):
            check(f"case {number}", case, _CASE)
            for tensor, output in case["outputs"].items():
                check(f"output {tensor}", output, {"shape": "a list", "properties": "texts"})
    except Wrong as wrong:
        raise InputError(f"{path}: {wrong}; write the kit again with: refbert kit DIR") from None
    return manifest


def read_results(paths: Iterable[Path]) -> dict[str, Host]:
    """Every tensor of the files, or of the directories' files; raises `InputError` where a name is there twice."""
    found: dict[str, Host] = {}
    for path in paths:
        files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
        if not files:
            raise InputError(f"{path}: no *.safetensors in this directory; results are such files")
        for file in files:
            tensors = read_safetensors(file)
            if twice := sorted(set(found) & set(tensors)):
                raise InputError(f"{file}: {twice[0]} is in another file, too; give each result once")
            found |= tensors
    return found


def differing(manifest: Mapping[str, Any]) -> str:
    """Which versions are others here than where the kit was written, in words."""
    here, then = versions(), manifest["versions"]
    unlike = [f"{name} {then.get(name)}, here {here[name]}" for name in _VERSIONS if then.get(name) != here[name]]
    return f"it was written with {'; '.join(unlike)}" if unlike else "it has been changed since it was written"
