"""Errors within their bounds that are not those of rounding: seen, and no right backend taken for one that has them."""

from __future__ import annotations

import copy
import itertools
import json
import math

import numpy as np
import pytest
from test_conform import conform
from test_scoreboard import Page, report

from refbert.backend import registry
from refbert.errors import InputError
from refbert_conformance.engine import runner, suspicion
from refbert_conformance.engine.subject import Subject
from refbert_conformance.engine.suspicion import DELTA, TRIALS, measured
from refbert_conformance.process.supervisor import Limits, Supervisor
from refbert_conformance.properties.table import matching
from refbert_conformance.scoreboard import page, read
from refbert_conformance.tolerances.arithmetic import Arithmetic
from refbert_conformance.tolerances.moments import Systematic, _as, moments
from refbert_conformance.tolerances.presets import PRESETS
from refbert_conformance.tolerances.running_error import Tracked
from tests.conformance import suspects
from tests.conformance.machines import Machine

BOTH = ("forward", "backward")
# Fault -> its op, the outputs that show it, and in what it shows.
SEEN = {
    "Cuts": ("linear", {"y", "dx", "dw"}, "out"),
    "Raises": ("linear", {"y", "dx", "dw"}, "up"),
    "DropsABit": ("linear", {"y", "dx"}, "out"),
    "DropsABitOfWeights": ("linear", {"dx"}, "out"),
    "ThreeProducts": ("linear", {"y"}, "square"),
    "Bfloat16Cuts": ("linear", {"y", "dx", "dw"}, "out"),
    "Scale": ("attention", {"y"}, "argument"),
    "Factor": ("dropout", {"y", "dx"}, "out"),
}
CUT_SUMS = {"softmax": "y", "layer_norm": "y", "embedding": "dtable", "attention": "y"}


def subject(name):
    return Subject(name, getattr(suspects, name))


def worst_rho(backend, op):
    found = [
        runner.run(p, backend, effort="default", shrinking=0.0) for p in matching(f"/{op}/accuracy") if p.level in BOTH
    ]
    assert {r.outcome for r in found} == {"passed"}, [r.message for r in found]
    return max(r.record.rho for r in found)


@pytest.mark.parametrize("name", SEEN)
def test_what_stays_within_its_bounds_and_is_seen(name):
    op, outputs, by = SEEN[name]
    backend = subject(name)
    assert worst_rho(backend, op) < 1
    found = measured(backend, op, BOTH)
    assert {one.output for one in found if one.suspect} == outputs
    for one in found:
        if one.suspect and by == "square":
            assert one.square > one.square_limit
            assert "narrower format" in one.suspect
        elif one.suspect:
            assert one.direction == by
            assert abs(one.mean) > one.limit


@pytest.mark.parametrize("op", CUT_SUMS)
def test_sums_that_are_cut_inside_an_op(op):
    backend = subject("Sums")
    assert worst_rho(backend, op) < 1
    assert {one.output for one in measured(backend, op, BOTH) if one.suspect} == {CUT_SUMS[op]}


def test_a_factor_is_told_by_its_size():
    (one,) = measured(subject("Factor"), "layer_norm", ["forward"])
    assert "too near to 0 by 1.9e-06 of the result" in one.suspect
    (one,) = (one for one in measured(subject("Scale"), "attention", BOTH) if one.suspect)
    assert "1.0e-06 of itself smaller" in one.suspect


@pytest.mark.parametrize(("name", "op"), [("RoundsABitOff", "linear"), ("Constant", "gelu")])
def test_what_cannot_be_seen(name, op):
    """As the documentation says: a bit lost without a bias, and what functions may be off by anyway."""
    assert not [one for one in measured(subject(name), op, BOTH) if one.suspect]


@pytest.mark.parametrize(
    ("name", "op"), [("Float32", "linear"), ("InTurn", "linear"), ("CutsDeclared", "linear"), ("Bfloat16", "linear")]
)
def test_what_is_declared_is_no_suspicion(name, op):
    found = measured(subject(name), op, BOTH)
    assert {one.output for one in found} == {"y", "dx", "dw", "db"}
    assert not [one.suspect for one in found if one.suspect]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("reference", "float64"), ("reference", "float32"), ("numpy", "float32"), ("numpy", "float64"),
     *(("torch", dtype) for dtype in ("float32", "float64", "bfloat16", "float16")),
     ("array-api:array_api_strict", "float32")],
)  # fmt: skip
def test_right_backends_are_not_suspect(name, dtype):
    pytest.importorskip("torch" if name == "torch" else "array_api_strict")
    backend = Subject(name, lambda: registry.create(name, dtype=dtype, device=None))
    found = [one for op in TRIALS for one in measured(backend, op, BOTH)]
    assert len(found) <= 35, "the false alarm probability that is stated"
    assert 4 * 35 * 7 * DELTA < suspicion.CHANCE
    assert not [one for one in found if one.suspect]
    assert all(one.square < 0.3 for one in found), "a root of the mean square that is half of what is allowed"
    if (name, dtype) == ("reference", "float64"):  # no error at all
        assert {(one.mean, one.square, one.share) for one in found} == {(0.0, 0.0, 0.0)}


@pytest.mark.parametrize("signs", [1, "random"])
@pytest.mark.parametrize("name", PRESETS)
def test_nor_are_machines_that_use_all_of_a_preset(name, signs):
    backend = Subject(name, lambda: Machine(PRESETS[name].functions, {"preset": name}, share=0.99, signs=signs))
    for op in ("layer_norm", "gelu", "tanh", "softmax", "attention", "cross_entropy"):
        assert not [one for one in measured(backend, op, BOTH) if one.suspect]


@pytest.mark.parametrize(("name", "op"), [("InTurn", "linear"), ("Float32", "dropout"), ("Float32", "embedding")])
def test_means_are_those_of_independent_samples_around_0(name, op, monkeypatch):
    """Over 60 seeds, in their own standard errors. What all samples share must not make them err alike."""
    seen = []

    def recorded(x, axis, length):
        samples = suspicion._samples(x, axis)
        if length <= 2 and samples.any():  # not the squares, nor a direction without entries
            seen.append(samples.mean() / (samples.std(ddof=1) / math.sqrt(len(samples))))
        return mean(x, axis, length)

    mean = suspicion._mean
    monkeypatch.setattr(suspicion, "_mean", recorded)
    backend = subject(name)
    each = [measured(backend, op, ["backward" if op == "embedding" else "forward"], seed) for seed in range(60)]
    assert not [one for found in each for one in found if one.suspect]
    assert len(seen) % 60 == 0
    for at in range(len(seen) // 60):
        of = seen[at :: len(seen) // 60]
        assert abs(np.mean(of)) < 5 / math.sqrt(60)
        assert np.std(of) < 1.5
        assert max(map(abs, of)) < 5


def test_the_inequality_holds_as_often_as_it_says(monkeypatch):
    """Maurer & Pontil's, where it is hard: rare large values."""
    monkeypatch.setattr(suspicion, "_LOG", math.log(2 / 0.05))
    rng = np.random.default_rng(0)
    for share in (0.5, 0.1, 0.01):
        beyond = 0
        for _ in range(1000):
            mean, off = suspicion._mean((rng.random(300) < share).astype(float), 0, 1.0)
            beyond += share - mean > off
        assert beyond <= 1000 * 0.05


@pytest.mark.parametrize("terms", [[1.0, -2.0, 3.0, 0.5], [1.0, 1.0, 1.0, 1.0, 1.0], [2.0], [3.0, -3.0]])
def test_partial_sums_in_any_order(terms):
    """Σ E s_k² over all orders, a rounding of each product included, is at most n (Σp² + (Σp)²)."""
    orders = [np.cumsum(order) for order in itertools.permutations(terms)]
    squares = np.mean([(sums[1:] ** 2).sum() for sums in orders]) + np.square(terms).sum()
    assert squares <= len(terms) * (np.square(terms).sum() + sum(terms) ** 2) * (1 + 1e-12)
    signs = itertools.product((-1, 1), repeat=len(terms))
    squares = np.mean([(np.cumsum(np.multiply(s, terms))[1:] ** 2).sum() for s in signs]) + np.square(terms).sum()
    assert squares <= len(terms) * np.square(terms).sum() * (1 + 1e-12)


def test_moments_of_a_sum():
    x, w, b = np.array([[1.0, 2.0, -1.0]]), np.array([[3.0, 0.5, 1.0]]), np.zeros(1)
    u = 2.0**-24
    (one,) = moments("linear", (x, w, b), {}, Arithmetic.of("float32"), None)
    p = (x * w).ravel()
    own = math.sqrt(3) * u * math.sqrt((p**2).sum() + p.sum() ** 2)
    # + two roundings of the sum with b, where b is 0; + its storing.
    assert own + 2 * u * p.sum() < float(one.spread[0, 0]) < own + 5 * u * p.sum()
    assert float(one.bias[0, 0]) < 1e-40
    (one,) = moments("linear", (x, w, b), {}, Arithmetic.of("float32", {"accumulation": "float32-truncated"}), None)
    assert float(one.bias[0, 0]) >= 3 * 2 * u * abs(p).sum()
    (one,) = moments("linear", (x, w, b), {}, Arithmetic.of("float32", {"matmul_inputs": "bfloat16"}), None)
    assert float(one.bias[0, 0]) >= 2 * 2.0**-9 * abs(p).sum()


def test_moments_of_a_function():
    """What it may be off by anyway is no suspicion."""
    x = np.linspace(-3, 3, 50)
    for ulps in (1, 20):
        (one,) = moments("tanh", (x,), {}, Arithmetic.of("float32", {"functions": {"tanh": ulps}}), None)
        assert np.all(one.bias >= ulps * 2.0**-23 * abs(one.y))
        assert np.all(one.bias <= 1.01 * ulps * 2.0**-23 * abs(one.y) + 2.0**-140)


def test_what_a_division_may_be_off_by_may_be_the_same_everywhere():
    one, three = (Tracked(x, arithmetic=_as(Systematic, Arithmetic.of("float32", {"functions": {"division": 30}})))
                  for x in (1.0, 3.0))  # fmt: skip
    assert 60 <= float((one / three).error) * 3 * 2**24 < 60.01  # half ULPs
    (exact,) = (Tracked(x, arithmetic=_as(Systematic, Arithmetic.of("float32"))) for x in (3.0,))
    assert float((exact / exact).error) < 2.0**-140


def test_second_order_counts_in_low_precision():
    x = np.array([0.75, -1.5])
    exact, narrow = (moments("add", (x, x), {}, Arithmetic.of(dtype), None)[0] for dtype in ("float32", "bfloat16"))
    assert np.all(exact.bias < 2.0**-100)
    assert np.all((2.0**-16 * abs(2 * x) < narrow.bias) & (narrow.bias < 64 * 2.0**-16 * abs(2 * x)))


def test_the_verdict_stays(tmp_path):
    written, html = tmp_path / "report.json", tmp_path / "report.html"
    found = conform(
        "--backend", "suspects:Cuts", "--only", "*ward/linear/accuracy", "--effort", "quick", "--json", written,
        "--html", html, cwd=tmp_path,
    )  # fmt: skip
    assert found.returncode == 0
    assert "SUSPECT  forward/linear: y, sums of 256: too near to 0 by " in found.stdout
    assert "truncation" in found.stdout
    assert "▁" in found.stdout
    assert found.stdout.splitlines()[-1].startswith("conformant, but suspect: 2 of 2 properties")
    data = json.loads(written.read_text())
    assert data["verdict"] == "conformant"
    assert data["errors"]["chance"] == 1e-9
    assert data["errors"]["not_measured"] == {}
    assert {(one["op"], one["output"]) for one in data["errors"]["measured"]} == {
        ("linear", name) for name in ("y", "dx", "dw", "db")
    }  # fmt: skip
    assert all(sum(one["bars"]) == one["elements"] for one in data["errors"]["measured"])
    shown = html.read_text()
    assert 'id="errors"' in shown
    assert "4 suspect outputs" in shown
    seen = Page(shown)
    assert "1 output whose errors are like those of rounding" in seen.text("errors")
    assert {link for link in seen.links if link.startswith("#")} <= {f"#{id}" for id in seen.ids}
    assert page([read(written)]) == shown


def test_only_what_was_asked_for_and_has_passed():
    job = {"given": "reference", "device": None, "dtype": "float32", "effort": "quick", "seed": 0, "model": None,
           "explain": False}  # fmt: skip
    with Supervisor(job, Limits()) as supervisor:
        for id in ("forward/linear/accuracy", "backward/tanh/accuracy"):
            supervisor.judge(id)
        run = supervisor.measure(["forward/linear/accuracy", "backward/tanh/accuracy", "forward/gelu/accuracy"])
    assert {(one.op, one.output) for one in run.errors} == {("linear", "y"), ("tanh", "dx")}


def test_what_has_failed_is_not_suspect_too(tmp_path):
    written = tmp_path / "report.json"
    found = conform(
        "--backend", "subjects:Tensor32", "--only", "*/linear/accuracy", "--effort", "quick", "--json", written,
        cwd=tmp_path,
    )  # fmt: skip
    assert found.returncode == 1
    assert "suspect" not in found.stdout.lower()
    assert json.loads(written.read_text())["errors"]["measured"] == []


def test_what_breaks_meanwhile_changes_nothing(tmp_path):
    written = tmp_path / "report.json"
    found = conform(
        "--backend", "suspects:Dies", "--only", "forward/*/accuracy", "--effort", "quick", "--json", written,
        "--jobs", "1", cwd=tmp_path,
    )  # fmt: skip
    data = json.loads(written.read_text())
    assert data["verdict"] == "conformant"
    assert found.returncode == 0
    assert "ended the interpreter with status 5" in data["errors"]["not_measured"]["tanh"]
    assert "no room" in data["errors"]["not_measured"]["gelu"]
    assert "errors not looked at together: " in found.stdout
    assert data["errors"]["not_measured"]["add"] == "y is not finite where it should be"
    assert {"attention", "layer_norm"} <= {one["op"] for one in data["errors"]["measured"]}, "the others are measured"


@pytest.mark.parametrize("wrong", [
    {"measured": 1}, [1], {"measured": [{}]}, {"measured": ["x"]}, "bars", "mean",
])  # fmt: skip
def test_a_report_that_is_none(tmp_path, wrong):
    file = tmp_path / "report.json"
    one = {
        "op": "tanh", "output": "y", "case": "", "elements": 3, "samples": 3, "direction": "up", "mean": 0.0,
        "limit": 0.1, "share": 0.0, "square": 0.0, "square_limit": 1.0, "edge": 1.0, "bars": [1, 2], "suspect": None,
    }  # fmt: skip
    good = report() | {"errors": {"measured": [one], "not_measured": {}, "chance": 1e-9}}
    file.write_text(json.dumps(good))
    assert "No output is suspect" in page([read(file)])
    bad = copy.deepcopy(good)
    if isinstance(wrong, str):
        bad["errors"]["measured"][0][wrong] = ["x"]
    else:
        bad["errors"] = wrong
    file.write_text(json.dumps(bad))
    with pytest.raises(InputError, match="write one with"):
        read(file)
