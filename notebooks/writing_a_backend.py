"""Writing a backend: a small plugin over NumPy that passes the conformance suite for the operations that it has."""

# ruff: noqa: D102  (the cells say what a function is)

# %% [markdown]
# # Writing a backend
#
# A backend is any class with the methods of `refbert.backend.Backend`; it imports nothing of refbert. Each operation
# returns `(y, pullback)`. What it must compute stands in the file of its name in `refbert/ops`. What it leaves out is
# *unsupported*, and is reported so: nothing falls back silently.
#
# We write five operations for float32 and put them before the conformance suite, which compares each with `refbert.ops`
# on many small examples. Beside the operations a backend has a name, the dtypes it knows, and a way in and out:
# `asarray` and `to_numpy`.

# %%
import numpy as np

from refbert.backend import REQUIRED, missing_ops
from refbert_conformance.engine import runner
from refbert_conformance.engine.subject import Subject
from refbert_conformance.properties.table import all_properties


class SmallBackend:
    """add, relu, linear, embedding and layer_norm in float32."""

    name = "small"
    dtypes = ("float32",)

    def __init__(self, dtype=None, device=None):
        self.dtype, self.device = dtype or "float32", device or "cpu"
        self.library = f"NumPy {np.__version__}"

    def asarray(self, x, /):
        return np.array(x, dtype=self.dtype)

    def to_numpy(self, x, /):
        return np.asarray(x)

    def add(self, x, z):
        if x.shape != z.shape:
            raise ValueError(f"add needs equal shapes, got {x.shape} and {z.shape}")
        return x + z, lambda dy: (dy.copy(), dy.copy())

    def relu(self, x):
        return np.maximum(x, 0), lambda dy: (dy * (x > 0),)

    def linear(self, x, w, b):
        def pullback(dy):
            rows = dy.reshape(-1, w.shape[0])
            return dy @ w, rows.T @ x.reshape(-1, w.shape[1]), rows.sum(axis=0)

        return x @ w.T + b, pullback

    def embedding(self, table, ids):
        if ids.size and not (ids.min() >= 0 and ids.max() < len(table)):
            raise IndexError(f"ids must be in [0, {len(table)})")

        def pullback(dy):
            dtable = np.zeros_like(table)
            np.add.at(dtable, ids, dy)
            return (dtable,)

        return table[ids], pullback

    def layer_norm(self, x, gamma, beta, *, eps):
        d = x - x.mean(axis=-1, keepdims=True)
        r = 1 / np.sqrt((d * d).mean(axis=-1, keepdims=True) + np.float32(eps))
        xhat = d * r

        def pullback(dy):
            q = dy * gamma
            mean_q, mean_qx = q.mean(axis=-1, keepdims=True), (q * xhat).mean(axis=-1, keepdims=True)
            rows = tuple(range(dy.ndim - 1))
            return r * (q - mean_q - xhat * mean_qx), (dy * xhat).sum(axis=rows), dy.sum(axis=rows)

        return gamma * xhat + beta, pullback


own = [op for op in REQUIRED if op not in missing_ops(SmallBackend()) and op not in ("asarray", "to_numpy")]
print("has:  ", ", ".join(own))
print("lacks:", ", ".join(missing_ops(SmallBackend())))


# %% [markdown]
# ## Before the suite
#
# On the command line, with the class in a file `small.py`:
#
#     refbert conform --backend small:SmallBackend --only "*/linear/*" --effort quick
#
# The same from Python: every property (a statement that the suite tries to refute) about one of our operations, a few
# examples each.


# %%
def judge(make, ops):
    """Property id -> outcome, for all properties about those operations."""
    subject = Subject("a backend in a notebook", make)
    found = {}
    for property in all_properties():
        if property.op in ops:
            result = runner.run(property, subject, effort="quick")
            found[property.id] = result
    return found


results = judge(SmallBackend, own)
for op in own:
    mine = [r for id, r in results.items() if id.split("/")[1] == op]
    rho = max(r.record.rho or 0 for r in mine)  # None where only equality was asked for
    print(f"{op:11} {sum(r.outcome == 'passed' for r in mine)} of {len(mine)} properties pass, worst ρ {rho:.2f}")
    for r in mine:
        if r.outcome != "passed":
            print("   ", r.property.id, r.outcome, r.message)
assert all(r.outcome == "passed" for r in results.values())

# %% [markdown]
# ρ is the largest error as a share of what rounding may do, a bound derived from the formula and from the declared
# arithmetic (float32 here). Above 1 no order of summation explains the error, and the property fails.
#
# As a whole the backend is not conformant: required operations are missing. `refbert conform` says so, by name.
#
# ## Exercises
#
# 1. Write `gelu` for both forms and put it before the suite. Begin with 0.5·x·(1 + erf(x/√2)) from `scipy.special`.
#    Which digits of negative x are in danger?
# 2. Write `softmax` without subtracting the maximum. Which property finds out, and with what example?
# 3. Drop the range check in `embedding`. What does NumPy do with an id of −1? Which property objects?
# 4. Compute LayerNorm's variance as mean(x²) − mean(x)². On what rows does it fail?

# %% [markdown]
# ## Solutions


# %%
class WithGelu(SmallBackend):
    """SmallBackend with gelu."""

    def gelu(self, x, *, form):
        from scipy.special import erfc

        wide = x.astype(np.float64)  # the intermediate steps in double: allowed, and simple
        if form == "erf":
            phi = 0.5 * erfc(-wide / np.sqrt(2))
            slope = phi + wide * np.exp(-0.5 * wide * wide) / np.sqrt(2 * np.pi)
        elif form == "tanh":
            c, a = np.sqrt(2 / np.pi), 0.044715
            u = c * (wide + a * wide**3)
            phi = np.exp(-np.logaddexp(0, -2 * u))
            slope = phi + 2 * wide * phi * np.exp(-np.logaddexp(0, 2 * u)) * c * (1 + 3 * a * wide * wide)
        else:
            raise ValueError(f'gelu has the forms erf and tanh, not "{form}"')
        return (wide * phi).astype(x.dtype), lambda dy: ((dy * slope).astype(x.dtype),)


found = judge(WithGelu, ["gelu"])
print("1.", {r.outcome for r in found.values()}, "- 1 + erf(x/√2) cancels for negative x; erfc(−x/√2) does not")
for id, r in found.items():
    if r.outcome != "passed":
        print("   ", id, r.message)


# %%
class Overflowing(SmallBackend):
    """softmax without the maximum."""

    def softmax(self, x):
        with np.errstate(all="ignore"):
            e = np.exp(x)
            p = e / e.sum(axis=-1, keepdims=True)
        return p, lambda dp: (p * (dp - (p * dp).sum(axis=-1, keepdims=True)),)


for id, r in judge(Overflowing, ["softmax"]).items():
    if r.outcome == "failed":
        print("2.", id, "-", r.message[:100])


# %%
class Wrapping(SmallBackend):
    """embedding that lets −1 mean the last row."""

    def embedding(self, table, ids):
        return table[ids], lambda dy: (np.zeros_like(table),)


failed = [id for id, r in judge(Wrapping, ["embedding"]).items() if r.outcome == "failed"]
print("3.", [id for id in failed if "errors" in id], "(the gradient of zeros is found as well)")
assert "contract/embedding/errors" in failed


# %%
class OnePass(SmallBackend):
    """LayerNorm with the one-pass variance."""

    def layer_norm(self, x, gamma, beta, *, eps):
        y, pullback = super().layer_norm(x, gamma, beta, eps=eps)
        mu = x.mean(axis=-1, keepdims=True)
        with np.errstate(all="ignore"):
            variance = (x * x).mean(axis=-1, keepdims=True) - mu * mu
            y = gamma * (x - mu) / np.sqrt(np.maximum(variance, 0) + np.float32(eps)) + beta
        return y, pullback


failed = {id: r for id, r in judge(OnePass, ["layer_norm"]).items() if r.outcome == "failed"}
print("4.", ", ".join(failed), "- rows far from 0 with a small spread: two large numbers, nearly equal")
assert "forward/layer_norm/accuracy" in failed
