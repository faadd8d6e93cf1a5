"""Backpropagation through LayerNorm: derive it, check it, and see a wrong one pass a weak check."""

# ruff: noqa: D103  (the cells say what a function is)

# %% [markdown]
# # Backpropagation through LayerNorm
#
# LayerNorm brings each row of H numbers to mean 0 and variance 1, then scales by γ and shifts by β. With
# r = 1/√(σ² + ε):
#
# $$\mu = \tfrac1H \sum_j x_j \qquad \sigma^2 = \tfrac1H \sum_j (x_j - \mu)^2 \qquad
# \hat x = (x - \mu)\, r \qquad y = \gamma \hat x + \beta$$
#
# We are given dy = ∂L/∂y, the *cotangent* of y, for some loss L, and want dx = ∂L/∂x, dγ and dβ. There are N rows; n
# counts them, i and j count the entries of one. δ_ij is 1 if i = j, else 0.

# %%
import numpy as np

from refbert import ops

rng = np.random.default_rng(0)
N, H, EPS = 5, 8, 1e-12
x, gamma, beta = rng.standard_normal((N, H)), rng.standard_normal(H), rng.standard_normal(H)
dy = rng.standard_normal((N, H))


def forward(x, gamma, beta):
    """(y, x̂, r)."""
    d = x - x.mean(axis=1, keepdims=True)
    r = 1 / np.sqrt((d * d).mean(axis=1, keepdims=True) + EPS)
    return gamma * d * r + beta, d * r, r


# %% [markdown]
# ## The easy two
#
# γ and β act entry by entry and are shared by all rows, so their gradients are sums over the rows:
#
# $$d\beta_j = \sum_n dy_{nj} \qquad d\gamma_j = \sum_n dy_{nj}\, \hat x_{nj}$$
#
# ## The Jacobian of x̂
#
# Let d = x − μ. Then ∂d_i/∂x_j = δ_ij − 1/H. For the variance:
#
# $$\frac{\partial \sigma^2}{\partial x_j} = \frac2H \sum_i d_i \Big(\delta_{ij} - \frac1H\Big) = \frac{2 d_j}{H}$$
#
# because the d_i sum to 0. So ∂r/∂x_j = −½ (σ² + ε)^(−3/2) · 2 d_j/H = −r³ d_j/H, and by the product rule
#
# $$\frac{\partial \hat x_i}{\partial x_j} = r\Big(\delta_{ij} - \frac1H\Big) - \frac{r^3 d_i d_j}{H}
# = r\Big(\delta_{ij} - \frac1H - \frac{\hat x_i \hat x_j}{H}\Big)$$

# %%
_, xhat, r = forward(x, gamma, beta)


def jacobian(n):
    """∂x̂_i/∂x_j of row n: [H, H]."""
    return r[n] * (np.eye(H) - 1 / H - np.outer(xhat[n], xhat[n]) / H)


# %% [markdown]
# Check it column by column: move x_j a little and watch x̂.

# %%
h = 1e-6
numeric = np.zeros((H, H))
for j in range(H):
    step = np.zeros((N, H))
    step[0, j] = h
    numeric[:, j] = (forward(x + step, gamma, beta)[1] - forward(x - step, gamma, beta)[1])[0] / (2 * h)
print("the Jacobian is right:", np.allclose(jacobian(0), numeric, atol=1e-8))

# %% [markdown]
# ## Contract with the cotangent
#
# With q = γ dy, dx_j = Σ_i q_i ∂x̂_i/∂x_j. No H × H matrix is needed: the sums are two means.
#
# $$dx = r\,\big(q - \text{mean}(q) - \hat x\, \text{mean}(q \hat x)\big)$$


# %%
def backward(dy, xhat, r, gamma):
    """(dx, dγ, dβ)."""
    q = gamma * dy
    dx = r * (q - q.mean(axis=1, keepdims=True) - xhat * (q * xhat).mean(axis=1, keepdims=True))
    return dx, (dy * xhat).sum(axis=0), dy.sum(axis=0)


mine = backward(dy, xhat, r, gamma)
_, pullback = ops.layer_norm(x, gamma, beta, eps=EPS)
for name, a, b in zip(("dx", "dgamma", "dbeta"), mine, pullback(dy), strict=True):
    print(name, "as refbert.ops:", np.allclose(a, b, rtol=0, atol=1e-13))
    assert np.allclose(a, b, rtol=0, atol=1e-13)


# %% [markdown]
# ## Finite differences: how small a step?
#
# The central difference is wrong by about h² (the curve) plus u/h (rounding; u = 1.1e-16 is the unit roundoff of
# float64). The best h is near u^(1/3), about 5e-6.


# %%
def loss(x):
    return float((dy * forward(x, gamma, beta)[0]).sum())


def slope(h):
    """The derivative with respect to x[0, 0]."""
    step = np.zeros_like(x)
    step[0, 0] = h
    return (loss(x + step) - loss(x - step)) / (2 * h)


for h in (1e-1, 1e-3, 1e-5, 1e-8, 1e-12):
    print(f"h = {h:.0e}   error {abs(slope(h) - mine[0][0, 0]):.0e}")

# %% [markdown]
# ## A wrong backward that passes a weak check
#
# Somebody forgets the last term. With γ = 1 and an all-ones cotangent nobody notices: both give 0.


# %%
def forgetful(dy, xhat, r, gamma):
    """dx without x̂ mean(q x̂): wrong."""
    q = gamma * dy
    return r * (q - q.mean(axis=1, keepdims=True))


ones = np.ones((N, H))
print("all ones:   ", np.allclose(forgetful(ones, xhat, r, np.ones(H)), backward(ones, xhat, r, np.ones(H))[0]))
print("random dy:  ", np.allclose(forgetful(dy, xhat, r, gamma), mine[0]))

# %% [markdown]
# ## Exercises
#
# 1. Show by numbers that dx is orthogonal to the constant row and to x̂ (for ε → 0). What invariance of the forward
#    does each express?
# 2. J is the Jacobian of x̂ at one row. Is it symmetric? What are its eigenvalues?
# 3. Replace the biased variance by the unbiased one (divide by H − 1) in forward and backward. What changes in the
#    formula?
# 4. A row is constant: σ² = 0. How large can dx become with ε = 1e-12? Try with `ops.layer_norm`.
# 5. RMSNorm leaves out the mean: y = γ x/√(mean(x²) + ε). Derive dx and check it.

# %% [markdown]
# ## Solutions

# %%
print("1.", np.allclose(mine[0].sum(axis=1), 0, atol=1e-12), np.allclose((mine[0] * xhat).sum(axis=1), 0, atol=1e-9))
print("   y does not change when a row is shifted (constant direction) or stretched about its mean (x̂)")

# %%
J = jacobian(0)
eigenvalues = np.sort(np.linalg.eigvalsh(J))
print("2. symmetric:", np.allclose(J, J.T), "- two eigenvalues are 0, the others r:",
      np.allclose(eigenvalues[:2], 0, atol=1e-9), np.allclose(eigenvalues[2:], r[0]))  # fmt: skip


# %%
def unbiased(x):
    d = x - x.mean(axis=1, keepdims=True)
    r = 1 / np.sqrt((d * d).sum(axis=1, keepdims=True) / (H - 1) + EPS)
    return gamma * d * r, d * r, r


_, xhat_u, r_u = unbiased(x)
q = gamma * dy
dx_u = r_u * (q - q.mean(axis=1, keepdims=True) - xhat_u * (q * xhat_u).sum(axis=1, keepdims=True) / (H - 1))
step = np.zeros_like(x)
step[2, 3] = 1e-6
numeric_u = ((dy * unbiased(x + step)[0]).sum() - (dy * unbiased(x - step)[0]).sum()) / 2e-6
print("3. only the last mean becomes a sum over H − 1:", np.isclose(dx_u[2, 3], numeric_u, atol=1e-7))

# %%
_, constant_back = ops.layer_norm(np.full((1, H), 3.0), gamma, beta, eps=1e-12)
print(f"4. r = 1/√ε = 1e6, so |dx| up to about {abs(constant_back(dy[:1])[0]).max():.0e}")


# %%
def rms(x):
    r = 1 / np.sqrt((x * x).mean(axis=1, keepdims=True) + EPS)
    return gamma * x * r, x * r, r


_, xn, rn = rms(x)
dx_rms = rn * (q - xn * (q * xn).mean(axis=1, keepdims=True))
numeric_rms = ((dy * rms(x + step)[0]).sum() - (dy * rms(x - step)[0]).sum()) / 2e-6
print("5. dx = r (q − x̂ mean(q x̂)):", np.isclose(dx_rms[2, 3], numeric_rms, atol=1e-7))
