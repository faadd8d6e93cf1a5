"""Which of the contract's methods a piece of a backend's code is part of, by the names that the code mentions.

A method reaches every definition that it names, and all that this names in turn. A name stands for whatever is called
so in any of the package's modules, so that more may be reached here than is ever called, and never less.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence

Units = dict[str, set[str]]


def reached(sources: Iterable[str], backend: str, methods: Sequence[str]) -> dict[str, frozenset[str]]:
    """Definition ("f", "Class.f", "CONSTANT") -> the methods of the class ``backend`` that reach it."""
    units: Units = {}
    for source in sources:
        for name, used in _units(ast.parse(source)).items():
            units.setdefault(name, set()).update(used)
    by_name: dict[str, set[str]] = {}
    for unit in units:
        owner, _, name = unit.rpartition(".")
        special = name.startswith("__") and bool(owner)  # who names a class may make one, enter it, …
        by_name.setdefault(owner if special else f".{name}" if owner else name, set()).add(unit)
    always = {unit for unit in units if unit.startswith(f"{backend}.__")}
    found: dict[str, set[str]] = {unit: set() for unit in units}
    for method in methods:
        if f"{backend}.{method}" in units:
            for unit in _closure({f"{backend}.{method}", *always}, units, by_name):
                found[unit].add(method)
    return {unit: frozenset(of) for unit, of in found.items()}


def _closure(start: set[str], units: Units, by_name: Mapping[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    left = set(start)
    while left:
        unit = left.pop()
        seen.add(unit)
        for name in units[unit]:
            left |= by_name.get(name, set()) - seen
    return seen


def _units(tree: ast.Module) -> Units:
    """Definition -> the names in it; ".name" where it is an attribute."""
    imports = (n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom))
    imported = {alias.asname or alias.name for one in imports for alias in one.names}
    found: Units = {}

    def put(prefix: str, statements: Sequence[ast.stmt]) -> None:
        for one in statements:
            if isinstance(one, ast.ClassDef):
                found.setdefault(one.name, set()).update(*(_names(base, imported) for base in one.bases))
                put(f"{one.name}.", one.body)
            elif isinstance(one, ast.FunctionDef):
                found.setdefault(prefix + one.name, set()).update(_names(one, imported))
            elif isinstance(one, ast.Assign | ast.AnnAssign):
                for name in (n.id for n in ast.walk(one) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)):
                    found.setdefault(prefix + name, set()).update(_names(one, imported))

    put("", tree.body)
    return found


def _names(node: ast.AST, imported: set[str]) -> set[str]:
    found = set()
    for one in ast.walk(node):
        if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Load):
            found.add(one.id)
        elif isinstance(one, ast.Attribute):
            owner = one.value.id if isinstance(one.value, ast.Name) else ""
            if owner != "np":
                found |= {one.attr, f".{one.attr}"} if owner in imported else {f".{one.attr}"}
    return found
