"""Mutants from the syntax tree: what is changed and what is not, and that the suite finds them."""

from __future__ import annotations

import ast
import json
from collections import Counter
from pathlib import Path

import pytest

from refbert.cli import main
from refbert_conformance.generated import equivalent, operators, trial
from refbert_conformance.generated.packages import PACKAGES, all_mutants, chosen
from refbert_conformance.generated.page import page
from refbert_conformance.generated.reach import reached

ROOT = Path(__file__).parent.parent.parent
OPS, NUMPY = PACKAGES


def changes(source):
    """(kind, old, new) of every mutant."""
    return [(m.kind, m.old, m.new) for m in operators.mutants(source, "pkg/f.py")]


def changed(source):
    """Every mutant's text."""
    return [operators.mutated(source, m.number) for m in operators.mutants(source, "pkg/f.py")]


@pytest.mark.parametrize(
    ("source", "mutants"),
    [
        ("y = a + b", ["y = a - b"]),
        ("y = a @ b", ["y = a * b"]),
        ("y = -a", ["y = a"]),
        ("y = not a", ["y = a"]),
        ("y = a and b", ["y = a or b"]),
        ("y = a < b", ["y = a <= b", "y = a >= b"]),
        ("y = a is b", ["y = a is not b"]),
        ("y = a if b else c", ["y = a if not b else c"]),
        ("y = 2", ["y = 3", "y = 1"]),
        ("y = 0.5", ["y = 1.0"]),
        ("y = 0.0", ["y = 1.0"]),
        ("y = True", ["y = False"]),
        ("y = x.sum(axis=-1)", ["y = x.sum(axis=0)", "y = x.sum(axis=-2)"]),
        ("y = x.sum(axis=(0, i))", ["y = x.sum(axis=(1, i))", "y = x.sum(axis=(-1, i))"]),
        ("y = f(a, b)", ["y = f(b, a)"]),
        ("y = np.maximum(a, b)", []),
        ("y = ops.add(a, b)", ["y = ops.add(b, a)"]),
        ("y = x.copy()", ["y = x"]),
        ("y = np.array(x)", ["y = np.asarray(x)"]),
        ("def f(x):\n    g(x)\n    return x", ["def f(x):\n    pass\n    return x"]),
        ("def f(x):\n    x += y", ["def f(x):\n    pass", "def f(x):\n    x -= y"]),
        ("def f(x):\n    x = g(x)", ["def f(x):\n    pass"]),
        ("def f(x):\n    raise ValueError('no' + 1)", ["def f(x):\n    pass"]),
        ("def f(x, *, n: float=0.5):\n    return x", ["def f(x, *, n: float=1.0):\n    return x"]),
    ],
)
def test_each_kind(source, mutants):
    assert changed(source) == mutants
    assert ast.unparse(ast.parse(source)) == operators.mutated(source, None)


@pytest.mark.parametrize(
    "source",
    [
        '"""Text."""',
        "import a",
        'def f(x: 1 = a) -> 2:\n    """Text."""\n    y = g',
        "x: Annotated[int, 3] = a",
        "@dataclass(frozen=True)\nclass A:\n    pass",
        "if TYPE_CHECKING:\n    A = B[1]",
        'y = f"{a + 1}"',
        "T = None | A",
    ],
)
def test_what_is_left_alone(source):
    assert changes(source) == []


def test_a_mutant_says_where_it_is_and_its_key_does_not_move():
    source = "def f(a, b):\n    if a < 3:\n        return b\n    return a + b * 2\n"
    found = operators.mutants(source, "pkg/f.py")
    assert [m.id for m in found] == [
        "pkg/f.py:2:9 < → <=", "pkg/f.py:2:9 < → >=", "pkg/f.py:2:12 3 → 4", "pkg/f.py:2:12 3 → 2",
        "pkg/f.py:4:13 + → -", "pkg/f.py:4:17 * → /", "pkg/f.py:4:20 2 → 3", "pkg/f.py:4:20 2 → 1",
    ]  # fmt: skip
    assert found[0].key == ("pkg/f.py", "f", "if a < 3:", "if a <= 3:")
    assert found[5].key == ("pkg/f.py", "f", "return a + b * 2", "return a + b / 2")
    moved = operators.mutants(f"# one line more\n\n{source}", "pkg/f.py")
    assert [m.key for m in moved] == [m.key for m in found]


def test_names_tell_what_a_method_reaches():
    source = """
import numpy as np
SIZE = 3
class Store:
    def __init__(self): clear()
    def take(self): return SIZE
class B:
    def __init__(self): self.store = Store()
    def add(self, x): return helper(x)
    tanh = staticmethod(np.tanh)
def helper(x): return x.take()
def tanh(x): return other(x)
def other(x): pass
def clear(): pass
"""
    found = reached([source], "B", ("add", "tanh", "gelu"))
    assert found["helper"] == found["Store.take"] == found["SIZE"] == {"add"}
    assert found["clear"] == {"add", "tanh"}  # the backend's constructor makes a store
    assert found["tanh"] == found["other"] == set()  # NumPy's is another


def test_thousands_and_none_twice():
    found = all_mutants()
    assert len(found) > 2000
    assert [id for id, n in Counter(m.id for _, m in found).items() if n > 1] == []
    assert {m.kind for _, m in found} == set(operators.KINDS)
    for package, mutant in found[::40]:
        made = operators.mutated(package.source(mutant.file), mutant.number)
        assert made != operators.mutated(package.source(mutant.file), None)
        compile(made, mutant.file, "exec")


def test_what_the_contract_does_not_reach_is_left_out():
    files = {m.file for _, m in all_mutants()}
    assert "ops/attention.py" in files
    assert "refbert_numpy/training.py" in files
    assert "ops/mask_tokens.py" not in files


def test_a_sample_is_the_same_for_the_same_seed():
    drawn = chosen(50, 0, None)
    assert len(drawn) == 50
    assert drawn == chosen(50, 0, None) != chosen(50, 1, None)
    smaller = chosen(20, 0, None)
    assert [pair for pair in drawn if pair in smaller] == smaller


def test_every_reason_is_a_mutants():
    """Where a statement has changed, whether what is listed still computes the same has to be looked at."""
    keys = {m.key for _, m in all_mutants()}
    assert [key for key in equivalent.reasons() if key not in keys] == []


@pytest.mark.parametrize("text", ["- a\n+ b\n= c\n", "a.py: f\n- a\n+ b\n", "a.py: f\n- a\n+ b\n= c\nwhat\n"])
def test_reasons_are_read_strictly(tmp_path, text):
    file = tmp_path / "equivalent.txt"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"equivalent\.txt"):
        equivalent.read(file)


def only(package, becomes):
    (found,) = [m for m in package.mutants if m.becomes == becomes]
    return found


KILLED = [
    (OPS, "mu = x.mean(axis=0, keepdims=True)"),
    (NUMPY, "r -= eps"),
]


@pytest.mark.parametrize(("package", "becomes"), KILLED)
def test_a_mutant_of_each_package_is_killed(package, becomes):
    found = trial.tried(package, only(package, becomes), "quick", 0, {})
    assert (found.outcome, found.how) == ("killed", "wrong")
    assert found.by.split("/")[1] in package.methods(only(package, becomes))


def test_what_cannot_be_imported_is_killed_too():
    found = trial.tried(NUMPY, only(NUMPY, "if hasattr('register_at_fork', os):"), "quick", 0, {})
    assert (found.outcome, found.how, found.by) == ("killed", "not made", "")


def status(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(["conform", "--self-test", "generated", "--effort", "quick", "--jobs", "1", *arguments])
    return ended.value.code


@pytest.mark.slow
def test_a_survivor_fails_the_run_unless_there_is_a_reason(monkeypatch, tmp_path, capsys):
    mutant = only(OPS, "return (dy.transpose(inverse),)")  # a view, as which no number differs
    file = tmp_path / "report.json"
    monkeypatch.setattr(trial, "innocent", lambda *_: {})
    monkeypatch.setattr(trial, "reasons", dict)
    assert status("--only", mutant.id, "--json", str(file)) == 1
    assert f"SURVIVED  {mutant.id}" in capsys.readouterr().out
    assert json.loads(file.read_text(encoding="utf-8"))["counts"]["survived"] == 1
    assert "## Survived" in page(json.loads(file.read_text(encoding="utf-8")))
    monkeypatch.setattr(trial, "reasons", lambda: {mutant.key: "told here"})
    assert status("--only", mutant.id, "--json", str(file)) == 0
    assert f"computes the same  {mutant.id}: told here" in capsys.readouterr().out
    (row,) = json.loads(file.read_text(encoding="utf-8"))["mutants"]
    assert (row["outcome"], row["reason"]) == ("equivalent", "told here")


def test_a_reason_for_one_that_is_killed_fails_the_run(monkeypatch, capsys):
    mutant = only(*KILLED[0])
    monkeypatch.setattr(trial, "reasons", lambda: {mutant.key: "so they say"})
    assert status("--only", mutant.id) == 1
    assert "NOT EQUIVALENT" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [("--sample", "0"), ("--sample", "some"), ("--only", "no such mutant")])
def test_bad_options(arguments, capsys):
    assert status(*arguments) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_the_page_is_the_committed_runs():
    (run,) = (ROOT / "benchmarks" / "results").glob("*-generated-mutants.json")
    found = json.loads(run.read_text(encoding="utf-8"))
    assert (ROOT / "docs" / "generated-mutants.md").read_text(encoding="utf-8") == page(found)
    assert found["sample"] == trial.SAMPLE == len(found["mutants"])
    assert found["counts"]["survived"] == found["counts"]["not equivalent"] == 0
