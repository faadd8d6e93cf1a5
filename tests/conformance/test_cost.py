"""What a declaration costs: the table is that of the mutants there are, and other declarations lie between its rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from refbert_conformance import cost
from refbert_conformance.engine.subject import Subject
from refbert_conformance.mutants import MUTANTS
from refbert_conformance.properties.table import all_properties
from refbert_conformance.selftest import concerning, killer
from refbert_conformance.tolerances.arithmetic import Arithmetic

ROWS = {str(row["arithmetic"]): set(row["lost"]) for row in cost._counted()["rows"]}


def arithmetic(**declared):
    return Arithmetic.of("float32", declared)


def test_every_row_is_counted_on_the_mutants_there_are():
    counted = cost._counted()
    assert [row["arithmetic"] for row in counted["rows"]] == list(cost.ROWS)
    names = {one.name for one in MUTANTS}
    assert set(counted["killers"]) <= names
    assert counted["of"] == sum(map(bool, counted["killers"].values()))
    assert all(lost <= names for lost in ROWS.values())


def test_a_wider_row_loses_all_that_a_narrower_one_does():
    for wide in cost.ROWS:
        for narrow in cost.ROWS:
            if cost.allows(arithmetic(**wide), arithmetic(**narrow)):
                assert ROWS[str(narrow)] <= ROWS[str(wide)], (wide, narrow)


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        ({"matmul_inputs": "bfloat16"}, {"matmul_inputs": "tensorfloat32"}),
        ({"functions": {"exp": "20 + 2*abs(x)"}}, {"functions": {"exp": 8}}),
        ({}, {"functions": {"exp": 4}}),
        ({"flush_to_zero": True}, {}),
        ({"accumulation": "float16"}, {"accumulation": "float32-truncated"}),
    ],
)
def test_what_allows_more(wide, narrow):
    assert cost.allows(arithmetic(**wide), arithmetic(**narrow))
    assert not cost.allows(arithmetic(**narrow), arithmetic(**wide))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # A sum of three times as many terms errs more in float16 than rounded operands do.
        ({"matmul_inputs": "tensorfloat32", "accumulation": "float16"},
         {"matmul_inputs": "bfloat16x3", "accumulation": "float16"}),
        # float16 has more bits and a smaller range.
        ({"intermediates": "bfloat16"}, {"intermediates": "float16"}),
        # Next to 1 and far out results are so small that an absolute error is beyond any number of ULPs.
        ({"functions": {"log": 8}}, {"functions": {"log": "max(3, 1e-9/ulp(y))"}}),
        ({"functions": {"erf": "max(3, 1e-12*abs(y)/ulp(y))"}}, {"functions": {"erf": "max(0.5, 1e-15/ulp(y))"}}),
    ],
)  # fmt: skip
def test_neither_allows_all_that_the_other_does(one, other):
    assert not cost.allows(arithmetic(**one), arithmetic(**other))
    assert not cost.allows(arithmetic(**other), arithmetic(**one))


def test_the_cost_of_a_declaration():
    (row,) = (row for row in cost._counted()["rows"] if row["arithmetic"] == {"matmul_inputs": "bfloat16"})
    found = cost.cost("float32", {"matmul_inputs": "bfloat16"})
    assert found is not None
    assert (found.least, found.most) == (len(row["lost"]),) * 2
    assert str(found) == f"the suite no longer sees {len(row['lost'])} of {found.of} mutants"
    between = cost.cost("float32", {"matmul_inputs": "bfloat16-truncated"})
    assert between.least == found.least < between.most
    assert cost.cost("float32", {}) is cost.cost("float32", {"nondeterministic": ["linear"]}) is None
    assert cost.cost("bfloat16", {"accumulation": "float16"}) is None
    assert str(cost.cost("float32", {"functions": {"exp": 1}})) == f"the suite still sees all of {found.of} mutants"


@pytest.mark.parametrize("declared", [{"matmul_inputs": "bfloat16"}, {"preset": "tpu"}])
def test_mutants_that_are_lost_are_seen_without_the_declaration(declared):
    lost = ROWS[str(declared)]
    assert lost, declared
    mutant = next(one for one in MUTANTS if one.name in lost)
    properties = concerning(mutant.op, all_properties())
    killed_by = cost._counted()["killers"][mutant.name]
    first = [p for p in properties if p.id == killed_by]
    assert killer(Subject(mutant.name, mutant.make), first, effort="quick", seed=0) == killed_by
    assert killer(Subject(mutant.name, mutant.make, declared), properties, effort="quick", seed=0) is None


def test_the_documentation_shows_the_table():
    text = Path(__file__).parents[2].joinpath("docs", "conformance.md").read_text("utf-8")
    assert cost.table() in text
