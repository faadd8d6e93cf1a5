"""GELU, the Gaussian error linear unit, in both forms that go by the name.

Source   Hendrycks & Gimpel 2016 §2; Devlin et al. 2019 A.2 ("we use a gelu activation rather than the standard
         relu"). The paper does not say which form. Google's code used erf until commit bee6030 (2019-02-07) and the
         tanh form since; Hugging Face's "gelu" is erf. They differ by up to 4.73e-4, near |x| = 2.70.
Shapes   x [...]  ->  y [...]

Equation, form "erf"
    y = x Φ(x),     Φ(x) = ½ (1 + erf(x/√2)),     the standard normal distribution function

    The code uses the same Φ(x) = ½ erfc(−x/√2), which keeps all its digits for negative x, where 1 + erf cancels.

    Gradient: Φ′(x) = φ(x) = e^{−x²/2}/√(2π), so   dy/dx = Φ(x) + x φ(x).

Equation, form "tanh"
    y = x T(x),     T(x) = ½ (1 + tanh u),     u = √(2/π) (x + 0.044715 x³)

    The code uses ½ (1 + tanh u) = 1/(1 + e^{−2u}) = exp(−log(e⁰ + e^{−2u})), again because 1 + tanh cancels.

    Gradient: T′ = ½ (1 − tanh² u) u′ = 2 T (1 − T) u′ with u′ = √(2/π) (1 + 3·0.044715 x²), so

        dy/dx = T + 2 x T (1 − T) u′,       1 − T = 1/(1 + e^{2u}) in the same way.
"""

from __future__ import annotations

import math

import numpy as np

from refbert.ops.types import Array, Pullback

FORMS = ("erf", "tanh")


def gelu(x: Array, *, form: str) -> tuple[Array, Pullback]:
    """y = x Φ(x); form "erf" is exact, "tanh" the approximation. Raises ValueError for another form."""
    if form == "erf":
        return _gelu_erf(x)
    if form == "tanh":
        return _gelu_tanh(x)
    raise ValueError(f'gelu has the forms {FORMS}, not "{form}"')


def _gelu_erf(x: Array) -> tuple[Array, Pullback]:
    from scipy.special import erfc  # here, because importing it takes longer than many runs

    Phi = 0.5 * erfc(-x / math.sqrt(2))
    y = x * Phi

    def pullback(dy: Array) -> tuple[Array]:
        phi = np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
        return (dy * (Phi + x * phi),)

    return y, pullback


def _gelu_tanh(x: Array) -> tuple[Array, Pullback]:
    c, a = math.sqrt(2 / math.pi), 0.044715
    u = c * (x + a * x * x * x)
    T = np.exp(-np.logaddexp(0, -2 * u))  # 1/(1 + e^{−2u}): logaddexp(0, z) is log(1 + e^z) without overflow
    one_minus_T = np.exp(-np.logaddexp(0, 2 * u))  # 1/(1 + e^{2u})
    y = x * T

    def pullback(dy: Array) -> tuple[Array]:
        u_prime = c * (1 + 3 * a * x * x)
        return (dy * (T + 2 * x * T * one_minus_T * u_prime),)

    return y, pullback
