"""The code of an entry as it stands in its file: the forward, and the pullback that is written under it."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FrameType, FunctionType
from typing import Any

from refbert_inspection.explain.catalogue import Entry, entries


@dataclass(frozen=True)
class Code:
    """One function without its docstring: what it computes, and its pullback ("" where it has none)."""

    name: str
    forward: str
    pullback: str


def code(entry: Entry) -> tuple[Code, ...]:
    """The entry's function, then the helpers of its own file that it calls."""
    return tuple(_split(function) for function in functions(entry))


def functions(entry: Entry) -> tuple[FunctionType, ...]:
    """The entry's function and the helpers of its file that it reaches, each once."""
    pages = {e.function for e in entries()} - {entry.function}
    found: list[Any] = []
    waiting: list[Callable[..., Any]] = [entry.function]
    while waiting:
        function: Any = waiting.pop(0)
        if function in found or function in pages:
            continue
        found.append(function)
        for name in names_in(function.__code__):
            other = function.__globals__.get(name)
            if inspect.isfunction(other) and other.__module__ == entry.module:
                waiting.append(other)
    return tuple(found)


def names_in(code: CodeType) -> Iterator[str]:
    """Every name that the code, and what is defined inside it, reads."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from names_in(constant)


@contextmanager
def profiled(watch: Callable[[FrameType, str, Any], None]) -> Iterator[None]:
    """Tell ``watch`` of every call and return of Python code; afterwards an observer of one's own is back."""
    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(before)


def assigned(function: FunctionType, inside: str = "") -> list[str]:
    """The names that a function (or the function ``inside`` it) binds, in the order in which they are written."""
    named = inside or function.__name__
    node = next((n for n in ast.walk(_tree(function)) if isinstance(n, ast.FunctionDef) and n.name == named), None)
    found: list[tuple[int, int, str]] = []

    def visit(at: ast.AST) -> None:
        for child in ast.iter_child_nodes(at):
            if isinstance(child, ast.FunctionDef):
                continue
            if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store) and not child.id.startswith("_"):
                found.append((child.lineno, child.col_offset, child.id))
            visit(child)

    if node is not None:
        visit(node)
    return list(dict.fromkeys(name for _, _, name in sorted(found)))


def returned(function: FunctionType) -> str:
    """The name of the first thing that the function returns; "" where that is an expression or another's result."""
    for node in ast.walk(_tree(function)):
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
            first = node.value.elts[0]
            if isinstance(first, ast.Name):
                return first.id
    return ""


def _tree(function: FunctionType) -> ast.FunctionDef:
    node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(node, ast.FunctionDef)
    return node


def _split(function: FunctionType) -> Code:
    lines = textwrap.dedent(inspect.getsource(function)).rstrip().split("\n")
    node = _tree(function)
    gone: set[int] = set()  # line numbers from 1, as ast counts
    pullback = ""
    for child in node.body:
        first, last = child.lineno, child.end_lineno or child.lineno
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant) and isinstance(child.value.value, str):
            gone |= set(range(first, last + 1))
        if isinstance(child, ast.FunctionDef) and child.name == "pullback":
            pullback = textwrap.dedent("\n".join(lines[first - 1 : last]))
            gone |= set(range(first, last + 1))
    kept = [line for number, line in enumerate(lines, 1) if number not in gone]
    # Two blank lines meet where a piece was taken out between them.
    body = [line for i, line in enumerate(kept) if line.strip() or (i and kept[i - 1].strip())]
    return Code(function.__name__, "\n".join(body).strip("\n"), pullback)
