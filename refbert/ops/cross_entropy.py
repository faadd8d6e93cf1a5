"""Cross-entropy of a softmax, with ignored labels and an explicit denominator.

Source   Devlin et al. 2019 §3.1 (masked LM: "predict the original token with cross entropy loss"), A.2 ("the sum of
         the mean masked LM likelihood and the mean next sentence prediction likelihood"), §4.1-4.2. The sum over
         labelled rows and its denominator: Google's run_pretraining.py get_masked_lm_output.
Shapes   logits z [..., C], labels [...] of whole numbers, in [0, C) or IGNORE  ->  loss, a scalar (shape [])

Equation (N rows; row n has label c_n; a row labelled IGNORE = −100 does not count)
    ℓ_n  = −log softmax(z_n)_{c_n} = lse(z_n) − z_{n,c_n},      lse(z) = m + log Σ_k e^{z_k − m},   m = max_k z_k
    loss = 1/M Σ_{n labelled} ℓ_n

    The denominator M is the caller's: the number of labelled rows for a mean, that number + 1e-5 in Google's masked
    LM, twice the number of sequences for the two halves of a span, the count over *all* shards when a batch is split
    over workers. M = 0 makes the loss 0 with zero gradients.

Gradient
    ∂lse/∂z_j = e^{z_j}/Σ_k e^{z_k} = p_j and ∂z_c/∂z_j = δ_jc, so for a cotangent d of the scalar loss

        dz_nj = d/M (p_nj − δ_{j,c_n})   for labelled rows,       0 for ignored ones.

    Each row of dz sums to 0.

Where the papers are silent
    No labelled row: the mean is 0/0. Hugging Face returns NaN; Google's 1e-5 makes it 0; refbert returns 0, because
    a batch without labels says nothing about the weights.
"""

from __future__ import annotations

import numpy as np

from refbert.ops.types import Array, Ids, Pullback

# The label that does not count; the number is Hugging Face's and PyTorch's.
IGNORE = -100


def cross_entropy(logits: Array, labels: Ids, *, denominator: float) -> tuple[Array, Pullback]:
    """loss = Σ (lse(z) − z_label) / denominator. Raises IndexError for a label outside [0, C) that is not IGNORE."""
    z = logits.reshape(-1, logits.shape[-1])  # [N, C]
    labelled = labels.reshape(-1) != IGNORE  # [N]
    c = labels.reshape(-1)[labelled]  # [M']
    if c.size and not (int(c.min()) >= 0 and int(c.max()) < z.shape[1]):
        raise IndexError(f"labels must be {IGNORE} or in [0, {z.shape[1]}), got {int(c.min())} to {int(c.max())}")
    per_row = 1 / denominator if denominator else 0.0

    shifted = z[labelled]  # [M', C]
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    e = np.exp(shifted)
    s = e.sum(axis=-1, keepdims=True)  # [M', 1]
    rows = np.arange(len(c))
    losses = np.log(s[:, 0]) - shifted[rows, c]  # [M']
    loss = losses.sum() * per_row

    def pullback(dloss: Array) -> tuple[Array]:
        p = e / s  # [M', C]
        p[rows, c] -= 1
        dz = np.zeros_like(z)
        dz[labelled] = p * (dloss * per_row)
        return (dz.reshape(logits.shape),)

    return loss, pullback
