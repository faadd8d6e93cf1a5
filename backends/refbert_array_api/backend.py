"""The operations of refbert.ops in nothing but the array API standard, 2023.12 or later.

Source   https://data-apis.org/array-api. What a library needs besides is in `library`, and none of it is arithmetic.

Nothing is written in place, no shape depends on a device's numbers, no function but asarray takes a Python scalar:
arrays may be immutable, lazy, or anywhere. Ids, masks and labels are the host's by contract, so NumPy plans and the
library computes; a truth value is a number unequal to 0. What the standard lacks is made of what it has:

    erf               the normal distribution's tail, below
    index-add         `_added`: sums over rows of equal index, by doubling
    scatter           `_rows_or_zero`: rows are taken, and a row of zeros where nothing is due
    take_along_axis   NumPy's comparison with its arange: the one-hot matrix

The tail of the normal distribution, for x ≥ 0
    1 − Φ(x) = φ(x) M(x),   φ(x) = e^{−x²/2}/√(2π),   M(x) = e^{x²/2} ∫_x^∞ e^{−t²/2} dt   (Mills' ratio)

    Φ(−x) = φ M keeps all its digits, where ½(1 + erf) cancels. M falls smoothly from √(π/2) to 1/x, so (x + k) M stays
    near 1, and as a function of τ = (x − k)/(x + k) = 1 − 2k/(x + k), which takes [0, ∞) to [−1, 1), it has a Chebyshev
    series that converges fast: for k = 3, 12 terms do in float32 and 24 in float64. The coefficients are cosine sums
    over M at the Chebyshev nodes. There M follows from Python's erfc, or where e^{x²/2} would magnify its rounding from
    Laplace's continued fraction, M = 1/(x + 1/(x + 2/(x + 3/(x + …)))).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.polynomial import chebyshev

from refbert_array_api.library import Library

Array = Any  # the library's
Host = npt.NDArray[Any]
Out = tuple[Array, Callable[[Array], tuple[Array, ...]]]

IGNORE = -100
SATURATED = 40.0  # from here on e^{−x²/2} < 10⁻³⁴⁷ is 0 in every dtype, and x² need not overflow


def _op(method: Callable[..., Out]) -> Callable[..., Out]:
    """An operation whose forward and pullback run under the library's settings, and give what is computed."""

    @functools.wraps(method)
    def run(self: ArrayApiBackend, *arrays: Array, **options: Any) -> Out:
        y, pullback = self._run(method, self, *arrays, **options)
        return self._computed(y), lambda dy: tuple(self._computed(one) for one in self._run(pullback, dy))

    return run


class ArrayApiBackend:
    """float32 (default) or float64, on a device that the library lists; ``argument`` is the name of its namespace."""

    name = "array-api"
    contract = 1  # the version of refbert's plugin contract
    dtypes: tuple[str, ...] = ("float32", "float64")
    argument = "the namespace of an array library, as torch or jax.numpy"

    def __init__(self, dtype: str | None = None, device: str | None = None, *, argument: str | None = None) -> None:
        self.name, self.dtype = f"{self.name}:{argument}", dtype or self.dtypes[0]
        library = self._library = Library.named(argument or "", self.dtype, device)
        self._xp, self.library, self.device = library.namespace, library.text, library.device_name
        self.compiles, self.arithmetic = library.compiles, {"flush_to_zero": library.flushes}

    def _run(self, f: Callable[..., Any], *arrays: Any, **options: Any) -> Any:
        with self._library.settings():
            return f(*arrays, **options)

    def _computed(self, x: Array) -> Array:
        """x as numbers, of a library that computes what is looked at, and each time anew: or a model's first layer
        would be computed again for every gradient that somebody reads."""
        return self.asarray(self.to_numpy(x)) if self._library.lazy else x

    def asarray(self, x: Any, /, dtype: str = "") -> Array:
        """A copy: whoever owns a host array may write there, and a library may go on reading what it was given."""
        dtype = dtype or self.dtype
        host, its_own = np.array(x, dtype, order="C"), getattr(self._xp, dtype)
        return self._run(self._library.asarray, host, dtype=its_own)

    def to_numpy(self, x: Array, /) -> Host:
        """The same memory where it is the host's."""
        host: Host = self._run(self._library.to_numpy, x)
        return host

    @_op
    def add(self, x: Array, z: Array) -> Out:
        """x + z."""
        _equal_shapes("add", x, z)
        return x + z, lambda dy: (self._copy(dy), self._copy(dy))

    def _copy(self, x: Array) -> Array:
        return self._xp.asarray(x, copy=True)

    @_op
    def reshape(self, x: Array, shape: tuple[int, ...]) -> Out:
        """The same entries in another shape."""
        y = self._copy(self._xp.reshape(x, tuple(shape)))
        return y, lambda dy: (self._copy(self._xp.reshape(dy, x.shape)),)

    @_op
    def transpose(self, x: Array, axes: tuple[int, ...]) -> Out:
        """Axes permuted."""
        inverse = tuple(sorted(range(len(axes)), key=axes.__getitem__))
        y = self._copy(self._xp.permute_dims(x, tuple(axes)))
        return y, lambda dy: (self._copy(self._xp.permute_dims(dy, inverse)),)

    def _rows(self, x: Array) -> Array:  # [..., H] -> [N, H]
        return self._xp.reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))

    def _taken(self, rows: Array, index: Host) -> Array:
        if 0 < len(index) in (1, rows.shape[0]):  # Dask (1) and cubed (N) give all rows: docs/findings.md
            return self._taken(rows, np.append(index, index[-1]))[: len(index), :]
        return self._xp.take(rows, self.asarray(index, "int64"), axis=0)

    def _rows_or_zero(self, rows: Array, index: Host) -> Array:
        """Rows of [N, H] at an index in 0 … N, where row N is zeros: what a scatter leaves, seen from its target."""
        zeros = self.asarray(np.zeros((1, rows.shape[1])))
        return self._taken(self._xp.concat([rows, zeros], axis=0), index)

    def _added(self, rows: Array, index: Host, count: int) -> Array:
        """Row v of the result [count, H] is the sum of the rows [N, H] whose index [N] is v; zeros where there is none.

        In the order of the index, equal ones are neighbours. After adding to each row the row before it, then the one
        two before, then four, …, as far as these have the same index, the last of a run holds the sum of the whole run:
        log₂ steps, and as many roundings. No sum reaches into another index's rows: nothing cancels, no NaN spreads.
        """
        N, order = len(index), np.argsort(index, kind="stable")
        index, places = index[order], np.arange(N)
        behind = places - np.searchsorted(index, index)  # how many of the same index come before
        rows, step = self._taken(rows, order), 1
        while step <= behind.max(initial=0):
            rows = rows + self._rows_or_zero(rows, np.where(behind >= step, places - step, N))
            step *= 2
        last = np.full(count, N)
        last[index] = places  # of equal ones, the last assignment stays
        return self._rows_or_zero(rows, last)

    @_op
    def embedding(self, table: Array, ids: Host) -> Out:
        """Rows of the table."""
        _check_range(ids, table.shape[0])
        index = np.asarray(ids).astype(np.int64).reshape(-1)
        y = self._xp.reshape(self._taken(table, index), (*ids.shape, table.shape[1]))
        return y, lambda dy: (self._added(self._rows(dy), index, table.shape[0]),)

    @_op
    def gather(self, x: Array, positions: Host) -> Out:
        """Rows of x, flattened."""
        y, pullback = self.embedding(self._rows(x), positions)
        return y, lambda dy: (self._xp.reshape(pullback(dy)[0], x.shape),)

    @_op
    def linear(self, x: Array, w: Array, b: Array) -> Out:
        """x wᵀ + b."""
        if x.shape[-1] != w.shape[1] or tuple(b.shape) != (w.shape[0],):
            raise ValueError(f"linear takes [..., I], [O, I], [O], not {[tuple(a.shape) for a in (x, w, b)]}")
        xp, rows = self._xp, self._rows(x)
        y = xp.reshape(rows @ xp.matrix_transpose(w) + b, (*x.shape[:-1], w.shape[0]))

        def pullback(dy: Array) -> tuple[Array, ...]:
            d = self._rows(dy)
            return xp.reshape(d @ w, x.shape), xp.matrix_transpose(d) @ rows, xp.sum(d, axis=0)

        return y, pullback

    @_op
    def layer_norm(self, x: Array, gamma: Array, beta: Array, *, eps: float) -> Out:
        """LayerNorm over the last axis."""
        xp, H = self._xp, x.shape[-1]

        def mean(x: Array) -> Array:
            return xp.sum(x, axis=-1, keepdims=True) / H

        d = x - mean(x)
        r = 1 / xp.sqrt(mean(d * d) + eps)
        xhat = d * r

        def pullback(dy: Array) -> tuple[Array, ...]:
            q = dy * gamma
            dx = r * (q - mean(q) - xhat * mean(q * xhat))
            return dx, xp.sum(self._rows(dy * xhat), axis=0), xp.sum(self._rows(dy), axis=0)

        return gamma * xhat + beta, pullback

    @_op
    def gelu(self, x: Array, *, form: str) -> Out:
        """GELU, form "erf" or "tanh"."""
        if form not in ("erf", "tanh"):
            raise ValueError(f'gelu has the forms "erf" and "tanh", not "{form}"')
        weight, slope = (self._normal if form == "erf" else self._logistic)(x)
        return x * weight, lambda dy: (dy * (weight + x * slope),)

    def _normal(self, x: Array) -> tuple[Array, Array]:
        """Φ and Φ′ = φ; the series by Horner's rule."""
        xp = self._xp
        a = xp.minimum(xp.abs(x), self.asarray(SATURATED))
        inverse = 1 / (a + CENTRE)
        tau = 1 - (2 * CENTRE) * inverse
        highest, *others, last = _series(self.dtype)
        total = highest * tau
        for c in others:
            total = (total + c) * tau
        phi = xp.exp(-0.5 * a * a) * (1 / math.sqrt(2 * math.pi))
        tail = phi * (total + last) * inverse
        return xp.where(x > 0, 1 - tail, tail), phi

    def _logistic(self, x: Array) -> tuple[Array, Array]:
        """T = 1/(1 + e^{−2u}) = ½(1 + tanh u), u = √(2/π)(x + 0.044715x³), and T′ = 2T(1 − T)u′."""
        xp, c, a = self._xp, math.sqrt(2 / math.pi), 0.044715
        x = xp.maximum(xp.minimum(x, self.asarray(SATURATED)), self.asarray(-SATURATED))
        u = c * (x + a * x * x * x)
        e = xp.exp(-2 * xp.abs(u))  # cannot overflow, and neither T nor 1 − T cancels
        small, large = e / (1 + e), 1 / (1 + e)
        T, rest = xp.where(u > 0, large, small), xp.where(u > 0, small, large)
        return T, 2 * T * rest * (c * (1 + 3 * a * x * x))

    @_op
    def relu(self, x: Array) -> Out:
        """max(0, x)."""
        y = self._xp.maximum(x, self.asarray(0.0))
        return y, lambda dy: (dy * self._xp.astype(x > 0, x.dtype),)

    @_op
    def tanh(self, x: Array) -> Out:
        """tanh x."""
        y = self._xp.tanh(x)
        return y, lambda dy: (dy * (1 - y) * (1 + y),)

    @_op
    def softmax(self, x: Array) -> Out:
        """Softmax over the last axis."""
        _, e, s = self._exponentials(x)
        p = e / s
        return p, lambda dp: (p * (dp - self._xp.sum(p * dp, axis=-1, keepdims=True)),)

    def _exponentials(self, x: Array) -> tuple[Array, Array, Array]:
        """x − max x, its exponential, and the sum of a row of these."""
        xp = self._xp
        greatest = xp.max if math.prod(x.shape) else xp.sum  # Dask's max fails without rows: docs/findings.md
        shifted = x - greatest(x, axis=-1, keepdims=True)
        e = xp.exp(shifted)
        return shifted, e, xp.sum(e, axis=-1, keepdims=True)

    @_op
    def dropout(self, x: Array, *, keep: Host, rate: float) -> Out:
        """x keep / (1 − rate)."""
        if not 0 <= rate < 1:
            raise ValueError(f"dropout rate must be in [0, 1), got {rate}")
        _equal_shapes("dropout", x, keep)
        kept = self.asarray(np.asarray(keep) != 0)  # a factor, not a choice: NaN stays NaN
        return x * kept / (1 - rate), lambda dy: (dy * kept / (1 - rate),)

    def _split(self, x: Array, heads: int) -> Array:  # [B, S, A·D] -> [B, A, S, D]
        B, S, H = x.shape
        if H % heads:
            raise ValueError(f"{H} features do not divide into {heads} heads")
        return self._xp.permute_dims(self._xp.reshape(x, (B, S, heads, H // heads)), (0, 2, 1, 3))

    def _merged(self, x: Array) -> Array:  # [B, A, S, D] -> [B, S, A·D]
        B, A, S, D = x.shape
        return self._xp.reshape(self._xp.permute_dims(x, (0, 2, 1, 3)), (B, S, A * D))

    @_op
    def attention_probabilities(self, q: Array, k: Array, *, mask: Host, heads: int, mask_value: float) -> Out:
        """softmax(q kᵀ/√D + mask) per head."""
        _equal_shapes("attention", q, k)
        xp, Q, K = self._xp, self._split(q, heads), self._split(k, heads)
        scale = 1 / math.sqrt(Q.shape[-1])
        scores = Q @ xp.matrix_transpose(K) * scale  # [B, A, S, S]
        seen = np.asarray(mask)[:, None, None, :] != 0  # [B, 1, 1, S]: the same keys for every head and query
        hide = mask_value == -math.inf
        scores = xp.where(self.asarray(seen) != 0, scores, self.asarray(mask_value) if hide else scores + mask_value)
        if hide:  # a row that sees nothing attends uniformly
            some = self.asarray(seen.any(axis=-1, keepdims=True)) != 0
            scores = xp.where(some, scores, self.asarray(0.0))
        p, softmax_back = self.softmax(scores)

        def pullback(dp: Array) -> tuple[Array, ...]:
            (ds,) = softmax_back(dp)
            return self._merged(ds @ K * scale), self._merged(xp.matrix_transpose(ds) @ Q * scale)

        return p, pullback

    @_op
    def attention(
        self, q: Array, k: Array, v: Array, *, mask: Host, heads: int, mask_value: float, keep: Host | None = None,
        rate: float = 0.0,
    ) -> Out:  # fmt: skip
        """Multi-head attention."""
        _equal_shapes("attention", q, v)
        p, probabilities_back = self.attention_probabilities(q, k, mask=mask, heads=heads, mask_value=mask_value)
        weight, dropout_back = (p, None) if keep is None else self.dropout(p, keep=keep, rate=rate)
        xp, V = self._xp, self._split(v, heads)

        def pullback(dy: Array) -> tuple[Array, ...]:
            dY = self._split(dy, heads)
            dp = dY @ xp.matrix_transpose(V)
            (dp,) = dropout_back(dp) if dropout_back else (dp,)
            return *probabilities_back(dp), self._merged(xp.matrix_transpose(weight) @ dY)

        return self._merged(weight @ V), pullback

    @_op
    def cross_entropy(self, logits: Array, labels: Host, *, denominator: float) -> Out:
        """Σ over labelled rows / denominator."""
        xp, C, labels = self._xp, logits.shape[-1], np.asarray(labels).reshape(-1)
        used = np.flatnonzero(labels != IGNORE)
        _check_range(labels[used], C)
        per_row = 1 / denominator if denominator else 0.0
        z = self._taken(self._rows(logits), used)  # [M, C], the rows that count
        its_own = self.asarray(labels[used, None] == np.arange(C)) != 0
        shifted, e, s = self._exponentials(z)
        picked = xp.sum(xp.where(its_own, shifted, self.asarray(0.0)), axis=-1, keepdims=True)

        def pullback(dloss: Array) -> tuple[Array, ...]:
            p, place = e / s, np.full(len(labels), len(used))
            place[used] = np.arange(len(used))
            dz = self._rows_or_zero(xp.where(its_own, p - 1, p) * (dloss * per_row), place)
            return (xp.reshape(dz, logits.shape),)

        return xp.sum(xp.log(s) - picked) * per_row, pullback

    @_op
    def mean_squared_error(self, x: Array, targets: Host, *, denominator: float) -> Out:
        """Σ (x − targets)² / denominator."""
        _equal_shapes("mean_squared_error", x, targets)
        per_row, difference = 1 / denominator if denominator else 0.0, x - self.asarray(targets)
        loss = self._xp.sum(difference * difference) * per_row
        return loss, lambda dloss: (difference * (dloss * (2 * per_row)),)

    def update(
        self, rule: str, p: Array, g: Array, m: Array, v: Array, *, scale: float, lr: float, beta1: float,
        beta2: float, eps: float, weight_decay: float, step: int,
    ) -> tuple[Array, Array, Array]:  # fmt: skip
        """Google's BERT Adam, AdamW or LAMB, of the gradient g·scale."""
        if rule not in ("bert_adam", "adamw", "lamb"):
            raise NotImplementedError(f'there is no update "{rule}"')
        if rule != "bert_adam" and step < 1:
            raise ValueError(f"step counts from 1, got {step}")
        bias1, bias2 = (1.0, 1.0) if rule == "bert_adam" else (1 - beta1**step, 1 - beta2**step)
        with self._library.settings():
            xp, g = self._xp, g * scale
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * g * g
            u = m / bias1 / (xp.sqrt(v / bias2) + eps) + weight_decay * p
            if rule == "lamb":
                ps, us, one = xp.sqrt(xp.sum(p * p)), xp.sqrt(xp.sum(u * u)), self.asarray(1.0)
                u = xp.where((ps > 0) & (us > 0), ps / xp.where(us > 0, us, one), one) * u
            p = p - lr * u
        return self._computed(p), self._computed(m), self._computed(v)

    def global_norm(self, gradients: Mapping[str, Array]) -> float:
        """The norm over all gradients."""
        squares = (self._run(lambda g: self._xp.sum(g * g), g) for g in gradients.values())
        return math.sqrt(sum(float(self.to_numpy(one)) for one in squares))


CENTRE = 3.0  # k: the x in the middle of the series, where τ = 0


@functools.cache
def _series(dtype: str) -> list[float]:
    """(x + k) M as a polynomial in τ, highest power first.

    c_i = 2/n Σ_j f(cos θ_j) cos(i θ_j), θ_j = (j + ½)π/n (half of it for i = 0), up to the last that matters in the
    dtype and is not itself the rounding of the sum. They fall faster than the powers' coefficients in T_i grow.
    """
    n, least = 64, max(float(np.finfo(dtype).eps) / 4, 2.0**-50)
    cosine = [math.cos(math.pi * i / (2 * n)) for i in range(4 * n)]
    nodes = [CENTRE * (1 + t) / (1 - t) for t in cosine[1 : 2 * n : 2]]
    values = [(x + CENTRE) * _mills_ratio(x) for x in nodes]
    c = [2 / n * math.fsum(f * cosine[i * (2 * j + 1) % (4 * n)] for j, f in enumerate(values)) for i in range(n)]
    return [float(a) for a in chebyshev.cheb2poly(chebyshev.chebtrim([c[0] / 2, *c[1:]], least))[::-1]]


def _mills_ratio(x: float) -> float:
    if x < 1:
        return math.sqrt(math.pi / 2) * math.exp(x * x / 2) * math.erfc(x / math.sqrt(2))
    fraction = x
    for n in range(30 + int(900 / (x * x)), 0, -1):  # leaves out some e^{−2x√(2n)} of it, below e^{−80}
        fraction = x + n / fraction
    return 1 / fraction


def _equal_shapes(what: str, x: Array | Host, z: Array | Host) -> None:
    if tuple(x.shape) != tuple(z.shape):
        raise ValueError(f"{what} needs equal shapes, got {tuple(x.shape)} and {tuple(z.shape)}")


def _check_range(index: Host, limit: int) -> None:
    """On the host, in its own integers: what libraries do with an index out of range is left open by the standard."""
    if index.dtype.kind not in "biu" and index.size:
        raise IndexError(f"an index must be an integer, got {index.dtype}")
    if index.size and not (int(index.min()) >= 0 and int(index.max()) < limit):
        raise IndexError(f"an index must be in [0, {limit}), got {int(index.min())} to {int(index.max())}")
