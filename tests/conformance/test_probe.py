"""The probe finds again what a simulated machine does, and what NumPy does."""

from __future__ import annotations

import json
import math
from functools import partial, reduce
from itertools import pairwise

import numpy as np
import pytest
from calling import cli
from machines import Invented, split, to_bits

from refbert_conformance.engine.subject import Subject
from refbert_conformance.probe import datasheet, functions, sums
from refbert_conformance.probe.functions import Measured
from refbert_conformance.tolerances.arithmetic import Arithmetic
from refbert_conformance.tolerances.functions import gap
from refbert_conformance.tolerances.presets import PRESETS
from refbert_numpy import NumpyBackend


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Fewer arguments than a user's probe tries."""
    monkeypatch.setattr(functions, "_MILLIONS", 1 << 13)
    monkeypatch.setattr(datasheet, "_REPEATS", 2)
    monkeypatch.setattr(datasheet, "TERMS", 16)


# What a machine does -> what is to be declared of it besides functions.
MACHINES = {
    "IEEE": ({}, {}),
    "TF32": ({"operands": partial(to_bits, bits=11)}, {"matmul_inputs": "tensorfloat32"}),
    "TF32, cut": ({"operands": partial(to_bits, bits=11, cut=True)}, {"matmul_inputs": "tensorfloat32-truncated"}),
    "bfloat16": ({"operands": partial(to_bits, bits=8)}, {"matmul_inputs": "bfloat16"}),
    "bfloat16, cut": ({"operands": partial(to_bits, bits=8, cut=True)}, {"matmul_inputs": "bfloat16-truncated"}),
    "float16": ({"operands": lambda x: np.float16(x).astype(float)}, {"matmul_inputs": "float16"}),
    "float8": ({"operands": partial(to_bits, bits=4)}, {"matmul_inputs": "float8_e4m3"}),
    "bfloat16x3": ({"operands": "bfloat16x3"}, {"matmul_inputs": "bfloat16x3"}),
    "sums that are cut": ({"cut": True}, {"accumulation": "float32-truncated"}),
    "sums of 11 bits": ({"bits": 11}, {"accumulation": "float16"}),
    "sums of 8 bits, four at a time": ({"bits": 8, "lanes": 4}, {"accumulation": "bfloat16"}),
    "no subnormal numbers": ({"flush": True}, {"flush_to_zero": True}),
}


def examined(**does):
    with np.errstate(all="ignore"):
        return datasheet.examined(Subject("machine", lambda: Invented(**does)))


@pytest.mark.parametrize("name", MACHINES)
def test_what_a_machine_does_is_found_again(name):
    does, declared = MACHINES[name]
    facts, found, _ = examined(**does)
    assert {key: value for key, value in found.items() if key != "functions"} == declared
    assert set(found["functions"].values()) == {0.5}
    order = {fact.what: fact.detail for fact in facts if fact.group == "sums"}["linear y"]
    expected = "4 sums, of every 4th number, joined as ((0 + 2) + (1 + 3))" if "four" in name else "one after the other"
    if name != "bfloat16x3":  # three products of each term
        assert order == expected
    Arithmetic.of("float32", found)


@pytest.mark.parametrize("signs", ["random", 1, -1])
def test_functions_are_found_to_a_ulp(signs):
    does = {"exp": 8, "tanh": 20, "erf": 16, "log": 7}
    _, found, _ = examined(functions=does, signs=signs)
    assert all(does[name] - 1 <= found["functions"][name] <= does[name] + 1 for name in does)
    assert {found["functions"][name] for name in ("division", "sqrt", "rsqrt")} == {0.5}
    # A root and a division that always err upward undo each other in 1/√x.
    both = [{"division": 2.5, "sqrt": 3}] if signs == "random" else [{"division": 2.5}, {"sqrt": 3}]
    for does in both:
        _, found, _ = examined(functions=does, signs=signs)
        assert all(does[name] - 1 <= found["functions"][name] <= does[name] + 1 for name in does)
        assert max(found["functions"][name] for name in ("exp", "log", "tanh", "erf")) <= 1.5


@pytest.mark.parametrize("name", ["cuda", "opencl", "vulkan", "webgpu", "tosa-1.1"])
def test_a_machine_of_a_preset_is_within_it_and_not_within_a_tighter_one(name):
    _, declared, found = examined(functions=PRESETS[name].functions, share=0.8)
    assert name in datasheet.presets(declared | {"functions": {}}, found)
    assert "ieee" not in datasheet.presets(declared, found)


def test_an_error_that_grows_with_the_argument_is_found_as_such():
    _, declared, _ = examined(functions={"exp": "3 + 2*abs(x)"})
    said = declared["functions"]["exp"]
    assert said.endswith(" + 2*abs(x)")
    assert 2 <= float(said.split()[0]) <= 4


def test_bits_that_change_are_seen():
    facts, declared, _ = examined(shuffled=True)
    assert "linear" in declared["nondeterministic"]
    found = {fact.what: fact.found for fact in facts if fact.group == "determinism"}
    assert (found["linear"], found["gelu"]) == ("other bits", "the same bits")


class FixedPoint(Invented):
    def _added(self, terms):
        return np.rint(terms.astype(np.float64) * 2**16).sum(0) / 2**16


class FlushedArguments(Invented):
    def asarray(self, x, /):
        return np.where(abs(x) < 2.0**-126, 0 * x, x).astype(np.float32)


class RandomAddition(Invented):
    def add(self, x, z):
        return (x + z) * np.float32(1 + 2.0**-23 * self._rng.integers(0, 2, x.shape)), lambda dy: (dy, dy)


class TwoProducts(Invented):
    """Of an operand in one part with one in two."""

    def product(self, x, z):
        high, low = split(z)
        return super().product(to_bits(np.float64(x), 8), high + low)


def test_what_no_declaration_has_is_not_called_by_the_name_of_another():
    facts, declared = found_of(Subject("machine", FixedPoint))
    said = [found for (group, what), found in facts.items()
            if group in ("sums", "operands of products") and what != "embedding dtable"]  # fmt: skip
    assert {found for found, _ in said} == {"failed"}
    assert all("as in fixed point" in detail for _, detail in said)
    assert not {"accumulation", "matmul_inputs"} & set(declared)
    facts, declared = found_of(Subject("machine", FlushedArguments))
    assert [facts["subnormal numbers", op][0] for op in ("add", "linear", "tanh")] == [
        "flushed to zero, as arguments", "flushed to zero, as arguments", "flushed to zero",
    ]  # fmt: skip
    assert declared["flush_to_zero"] is True
    facts, declared = found_of(Subject("machine", RandomAddition))
    assert facts["results", "addition"][0] == "at random"
    assert declared["nondeterministic"] == ["add"]
    facts, declared = found_of(Subject("machine", TwoProducts))
    assert facts["operands of products", "linear y, x"][0] == "8 bits, to nearest, ties to even: bfloat16"
    assert facts["operands of products", "linear y, w"][0].endswith(", as with bfloat16x3")
    assert declared["matmul_inputs"] == "bfloat16"


def odd(**ops):
    """NumPy's backend with other ops; None: without it."""

    class Odd(NumpyBackend):
        def __getattribute__(self, name):
            if name in ops and ops[name] is None:
                raise AttributeError(name)
            return super().__getattribute__(name)

    for name, op in ops.items():
        if op is not None:
            setattr(Odd, name, op)
    return Subject("odd", lambda: Odd("float32"))


def constant(name, value):
    """NumPy's backend, one op of which gives nothing else."""

    def op(self, *arrays, **options):
        y, back = getattr(NumpyBackend("float32"), name)(*arrays, **options)
        return np.full_like(y, value), lambda dy: tuple(np.full_like(d, value) for d in back(dy))

    return odd(**{name: op})


def raising(self, *arrays, **options):
    raise RuntimeError("no kernel")


def found_of(subject):
    with np.errstate(all="ignore"):
        facts, declared, _ = datasheet.examined(subject)
    return {(fact.group, fact.what): (fact.found, fact.detail) for fact in facts}, declared


@pytest.mark.parametrize(
    ("op", "unknown"),
    [("add", ()), ("linear", ()), ("layer_norm", ("rsqrt", "sqrt")), ("gelu", ("erf",)), ("tanh", ("tanh",)),
     ("attention", ()), ("embedding", ()), ("cross_entropy", ("log",))],
)  # fmt: skip
def test_an_op_that_is_not_there_or_raises_takes_nothing_else_with_it(op, unknown):
    for instead, outcome, why in (None, "unsupported", f"the backend has no {op}"), (raising, "failed", "no kernel"):
        facts, declared = found_of(odd(**{op: instead}))
        assert {what for (group, what), (found, _) in facts.items() if group == "functions" and found == outcome} == {
            *unknown
        }
        assert {*declared["functions"]} == {*functions.ASKED} - {*unknown}
        assert set(declared) == {"functions"}
        of = [one for one in facts.values() if one[0] == outcome]
        assert of
        assert all(why in detail for _, detail in of)


@pytest.mark.parametrize(
    ("op", "value", "unknown"),
    [
        ("tanh", math.nan, {"tanh"}),
        ("tanh", math.inf, {"tanh"}),
        ("tanh", 1.0, {"tanh"}),
        ("tanh", 0.0, {"tanh"}),
        ("linear", 1.0, set()),
        ("linear", 0.0, set()),
        ("gelu", math.inf, {"erf"}),
        ("softmax", math.nan, {"division", "exp"}),
        ("softmax", 0.0, {"division", "exp"}),
        ("layer_norm", 0.0, {"rsqrt", "sqrt"}),
        ("cross_entropy", math.nan, {"log"}),
        ("add", 0.0, set()),
    ],
)
def test_what_is_no_error_of_a_function_is_not_declared_as_one(op, value, unknown):
    facts, declared = found_of(constant(op, value))
    assert {
        what for (group, what), (found, _) in facts.items() if group == "functions" and found == "failed"
    } == unknown
    assert {*declared["functions"]} == {*functions.ASKED} - unknown
    assert set(declared) == {"functions"}
    if op in ("add", "tanh") and value != 1:
        assert facts["subnormal numbers", op][0] == "failed"
    if op == "linear":
        assert facts["sums", "linear y"] == ("does not show", "a number among zeros does not come out as it is")


def test_the_declaration_explains_the_machine_and_a_tighter_one_does_not():
    """A GELU that is worse than the functions it is made of: what explains it is found in the accuracy properties."""

    class Coarse(Invented):
        def gelu(self, x, *, form):
            y, back = super().gelu(x, form=form)
            return (y * np.float32(1 + 40 * 2.0**-24)).astype(np.float32), back

    subject = Subject("machine", Coarse)
    gelu = next(p for p in datasheet.matching("forward/gelu/accuracy"))
    tight = {"functions": {"erf": 0.5, "tanh": 0.5, "exp": 0.5}}
    assert not datasheet.explains(subject, tight, gelu)
    found = datasheet._loosened(subject, tight, gelu)
    assert datasheet.explains(subject, {"functions": found}, gelu)
    assert 8 < max(found.values()) < 100


def add_in(tree):
    """A sum in float32 in the order of a tree. Numbers that meet in one step are cut where the largest ends, as in a
    tensor core, and added at once."""
    n = sums._leaves(tree)

    def add(v):
        v = np.pad(v, (0, max(0, n - len(v))))

        def value(node):
            if not isinstance(node, tuple):
                return float(v[node])
            terms = [value(one) for one in node]
            end = 2.0 ** (np.frexp(max(map(abs, terms)))[1] - 24)
            return math.fsum(np.trunc(np.array(terms) / end) * end)

        return value(tree)

    return add


@pytest.mark.parametrize(
    "tree",
    [
        (((0, 1), 2), 3),
        ((0, 1), (2, 3)),
        ((((5, 4), 3), (2, 1)), 0),
        ((0, 1, 2, 3), (4, 5, 6, 7)),
        (((0, 4), (1, 5)), ((2, 6), (3, 7))),
        (0, 1, 2, 3, 4),
    ],
)
def test_any_order_is_found(tree):
    n = sums._leaves(tree)
    assert sums._same(sums.order(add_in(tree), n), tree)


def test_a_sum_that_loses_nothing_has_no_order():
    assert sums.order(lambda v: float(sum(map(int, v))), 8) is None
    assert sums.described(None, 8).startswith("nothing is lost")


def test_orders_are_described():
    leaves = list(range(16))
    assert sums.described(sums._in_turn(leaves), 16) == "one after the other"
    assert sums.described(sums._in_pairs(leaves), 16) == "in pairs: halves of halves"
    assert sums.described(tuple(leaves), 16) == "all at once"
    fused = (((tuple(range(4)), *range(4, 8)), *range(8, 12)), *range(12, 16))
    assert sums.described(fused, 16) == "4 at once, one such sum after the other"
    rows = [sums._in_turn(leaves[i : i + 4]) for i in range(0, 16, 4)]
    assert sums.described(sums._in_turn(rows), 16) == "4 sums, of 4 in a row, joined as (((0 + 1) + 2) + 3)"


def to(bits, rule):
    """A rounding of numbers to so many bits."""

    def rounded(x):
        mantissa, exponent = np.frexp(x)
        return float(np.ldexp(rule(np.ldexp(mantissa, bits)), exponent - bits))

    return rounded


RNG = np.random.default_rng(0)
RULES = {
    "to nearest": np.rint, "to nearest, ties away from zero": lambda x: np.copysign(np.floor(abs(x) + 0.5), x),
    "to nearest, ties up": lambda x: np.floor(x + 0.5),
    "toward zero": np.trunc, "down": np.floor, "up": np.ceil,
    "away from zero": lambda x: np.copysign(np.ceil(abs(x)), x),
    "at random": lambda x: np.floor(x + RNG.random()),
}  # fmt: skip


def add_blocks(inner, outer, size):
    """A sum of sums of ``size`` in a row, with a rounding after each addition of both kinds."""

    def add(v):
        total = 0.0
        for i in range(0, len(v), size):
            total = outer(total + reduce(lambda a, b: inner(a + b), map(float, v[i : i + size]), 0.0))
        return total

    return add


@pytest.mark.parametrize("rounding", RULES)
@pytest.mark.parametrize("bits", [9, 14, 24, 27])
def test_an_accumulator_of_any_width_and_rounding(bits, rounding):
    add = add_blocks(to(bits, RULES[rounding]), float, 1 << 20)
    found = sums.accumulator(add, 64, 53)
    assert found.rounding == rounding
    assert found.then is None or rounding == "at random"
    assert abs(found.bits - bits) <= (rounding == "at random")


@pytest.mark.parametrize("size", [4, 64])
def test_what_sums_of_blocks_are_added_up_in_is_found(size):
    add = add_blocks(to(24, np.rint), to(14, np.rint), size)
    found = sums.accumulator(add, 64, 24)
    assert (str(found), found.name, found.narrowest) == (
        "24 bits, to nearest, then 14 bits, to nearest", "float16", 14,
    )  # fmt: skip
    found = sums.accumulator(add_blocks(to(30, np.trunc), to(24, np.trunc), size), 64, 24)
    assert (str(found), found.name) == ("30 bits, toward zero, then 24 bits, toward zero", "float32-truncated")
    for exact in (float, to(24, np.rint), to(30, np.trunc)):  # no more than storing the result takes off
        assert sums.accumulator(add_blocks(to(24, np.rint), exact, size), 64, 24) == sums.Accumulator(24, "to nearest")


def measured(ulps, x, y):
    return Measured("exp", x, y, ulps, gap(y, 2.0**-24, 2.0**-149))


def test_the_form_of_a_declaration_is_the_tightest():
    x = -np.linspace(0.01, 80, 5000)
    y = np.exp(x)
    assert measured(np.full(x.shape, 1.7), x, y).declaration() == 2.0
    assert measured(3 + 2 * abs(x), x, y).declaration() == "3 + 2*abs(x)"
    x = -np.linspace(0.01, 87, 5000)  # as absolute errors, in ULPs of the smallest they are beyond all others
    y = np.exp(x)
    ulp = gap(y, 2.0**-24, 2.0**-149)
    assert measured(np.maximum(1.2, 1e-6 / ulp), x, y).declaration().endswith("/ulp(y))")
    # 0 for what is nearly 0 is no excuse for 10⁵ ULP at −1.
    assert measured(np.where(x < -80, y / ulp, 0.0), x, y).declaration().startswith("max(0.5, ")
    x = 2.0 ** np.linspace(-20, 3, 5000)
    y = np.tanh(x)
    ulp = gap(y, 2.0**-24, 2.0**-149)
    said = measured(np.maximum(1.2, 1e-6 / ulp), x, y).declaration()
    assert said.startswith("max(")
    assert measured(np.maximum(1.2, 1e-6 / ulp), x, y).declaration().endswith("/ulp(y))")


def test_the_command(capsys, tmp_path):
    status, out, err = cli(
        capsys,
        "probe",
        "--backend",
        "numpy",
        "--no-judge",
        "--json",
        tmp_path / "a.json",
        "--html",
        tmp_path / "a.html",
    )
    assert (status, err.count("Traceback")) == (0, 0)
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["unexplained"] == []
    assert set(found["arithmetic"]) == {"functions"}
    assert found["arithmetic"]["functions"]["division"] == 0.5
    assert "arithmetic = {" in out
    widths = {fact["what"]: fact["found"] for fact in found["facts"] if fact["group"] == "sums"}
    assert widths["linear dw"] == "24 bits, to nearest"
    page = (tmp_path / "a.html").read_text()
    assert "numerical datasheet" in page
    assert all(page.index(a) < page.index(b) for a, b in pairwise(["<h1>", "24 bits", "<pre>arithmetic = "]))


DYING = """
import os, time
from refbert.backend.reference import ReferenceBackend

class Dies(ReferenceBackend):
    def tanh(self, x):
        os._exit(9)

class Sleeps(ReferenceBackend):
    def tanh(self, x):
        time.sleep(3600)
"""


@pytest.mark.parametrize(("name", "said"), [("Dies", "status 9"), ("Sleeps", "no answer")])
def test_a_backend_that_dies_or_hangs_is_one_line(name, said, capsys, tmp_path, monkeypatch):
    (tmp_path / "dying.py").write_text(DYING)
    monkeypatch.chdir(tmp_path)
    status, out, err = cli(capsys, "probe", "--backend", f"dying:{name}", "--timeout", "1")
    *asked, last = err.strip().splitlines()
    assert (status, out) == (3, "")
    assert all(line.startswith("refbert: asking") for line in asked)
    assert last.startswith("refbert: no datasheet: asked about subnormal numbers: tanh, the backend ")
    assert said in last


def test_inference_alone_is_asked_for_the_forward_alone(monkeypatch):
    monkeypatch.setattr(NumpyBackend, "gradients", False, raising=False)
    facts, declared = found_of(odd())
    assert facts["sums", "linear dw"] == ("unsupported", "the backend is for inference (gradients = False)")
    assert facts["sums", "linear y"][0] == "24 bits, to nearest"
    assert {"exp", "tanh", "erf"} < set(declared["functions"])


def test_bad_usage_is_one_line(capsys):
    for arguments, said in {
        ("--backend", "nothing"): 'unknown backend "nothing"',
        ("--dtype", "float12"): "float12",
        ("--json", "/nowhere/a.json"): "/nowhere",
        ("--html", "/"): "directory",
        ("--timeout", "0"): "above 0",
    }.items():
        status, _, err = cli(capsys, "probe", *arguments)
        assert (status, said in err, len(err.strip().splitlines())) == (2, True, 1), err


def test_conform_judges_by_another_declaration(capsys, tmp_path):
    """Coarser than refbert.ops in float32, so that all is well; finer, and it is not; and the report says whose word
    it is."""
    args = ("conform", "--backend", "numpy", "--effort", "quick", "--only", "forward/gelu/accuracy", "--jobs", "1")
    where = ("--json", tmp_path / "r.json", "--scripts", tmp_path)
    status, out, _ = cli(capsys, *args, *where, "--arithmetic", '{"functions": {"erf": 8}}')
    assert status == 0
    assert "by --arithmetic, not by the backend: functions erf 8 ULP" in out
    assert json.loads((tmp_path / "r.json").read_text())["backend"]["arithmetic"]["given"] is True
    status, out, _ = cli(capsys, *args, *where, "--arithmetic", '{"intermediates": "float64"}')
    assert status == 1
    for said in '{"intermediates": "bfloat16x3"}', '{"intermediates": "bfloat16x3", "matmul_inputs": "bfloat16x3"}':
        status, _, err = cli(capsys, *args, "--arithmetic", said)
        assert status == 2
        assert 'no dtype "bfloat16x3"; known: float64,' in err
        assert err.count("bfloat16x3") == 1  # it is known as operands alone
    status, _, err = cli(capsys, *args, "--arithmetic", '{"sums": 1}')
    assert (status, "arithmetic declares sums" in err) == (2, True)
