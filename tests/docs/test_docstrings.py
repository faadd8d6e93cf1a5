"""Every public name says what it is; those of refbert.ops and refbert.spec also shapes, errors and source.

Files are read, not imported, so that a backend whose library is not here is checked too.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FOLDERS = (
    "refbert", "conformance/refbert_conformance", "audit/refbert_audit", "inspection/refbert_inspection",
    *(f"backends/refbert_{n}" for n in ("numpy", "torch", "cupy")),
)  # fmt: skip
FILES = sorted(p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py"))
REFERENCE = [p for p in FILES if p.parent.name in ("ops", "spec") and p.parent.parent.name == "refbert"]
# What is called by a program: refbert.cli's functions are commands, whose docstrings are their help.
LIBRARY = [p for p in FILES if p.is_relative_to(ROOT / "refbert") and p.parent.name != "cli"]
# These carry parameters, settings and types around and compute nothing that a paper could be the source of.
PLUMBING = {"__init__", "types", "choices", "scope", "layers", "head_table"}

# A shape as the docstrings write it: [B, S, H], [..., H], [N], [].
SHAPE = re.compile(r"\[(\.\.\.|[A-Z][A-Za-z'·²]*|2|shape)?(, ([A-Z0-9]\w*|[A-Z]·[A-Z]))*\]|any array")
SOURCE = re.compile(r"^Source {2,}\S", re.MULTILINE)


def identity(path):
    return str(path.relative_to(ROOT))


def definitions(tree):
    """(dotted name, node) of every public function, class and method."""

    def inside(node, prefix):
        for child in node.body:
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and child.name[0] != "_":
                yield prefix + child.name, child
                if isinstance(child, ast.ClassDef):
                    yield from inside(child, f"{prefix}{child.name}.")

    return list(inside(tree, ""))


def without_docstring(source):
    tree = ast.parse(source)
    missing = [name for name, node in definitions(tree) if not _says(node)]
    return (["the module"] if not _says(tree) else []) + missing


def _says(node):
    """Whether it has a docstring; the setter of a property has its getter's."""
    setter = any(isinstance(d, ast.Attribute) and d.attr == "setter" for d in getattr(node, "decorator_list", ()))
    return setter or len((ast.get_docstring(node) or "").split()) >= 1


def raised(node):
    """The exceptions that a function raises by name, itself or in the functions defined inside it."""
    found = set()
    for child in ast.walk(node):
        if isinstance(child, ast.Raise) and child.exc is not None:
            call = child.exc.func if isinstance(child.exc, ast.Call) else child.exc
            found.add(getattr(call, "id", getattr(call, "attr", "")))
    return found


def unsaid_errors(source):
    """ "function: Error" for every error of a public function that neither it nor its module speaks of."""
    tree = ast.parse(source)
    module = ast.get_docstring(tree) or ""
    return [
        f"{name}: {error}"
        for name, node in definitions(tree)
        if not isinstance(node, ast.ClassDef)
        for error in sorted(raised(node))
        if error not in (ast.get_docstring(node) or "") + module
    ]


def functions_of_arrays(tree):
    """Public functions that take arrays or ops."""
    for name, node in definitions(tree):
        if isinstance(node, ast.FunctionDef) and "." not in name:
            taken = [ast.unparse(a.annotation) for a in node.args.args if a.annotation]
            if any(re.match(r"(Array|A|Host|Ids|Backend\[A\])$", t) for t in taken):
                yield name, node


@pytest.mark.parametrize("path", FILES, ids=identity)
def test_everything_public_has_a_docstring(path):
    assert without_docstring(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", REFERENCE, ids=identity)
def test_the_reference_says_its_shapes(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    module = ast.get_docstring(tree) or ""
    for name, node in functions_of_arrays(tree):
        document = ast.get_docstring(node) or ""
        assert SHAPE.search(document) or re.search(r"^Shapes? {2,}\S", module, re.MULTILINE), name


@pytest.mark.parametrize("path", [p for p in REFERENCE if p.stem not in PLUMBING], ids=identity)
def test_the_reference_says_its_source(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert SOURCE.search(ast.get_docstring(tree) or "")


@pytest.mark.parametrize("path", LIBRARY, ids=identity)
def test_a_function_says_its_errors(path):
    assert unsaid_errors(path.read_text(encoding="utf-8")) == []


# The checks themselves


def test_a_missing_docstring_is_seen():
    source = '"""M."""\nclass A:\n    """A."""\n    def f(self): pass\n    def _g(self): pass\n'
    source += "def h(): pass\ndef _k(): pass\n"
    assert without_docstring(source) == ["A.f", "h"]
    assert without_docstring("def f():\n    '''F.'''\n") == ["the module"]
    property_ = '"""M."""\nclass A:\n    """A."""\n    @property\n    def x(self):\n        """X."""\n'
    setter = "    @x.setter\n    def x(self, v): pass\n"
    assert without_docstring(property_ + setter) == []


def test_an_error_that_is_not_spoken_of_is_seen():
    source = '"""M."""\ndef f():\n    """F{}."""\n    raise ValueError("no")\ndef g():\n    """G."""\n    raise\n'
    assert unsaid_errors(source.format("")) == ["f: ValueError"]
    assert unsaid_errors(source.format("; raises ValueError")) == []


@pytest.mark.parametrize("text", ["x [B, S, H]", "[...] -> [...]", "loss []", "[B·C, 1]", "[..., K]", "logits [B, 2]"])
def test_what_is_a_shape(text):
    assert SHAPE.search(text)


@pytest.mark.parametrize("text", ["no shape", "a[i]", "labels[name]", "[a sentence in brackets]"])
def test_what_is_no_shape(text):
    assert not SHAPE.search(text)
