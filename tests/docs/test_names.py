"""Modules, attributes, files and options that documents and docstrings name are there, and every option is named."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest

from refbert.cli import commands

ROOT = Path(__file__).parent.parent.parent
CODE = ("refbert", "backends", "conformance", "inspection", "audit")
FOLDERS = (*CODE, "docs", "tests", "benchmarks", "recipes", "examples", "notebooks", "website")
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"] + [
    path for folder in ("docs", "benchmarks", "recipes", "examples", "notebooks", "tests/fuzz")
    for path in sorted((ROOT / folder).rglob("*.md"))
]  # fmt: skip
SOURCES = [path for folder in CODE for path in sorted((ROOT / folder).rglob("*.py"))]
NAME = re.compile(r"(?<![\w./-])refbert(?:_\w+)?(?:\.\w+)+")
# What begins with a folder of ours, and any other path to a Python file.
PATH = re.compile(rf"(?<![\w./~-])(?:(?:{'|'.join(FOLDERS)})/[\w*./-]*[\w*]|[a-z_]\w*(?:/[\w*-]+)*/[\w*-]+\.py\b)")
# Where a document may leave out the beginning of a path.
BASES = ("", "refbert", "conformance/refbert_conformance")
BUILT = "examples/refbert-c/refbert-c"  # by the reader
NO_MODULE = {"refbert.backends", "refbert.c"}  # the group of entry points; a file in C


def exists(name):
    """Whether a dotted name is a module's or leads to something in one; what instances have counts."""
    parts = name.split(".")
    found = importlib.import_module(parts[0])
    for number, part in enumerate(parts[1:], start=2):
        try:
            found = getattr(found, part)
        except AttributeError:
            if inspect.isclass(found):
                return part in vars(found).get("__annotations__", {}) or f"self.{part}" in inspect.getsource(found)
            try:
                found = importlib.import_module(".".join(parts[:number]))
            except ModuleNotFoundError as error:
                return error.name != ".".join(parts[:number])  # a library that is not here says nothing of the name
    return True


def missing_names(text):
    return sorted({name for name in NAME.findall(text) if name not in NO_MODULE and not exists(name)})


def missing_paths(text, beside=ROOT):
    bases = [*(ROOT / base for base in BASES), beside]
    return sorted(
        {path for path in PATH.findall(text) if path != BUILT and not any(_under(base, path) for base in bases)}
    )


def _under(base, path):
    return any(True for _ in base.glob(path)) if "*" in path else (base / path).exists()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_document_names_what_is_there(path):
    text = path.read_text(encoding="utf-8")
    assert not missing_names(text)
    without_what_is_to_be_written = re.sub(r"\S*(?:DATE|results)\S*", "", text)
    assert not missing_paths(without_what_is_to_be_written, path.parent)


def test_the_code_names_what_is_there():
    missing = {str(path.relative_to(ROOT)): missing_names(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert not {path: names for path, names in missing.items() if names}


@pytest.mark.parametrize("name", ["run", "backends", "info", "bench", "explain", "audit", "trace", "diff"])
def test_the_command_line_is_described_whole(name):
    text = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    (section,) = re.findall(rf"^## `refbert {name}\b(.*?)(?=^## )", text, re.DOTALL | re.MULTILINE)
    options = {
        option for parameter in commands()[name].params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    assert set(re.findall(r"--[a-z][a-z-]+", section)) == {option for option in options if option.startswith("--")}


def test_the_check_can_fail():
    assert missing_names("`refbert.config.Profile`, refbert.ops.linear.") == ["refbert.config.Profile"]
    assert missing_paths("`spec/heads.py`, `spec/head.py`, `docs/audits.md`") == ["docs/audits.md", "spec/head.py"]
