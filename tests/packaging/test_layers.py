"""Imports point down: every module knows what stands below it, and nothing of what stands above."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGES = {
    "refbert": ROOT,
    "refbert_conformance": ROOT / "conformance",
    "refbert_inspection": ROOT / "inspection",
    "refbert_audit": ROOT / "audit",
    **{folder.name: folder.parent for folder in sorted((ROOT / "backends").glob("refbert_*"))},
}
BACKENDS = tuple(name for name in PACKAGES if "backends" in str(PACKAGES[name]))
# Lowest first. A module belongs to the longest name that it begins with; a package's own name is its __init__ alone
# where something stands below it, and all of it otherwise. Those of one layer may import each other, without a circle.
LAYERS = (
    ("refbert.errors", "refbert.pages"),
    ("refbert.files",),
    ("refbert.config", "refbert.pages"),
    ("refbert.ops", "refbert.randomness"),
    ("refbert.backend", "refbert.text", "refbert.wire"),
    ("refbert.spec",),
    ("refbert.wire.host",),
    BACKENDS,
    ("refbert.embedder", "refbert.labels", "refbert.updating"),
    ("refbert.checkpoint", "refbert.models", "refbert.training.optimizer"),
    ("refbert.model",),
    ("refbert.loading",),
    ("refbert",),
    ("refbert.benchmark", "refbert.data"),
    ("refbert.evaluation",),
    ("refbert.tasks",),
    ("refbert.evaluation.tasks",),
    ("refbert.training",),
    ("refbert.cli",),
    ("refbert.__main__",),
    ("refbert_conformance.tolerances",),
    ("refbert_conformance.cases",),
    ("refbert_conformance.engine",),
    ("refbert_conformance.mutants", "refbert_conformance.properties", "refbert_conformance.within"),
    ("refbert_conformance.process.records",),
    ("refbert_conformance.failures", "refbert_conformance.waivers"),
    ("refbert_conformance.process",),
    ("refbert_conformance.selftest",),
    ("refbert_conformance.cost",),
    ("refbert_conformance.generated", "refbert_conformance.kit", "refbert_conformance.outputs",
     "refbert_conformance.probe", "refbert_conformance.report"),
    ("refbert_conformance.scoreboard", "refbert_conformance.plugin"),
    ("refbert_conformance", "refbert_conformance.commands", "refbert_conformance.test_conformance"),
    ("refbert_inspection",),
    ("refbert_audit",),
)  # fmt: skip
# (importer, imported): why it may point up, or back.
EXCEPTIONS = {
    ("refbert.text.batching", "refbert.text.tokenization"): "for type checkers: `by_length` is given a tokenizer",
}


def modules() -> dict[str, Path]:
    found = {}
    for package, folder in PACKAGES.items():
        for path in (folder / package).rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(source: str) -> Iterator[str]:
    """Every module that is imported: at the top, within functions, and for type checkers only."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports name their module in full"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else str(node.module)


def imported(name: str) -> set[str]:
    return {one for one in imports(MODULES[name].read_text(encoding="utf-8")) if one in MODULES} - {name}


GRAPH = {name: {one for one in imported(name) if (name, one) not in EXCEPTIONS} for name in MODULES}


def layer(module: str) -> int:
    """The number of the layer that a module stands in."""
    exact = {"refbert", "refbert_conformance"}  # what stands in none shall not pass for part of these
    fits = [(len(name), number) for number, names in enumerate(LAYERS) for name in names
            if module == name or (name not in exact and module.startswith(f"{name}."))]  # fmt: skip
    assert fits, f"{module} stands in no layer"
    return max(fits)[1]


def upward(graph: dict[str, set[str]]) -> set[tuple[str, str]]:
    """The imports that point up."""
    return {(one, other) for one, others in graph.items() for other in others if layer(other) > layer(one)}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """What is left when whatever imports nothing of the rest is taken away, again and again."""
    left = dict(graph)
    while free := [name for name, others in left.items() if not others.intersection(left)]:
        for name in free:
            del left[name]
    return sorted(left)


def test_imports_point_down():
    assert not upward(GRAPH)


def test_exceptions_are_needed():
    for one, other in EXCEPTIONS:
        assert other in imported(one)
        assert upward({one: {other}}) or circle({**GRAPH, one: GRAPH[one] | {other}})


def test_no_module_imports_itself_by_way_of_others():
    assert not circle(GRAPH)


def test_a_backend_is_imported_by_itself_alone():
    def package(module: str) -> str:
        return module.partition(".")[0]

    assert {package(one) for one, others in GRAPH.items() for other in others if package(other) in BACKENDS} <= set(
        BACKENDS
    )
    for one, others in GRAPH.items():
        if package(one) in BACKENDS:
            assert {package(other) for other in others} <= {package(one), "refbert"}


@pytest.mark.parametrize(
    "source",
    [
        "import refbert.cli\n",
        "def f():\n    from refbert.cli import main\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from refbert.cli import main\n",
    ],
)
def test_the_check_can_fail(source):
    assert upward({**GRAPH, "refbert.ops": set(imports(source)) & set(MODULES)}) == {("refbert.ops", "refbert.cli")}
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]
    with pytest.raises(AssertionError, match="refbert.new stands in no layer"):
        layer("refbert.new")
