"""Every first-order mutant of a module: one place of its syntax tree changed.

What is changed: operators, comparisons, conditions, constants, axes; arguments swapped, statements dropped, copies
dropped. What is not: docstrings, annotations, decorators, imports, texts, what a `raise` says, what only type checkers
read, and the order of arguments where NumPy says that it does not matter.
"""

from __future__ import annotations

import ast
import copy
from dataclasses import dataclass
from typing import Any

KINDS = ("operator", "comparison", "condition", "constant", "axis", "swapped arguments", "dropped statement",
         "dropped copy")  # fmt: skip

_BINARY: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.MatMult: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd,
}  # fmt: skip
_COMPARING: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
}  # fmt: skip
_SIGNS: dict[type[ast.AST], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**",
    ast.MatMult: "@", ast.LShift: "<<", ast.RShift: ">>", ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^",
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=", ast.Is: "is",
    ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in", ast.And: "and", ast.Or: "or", ast.Not: "not",
    ast.USub: "-", ast.Invert: "~",
}  # fmt: skip
_COMMUTATIVE = {"add", "multiply", "maximum", "minimum", "logical_and", "logical_or", "array_equal", "max", "min"}
_BY_AXIS = {"swapaxes", "transpose", "moveaxis", "expand_dims"}  # methods whose plain numbers are axes


@dataclass(frozen=True)
class Mutant:
    """One change. file: from the folder above the package on. where: the function or class around it, or the name that
    a statement of the module gives; "" for the module's other statements. old, new: the piece changed. was, becomes:
    the statement around it, of a compound one the head. number: which of the file's mutants."""

    file: str
    line: int
    column: int
    where: str
    kind: str
    old: str
    new: str
    was: str
    becomes: str
    number: int

    @property
    def id(self) -> str:
        """Unique, and the same as long as the file is."""
        return f"{self.file}:{self.line}:{self.column} {self.old} → {self.new}"

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What does not move with the lines: the file, where, and the statement before and after."""
        return self.file, self.where, self.was, self.becomes


def mutants(source: str, file: str) -> list[Mutant]:
    """All of a module, in the order of its text."""
    found = []
    for number, (edit, statement) in enumerate(_edits(ast.parse(source))):
        was = head(statement)
        with edit:
            becomes = "pass" if edit.kind == "dropped statement" else head(statement)
        found.append(
            Mutant(file, *edit.at, edit.where, edit.kind, edit.old, edit.new, was, becomes, number)
        )  # fmt: skip
    return found


def mutated(source: str, number: int | None) -> str:
    """The module's text with that one of its mutants, comments left out; None: with none."""
    tree = ast.parse(source)
    if number is None:
        return ast.unparse(tree)
    edit, _ = _edits(tree)[number]
    with edit:
        return ast.unparse(tree)


def head(statement: ast.stmt) -> str:
    """A statement's text in one line, without the statements in it."""
    statement = copy.copy(statement)
    for rest in ("orelse", "finalbody", "handlers", "decorator_list", "cases"):
        if hasattr(statement, rest):
            setattr(statement, rest, [])
    if hasattr(statement, "body"):
        statement.body = [ast.Pass()]
    text = " ".join(ast.unparse(statement).split())
    return text.removesuffix("pass").rstrip() if hasattr(statement, "body") else text


class _Edit:
    """A change that is in the tree inside ``with``."""

    def __init__(self, holder: Any, at: tuple[int, int], where: str, kind: str, old: str, new: str, made: Any) -> None:
        self._parent, self._field, self._index = holder
        self.at, self.where, self.kind, self.old, self.new, self._made = at, where, kind, old, new, made

    def __enter__(self) -> None:
        self._before = self._put(self._made)

    def __exit__(self, *_: object) -> None:
        self._put(self._before)

    def _put(self, made: Any) -> Any:
        if self._index is None:
            before = getattr(self._parent, self._field)
            setattr(self._parent, self._field, made)
            return before
        field = getattr(self._parent, self._field)
        before, field[self._index] = field[self._index], made
        return before


def _edits(tree: ast.Module) -> list[tuple[_Edit, ast.stmt]]:
    finder = _Finder()
    finder.statements(tree, "body", "", set(), top=True)
    return finder.found


class _Finder:
    """Walks a module and gathers its edits, each with the statement that it is in."""

    def __init__(self) -> None:
        self.found: list[tuple[_Edit, ast.stmt]] = []
        self._statement: ast.stmt
        self._where = ""

    def statements(self, parent: Any, field: str, where: str, bound: set[str], *, top: bool = False) -> None:
        """A list of statements; ``bound``: the names that have a value before it."""
        for index, one in enumerate(getattr(parent, field)):
            holder = parent, field, index
            if isinstance(one, ast.Import | ast.ImportFrom | ast.Global | ast.Nonlocal | ast.Pass) or _is_text(one):
                continue
            named = _named(one) if top and where.count(".") == 0 else ""
            self._where = ".".join(filter(None, (where, named)))
            self._statement = one
            if not top and _droppable(one, bound):
                self._add(holder, one, "dropped statement", ast.unparse(one), "nothing", ast.Pass())
            if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                self._where = ".".join(filter(None, (where, one.name)))
                inner: set[str] = set()
                if not isinstance(one, ast.ClassDef):
                    self._defaults(one.args)
                    inner = {a.arg for a in ast.walk(one.args) if isinstance(a, ast.arg)}
                self.statements(one, "body", self._where, inner, top=isinstance(one, ast.ClassDef))
            elif not isinstance(one, ast.Raise):
                if isinstance(one, ast.For):
                    bound |= _stored(ast.Expr(one.target))
                self._parts(one, where, bound, top)
            bound |= _stored(one)

    def _parts(self, statement: ast.stmt, where: str, bound: set[str], top: bool) -> None:
        """The expressions of a statement, then the statements in it."""
        here = self._where
        if isinstance(statement, ast.If) and ast.unparse(statement.test).endswith("TYPE_CHECKING"):
            self.statements(statement, "orelse", where, bound, top=top)
            return
        if isinstance(statement, ast.If | ast.While):
            self._condition(statement)
        for field, value in ast.iter_fields(statement):
            if field in ("body", "orelse", "finalbody", "annotation", "msg", "type_params", "handlers", "cases"):
                continue
            self._each(statement, field, value)
        if isinstance(statement, ast.AugAssign):
            self._operator(statement, _end(statement.target))
        for field in ("body", "orelse", "finalbody"):
            if isinstance(getattr(statement, field, None), list):
                self.statements(statement, field, where, bound, top=top)
        for handler in getattr(statement, "handlers", ()):
            self.statements(handler, "body", where, bound, top=top)
        for case in getattr(statement, "cases", ()):
            self.statements(case, "body", where, bound, top=top)
        self._where = here

    def _defaults(self, arguments: ast.arguments) -> None:
        self._each(arguments, "defaults", arguments.defaults)
        self._each(arguments, "kw_defaults", arguments.kw_defaults)

    def _each(self, parent: Any, field: str, value: Any) -> None:
        if isinstance(value, list):
            for index, one in enumerate(value):
                if isinstance(one, ast.AST):
                    self._expression((parent, field, index), one)
        elif isinstance(value, ast.AST):
            self._expression((parent, field, None), value)

    def _expression(self, holder: Any, node: ast.AST) -> None:
        if isinstance(node, ast.JoinedStr | ast.expr_context | ast.operator):
            return
        axes = False
        match node:
            case ast.BinOp():
                if isinstance(node.op, ast.BitOr) and _is_type(node):
                    return
                self._operator(node, _end(node.left))
            case ast.BoolOp():
                other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
                self._add((node, "op", None), _end(node.values[0]), "operator", _sign(node.op), _sign(other), other)
            case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert()):
                self._add(holder, node, "operator", _sign(node.op), "nothing", node.operand)
            case ast.Compare():
                ends = [node.left, *node.comparators]
                for index, op in enumerate(node.ops):
                    for kind in _COMPARING[type(op)]:
                        where = node, "ops", index
                        self._add(where, _end(ends[index]), "comparison", _sign(op), _sign(kind()), kind())
            case ast.IfExp():
                self._condition(node)
            case ast.Constant():
                self._constant(holder, node)
            case ast.Lambda():
                self._defaults(node.args)
                self._each(node, "body", node.body)
                return
            case ast.keyword(arg="axis" | "axes"):
                axes = True
            case ast.Call():
                self._call(holder, node)
                axes = isinstance(node.func, ast.Attribute) and node.func.attr in _BY_AXIS
        if axes:
            self._axes(node)
            if isinstance(node, ast.Call):
                self._each(node, "func", node.func)
            return
        for field, value in ast.iter_fields(node):
            if field not in ("op", "ops", "annotation"):
                self._each(node, field, value)

    def _operator(self, node: ast.BinOp | ast.AugAssign, at: tuple[int, int]) -> None:
        other = _BINARY[type(node.op)]()
        self._add((node, "op", None), at, "operator", _sign(node.op), _sign(other), other)

    def _condition(self, node: ast.If | ast.While | ast.IfExp) -> None:
        test = node.test
        if not isinstance(test, ast.Compare | ast.BoolOp | ast.UnaryOp | ast.Constant):
            text = ast.unparse(test)
            self._add((node, "test", None), test, "condition", text, f"not {text}", ast.UnaryOp(ast.Not(), test))

    def _constant(self, holder: Any, node: ast.Constant, kind: str = "constant") -> None:
        value: Any = node.value
        if isinstance(value, bool):
            others: tuple[Any, ...] = (not value,)
        elif isinstance(value, int):
            others = (value + 1, value - 1)
        elif isinstance(value, float):
            others = (2 * value or 1.0,)
        else:
            return
        for other in others:
            self._add(holder, node, kind, repr(value), repr(other), _number(other))

    def _axes(self, node: ast.AST) -> None:
        """The numbers in an ``axis=``, or in the arguments of a method that takes axes."""
        places: list[tuple[Any, str, int | None]] = [(node, "value", None)] if isinstance(node, ast.keyword) else []
        if isinstance(node, ast.Call):
            places = [(node, "args", index) for index in range(len(node.args))]
        for parent, field, at in places:
            value = getattr(parent, field) if at is None else getattr(parent, field)[at]
            inner: list[tuple[Any, str, int | None]] = [(parent, field, at)]
            if isinstance(value, ast.Tuple):
                inner = [(value, "elts", n) for n in range(len(value.elts))]
            for place in inner:
                one = value if place[0] is parent else value.elts[place[2]]
                number = _whole(one)
                if number is None:
                    self._expression(place, one)
                    continue
                for other in dict.fromkeys((number + 1, number - 1)):
                    self._add(place, one, "axis", str(number), str(other), _number(other))

    def _call(self, holder: Any, node: ast.Call) -> None:
        for index, (a, b) in enumerate(zip(node.args, node.args[1:], strict=False)):
            texts = ast.unparse(a), ast.unparse(b)
            if isinstance(a, ast.Starred) or isinstance(b, ast.Starred) or texts[0] == texts[1]:
                continue
            if _last(node.func) in _COMMUTATIVE and not ast.unparse(node.func).startswith("ops."):
                continue
            made = [*node.args[:index], b, a, *node.args[index + 2 :]]
            old, new = f"{texts[0]}, {texts[1]}", f"{texts[1]}, {texts[0]}"
            self._add((node, "args", None), a, "swapped arguments", old, new, made)
        text, last = ast.unparse(node), _last(node.func)
        if isinstance(node.func, ast.Attribute):
            if last == "copy" and not node.args and not node.keywords:
                self._add(holder, node, "dropped copy", text, ast.unparse(node.func.value), node.func.value)
            elif last == "ascontiguousarray":
                self._add(holder, node, "dropped copy", text, ast.unparse(node.args[0]), node.args[0])
            elif last == "array" and ast.unparse(node.func.value) == "np":
                other = ast.Attribute(node.func.value, "asarray", ast.Load())
                self._add((node, "func", None), node, "dropped copy", "np.array", "np.asarray", other)

    def _add(self, holder: Any, at: Any, kind: str, old: str, new: str, made: Any) -> None:
        place = (at.lineno, at.col_offset) if isinstance(at, ast.AST) else at  # type: ignore[attr-defined]
        place = place[0], place[1] + 1
        old, new = (" ".join(text.split()) for text in (old, new))
        self.found.append((_Edit(holder, place, self._where, kind, old, new, made), self._statement))


def _droppable(statement: ast.stmt, bound: set[str]) -> bool:
    """Whether a function without the statement still has all its names."""
    match statement:
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Raise():
            return True
        case ast.Assign() | ast.AnnAssign(value=ast.expr()):
            return _stored(statement) <= bound
    return False


def _stored(statement: ast.stmt) -> set[str]:
    """The names that a statement gives a value."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
        return {statement.name}
    inner = (n for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
    return {name.id for name in inner}


def _named(statement: ast.stmt) -> str:
    """The first name that an assignment gives a value, or ""."""
    return min(_stored(statement), default="") if isinstance(statement, ast.Assign | ast.AnnAssign) else ""


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _is_type(node: ast.BinOp) -> bool:
    """Whether an | joins types: one side is None, or a type that is written out."""
    sides = (node.left, node.right)
    return any(isinstance(one, ast.Constant) and one.value is None for one in sides) or any(
        isinstance(one, ast.Name) and one.id in ("int", "float", "str", "bool", "set", "frozenset") for one in sides
    )


def _whole(node: ast.AST) -> int | None:
    match node:
        case ast.Constant(value=int(n)) if not isinstance(n, bool):
            return n
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int(n))):
            return -n
    return None


def _number(value: Any) -> ast.expr:
    if not isinstance(value, bool) and value < 0:
        return ast.UnaryOp(ast.USub(), ast.Constant(-value))
    return ast.Constant(value)


def _end(node: ast.expr) -> tuple[int, int]:
    return node.end_lineno or 0, node.end_col_offset or 0


def _sign(node: ast.AST) -> str:
    return _SIGNS[type(node)]


def _last(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
