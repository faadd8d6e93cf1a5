"""The lane of large sizes sees what the sizes of models do not, and says so where memory does not allow it."""

from __future__ import annotations

import numpy as np
import pytest

from refbert import ops
from refbert_conformance.cases.large import BEYOND
from refbert_conformance.engine import runner
from refbert_conformance.engine.subject import Subject
from refbert_conformance.mutants import Correct
from refbert_conformance.properties import large_sizes
from refbert_conformance.properties.table import LARGE, all_properties, matching


def ran(id, make=Correct):
    (property,) = (p for p in all_properties(lanes=(LARGE,)) if p.id == id)
    return runner.run(property, Subject("subject", make), effort="quick", shrinking=0.0)


def test_it_is_judged_only_where_it_is_asked_for():
    ids = {p.id for p in all_properties()}
    more = {p.id for p in all_properties(lanes=(LARGE,))} - ids
    assert {id.split("/")[2] for id in more} == {"large sizes", "beyond 2 GiB"}
    assert len(more) == 2 * (len(large_sizes.ARRAYS) + 6)
    assert matching("beyond 2 GiB", lanes=(LARGE,))


def test_what_the_issue_of_sizes_is_about_is_there():
    assert {row[3] for row in BEYOND["attention"]} >= {32, 64, 80, 96, 128}
    assert any(max(row) == 2**20 for row in BEYOND["softmax"])
    assert any(row[1] > 2**23 for row in BEYOND["layer_norm"])
    assert any(250_002 in row for row in BEYOND["embedding"])
    assert 4 * large_sizes._VAST > 2**31
    assert 4 * 250_002 * large_sizes._WIDTH > 2**31


class OddHeads(Correct):
    """Heads of 80 lose the last 16 of their numbers, as with a tile of 64."""

    def attention(self, q, k, v, **options):
        y, back = super().attention(q, k, v, **options)
        D = q.shape[-1] // options["heads"]
        if D == 80:
            y = y.copy()
            y.reshape(*y.shape[:2], -1, D)[..., 64:] = 0
        return y, back


class LongRows(Correct):
    """A counter of 20 bits: what is beyond is not written."""

    def softmax(self, x):
        y, back = ops.softmax(x)
        y[..., 2**20 :] = 0
        return y, back


@pytest.mark.parametrize(("op", "make"), [("attention", OddHeads), ("softmax", LongRows)])
def test_a_fault_at_a_size_that_no_model_has_is_found(op, make):
    assert ran(f"forward/{op}/real sizes", make).outcome == "passed"
    found = ran(f"forward/{op}/large sizes", make)
    assert found.outcome == "failed"


@pytest.fixture
def less(monkeypatch):
    """The far end of smaller arrays: what is judged is the same."""
    monkeypatch.setattr(large_sizes, "_VAST", 2**15 + 17)
    monkeypatch.setattr(large_sizes, "_WIDTH", 3)


@pytest.mark.usefixtures("less")
@pytest.mark.parametrize("level", ["forward", "backward"])
@pytest.mark.parametrize("op", ["add", "gelu", "relu", "tanh", "linear", "embedding"])
def test_the_far_end_of_an_array(op, level):
    class Ends(Correct):
        """Offsets of 15 bits: what is beyond is not written, or read from the beginning."""

    def wrong(self, *arrays, **options):
        def cut(x):
            x = np.array(x)
            if op == "embedding":
                x[-1:] = 0
            else:
                x.reshape(-1)[2**15 :] = 0
            return x

        y, back = getattr(Correct, op)(self, *arrays, **options)
        return (cut(y), back) if level == "forward" else (y, lambda dy: (cut(back(dy)[0]), *back(dy)[1:]))

    setattr(Ends, op, wrong)
    assert ran(f"{level}/{op}/beyond 2 GiB").outcome == "passed"
    result = ran(f"{level}/{op}/beyond 2 GiB", Ends)
    assert result.outcome == "failed"


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({}, []),
        ({"memory.max": "max\n", "memory.current": "5\n", "memory.stat": "anon 5\n"}, []),
        ({"memory.max": "100\n", "memory.current": "60\n", "memory.stat": "anon 5\ninactive_file 20\n"}, [60]),
        ({"memory/memory.limit_in_bytes": "100\n", "memory/memory.usage_in_bytes": "60\n",
          "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 20\n"}, [60]),
    ],
)  # fmt: skip
def test_a_container_may_have_less_memory_than_the_machine(files, left, tmp_path):
    (tmp_path / "memory").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert large_sizes._container(tmp_path) == left
    assert 0 < large_sizes._free() <= large_sizes._machine()


def test_without_the_memory_it_is_unavailable_and_neither_passed_nor_failed(monkeypatch):
    monkeypatch.setattr(large_sizes, "_free", lambda: 2**30)
    result = ran("forward/relu/beyond 2 GiB")
    assert result.outcome == "unavailable"
    assert result.message == "needs about 12 GiB of memory, 1 are free"
