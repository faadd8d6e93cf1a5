"""Functions as accurate as a vendor says: no machine is condemned for what it declares, none let off for more."""

from __future__ import annotations

import re

import numpy as np
import pytest

from refbert.errors import BackendError
from refbert_conformance import assert_within, bound
from refbert_conformance.cases.corpus import corpus
from refbert_conformance.engine import runner
from refbert_conformance.engine.subject import Subject
from refbert_conformance.failures.likeness import Trial, explained
from refbert_conformance.properties.table import matching
from refbert_conformance.tolerances.arithmetic import Arithmetic
from refbert_conformance.tolerances.bounds import expected
from refbert_conformance.tolerances.functions import Accuracy, gap
from refbert_conformance.tolerances.presets import PRESETS
from tests.conformance.machines import Machine, split

# The ops that call functions.
USING = (
    "layer_norm", "gelu", "tanh", "softmax", "attention", "attention_probabilities", "cross_entropy",
    "mean_squared_error", "dropout",
)  # fmt: skip
# Function -> what is allowed, and an op's property that shows it.
CASES = {
    "exp": ("3 + 2*abs(x)", "softmax"),
    "tanh": (20, "tanh"),
    "log": ("max(40, 2**-18/ulp(y))", "cross_entropy"),
    "sqrt": (40, "layer_norm"),
    "division": (30, "layer_norm"),
    "erf": (64, "gelu"),
}


def outcomes(machine, op):
    properties = [p for p in matching(f"/{op}/accuracy") if p.level in ("forward", "backward")]
    subject = Subject("machine", machine)
    return {p.level: runner.run(p, subject, effort="default", shrinking=0.0) for p in properties}


@pytest.mark.parametrize("signs", ["random", 1, -1])
@pytest.mark.parametrize("function", CASES)
def test_what_is_declared_is_allowed(function, signs):
    said, op = CASES[function]
    functions = {function: said}
    found = outcomes(lambda: Machine(functions, {"functions": functions}, share=0.99, signs=signs), op)
    assert {level: (r.outcome, r.message) for level, r in found.items()} == {
        "forward": ("passed", ""), "backward": ("passed", ""),
    }  # fmt: skip
    assert max(r.record.rho for r in found.values()) > 0.1, "it is not allowed ten times as much"


@pytest.mark.parametrize("function", CASES)
def test_what_is_not_declared_is_not(function):
    said, op = CASES[function]
    found = outcomes(lambda: Machine({function: said}, {}, share=1.0, signs=1), op)
    assert "failed" in {r.outcome for r in found.values()}


@pytest.mark.parametrize("function", CASES)
def test_nor_is_several_times_as_much(function):
    said, op = CASES[function]
    found = outcomes(lambda: Machine({function: said}, {"functions": {function: said}}, share=8.0, signs=1), op)
    assert "failed" in {r.outcome for r in found.values()}


@pytest.mark.parametrize(("op", "function", "ulps"), [("softmax", "exp", 60), ("tanh", "tanh", 40)])
def test_a_failure_says_what_would_explain_it(op, function, ulps):
    subject = Subject("machine", lambda: Machine({function: ulps}, {}))
    (property,) = matching(f"forward/{op}/accuracy")
    result = runner.run(property, subject, effort="default")
    hint = explained(Trial(property, subject, [result.example]))["hint"]
    said = re.fullmatch(
        rf"explained by an? {function} of (\d+) ULP: if that is what yours does, declare "
        rf'arithmetic = {{"functions": {{"{function}": (\d+)}}}}', hint,
    )  # fmt: skip
    assert said
    assert said[1] == said[2]
    assert ulps / 8 < int(said[1]) <= 1.1 * ulps


def test_expressions():
    x, u = np.array([-3.0, 0.0, 1e3]), 2.0**-24
    for text, want in (
        ("3 + 2*abs(x)", [9, 3, 2003]), (116, [116] * 3), ("max(x, 2) - -1", [3, 3, 1001]), ("2**3/4", [2] * 3),
        ("min(abs(x), floor(2.5))", [2, 0, 2]), ("sqrt(y)", [2] * 3),
    ):  # fmt: skip
        assert np.array_equal(Accuracy("exp", text)(x, np.full(3, 4.0), 1.0) * np.ones(3), want)
    ulp = gap(np.array([1.0, 1.5, 0.0, 1e-45]), u, 2.0**-149)
    assert np.array_equal(ulp, [2.0**-23, 2.0**-23, 2.0**-149, 2.0**-149])
    assert Accuracy("tanh", "1e-5/ulp(y)")(x, x, 2.0**-20) * 2.0**-20 == 1e-5


@pytest.mark.parametrize(
    "said", ["", "z", "x +", "x.real", "__import__('os')", "abs(x, y)", "ulp(x)", "[x]", "x if x else 1", "lambda: 1",
             True, 0, -1, None, "1/0", "0/0", "1e999",
             "10**400", "0", "-5", "-x", 10**400, float("nan"), "x < 3", "9" * 300, "f(x)", {"x": 1}],
)  # fmt: skip
def test_what_is_no_accuracy(said):
    with pytest.raises(BackendError, match=r"the accuracy of exp is a number of ULPs"):
        Arithmetic.of("float32", {"functions": {"exp": said}})


def test_other_names_are_refused():
    with pytest.raises(BackendError, match="sin; known: exp, log"):
        Arithmetic.of("float32", {"functions": {"sin": 1}})
    with pytest.raises(BackendError, match="a mapping"):
        Arithmetic.of("float32", {"functions": ["exp"]})
    with pytest.raises(BackendError, match='no preset "abacus"; known: '):
        Arithmetic.of("float32", {"preset": "abacus"})


@pytest.mark.parametrize("declared", [
    {"preset": ["webgpu"]}, {"accumulation": ["float32"]}, {"preset": "webgpu", "functions": None},
    {"nondeterministic": 5}, {"nondeterministic": "gelu"}, {"flush_to_zero": "false"}, {"functions": "exp"},
])  # fmt: skip
def test_other_kinds_are_refused(declared):
    with pytest.raises(BackendError, match="arithmetic's"):
        Arithmetic.of("float32", declared)


def test_a_number_is_as_before():
    """5 ULP is what is allowed anyway."""
    assert Arithmetic.of("float32", {"functions": {"exp": 5}}).own("exp", 0.0, 2.0) == Arithmetic.of("float32").own(
        "exp", 0.0, 2.0
    )


@pytest.mark.parametrize("signs", ["random", 1])
@pytest.mark.parametrize("name", PRESETS)
def test_a_machine_that_errs_as_much_as_a_preset_allows_is_conformant(name, signs):
    subject = Subject(name, lambda: Machine(PRESETS[name].functions, {"preset": name}, share=0.99, signs=signs))
    for one in matching("accuracy"):
        if one.level in ("forward", "backward") and one.op in USING:
            result = runner.run(one, subject, effort="quick", shrinking=0.0)
            assert (one.id, result.outcome, result.message) == (one.id, "passed", "")


def test_a_preset_is_what_its_words_say():
    webgpu = Arithmetic.of("float32", {"preset": "webgpu", "functions": {"tanh": 3}})
    assert webgpu.flush_to_zero
    assert (webgpu.functions["tanh"].said, webgpu.functions["exp"].said) == (3, PRESETS["webgpu"].functions["exp"])
    assert webgpu.described()["declared"] == {"preset": "webgpu", "functions": {"tanh": 3}}
    for preset in PRESETS.values():
        assert preset.version
        assert "http" in preset.source


def test_what_is_masked_is_exact_whatever_exp_does_elsewhere():
    cases = (case.build("float32") for case in corpus("attention"))
    built = next(one for one in cases if 0 in one.options["mask"] and one.options["mask_value"] == -np.inf)
    webgpu = Arithmetic.of("float32", {"preset": "webgpu"})
    for one in expected(built.op, built.arrays, built.options, webgpu, built.dy):
        assert np.isfinite(one.bound).all(), one.name


@pytest.mark.parametrize("name", ["bfloat16x3", "float8_e4m3", "float8_e5m2"])
def test_operands_of_products_in_narrow_formats(name):
    """Numbers at which each format rounds as far as it may, products that do not cancel: within, and not ten times."""
    rng = np.random.default_rng(0)
    x, w = (np.float32(rng.uniform(1, 2, shape)) for shape in ((5, 300), (300, 4)))
    x[:, 0], w[0] = np.float32(1 + np.array([0.999, 0.996, 0.5, 1, 0.25]) * 2**-8), np.float32(1 + 0.999 * 2**-8)
    if name == "bfloat16x3":
        (high, low), (top, rest) = split(x), split(w)
        y = high @ top + high @ rest + low @ top
    else:
        digits = {"float8_e4m3": 3, "float8_e5m2": 2}[name]
        y = (np.rint(x * 2**digits) / 2**digits) @ (np.rint(w * 2**digits) / 2**digits)
    declared = {"dtype": "float32", "matmul_inputs": name}
    assert_within(np.float32(y), np.matmul, x, w, arithmetic=declared)
    if name == "bfloat16x3":  # the first terms alone: 2 · 2⁻¹⁶ off, nearly
        assert_within(
            np.float32(high[:, :1] @ (top + rest)[:1] + low[:, :1] @ top[:1]), np.matmul, x[:, :1], w[:1],
            arithmetic=declared,
        )  # fmt: skip
    found = bound(np.matmul, x[:1, :1], w[:1, :1], arithmetic=declared)
    relative = {"bfloat16x3": 3 * 2.0**-16, "float8_e4m3": 2.0**-3, "float8_e5m2": 2.0**-2}[name]
    assert relative < (found.bound / found.value)[0, 0] < 1.5 * relative
    with pytest.raises(BackendError, match="no dtype"):
        Arithmetic.of("float32", {"accumulation": "bfloat16x3"})
