"""Conditions of a case, as waivers name them: ``S > 512 and mask == "ragged"``.

Comparisons of a case's sizes and options with numbers and texts, joined by and, or, not; sums, differences, products,
``//`` and ``%`` of numbers; ``in`` with a tuple. Nothing else, and nothing is executed.
"""

from __future__ import annotations

import ast
import itertools
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from refbert.errors import InputError

LONGEST = 300
_ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}  # fmt: skip
_COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip
_KNOWN = {"inf": math.inf}


class Condition:
    """names: what it speaks of. Raises `InputError` for a text that is no such condition."""

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            if len(text) > LONGEST:
                raise ValueError
            self._tree = ast.parse(text.strip(), mode="eval").body
            self.names = frozenset(n.id for n in ast.walk(self._tree) if isinstance(n, ast.Name)).difference(_KNOWN)
            _check(self._tree)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            raise InputError(
                f'"{text}" is no condition of a case, as S > 512 or mask == "ragged" are, joined by and, or, not'
            ) from None

    def holds(self, facts: Mapping[str, Any]) -> bool:
        """Whether it does, of a case that has all its `names`; what cannot be compared does not hold."""
        try:
            return self.names <= set(facts) and bool(_value(self._tree, {**facts, **_KNOWN}))
        except (TypeError, ZeroDivisionError):
            return False


def facts(example: Any) -> dict[str, Any]:
    """What a condition may speak of: the numbers, texts and tuples of an example, by name, its parts' included."""
    found: dict[str, Any] = {}
    values = {f.name: getattr(example, f.name) for f in fields(example)} if is_dataclass(example) else {}
    for name, value in values.items():
        for key, one in value.items() if isinstance(value, Mapping) else ((name, value),):
            if isinstance(one, bool | int | float | str | tuple):
                found[str(key)] = one
            elif is_dataclass(one):
                found |= facts(one)
    return found


def _check(node: ast.expr) -> None:
    match node:
        case ast.BoolOp(values=parts):
            inside = parts
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=one):
            inside = [one]
        case ast.BinOp(left=a, op=by, right=b) if type(by) in _ARITHMETIC:
            inside = [a, b]
        case ast.Compare(left=a, ops=kinds, comparators=others) if all(type(kind) in _COMPARISONS for kind in kinds):
            inside = [a, *others]
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            inside = parts
        case ast.Name():
            return
        case ast.Constant(value=bool() | int() | float() | str()):
            return
        case _:
            raise ValueError
    for one in inside:
        _check(one)


def _value(node: ast.expr, facts: Mapping[str, Any]) -> Any:
    match node:
        case ast.BoolOp(op=ast.And(), values=parts):
            return all(_value(one, facts) for one in parts)
        case ast.BoolOp(values=parts):
            return any(_value(one, facts) for one in parts)
        case ast.UnaryOp(op=ast.Not(), operand=one):
            return not _value(one, facts)
        case ast.UnaryOp(operand=one):
            return -_number(one, facts)
        case ast.BinOp(left=a, op=by, right=b):
            return _ARITHMETIC[type(by)](_number(a, facts), _number(b, facts))
        case ast.Compare(left=a, ops=kinds, comparators=others):
            values = [_value(one, facts) for one in (a, *others)]
            return all(
                _COMPARISONS[type(kind)](*pair) for kind, pair in zip(kinds, itertools.pairwise(values), strict=True)
            )
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            return tuple(_value(one, facts) for one in parts)
        case ast.Name(id=name):
            return facts[name]
        case ast.Constant(value=value):
            return value
    raise TypeError


def _number(node: ast.expr, facts: Mapping[str, Any]) -> float:
    value = _value(node, facts)
    if not isinstance(value, int | float):
        raise TypeError
    return value
