"""Judges side by side: the verdict of one, whatever becomes of the others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from refbert.errors import RefbertWarning
from refbert_conformance.process import sharing
from refbert_conformance.process.supervisor import Limits
from refbert_conformance.properties.table import all_properties, matching

HERE = Path(__file__).parent
IDS = [p.id for op in ("relu", "tanh", "gelu", "softmax") for p in matching(f"/{op}/")]


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setenv("PYTHONPATH", str(HERE))


def job(given):
    return {
        "given": given, "dtype": None, "device": None, "effort": "quick", "seed": 0, "model": None,
        "scripts": "x", "explain": False,
    }  # fmt: skip


def told(run):
    return {id: (row.outcome, row.message) for id, row in run.results.items()}


def test_every_property_has_one_judge_and_an_op_has_one():
    ids = [p.id for p in all_properties()]
    for count in (1, 2, 5):
        parts = sharing.shares(ids, count, job("numpy"))
        assert len(parts) == count
        assert sorted(id for part in parts for id in part) == sorted(ids)
        ops = [op for part in parts for op in {id.split("/")[1] for id in part}]
        assert len(ops) == len(set(ops))
        assert all(part == [id for id in ids if id in part] for part in parts)


def test_two_judges_have_the_verdict_of_one():
    heard = []
    one, two = (
        sharing.supervise(job("numpy"), IDS, Limits(), lambda *said: heard.append(said), jobs=jobs) for jobs in (1, 2)
    )
    assert list(two.results) == IDS
    assert told(one) == told(two)
    assert sorted(id for kind, id in heard if kind == "result") == sorted(2 * IDS)


def test_what_another_judge_cannot_do_the_first_does(tmp_path, monkeypatch):
    monkeypatch.setenv("ONLY_ONCE", str(tmp_path / "taken"))
    run = sharing.supervise(job("subjects:OnlyOnce"), IDS, Limits(), jobs=3)
    assert list(run.results) == IDS
    assert {row.outcome for row in run.results.values()} == {"passed"}


def test_warnings_of_another_judge_are_heard():
    ids = [p.id for op in ("attention", "relu") for p in matching(f"/{op}/accuracy")]
    given = job("hostile:LeavesChildren")  # by its relu
    assert all("/relu/" in id for id in sharing.shares(ids, 2, given)[1])
    with pytest.warns(RefbertWarning, match="ended"):
        sharing.supervise(given, ids, Limits(), jobs=2)


def test_unasked_for_there_is_one_for_each_processor_where_those_compute(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(2))
    assert [sharing.usual("cpu", n) for n in (1, 50, 400)] == [1, 1, 2]
    assert sharing.usual("cuda:0", 400) == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(64))
    assert sharing.usual("cpu", 400) == 8
