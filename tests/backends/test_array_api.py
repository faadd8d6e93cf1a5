"""The backend "array-api": every op and its gradient on several libraries, in nothing but the standard's words.

array-api-strict refuses what the standard does not say; with NumPy and PyTorch it is always here. The other libraries
are no requirements of these tests: without one, its tests are unavailable.
"""

from __future__ import annotations

import ast
import importlib.util
import math
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from hostile import assert_one_line
from op_cases import BAD_ARGUMENTS, CASES, RATES, check, model_difference

from refbert import ops
from refbert.backend import OPTIONAL, UNIT_ROUNDOFF, missing_ops, registry, without_updates
from refbert.errors import BackendUnavailable, Unsupported

for required in ("array_api_compat", "array_api_strict"):
    pytest.importorskip(required, reason=f"unavailable: {required} is not installed")
FOLDER = Path(__file__).parents[2] / "backends" / "refbert_array_api"
DTYPES = ("float32", "float64")


def library(name):
    missing = importlib.util.find_spec(name.partition(".")[0]) is None
    return pytest.param(name, marks=pytest.mark.skipif(missing, reason=f"unavailable: {name} is not installed"))


LIBRARIES = [library(name) for name in ("array_api_strict", "numpy", "torch", "jax.numpy", "dask.array")]


@pytest.fixture(autouse=True)
def oldest_standard():
    """What 2023.12 says and no more: no extensions, no shapes that depend on numbers, no indexing by masks."""
    from array_api_strict import ArrayAPIStrictFlags

    with ArrayAPIStrictFlags(
        api_version="2023.12", boolean_indexing=False, data_dependent_shapes=False, enabled_extensions=[]
    ):
        yield


def made(name, dtype=None, device=None):
    return registry.create(f"array-api:{name}", dtype=dtype, device=device)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", LIBRARIES)
def test_op(name, case, dtype):
    check(made(name, dtype), case)


@pytest.mark.parametrize("case", ["attention with dropout", "cross_entropy", "embedding", "layer_norm"])
@pytest.mark.parametrize("name", [library(name) for name in ("ndonnx", "mlx.core", "cubed")])
def test_op_on_libraries_that_nothing_was_written_for(name, case):
    check(made(name), case)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "allowed"), [("float64", 2**-40), ("float32", 2**-11)])
@pytest.mark.parametrize("name", LIBRARIES[:3])
def test_every_head_with_dropout(name, dtype, allowed):
    """The bounds count roundings: see test_cupy.test_the_spec_on_the_stand_in."""
    for profile in ("hf", "google"):
        assert model_difference(made(name, dtype), profile) < allowed


@pytest.mark.parametrize(("op", "shapes", "options", "error"), BAD_ARGUMENTS)
@pytest.mark.parametrize("name", LIBRARIES)
def test_bad_arguments_raise_what_the_reference_raises(name, op, shapes, options, error):
    backend = made(name)
    with pytest.raises(error):
        getattr(backend, op)(*(backend.asarray(np.ones(shape)) for shape in shapes), **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", ["bert_adam", "adamw", "lamb"])
@pytest.mark.parametrize("name", LIBRARIES)
def test_updates(name, rule, dtype):
    rng = np.random.default_rng(0)
    arrays = [x.astype(dtype).astype(np.float64) for x in (*rng.standard_normal((3, 5, 4)), rng.random((5, 4)))]
    arrays[0][:] = 0 if rule == "lamb" and dtype == "float32" else arrays[0]  # LAMB's ratio is 1 there
    options = RATES | ({} if rule == "bert_adam" else {"step": 3})
    backend = made(name, dtype)
    got = backend.update(rule, *(backend.asarray(a) for a in arrays), scale=1.0, step=3, **RATES)
    for ours, reference in zip(got, getattr(ops, rule)(*arrays, **options), strict=True):
        # About 20 roundings in a row and, in LAMB, norms over 20 entries; the numbers are of size 1.
        assert np.abs(backend.to_numpy(ours) - reference).max() <= 40 * UNIT_ROUNDOFF[dtype] * max(
            1, np.abs(reference).max()
        )
    norm = backend.global_norm({"a": got[0], "b": got[1]})
    want = math.sqrt(sum(float((backend.to_numpy(x).astype(float) ** 2).sum()) for x in got[:2]))
    assert abs(norm - want) <= 40 * UNIT_ROUNDOFF[dtype] * want
    assert backend.global_norm({}) == 0.0


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_tail_of_the_normal_distribution(dtype):
    """The polynomial for Mills' ratio, by an oracle of more digits: from 0 to where φ is 0, within ten roundings."""
    import mpmath

    from refbert_array_api.backend import CENTRE, _series

    x = np.concatenate([np.linspace(0, 10, 301), np.geomspace(1e-6, 40, 100)]).astype(dtype)
    inverse = 1 / (x + np.dtype(dtype).type(CENTRE))
    got = np.polyval(np.array(_series(dtype), dtype), 1 - np.dtype(dtype).type(2 * CENTRE) * inverse) * inverse
    with mpmath.workdps(30):
        for one, ratio in zip(x, got, strict=True):
            z = mpmath.mpf(float(one))
            want = mpmath.sqrt(mpmath.pi / 2) * mpmath.exp(z * z / 2) * mpmath.erfc(z / mpmath.sqrt(2))
            assert abs(float(ratio) - want) <= 10 * UNIT_ROUNDOFF[dtype] * want, one


@pytest.mark.parametrize("name", LIBRARIES)
def test_rows_that_repeat_thousands_of_times(name):
    """Sums of integers, which every order of summation gives exactly; a NaN stays in the rows that it is due in."""
    backend = made(name)
    ids = np.random.default_rng(0).permutation(np.repeat([0, 3, 4, 6], [4097, 1, 2048, 7]))
    dy = (np.arange(2 * len(ids)) % 5 - 2.0).reshape(-1, 2)
    _, back = backend.embedding(backend.asarray(np.ones((8, 2))), ids)
    want = np.zeros((8, 2))
    np.add.at(want, ids, dy)
    np.testing.assert_array_equal(backend.to_numpy(back(backend.asarray(dy))[0]), want)
    dy[np.flatnonzero(ids == 4)[17], 1] = np.nan
    want[4, 1] = np.nan
    np.testing.assert_array_equal(backend.to_numpy(back(backend.asarray(dy))[0]), want)


def test_nothing_is_asked_of_a_namespace_but_what_is_listed():
    from refbert_array_api.library import USED

    tree = ast.parse((FOLDER / "backend.py").read_text(encoding="utf-8"))
    asked = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("xp", "self._xp")
    }
    assert asked == set(USED)
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= {*sys.stdlib_module_names, "numpy", "refbert_array_api"}
    assert len((FOLDER / "backend.py").read_text(encoding="utf-8").splitlines()) <= 400


def test_what_it_offers():
    backend = made("numpy")
    assert missing_ops(backend) == ()
    assert {name for name in OPTIONAL if hasattr(backend, name)} == {"softmax", "update", "global_norm"}
    assert without_updates(backend) == ""
    assert backend.name == "array-api:numpy"
    assert backend.library.startswith(f"numpy {np.__version__}")
    with pytest.raises(Unsupported, match="float16"):
        made("numpy", "float16")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("array-api", "it needs the name of an array library's namespace; write array-api:numpy"),
        ("array-api:", "it needs the name"),
        ("array-api:one two", '"one two" is no name'),
        ("array-api:no_such_library", "no_such_library cannot be imported"),
        ("array-api:math", "math is no namespace of the array API"),
        ("array-api:half_a_library", "half_a_library has not all of the array API: it lacks .*take"),
    ],
)
def test_what_is_no_library(monkeypatch, name, says):
    half = types.ModuleType("half_a_library")
    array = type("Half", (), {"__array_namespace__": lambda self, api_version=None: half})
    half.asarray = lambda x: array()
    monkeypatch.setitem(sys.modules, "half_a_library", half)
    with pytest.raises(BackendUnavailable, match=says) as caught:
        registry.create(name)
    assert_one_line(caught.value)


@pytest.mark.parametrize(
    ("function", "instead", "says"),
    [
        ("take", lambda x, index, axis: x[1.5], r"has not all of the array API: take fails \(.*1\.5"),
        ("exp", lambda x: [][0], r"has not all of the array API: matmul fails \(list index out of range\)"),
        ("asarray", lambda x, **options: [], "is no namespace of the array API"),
        ("abs", lambda x: exec("raise ValueError('one\\n' + 'two ' * 99)"), r"where fails \(one two .* …\)"),
    ],
)
def test_what_a_library_cannot_do_is_said_in_one_line(monkeypatch, function, instead, says):
    import array_api_strict

    monkeypatch.setattr(array_api_strict, function, instead)
    with pytest.raises(BackendUnavailable, match=says) as caught:
        made("array_api_strict")
    assert_one_line(caught.value)


def test_a_namespace_whose_arrays_are_anothers_is_no_library(monkeypatch):
    import array_api_strict

    borrowing = types.ModuleType("borrowing")
    borrowing.asarray = array_api_strict.asarray
    monkeypatch.setitem(sys.modules, "borrowing", borrowing)
    with pytest.raises(BackendUnavailable, match="borrowing has no arrays of its own, only those of array_api_strict"):
        made("borrowing")


def test_arrays_that_show_no_numbers(monkeypatch):
    from array_api_strict._array_object import Array

    def refused(*given, **options):
        raise BufferError("no export")

    monkeypatch.setattr(Array, "__dlpack__", refused)
    monkeypatch.delattr(Array, "__array__")
    monkeypatch.delattr(Array, "__buffer__", raising=False)
    with pytest.raises(BackendUnavailable, match="array_api_strict shows no numbers"):
        made("array_api_strict")
    monkeypatch.setattr(Array, "todense", lambda self: self._array, raising=False)  # as sparse
    backend = made("array_api_strict")
    np.testing.assert_array_equal(backend.to_numpy(backend.asarray([1, 2])), [1, 2])


def test_arrays_that_are_plans_are_computed_once_for_each_operation(monkeypatch):
    """A library that array-api-compat does not know, as cubed: its arrays say so by a method compute."""
    from array_api_strict._array_object import Array

    from refbert_array_api.library import Library

    computed, to_numpy = [], Library.to_numpy
    monkeypatch.setattr(Library, "to_numpy", staticmethod(lambda x: computed.append(x.shape) or to_numpy(x)))
    for plans in (False, True):
        if plans:
            monkeypatch.setattr(Array, "compute", lambda self: self, raising=False)
        backend = made("array_api_strict")
        computed.clear()
        y, back = backend.tanh(backend.asarray(np.ones((2, 3))))
        back(y)
        assert computed == [(2, 3), (2, 3)] * plans


def test_without_array_api_compat_the_install_command_is_given(monkeypatch):
    for name in ("refbert_array_api", "refbert_array_api.backend", "refbert_array_api.library"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "array_api_compat", None)
    with pytest.raises(BackendUnavailable, match=r'pip install "refbert\[array-api\]"'):
        registry.create("array-api:numpy")


def test_devices_are_the_librarys_own():
    backend = made("array_api_strict", device="device1")
    assert "device1" in backend.device
    y, back = backend.linear(*(backend.asarray(np.ones(shape)) for shape in ((2, 3), (4, 3), (4,))))
    assert {str(x.device) for x in (y, *back(y))} == {backend.device}
    np.testing.assert_array_equal(backend.to_numpy(y), np.full((2, 4), 4.0))
    made("array_api_strict", device=backend.device)  # as a run that is resumed names it
    with pytest.raises(BackendUnavailable, match='numpy has no device "cuda" here, only cpu') as caught:
        made("numpy", device="cuda")
    assert_one_line(caught.value)
    with pytest.raises(BackendUnavailable, match="no float64 here"):
        made("array_api_strict", "float64", device="no_float64")


def test_the_caller_may_use_its_memory_again():
    for name in ("numpy", "torch"):
        backend = made(name)
        host, keep = np.ones((4, 256), np.float32), np.ones((4, 256), bool)
        x = backend.asarray(host)
        y, back = backend.dropout(x, keep=keep, rate=0.5)
        host[:], keep[:] = 7, False
        for result in (y, *back(x)):
            np.testing.assert_array_equal(backend.to_numpy(result), 2.0)
