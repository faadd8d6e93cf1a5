"""How accurate a machine's functions are: ULPs, as its vendor publishes them.

A declaration is a number, or an expression of x, the argument, and y, the exact result: ``3 + 2*abs(x)``. Numbers,
+ - * / **, and the functions below; nothing else, and nothing is executed. ``ulp(y)`` is the gap between the numbers of
the dtype at y, so that an absolute error e is ``e/ulp(y)``.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from refbert.backend import Host
from refbert.errors import BackendError

# What may be declared: e^x, log x, tanh x, erf x and erfc x, √x, 1/√x, x/z, 1/z.
FUNCTIONS = ("exp", "log", "tanh", "erf", "sqrt", "rsqrt", "division", "reciprocal")
_LONGEST = 200
_OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}  # fmt: skip
_CALLS: Mapping[str, np.ufunc] = {
    "abs": np.abs, "max": np.maximum, "min": np.minimum, "sqrt": np.sqrt, "exp": np.exp, "log2": np.log2,
    "floor": np.floor,
}  # fmt: skip


class Accuracy:
    """ULPs of one function. Raises `BackendError` for a text that is no such expression."""

    def __init__(self, name: str, said: Any) -> None:
        self.said, self._name = said, name
        if isinstance(said, int | float) and not isinstance(said, bool) and 0 < said < 2**53:
            self._tree: ast.expr = ast.Constant(float(said))
            return
        try:
            if not isinstance(said, str) or len(said) > _LONGEST:
                raise ValueError
            self._tree = ast.parse(said.strip(), mode="eval").body
            x = np.array([1e-3, 1.0, 80.0])
            found = self(x, np.tanh(x), gap(np.tanh(x), 2.0**-24, 2.0**-149))
            if not np.all((found > 0) & (found < np.inf)):
                raise ValueError
        except (ValueError, SyntaxError, RecursionError, MemoryError, OverflowError, ZeroDivisionError):
            raise BackendError(
                f"the accuracy of {name} is a number of ULPs above 0, or an expression of x and y as "
                f'"3 + 2*abs(x)" is, not {said!r}'
            ) from None

    @property
    def number(self) -> float | None:
        """The ULPs, if they are the same everywhere."""
        return float(self._tree.value) if isinstance(self._tree, ast.Constant) else None  # type: ignore[arg-type]

    def __call__(self, x: Any, y: Any, ulp: Any) -> Host:
        """ULPs at x, where the exact result is y and numbers are an ``ulp`` apart; ∞ where none are said."""
        with np.errstate(all="ignore"):
            found = np.asarray(_value(self._tree, {"x": x, "y": y}, ulp), np.float64)
        return np.where(np.isnan(found), np.inf, np.maximum(found, 0))


def _value(node: ast.expr, known: Mapping[str, Any], ulp: Any) -> Any:
    match node:
        case ast.BinOp(left=a, op=by, right=b) if type(by) in _OPERATORS:
            return _OPERATORS[type(by)](_value(a, known, ulp), _value(b, known, ulp))
        case ast.UnaryOp(op=ast.USub(), operand=one):
            return -_value(one, known, ulp)
        case ast.Call(func=ast.Name(id="ulp"), args=[ast.Name(id="y")], keywords=[]):
            return ulp
        case ast.Call(func=ast.Name(id=name), args=parts, keywords=[]) if name in _CALLS:
            function = _CALLS[name]
            if len(parts) != function.nin:
                raise ValueError
            return function(*(_value(one, known, ulp) for one in parts))
        case ast.Name(id="x" | "y" as name):
            return known[name]
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return np.float64(number)
    raise ValueError


def accuracies(declared: Any) -> dict[str, Accuracy]:
    """What ``arithmetic["functions"]`` says, by function; raises `BackendError` for what it may not say."""
    if not isinstance(declared, Mapping):
        raise BackendError(f'arithmetic\'s functions are a mapping as {{"exp": 2}} is, not {declared!r}')
    unknown = sorted(set(map(str, declared)) - set(FUNCTIONS))
    if unknown:
        raise BackendError(f"arithmetic's functions name {', '.join(unknown)}; known: {', '.join(FUNCTIONS)}")
    return {name: Accuracy(name, said) for name, said in declared.items()}


def functions_said(declared: Mapping[str, Any]) -> str:
    """A declaration in words, for reports."""
    return ", ".join(f"{name} {said} ULP" for name, said in declared.items())


def gap(y: Any, u: float, smallest: float) -> Host:
    """The gap at y between numbers of unit roundoff u, and ``smallest`` where they are subnormal."""
    _, exponent = np.frexp(np.where(np.isfinite(y), y, 1.0))
    return np.asarray(np.where(np.equal(y, 0), smallest, np.maximum(np.ldexp(2 * u, exponent - 1), smallest)))
