"""The example plugins refbert-mlx and refbert-tinygrad: every op and its gradient against refbert.ops, and their
paperwork.

Their libraries are not among the requirements of these tests: without them they are unavailable.
"""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from op_cases import BAD_ARGUMENTS, CASES, RATES, check, model_difference

from refbert import ops
from refbert.backend import OPTIONAL, UNIT_ROUNDOFF, missing_ops, without_updates

ROOT = Path(__file__).parents[2]
CLASSES = {"mlx": "MlxBackend", "tinygrad": "TinygradBackend"}
DTYPES = ("float32", *(pytest.param(dtype, marks=pytest.mark.slow) for dtype in ("float64", "float16")))
# Of the library, with a reproduction in docs/findings.md.
WRONG = {
    ("mlx", "float64", "gelu erf"): "MLX computes the erf of a float64 in float32",
    ("tinygrad", "float64", "gelu erf"): "tinygrad's erf is good to 1.5e-7 in every dtype",
}
each = pytest.mark.parametrize("name", CLASSES)


def directory(name):
    return ROOT / "examples" / f"refbert-{name}"


def source(name):
    return directory(name) / "src" / f"refbert_{name}" / "__init__.py"


def made(name, dtype="float32"):
    """A backend whose class is loaded by path, as it need not be installed; skips where its library does not run."""
    spec = importlib.util.spec_from_file_location(f"refbert_{name}_example", source(name))
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return getattr(module, CLASSES[name])(dtype=dtype)
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"unavailable: {error}")


@each
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_op(name, case, dtype):
    backend = made(name, dtype)
    reason = WRONG.get((name, dtype, case))
    if reason is None:
        check(backend, case)
        return
    with pytest.raises(AssertionError, match="excess"):  # the day it passes, the waiver goes
        check(backend, case)


@each
@pytest.mark.slow
@pytest.mark.parametrize("profile", ["hf", "google"])
def test_every_head_with_dropout(name, profile):
    """The bound counts roundings: see test_cupy.test_the_spec_on_the_stand_in."""
    assert model_difference(made(name), profile) < 2**-11


@each
@pytest.mark.parametrize(("op", "shapes", "options", "error"), BAD_ARGUMENTS)
def test_bad_arguments_raise_what_the_reference_raises(name, op, shapes, options, error):
    backend = made(name)
    with pytest.raises(error):
        getattr(backend, op)(*(backend.asarray(np.ones(shape)) for shape in shapes), **options)


@each
@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
@pytest.mark.parametrize("rule", ["bert_adam", "adamw", "lamb"])
def test_updates(name, rule, dtype):
    rng = np.random.default_rng(0)
    arrays = [x.astype(dtype).astype(np.float64) for x in (*rng.standard_normal((3, 5, 4)), rng.random((5, 4)))]
    options = RATES | ({} if rule == "bert_adam" else {"step": 3})
    backend = made(name, dtype)
    got = backend.update(rule, *(backend.asarray(a) for a in arrays), scale=1.0, step=3, **RATES)
    for ours, reference in zip(got, getattr(ops, rule)(*arrays, **options), strict=True):
        # About 20 roundings in a row and, in LAMB, norms over 20 entries; the numbers are of size 1.
        assert np.abs(backend.to_numpy(ours) - reference).max() <= 40 * UNIT_ROUNDOFF[dtype] * max(
            1, np.abs(reference).max()
        )


@each
def test_an_argument_given_twice_has_two_gradients(name):
    backend = made(name)
    x, dy = backend.asarray(np.ones((2, 3))), backend.asarray(np.full((2, 3), 5.0))
    for gradient in backend.add(x, x)[1](dy):
        np.testing.assert_array_equal(backend.to_numpy(gradient), 5.0)


def test_bfloat16_is_rounded_once():
    backend = made("mlx", "bfloat16")
    above = 1 + 2.0**-8 + 2.0**-40  # float32 loses the last bit, and what is left is a tie that goes to 1
    np.testing.assert_array_equal(backend.to_numpy(backend.asarray(np.array([above, -above]))), [1.0078125, -1.0078125])


@each
def test_what_it_offers(name):
    backend = made(name)
    assert missing_ops(backend) == ()
    lacking = {method for method in OPTIONAL if not hasattr(backend, method)}
    assert lacking == {"objective", "packed_encoder_layer", "cast", "recomputed"}
    assert without_updates(backend) == ""
    assert backend.contract == 1


@each
def test_a_device_that_is_not_there(name):
    with pytest.raises(RuntimeError, match='"abacus"') as caught:
        type(made(name))(device="abacus")
    assert "\n" not in str(caught.value)


@each
def test_it_imports_nothing_of_refbert(name):
    imported = re.findall(r"^\s*(?:import|from)\s+(\S+)", source(name).read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert not [one for one in imported if one.startswith("refbert")]


@each
def test_the_entry_point_names_its_class(name):
    project = tomllib.loads((directory(name) / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["refbert.backends"] == {name: f"refbert_{name}:{CLASSES[name]}"}
    assert f"\nclass {CLASSES[name]}:\n" in source(name).read_text(encoding="utf-8")


@each
def test_the_readme_counts_its_lines_and_its_links_lead_somewhere(name):
    readme = (directory(name) / "README.md").read_text(encoding="utf-8")
    assert f"{len(source(name).read_text(encoding='utf-8').splitlines())} lines" in readme
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", readme):
        assert (directory(name) / target).exists(), target
