"""Every equation that a docstring of refbert.ops or refbert.spec shows is computed a second time, and holds."""

from __future__ import annotations

import importlib
import inspect
import re
import sys

import calculus
import equations  # registers its checks in calculus.CHECKED
import equations_attention
import equations_bert
import equations_blocks
import equations_heads
import equations_updates
import numpy as np
import pytest

from refbert import ops
from refbert_inspection import explain
from refbert_inspection.explain.layout import logical
from refbert_inspection.explain.pages import is_typeset

OF_OPS = (equations, equations_attention, equations_updates)
OF_BLOCKS = (equations_blocks, equations_heads, equations_bert)
FILES = OF_OPS + OF_BLOCKS
ENTRIES = explain.entries()
# Two files are called attention: the op's and the block's.
PACKAGE = dict.fromkeys(OF_OPS, "refbert.ops") | dict.fromkeys(OF_BLOCKS, "refbert.spec")


def module_of(check):
    return f"{PACKAGE[sys.modules[check.check.__module__]]}.{check.module}"


def squeezed(text):
    return " ".join(text.split())


def docstrings(module):
    loaded = importlib.import_module(module) if module.startswith("refbert.spec") else sys.modules[module]
    functions = [f.__doc__ or "" for _, f in inspect.getmembers(loaded, inspect.isfunction) if f.__module__ == module]
    return squeezed("\n".join([loaded.__doc__ or "", *functions]))


@pytest.mark.parametrize("check", calculus.CHECKED, ids=lambda c: f"{c.module}-{c.check.__name__}")
def test_the_equations_hold(check):
    for seed in range(3):
        check.check(np.random.default_rng(seed))


@pytest.mark.parametrize("check", calculus.CHECKED, ids=lambda c: f"{c.module}-{c.check.__name__}")
def test_they_are_the_docstrings(check):
    """An equation that was changed has to be computed anew."""
    text = docstrings(module_of(check))
    for line in check.lines:
        assert squeezed(line) in text, f"{module_of(check)} does not say: {line}"


def shown(entry):
    """The lines of an entry that are typeset as mathematics."""
    for section in entry.sections:
        for paragraph in logical(section.text):
            yield from (line.text for line in paragraph if is_typeset(section, line))


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)
def test_no_equation_is_left_out(entry):
    covered = {squeezed(line) for c in calculus.CHECKED if module_of(c) == entry.module for line in c.lines}
    assert covered, f"{entry.module}: no equation is tested; write a check in tests/docs/equations*.py"
    missing = [line for line in shown(entry) if squeezed(line) not in covered]
    assert not missing, f"{entry.module} shows equations that are not tested: {missing}"


def test_how_many():
    """Coverage that shrinks unseen is none: checks are found by their registration."""
    assert len(calculus.CHECKED) == sum(inspect.getsource(file).count("@shown(") for file in FILES)
    assert sum(len(c.lines) for c in calculus.CHECKED) >= 100


@pytest.mark.parametrize(
    ("op", "old", "new"),
    [
        ("layer_norm", "dx = r * (q - mean_q - xhat * mean_qx)", "dx = r * (q - mean_q)"),
        ("softmax", "return (p * (dp - t),)", "return (p * dp,)"),
        ("gelu", "(Phi + x * phi)", "Phi"),
        ("attention_probabilities", "dK = ds.swapaxes(-1, -2) @ Q * scale", "dK = ds.swapaxes(-1, -2) @ Q"),
        ("lamb", "ratio = p_norm / u_norm", "ratio = u_norm / p_norm"),
        ("relu", "(x > 0)", "(x >= 0)"),
    ],
)
def test_an_op_that_does_something_else_is_seen(op, old, new, monkeypatch):
    module = sys.modules[getattr(ops, op).__module__]
    source = inspect.getsource(module)
    assert source.count(old) == 1
    names = {"__name__": module.__name__}
    exec(compile(source.replace(old, new), "<broken>", "exec"), names)
    monkeypatch.setattr(ops, op, names[op])
    failed = 0
    for check in calculus.CHECKED:
        if module_of(check) == module.__name__:
            try:
                check.check(np.random.default_rng(0))
            except AssertionError:
                failed += 1
    assert failed


def test_an_equation_that_is_wrong_is_seen():
    """The evaluators are compared with the op, so one of them that is off by a billionth is found."""
    with pytest.raises(AssertionError):
        calculus.agree(np.array([1.0]), np.array([1 + 1e-9]))
    assert re.search("Σ", "".join(line for c in calculus.CHECKED for line in c.lines))
