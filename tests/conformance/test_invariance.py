"""What a sequence's bits depend on: yes and no in the right places, and the operation that is first to differ."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from refbert import ops
from refbert.backend.reference import ReferenceBackend
from refbert_conformance.engine import runner
from refbert_conformance.engine.subject import Subject
from refbert_conformance.properties.invariance import CONTEXTS, properties
from tests.calling import cli

HERE = Path(__file__).parent


def nudged(y, rows):
    y = np.array(y)
    y[rows] = np.nextafter(y[rows], np.inf)
    return y


class ManyRows(ReferenceBackend):
    """Sums in another order where there are many rows."""

    def linear(self, x, w, b):
        y, back = ops.linear(x, w, b)
        return (nudged(y, ...) if x.size // x.shape[-1] > 100 else y), back


class LastRow(ReferenceBackend):
    """A remainder of a block."""

    def gelu(self, x, *, form):
        y, back = ops.gelu(x, form=form)
        return (nudged(y, -1) if len(x) > 1 else y), back


class ManyKeys(ReferenceBackend):
    """A key more, a block more."""

    def attention(self, q, k, v, **how):
        y, back = ops.attention(q, k, v, **how)
        return (nudged(y, ...) if k.shape[1] > 30 else y), back


class GradientOfManyRows(ReferenceBackend):
    def layer_norm(self, x, gamma, beta, *, eps):
        y, back = ops.layer_norm(x, gamma, beta, eps=eps)

        def pullback(dy):
            dx, *others = back(dy)
            return ((nudged(dx, ...) if x.size // x.shape[-1] > 100 else dx), *others)

        return y, pullback


class Sometimes(ReferenceBackend):
    """One call in 149: a race that is rarely lost."""

    calls = 0

    def relu(self, x):
        return ops.relu(x)

    def gelu(self, x, *, form):
        type(self).calls += 1
        y, back = ops.gelu(x, form=form)
        return (y * (1 + 1e-9) if self.calls % 149 == 0 else y), back


SAME = {f"{way}, {name}" for way in ("forward", "backward") for name in CONTEXTS}
# Padding lengthens the reference's sums over keys, too.
PADDED = {"forward, with padding", "backward, with padding"}
DEPENDS = {
    ReferenceBackend: (set(), ""),
    ManyRows: ({"forward, in a batch", "forward, at any place", "forward, in any split",
                "backward, in a batch", "backward, at any place", "backward, in any split"}, "linear (forward)"),
    LastRow: ({"forward, at any place", "forward, in any split", "backward, at any place", "backward, in any split"},
              "gelu (forward)"),
    ManyKeys: (set(), "attention"),
    GradientOfManyRows: ({"backward, in a batch", "backward, at any place", "backward, in any split"},
                         "layer_norm (backward)"),
    Sometimes: ({"forward, 200 times", "backward, 200 times"}, ""),
}  # fmt: skip


@pytest.mark.parametrize("kind", DEPENDS, ids=lambda kind: kind.__name__)
def test_what_depends_on_what(kind):
    due, first = DEPENDS[kind]
    names = [p for p in properties() if f"{p.op}, {p.name}" in SAME - PADDED]
    if kind is ManyKeys:
        names = [p for p in properties() if f"{p.op}, {p.name}" == "forward, with padding"]
        due = {"forward, with padding"}
    if kind is Sometimes:
        names = [p for p in names if "200" in p.name]
    subject = Subject("it", lambda: kind("float64"))
    results = {f"{p.op}, {p.name}": runner.run(p, subject, effort="quick") for p in names}
    assert {name for name, result in results.items() if result.outcome == "failed"} == due
    assert {result.outcome for result in results.values()} <= {"passed", "failed"}
    for name in due if first else ():
        assert f"first in {first}" in results[name].message, results[name].message


def test_the_command_answers_and_conform_requires(monkeypatch, capsys, tmp_path):
    monkeypatch.syspath_prepend(str(HERE))
    status, out, _ = cli(capsys, "invariance", "--backend", "test_invariance:LastRow", "--json")
    found = {one["id"]: one for one in json.loads(out)["invariance"]}
    assert status == 0, "a no is an answer"
    assert found["invariance/forward/in a batch"]["holds"] is True
    assert found["invariance/forward/at any place"]["holds"] is False
    assert "first in gelu (forward)" in found["invariance/forward/at any place"]["message"]
    assert found["invariance/packed/or padded"]["holds"] is None
    arguments = ["conform", "--backend", "test_invariance:LastRow", "--effort", "quick", "--only", "at any place"]
    status, out, _ = cli(capsys, *arguments, "--require", "batch-invariance", "--scripts", tmp_path)
    assert status == 1
    assert "FAILED  invariance/forward/at any place" in out
    status, _, said = cli(capsys, *arguments)
    assert status == 2
    assert "no property matches" in said


class SplitByThreads(ReferenceBackend):
    """A product whose sums are split among threads: three of them add up in another order."""

    threads = "THREADS_OF_THE_TEST"

    def linear(self, x, w, b):
        y, back = ops.linear(x, w, b)
        return (nudged(y, ...) if os.environ.get(self.threads) == "3" else y), back


class Steady(ReferenceBackend):
    threads = "THREADS_OF_THE_TEST"


@pytest.mark.parametrize(("kind", "holds"), [(SplitByThreads, False), (Steady, True), (LastRow, None)])
def test_any_number_of_threads(monkeypatch, capsys, kind, holds):
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setattr(LastRow, "threads", None)
    monkeypatch.delenv("THREADS_OF_THE_TEST", raising=False)
    (property,) = (p for p in properties() if p.id == "invariance/forward/any number of threads")
    result = runner.run(property, Subject(f"test_invariance:{kind.__name__}", kind), effort="quick")
    assert result.outcome == {True: "passed", False: "failed", None: "unsupported"}[holds], result.message
    if holds is False:
        assert "other bits on 3 threads than on 1" in result.message
