"""Stop choosing tolerances: bounds for the results of any formula, in any library.

    from refbert_conformance import assert_within

    def rms_norm(x, gamma):
        return gamma * x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-6)

    assert_within(mine(x, gamma), rms_norm, x, gamma, arithmetic="float32")

The formula is run twice: on float64, which gives what is due, and on arrays that carry a bound on how far any order of
rounding in the declared arithmetic may go (`refbert_conformance.tolerances`). Nothing is chosen, and nothing tuned.
"""

from __future__ import annotations

import linecache
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from refbert.backend import Host, host_dtype
from refbert_conformance.cases.inputs import rounded
from refbert_conformance.engine.measure import Failure, Record
from refbert_conformance.tolerances.arithmetic import Arithmetic
from refbert_conformance.tolerances.bounds import Expected, settled
from refbert_conformance.tolerances.formulas import Formula, Integers

_LISTED = 4


@dataclass(frozen=True)
class Bounded:
    """A formula's result in float64, and how far a correct computation of it may be off, entry by entry."""

    value: Host
    bound: Host


def bound(
    formula: Callable[..., Any], *inputs: Any, arithmetic: str | Mapping[str, Any] = "float32", **options: Any
) -> Bounded:
    """What the formula of the inputs is, and what it may be off by where it is computed in that arithmetic.

    formula: any function of NumPy arrays that gives one; what it calls must have a rule in
    `refbert_conformance.tolerances.formulas`. inputs, and arrays among the ``options``: of any library; floating ones
    are rounded to the dtype, all others are handed on. arithmetic: a dtype, or {"dtype": …} with the words of a
    backend's ``arithmetic`` (docs/conformance.md).

    Raises TypeError for a NumPy function without a rule, by its name, and `BackendError` for an unknown arithmetic.
    """
    a = arithmetic_of(arithmetic)
    return _bounded(*_called(formula, inputs, options, a.dtype), a)[0]


class _Place(int):
    """Of an array among those given."""


def _called(
    formula: Callable[..., Any], inputs: Sequence[Any], options: Mapping[str, Any], dtype: str
) -> tuple[Callable[..., Any], list[Host]]:
    """A formula of arrays alone, and these: the inputs, and those among the options or in lists and mappings."""
    given: list[Host] = []

    def each(x: Any, change: Callable[[Any], Any]) -> Any:
        if isinstance(x, Mapping):
            return {name: each(one, change) for name, one in x.items()}
        if isinstance(x, list | tuple):
            return (tuple if isinstance(x, tuple) else list)(each(one, change) for one in x)
        return change(x)

    def taken(x: Any) -> Any:
        if not isinstance(x, np.ndarray) and not hasattr(x, "__dlpack__"):
            return x
        given.append(_input(x, dtype))
        return _Place(len(given) - 1)

    def placed(x: Any) -> Any:
        """An input, which may be a number, or a list of them."""
        n, found = len(given), each(x, taken)
        if isinstance(x, Mapping) or len(given) > n:
            return found
        return taken(_input(x, dtype))

    where, named = [placed(x) for x in inputs], {name: each(x, taken) for name, x in options.items()}

    def called(*arrays: Any) -> Any:
        def there(x: Any) -> Any:
            return arrays[x] if isinstance(x, _Place) else x

        return formula(*each(where, there), **each(named, there))

    return called, given


def _bounded(formula: Callable[..., Any], given: Sequence[Host], a: Arithmetic) -> tuple[Bounded, bool]:
    """And whether it may be doubted what is not finite (see `Formula`)."""
    with np.errstate(all="ignore"):
        result = formula(*(x.copy() for x in given))
        value = np.asarray(result)
        if not isinstance(result, np.ndarray | np.generic) or value.dtype.kind not in "biuf":
            raise TypeError(f"a formula gives one array of real numbers, not {_kind(result)}")
        _check_integers(formula, given, value)
        found = _tracked(formula, given, a)
        if not _same(found, value, a):
            raise TypeError(
                "the formula has no bound: it casts to a narrower dtype, or calls what NumPy does otherwise on its own "
                "arrays"
            )
        return Bounded(value, settled(value, found.error, a)), found.doubtful


def _check_integers(formula: Callable[..., Any], given: Sequence[Host], value: Host) -> None:
    """Raise TypeError if integers are too narrow for what is computed of them: 100·100 in int8, or its root, a float16
    in NumPy."""
    narrow = [x.dtype for x in given if x.dtype.kind in "iu" and x.dtype.itemsize < 8]
    if not narrow:
        return
    try:
        wide = np.asarray(formula(*(x.astype(np.int64) if x.dtype in narrow else x.copy() for x in given)))
    except Exception:  # noqa: BLE001
        return  # it takes the bits of its dtype apart
    if wide.shape == value.shape:
        same = (abs(wide - value.astype(float)) <= 2.0**-45 * abs(wide).max(initial=0)) | (wide == value)
        if not np.all(same | np.isnan(wide) & np.isnan(value)):
            raise TypeError(
                f"the formula computes with {narrow[0]} as NumPy does, which wraps around, or gives float16 for a "
                "root: begin with x.astype(np.int64)"
            )


def assert_within(
    y: Any, formula: Callable[..., Any], *inputs: Any, arithmetic: str | Mapping[str, Any] = "float32", **options: Any
) -> None:
    """Raise AssertionError unless every entry of y is the formula's, within what rounding may do (see `bound`).

    y: an array of any library, by DLPack or NumPy's protocol. The error says which entry is worst, how far it is off in
    bounds (ρ) and in ULPs, and which steps of the formula its bound comes from.
    """
    a = arithmetic_of(arithmetic)
    formula, given = _called(formula, inputs, options, a.dtype)
    (found, doubtful), record, got = _bounded(formula, given, a), Record(a), host(y)
    if got.dtype.kind == "c":
        raise AssertionError("y is complex, and the formula real")
    if got.shape == found.value.shape and found.value.size:
        # An infinity or NaN that is due is due exactly, if it is.
        sure = ~np.isfinite(found.value) & (not doubtful)
        with np.errstate(all="ignore"):
            odd = sure & ~((got == found.value) | (np.isnan(got.astype(float)) & np.isnan(found.value)))
        if odd.any():
            at = tuple(int(i) for i in np.argwhere(odd)[0])
            raise AssertionError(f"y{list(at)} is {got[at]}, must be {found.value[at]}")
        unchecked = np.isinf(found.bound) & ~sure
        if unchecked.any():
            said = f"{unchecked.sum():,} of {unchecked.size:,} have no bound: a step may overflow or divide by 0"
            if unchecked.all():
                raise AssertionError(f"nothing can be said: {said}")
            warnings.warn(said, RuntimeWarning, stacklevel=2)
        wide = (abs(found.value) <= found.bound) | unchecked
        if wide.all() and (found.value != 0).any():
            warnings.warn("y = 0 would pass: each number is less than it may be off by", RuntimeWarning, stacklevel=2)
    try:
        record.compare(got.astype(host_dtype(a.dtype)), Expected("y", found.value, found.bound))
    except Failure as failure:
        worst = failure.worst
        if worst is None:
            raise AssertionError(str(failure)) from None
        lines = [f"{failure} ({worst.ulps:.3g} ULP of {a.dtype})"]
        if np.isfinite(worst.bound) and worst.bound:
            lines += _origins(formula, given, a, worst.index)
        raise AssertionError("\n".join(lines)) from None


def arithmetic_of(said: str | Mapping[str, Any]) -> Arithmetic:
    """A dtype's arithmetic, or the one that a mapping with a "dtype" declares."""
    if isinstance(said, str):
        return Arithmetic.of(said)
    declared = dict(said)
    return Arithmetic.of(str(declared.pop("dtype", "float32")), declared)


def host(x: Any) -> Host:
    """An array of any library as NumPy's; bfloat16 comes as float32."""
    if isinstance(x, np.ndarray):
        return _standard(x)
    for name in ("detach", "cpu"):  # a tensor of PyTorch that needs a gradient, or lies elsewhere
        x = getattr(x, name, lambda x=x: x)()
    if "bfloat16" in str(getattr(x, "dtype", "")) and hasattr(x, "float"):
        x = x.float()
    try:
        return np.asarray(np.from_dlpack(x)) if hasattr(x, "__dlpack__") else _standard(np.asarray(x))
    except (BufferError, RuntimeError, TypeError, ValueError):
        return _standard(np.asarray(x))


def _standard(x: Host) -> Host:
    """In a dtype of NumPy's own: those of ml_dtypes (bfloat16, float8, int4) are numbers to none of its functions."""
    if x.dtype.kind == "V" and x.dtype.names is None and "float" in x.dtype.name:
        return x.astype(np.float32)
    return x.astype(np.int8) if x.dtype.kind == "V" and "int" in x.dtype.name else x


def _kind(x: Any) -> str:
    return f"an array of {x.dtype}" if isinstance(x, np.ndarray) else type(x).__name__


def _input(x: Any, dtype: str) -> Host:
    if x is None:
        raise TypeError("an input is an array: give what is none by name, as an option")
    array = host(x)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"an input is an array of real numbers or integers, not {_kind(array)}")
    return array if array.dtype.kind in "biu" else rounded(array.astype(np.float64), dtype)


def _tracked(formula: Callable[..., Any], given: Sequence[Any], a: Any) -> Formula:
    """The formula's result with its bound."""
    try:
        result = formula(*(
            Integers.of(x, a) if x.dtype.kind in "biu" else Formula(x.copy(), arithmetic=a) for x in given
        ))  # fmt: skip
    except ValueError as error:  # NumPy's own, of a number that it cannot hold
        if isinstance(error.__cause__, TypeError):
            raise error.__cause__ from None
        raise
    if isinstance(result, Formula):
        return result
    if np.asarray(result).dtype.kind not in "biu" and np.size(result):
        raise TypeError("the formula computes with constants alone, or packs numbers up: it has no bound")
    return Formula(result, arithmetic=a)


def _same(found: Formula, value: Host, a: Arithmetic) -> bool:
    """Whether the formula did the same on arrays that carry bounds as on NumPy's own, up to float64's rounding."""
    allowed = found.error * max(2.0**-10, 2.0**-51 / a.u_step) + 2.0**-48 * abs(value)
    away = abs(found.value - value)
    return found.shape == value.shape and bool(
        np.all((away <= allowed) | (found.value == value) | (np.isnan(found.value) & np.isnan(value)))
    )


class _Steps:
    """An arithmetic that lists the steps of a formula, and computes one exactly, as often as it is done."""

    def __init__(self, arithmetic: Arithmetic, exact: tuple[str, str] | None = None) -> None:
        self._arithmetic, self._one, self.names = arithmetic, exact, dict[tuple[str, str], None]()
        self._exact = replace(arithmetic, u_step=0.0, u_accumulation=0.0, u_matmul=0.0, underflow_step=0.0)
        self._now = arithmetic

    def step(self, name: str) -> None:
        step = (name, _line())
        self._now = self._exact if step == self._one else self._arithmetic
        self.names[step] = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._now, name)


def _line() -> str:
    """The line of the formula that is being computed."""
    frame: Any = sys._getframe(1)
    while frame is not None and any(name in frame.f_code.co_filename for name in ("refbert_conformance", "numpy")):
        frame = frame.f_back
    if frame is None:
        return ""
    return f"line {frame.f_lineno}: {linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()[:70]}"


def _origins(formula: Callable[..., Any], given: Sequence[Host], a: Arithmetic, at: tuple[int, ...]) -> list[str]:
    """What the bound of one entry comes from: by how much less it would be, were a step exact."""
    with np.errstate(all="ignore"):
        steps = _Steps(a)
        whole = float(_tracked(formula, given, steps).error[at])
        less = []
        for name, line in steps.names:
            share = whole - float(_tracked(formula, given, _Steps(a, (name, line))).error[at])
            less.append((share, f"{line}  ({name})" if line else name))
    total = sum(share for share, _ in less)
    if not total > 0:
        return []
    largest = [one for one in sorted(less, key=lambda one: -one[0])[:_LISTED] if one[0] > 0]
    return ["what it may be off by comes from", *(f"  {share / total:4.0%}  {what}" for share, what in largest)]
