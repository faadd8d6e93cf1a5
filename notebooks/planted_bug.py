"""Finding a planted bug with the conformance suite: read the verdict, find the line, fix it, see it pass."""

# ruff: noqa: D102  (the cells say what a function is)

# %% [markdown]
# # Finding a planted bug
#
# Somebody sped up the embedding's gradient: `np.add.at` is slow, and `dtable[ids] += dy` says the same, does it not?
# The forward was not touched, the code was tried on a sentence, and the numbers were right.

# %%
import numpy as np

from refbert import ops
from refbert.backend.reference import ReferenceBackend
from refbert_conformance.engine import runner
from refbert_conformance.engine.property import LEVELS
from refbert_conformance.engine.subject import Subject
from refbert_conformance.properties.table import all_properties


class FasterBackend(ReferenceBackend):
    """refbert.ops, with a faster gradient of the embedding."""

    name = "faster"

    def embedding(self, table, ids):
        y, _ = ops.embedding(table, ids)

        def pullback(dy):
            dtable = np.zeros_like(table)
            dtable[ids] += dy
            return (dtable,)

        return y, pullback


# %% [markdown]
# The test that was made. It passes:

# %%
rng = np.random.default_rng(0)
table, sentence = rng.standard_normal((11, 4)), np.array([[2, 7, 6, 9, 5, 10, 8, 3]])
dy = rng.standard_normal((1, 8, 4))
right = ops.embedding(table, sentence)[1](dy)[0]
print("one sentence:", np.array_equal(FasterBackend().embedding(table, sentence)[1](dy)[0], right))

# %% [markdown]
# ## The verdict
#
# The conformance suite is a list of *properties*, each a statement about one operation or a composition of them, such
# as "every cotangent is within its rounding bound". It tries to refute each with many small examples. The properties
# have levels, from low to high: contract (arguments, errors), forward, backward, then blocks, models and training.
#
# On the command line this would be `refbert conform --backend my_module:FasterBackend`, with the class in my_module.py.
# From Python, with the properties that need the embedding alone (the whole suite takes a minute or more):


# %%
def verdict(make):
    """The failures among the properties about the embedding, lowest level first."""
    subject = Subject("faster", make)
    chosen = sorted((p for p in all_properties() if p.op == "embedding"), key=lambda p: LEVELS.index(p.level))
    results = [runner.run(p, subject, effort="quick") for p in chosen]
    failures = [r for r in results if r.outcome == "failed"]
    print(f"{len(results) - len(failures)} of {len(results)} properties pass")
    return failures


failures = verdict(FasterBackend)
for failure in failures:
    print(f"  {failure.property.id}: {failure.message}")
assert {f.property.level for f in failures} == {"backward"}

# %% [markdown]
# Read it from the top. Contract and forward are clean, backward is not: so it is the gradient, not the result. (ρ is
# the error as a share of what rounding may do; above 1 the property fails.) The suite has looked for the smallest
# example that fails. What does it have that our sentence has not?

# %%
smallest = failures[0].example
print(failures[0].property.says)
print("sizes:", smallest.sizes)
case = smallest.build("float64")
print("ids:", case.options["ids"].ravel())

# %% [markdown]
# ## The cause
#
# An id occurs twice. `dtable[ids] += dy` reads all rows first and writes them afterwards, so of several contributions
# to one row the last one wins. The derivation in `refbert/ops/embedding.py` says *sum over all n with ids_n = v*. Two
# lines show it:

# %%
twice = np.array([1, 1])
print("summed: ", ops.embedding(np.zeros((3, 1)), twice)[1](np.array([[10.0], [1.0]]))[0].ravel())
print("planted:", FasterBackend().embedding(np.zeros((3, 1)), twice)[1](np.array([[10.0], [1.0]]))[0].ravel())

# %% [markdown]
# How bad is it in use? In a batch of real text nearly every frequent word occurs more than once, and the segment
# table has two rows for all tokens: training goes on, and is worse, without any error.
#
# ## The fix
#
# Fast and right: sort the ids and add up runs of equal ones.


# %%
class FixedBackend(ReferenceBackend):
    """The gradient by sorting."""

    def embedding(self, table, ids):
        y, _ = ops.embedding(table, ids)

        def pullback(dy):
            dtable = np.zeros_like(table)
            if ids.size:
                flat = np.asarray(ids).reshape(-1)
                order = np.argsort(flat, kind="stable")
                starts = np.flatnonzero(np.diff(flat[order], prepend=-1))
                dtable[flat[order][starts]] = np.add.reduceat(dy.reshape(len(flat), -1)[order], starts, axis=0)
            return (dtable,)

        return y, pullback


remaining = verdict(FixedBackend)
assert not remaining

# %% [markdown]
# ## Exercises
#
# Each of the three backends in the next cell has one bug. Without reading the cell, find out with `suspects` which
# operation it is in and at which level it shows first. Print the smallest failing examples, and say which line must
# be wrong. Then read.
#
# 1. `First`
# 2. `Second`
# 3. `Third`


# %%
class First(ReferenceBackend):
    """Exercise 1."""

    def layer_norm(self, x, gamma, beta, *, eps):
        _, pullback = ops.layer_norm(x, gamma, beta, eps=eps)
        d = x - x.mean(axis=-1, keepdims=True)
        return gamma * d / (np.sqrt((d * d).mean(axis=-1, keepdims=True)) + eps) + beta, pullback


class Second(ReferenceBackend):
    """Exercise 2."""

    def dropout(self, x, *, keep, rate):
        y, _ = ops.dropout(x, keep=keep, rate=rate)
        return y, lambda dy: (dy * keep.astype(bool),)


class Third(ReferenceBackend):
    """Exercise 3."""

    def cross_entropy(self, logits, labels, *, denominator):
        loss, _ = ops.cross_entropy(logits, labels, denominator=denominator)
        rows = int((labels != ops.IGNORE).sum())
        return loss, ops.cross_entropy(logits, labels, denominator=rows)[1]


def suspects(make):
    """By operation, the ids of the properties that fail."""
    subject = Subject(make.__name__, make)
    found = {}
    for property in all_properties():
        if property.op in ("layer_norm", "gelu", "softmax", "cross_entropy", "dropout"):
            result = runner.run(property, subject, effort="quick")
            if result.outcome == "failed":
                found.setdefault(property.op, []).append(property.id)
    return found


# %% [markdown]
# ## Solutions

# %%
answers = {
    First: "ε is added to the root instead of under it: it shows where a row is (nearly) constant",
    Second: "the backward multiplies by the mask and forgets to divide by 1 − rate",
    Third: "the backward divides by the labelled rows, whatever denominator the caller gave",
}
for make, answer in answers.items():
    found = suspects(make)
    assert len(found) == 1
    for op, ids in found.items():
        print(f"{make.__name__}: {op}: {', '.join(ids)}")
    print("   ", answer)
