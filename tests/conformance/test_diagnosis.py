"""What is said about a failure is so: bugs and arithmetics that explain it are named, and nothing else is."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from subjects import Tensor32
from test_conform import HERE, conform

from refbert import ops
from refbert.backend import Host
from refbert.backend.reference import ReferenceBackend
from refbert.errors import InputError
from refbert_conformance.cases.inputs import rounded
from refbert_conformance.engine import runner
from refbert_conformance.engine.measure import Worst, described, telling
from refbert_conformance.engine.subject import Subject
from refbert_conformance.failures.diagnosis import explain
from refbert_conformance.process.records import Diagnosis
from refbert_conformance.properties.table import matching, selected


class Base(ReferenceBackend):
    dtypes = ("float32", "float64")


def flushed(a: Host) -> Host:
    return np.where(abs(a) < np.finfo(a.dtype).tiny, a * 0, a).astype(a.dtype)


class Flushes(Base):
    """As -ffast-math makes it: neither arguments nor results are subnormal."""


def flushing(op):
    def method(self, *arguments, **options):
        y, back = getattr(ops, op)(*map(flushed, arguments), **options)
        return flushed(y), lambda dy: tuple(flushed(np.asarray(c)) for c in back(flushed(dy)))

    return method


for _op in ("add", "softmax", "attention_probabilities", "attention", "gelu"):
    setattr(Flushes, _op, flushing(_op))


def narrow(dtype):
    class Narrow(Base):
        def linear(self, x, w, b):
            def cut(a):
                return Tensor32.cut(a) if dtype == "tensorfloat32" else rounded(a, dtype).astype(x.dtype)

            def pullback(dy):
                rows = dy.reshape(-1, w.shape[0])
                return cut(dy) @ cut(w), cut(rows).T @ cut(x).reshape(-1, w.shape[1]), rows.sum(axis=0)

            return (cut(x) @ cut(w).T + b).astype(x.dtype), pullback

    return Narrow


class Sums(Base):
    """Sums of squares in float32, for a backend of float64."""

    def layer_norm(self, x, gamma, beta, *, eps):
        y, _ = ops.layer_norm(x.astype(np.float32), gamma.astype(np.float32), beta.astype(np.float32), eps=eps)
        return y.astype(x.dtype), ops.layer_norm(x, gamma, beta, eps=eps)[1]


class Scaled(Base):
    """A ten-thousandth too large: no mutant, and no rounding."""

    def softmax(self, x):
        y, back = ops.softmax(x)
        return (y * x.dtype.type(1.0001)).astype(x.dtype), back

    def tanh(self, x):
        y, back = ops.tanh(x)
        return (y * x.dtype.type(1.0001)).astype(x.dtype), back


class Overflows(Base):
    def softmax(self, x):
        with np.errstate(all="ignore"):
            e = np.exp(x)
            return (e / e.sum(axis=-1, keepdims=True)).astype(x.dtype), ops.softmax(x)[1]


class OverflowsAndMore(Overflows):
    """The mutant, but not it alone: in long rows the numbers are others."""

    def softmax(self, x):
        y, back = super().softmax(x)
        return (y * x.dtype.type(1.5) if x.shape[-1] > 2 else y).astype(x.dtype), back


class TanhGelu(Base):
    """The other form: as wrong as anywhere where a single number remains."""

    def gelu(self, x, *, form):
        if form not in ("erf", "tanh"):
            raise ValueError(form)
        return ops.gelu(x, form="tanh")


class Workspace(Base):
    """One array for all calls of a shape, copied at the end: right in one thread."""

    def relu(self, x):
        _, back = ops.relu(x)
        work = self.__dict__.setdefault("work", {}).setdefault(x.shape, np.empty_like(x))
        work[...] = x
        work *= work > 0
        return work.copy(), back


def said(make, id, tmp_path, dtype="float32"):
    subject = Subject(make.__name__, lambda: make(dtype))
    (property,) = selected([id])
    with np.errstate(all="ignore"):
        result = runner.run(property, subject, effort="quick")
        assert result.outcome == "failed"
        job = {"given": "x:Y", "device": None, "model": None, "scripts": str(tmp_path)}
        message, found = explain(result, subject, job, Diagnosis())
        return SimpleNamespace(message=message, **vars(found))


FLUSHED = "it passes if the backend declares arithmetic = {'flush_to_zero': True}"


@pytest.mark.parametrize("op", ["add", "softmax", "attention_probabilities"])
def test_subnormals_flushed_are_no_mutant(op, tmp_path):
    found = said(Flushes, f"forward/{op}/accuracy", tmp_path)
    assert found.looks_like is None
    assert FLUSHED in found.hint


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("dtype", ["tensorfloat32", "bfloat16"])
def test_an_undeclared_narrower_format_is_named(direction, dtype, tmp_path):
    found = said(narrow(dtype), f"{direction}/linear/accuracy", tmp_path)
    # TF32 has float16's digits.
    named = ("tensorfloat32", "float16") if dtype == "tensorfloat32" else ("bfloat16",)
    assert any(f"{{'matmul_inputs': '{one}'}}" in str(found.hint) for one in named), found
    assert found.looks_like in (None, "linear: operands rounded to TF32"), "a bug that is the same thing"


def test_a_narrower_accumulation_is_named(tmp_path):
    found = said(Sums, "forward/layer_norm/accuracy", tmp_path, "float64")
    assert found.looks_like is None
    assert "'float32'" in found.hint


@pytest.mark.parametrize("op", ["softmax", "tanh"])
def test_of_what_nothing_explains_nothing_is_said(op, tmp_path):
    found = said(Scaled, f"forward/{op}/accuracy", tmp_path)
    assert found.looks_like is None
    assert found.hint is None


def test_of_a_failure_without_numbers_nothing_is_said(tmp_path):
    found = said(Workspace, "contract/relu/threads", tmp_path)
    assert "while another thread calls it too" in found.message
    assert found.looks_like is None, "a mutant that says the same may be quite another"
    assert found.case is None, "there is but one"


def test_a_mutant_is_named_only_where_it_explains_every_number(tmp_path):
    assert said(Overflows, "forward/softmax/accuracy", tmp_path).looks_like == "softmax: without the maximum"
    found = said(OverflowsAndMore, "forward/softmax/accuracy", tmp_path)
    assert found.looks_like is None
    assert found.hint is None


def test_as_many_digits_as_tell_two_numbers_apart():
    worst = Worst("y", (0,), 2 + 4e-15, 2.0, 1e-15, 4.0, 9.0)
    assert described(worst) == "y[0] is 2.000000000000004, should be 2 and may be off by 1e-15, ρ = 4"
    assert described(Worst("y", (), 0.25, 0.5, 0.0, math.inf, 1.0)) == "y is 0.25, should be 0.5 and must be exact"
    for a, b in ((1.0, 1.0 + 2**-52), (1e300, 1.1e300), (0.1, 0.2), (-1.0, 1.0), (math.inf, 1.0)):
        digits = telling(a, b)
        assert f"{a:.{digits}g}" != f"{b:.{digits}g}"
    assert described(Worst("y", (), 1.0005, 1.0, 0.0005, 1.00001, 1.0)).endswith("ρ = 1.00001")


def test_both_rhos_and_the_arithmetic_are_shown(tmp_path):
    done = conform("--backend", "subjects:EpsOutside", "--only", "forward/layer_norm/accuracy", cwd=tmp_path)
    assert done.returncode == 1
    assert "arithmetic: float64, nothing else declared" in done.stdout
    assert " in the worst case tried; the smallest that fails:" in done.stdout
    report = tmp_path / "r.json"
    only = ("--only", "forward/gelu/accuracy", "--effort", "quick")
    done = conform("--backend", "test_diagnosis:TanhGelu", *only, "--json", report, cwd=tmp_path)
    (row,) = json.loads(report.read_text(encoding="utf-8"))["properties"]
    assert float(row["rho"]) >= float(row["failure"]["worst"]["rho"]), "nothing is worse than the worst case tried"
    done = conform("--backend", "subjects:Declared32", "--only", "forward/linear/accuracy", cwd=tmp_path)
    assert "arithmetic: float32; declared: matmul_inputs tensorfloat32" in done.stdout


def test_the_report_is_there_though_nobody_reads_what_is_shown(tmp_path):
    report = tmp_path / "r.json"
    command = f"{sys.executable} -m refbert conform --backend reference --only relu --effort quick --json {report}"
    done = subprocess.run(["bash", "-c", f"{command} --html {tmp_path}/r.html | :"], cwd=HERE, check=False)
    assert done.returncode == 0
    assert json.loads(report.read_text(encoding="utf-8"))["verdict"] == "conformant"
    assert (tmp_path / "r.html").exists()


@pytest.mark.parametrize("pattern", ["pretrained/*", "pretrained", "pretrained/model/gradients"])
def test_pretrained_weights_without_a_model(pattern):
    with pytest.raises(InputError, match="asks for pretrained weights, and no model is named: add --model PATH"):
        matching(pattern)
