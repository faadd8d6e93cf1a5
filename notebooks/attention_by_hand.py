"""Attention by hand: Vaswani et al. 2017 §3.2, on numbers that fit on paper."""

# %% [markdown]
# # Attention by hand
#
# Four vectors of three numbers, equally spaced. We take Q = K = V = X, as if all three projections were the identity.
# (In BERT they are learned matrices; without them a token could only look for what it is itself.)

# %%
import math

import numpy as np

from refbert import ops

np.set_printoptions(precision=4, suppress=True)
X = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9], [1.0, 1.1, 1.2]])
S, D = X.shape

# %% [markdown]
# ## Scores, weights, output
#
# By hand for the first row: q·k is 0.01 + 0.04 + 0.09 = 0.14 with itself, then 0.32, 0.50, 0.68. Divide by √3, take
# exponentials, divide by their sum.

# %%
scores = X @ X.T / math.sqrt(D)
exponentials = np.exp(scores)
weights = exponentials / exponentials.sum(axis=1, keepdims=True)
output = weights @ X
print("dot products of row 0:", (X @ X.T)[0])
print("weights of row 0:     ", weights[0])
print("output of row 0:      ", output[0])
assert np.allclose(weights[0], [0.2125, 0.2357, 0.2616, 0.2902], atol=1e-4)
assert np.allclose(output[0], [0.5889, 0.6889, 0.7889], atol=1e-4)

# %% [markdown]
# The output is a mean of the rows of V with the weights, so it lies between the smallest and the largest. The refbert
# operation says the same. It takes batches, so `X[None]` is a batch of one; `mask` has 1 where a key may be seen (here
# everywhere), and what may not gets `mask_value` added to its score. Its second result, `pullback`, carries gradients
# back; only exercise 6 needs it.

# %%
seen = np.ones((1, S))
y, pullback = ops.attention(X[None], X[None], X[None], mask=seen, heads=1, mask_value=-math.inf)
assert np.allclose(y[0], output, rtol=0, atol=1e-14)

# %% [markdown]
# ## What attention cannot see
#
# Permute the tokens, and the outputs are permuted alike, nothing more. This is why BERT adds position embeddings.

# %%
order = np.array([2, 0, 3, 1])
permuted, _ = ops.attention(X[None, order], X[None, order], X[None, order], mask=seen, heads=1, mask_value=-math.inf)
print("a permutation goes straight through:", np.allclose(permuted[0], output[order], rtol=0, atol=1e-14))

# %% [markdown]
# ## Softmax does not mind a shift
#
# The maximum is subtracted before exponentials are taken, so that none overflows. The result is the same number.

# %%
large = scores + 1000
shifted = np.exp(large - large.max(axis=1, keepdims=True))
print("the same weights:", np.allclose(shifted / shifted.sum(axis=1, keepdims=True), weights))

# %% [markdown]
# ## Heads
#
# Two heads of D = 2 out of H = 4: slices of the features, each with a softmax of its own.

# %%
rng = np.random.default_rng(0)
H, A = 4, 2
q, k, v = rng.standard_normal((3, 1, S, H))
y2, _ = ops.attention(q, k, v, mask=seen, heads=A, mask_value=-math.inf)
for a in range(A):
    part = slice(a * H // A, (a + 1) * H // A)
    alone, _ = ops.attention(q[..., part], k[..., part], v[..., part], mask=seen, heads=1, mask_value=-math.inf)
    print(f"head {a} is a slice:", np.allclose(y2[..., part], alone, rtol=0, atol=1e-14))

# %% [markdown]
# ## Exercises
#
# 1. Add the vector (5, −3, 2) to every key. What happens to the weights? Why? What follows for the gradient of the
#    key's bias?
# 2. Add (5, −3, 2) to every value. What happens to the output?
# 3. Leave out the division by √D and let D grow: q, k with independent standard normal entries, D = 1, 16, 256, S = 8.
#    Print the mean of the largest weight of a row, with and without the division.
# 4. Write attention for A heads with `np.einsum` and no loop, and compare it with `ops.attention`.
# 5. A decoder may not look ahead: query i sees keys 0 … i only. `ops.attention` has a mask on keys alone. Compute
#    such a *causal* attention for the four rows of X by calling `ops.attention` once per query.
# 6. For a loss L whose gradient at the output is dy, the gradient at v is pᵀ dy (p: the weights). Check it for the four
#    rows of X with a random dy: `pullback(dy[None])` returns the gradients at q, k and v, each of shape [1, S, D].

# %% [markdown]
# ## Solutions

# %%
shift = np.array([5.0, -3.0, 2.0])
p1, _ = ops.attention_probabilities(X[None], X[None] + shift, mask=seen, heads=1, mask_value=-math.inf)
print("1. the weights stay:", np.allclose(p1[0, 0], weights))
print("   (each row of scores moves as a whole: q·shift; so the loss does not depend on the bias, its gradient is 0)")

# %%
y_shifted, _ = ops.attention(X[None], X[None], X[None] + shift, mask=seen, heads=1, mask_value=-math.inf)
print("2. the output moves by the same vector, since weights sum to 1:", np.allclose(y_shifted[0], output + shift))

# %%
for size in (1, 16, 256):
    q3, k3 = rng.standard_normal((2, 200, 8, size))
    raw = q3 @ k3.swapaxes(1, 2)
    with_root = ops.softmax(raw / math.sqrt(size))[0].max(axis=-1).mean()
    without = ops.softmax(raw)[0].max(axis=-1).mean()
    print(f"3. D = {size:3}: largest weight {with_root:.2f} divided, {without:.2f} not divided")

# %%
qs, ks, vs = (t.reshape(1, S, A, H // A) for t in (q, k, v))
s4 = np.einsum("bihd,bjhd->bhij", qs, ks) / math.sqrt(H // A)
y4 = np.einsum("bhij,bjhd->bihd", ops.softmax(s4)[0], vs).reshape(1, S, H)
print("4. einsum agrees:", np.allclose(y4, y2, rtol=0, atol=1e-14))

# %%
causal = np.zeros_like(X)
for i in range(S):
    visible = (np.arange(S) <= i)[None]
    row, _ = ops.attention(X[None], X[None], X[None], mask=visible, heads=1, mask_value=-math.inf)
    causal[i] = row[0, i]
print("5. the first row sees only itself:", np.allclose(causal[0], X[0]), "- the last sees all:",
      np.allclose(causal[-1], output[-1]))  # fmt: skip

# %%
dy = rng.standard_normal((S, D))
print("6. dv:", np.allclose(weights.T @ dy, pullback(dy[None])[2][0], rtol=0, atol=1e-14))
