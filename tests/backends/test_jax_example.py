"""The example plugin examples/refbert-jax: every op and its gradient against refbert.ops in float64, and its paperwork.

JAX is not among the requirements of these tests: without it they are unavailable.
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
EXAMPLE = ROOT / "examples" / "refbert-jax"
SOURCE = EXAMPLE / "src" / "refbert_jax" / "__init__.py"
DTYPES = ("float32", "float64")
with_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="unavailable: JAX is not installed")


@pytest.fixture(scope="module")
def jax_backend():
    """Its class, loaded by path: it need not be installed."""
    spec = importlib.util.spec_from_file_location("refbert_jax_example", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.JaxBackend


@with_jax
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_op(jax_backend, case, dtype):
    check(jax_backend(dtype=dtype), case)


@with_jax
@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "allowed"), [("float64", 2**-40), ("float32", 2**-11)])
def test_every_head_with_dropout(jax_backend, dtype, allowed):
    """The bounds count roundings: see test_cupy.test_the_spec_on_the_stand_in."""
    for profile in ("hf", "google"):
        assert model_difference(jax_backend(dtype=dtype), profile) < allowed


@with_jax
@pytest.mark.parametrize(("op", "shapes", "options", "error"), BAD_ARGUMENTS)
def test_bad_arguments_raise_what_the_reference_raises(jax_backend, op, shapes, options, error):
    made = jax_backend()
    with pytest.raises(error):
        getattr(made, op)(*(made.asarray(np.ones(shape)) for shape in shapes), **options)


@with_jax
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", ["bert_adam", "adamw", "lamb"])
def test_updates(jax_backend, rule, dtype):
    rng = np.random.default_rng(0)
    arrays = [x.astype(dtype).astype(np.float64) for x in (*rng.standard_normal((3, 5, 4)), rng.random((5, 4)))]
    options = RATES | ({} if rule == "bert_adam" else {"step": 3})
    made = jax_backend(dtype=dtype)
    got = made.update(rule, *(made.asarray(a) for a in arrays), scale=1.0, step=3, **RATES)
    for ours, reference in zip(got, getattr(ops, rule)(*arrays, **options), strict=True):
        # About 20 roundings in a row and, in LAMB, norms over 20 entries; the numbers are of size 1.
        assert np.abs(made.to_numpy(ours) - reference).max() <= 40 * UNIT_ROUNDOFF[dtype] * max(
            1, np.abs(reference).max()
        )


@with_jax
def test_what_it_offers(jax_backend):
    assert missing_ops(jax_backend()) == ()
    lacking = {name for name in OPTIONAL if not hasattr(jax_backend, name)}
    assert lacking == {"objective", "packed_encoder_layer", "cast", "recomputed"}
    assert without_updates(jax_backend()) == ""
    assert jax_backend.contract == 1


def test_it_imports_nothing_of_refbert():
    imported = re.findall(r"^\s*(?:import|from)\s+(\S+)", SOURCE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert not [name for name in imported if name.startswith("refbert")]


def test_the_entry_point_names_its_class():
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["refbert.backends"] == {"jax": "refbert_jax:JaxBackend"}
    assert "\nclass JaxBackend:\n" in SOURCE.read_text(encoding="utf-8")


def test_the_documents_count_its_lines():
    lines = len(SOURCE.read_text(encoding="utf-8").splitlines())
    for document in (EXAMPLE / "README.md", ROOT / "docs" / "writing-a-backend.md"):
        assert f"{lines} lines" in document.read_text(encoding="utf-8"), document


def test_the_links_of_its_readme_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", (EXAMPLE / "README.md").read_text(encoding="utf-8")):
        assert (EXAMPLE / target).exists(), target
