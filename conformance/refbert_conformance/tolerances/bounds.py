"""How far a backend may be from the reference, op by op: the one place where tolerances come from.

E is a bound on |ŷ − y| for inputs that both sides share bit for bit. It is derived, never tuned:

1. refbert.ops runs on `running_error.Tracked`, which bounds every step of the reference's own formula.
2. Where the field computes an op by another formula that is as honest, the difference is added; each such allowance is
   derived in `_OTHER_FORMULAS` below. A formula that loses more (the one-pass variance E[x²] − μ², softmax without the
   maximum) is not among them: a backend that uses it fails, and should.
3. The reference itself is computed in float64: E(1 + 2⁻⁵³/u) covers its own rounding, which scales as E does.
4. The result is stored in the backend's dtype: + u|y| + η.

ρ = max |ŷ − y|/E. ρ > 1 fails: under the declared arithmetic no order of summation explains it. Worst cases are rarely
met, a correct backend has ρ around 0.1 to 0.5 on short sums, and far less on long ones, where roundings cancel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from refbert import ops
from refbert.backend import Host
from refbert.backend.reference import rule_of
from refbert.ops.attention import merge_heads, split_heads
from refbert.ops.clip_by_global_norm import global_norm
from refbert_conformance.tolerances.arithmetic import Arithmetic, gamma
from refbert_conformance.tolerances.running_error import Tracked

Options = Mapping[str, Any]

# Rearrangements and selections: the very same numbers, so E = 0.
COPIES = ("reshape", "transpose", "relu")
# Ops whose forward only copies (their backwards add).
LOOKUPS = ("embedding", "gather")
UPDATES = ("bert_adam", "adamw", "lamb")


@dataclass(frozen=True)
class Expected:
    """The reference and the bound of one output, both float64; ``name`` is "y", or "d" and the argument's name."""

    name: str
    y: Host
    bound: Host


# The array arguments of every op with a pullback, in signature order.
ARRAYS: Mapping[str, tuple[str, ...]] = {
    "add": ("x", "z"),
    "reshape": ("x",),
    "transpose": ("x",),
    "embedding": ("table",),
    "gather": ("x",),
    "linear": ("x", "w", "b"),
    "layer_norm": ("x", "gamma", "beta"),
    "gelu": ("x",),
    "relu": ("x",),
    "tanh": ("x",),
    "softmax": ("x",),
    "attention_probabilities": ("q", "k"),
    "attention": ("q", "k", "v"),
    "dropout": ("x",),
    "cross_entropy": ("logits",),
    "mean_squared_error": ("x",),
}
# What comes of them, as messages call it: the result, then the cotangents.
OUTPUTS: Mapping[str, tuple[str, ...]] = {op: ("y", *(f"d{name}" for name in names)) for op, names in ARRAYS.items()}


def expected(
    op: str, arrays: Sequence[Host], options: Options, arithmetic: Arithmetic, dy: Host | None = None
) -> list[Expected]:
    """The op's result (and with ``dy`` the cotangents of its arrays): reference and bound, for inputs in float64."""
    y, pullback = expecting(op, arrays, options, arithmetic)
    return [y] if dy is None else [y, *pullback(dy)]


def expecting(
    op: str, arrays: Sequence[Host], options: Options, arithmetic: Arithmetic
) -> tuple[Expected, Callable[[Host], list[Expected]]]:
    """`expected` in the shape of an op: the result's reference and bound, and those of the cotangents for a dy."""
    function: Callable[..., Any] = getattr(ops, op)
    tracked = [Tracked(a, arithmetic=arithmetic) for a in arrays]
    with np.errstate(all="ignore"):
        y, back = function(*arrays, **options)
        y_tracked, back_tracked = (y, back) if op in COPIES else function(*tracked, **options)

    def bounded(dy: Host | None, reference: list[Host]) -> list[Expected]:
        """Of the result, and with dy of the cotangents too."""
        if op in COPIES:
            bounds = [np.zeros_like(t) for t in reference]
        else:
            results = [y_tracked, *(back_tracked(Tracked(dy, arithmetic=arithmetic)) if dy is not None else ())]
            bounds = [r.error for r in results]
            if op in _OTHER_FORMULAS:
                extra = _OTHER_FORMULAS[op](arrays, options, arithmetic, dy, results)
                bounds = [b + e for b, e in zip(bounds, extra, strict=True)]
            if op == "gelu":
                bounds = [_saturated(arrays[0], t, b, arithmetic) for t, b in zip(reference, bounds, strict=True)]
        exact = [op in COPIES or (op in LOOKUPS and i == 0) for i in range(len(reference))]
        return [
            Expected(name, t, np.zeros_like(t) if same else settled(t, b, arithmetic))
            for name, t, b, same in zip(OUTPUTS[op], reference, bounds, exact, strict=False)
        ]

    def pullback(dy: Host) -> list[Expected]:
        with np.errstate(all="ignore"):
            return bounded(dy, [y, *back(dy)])[1:]

    with np.errstate(all="ignore"):
        (of_y,) = bounded(None, [y])
    return of_y, pullback


def settled(y: Host, bound: Host, arithmetic: Arithmetic) -> Host:
    """Points 3 and 4 of the module's list: the reference's own rounding, and storing the result."""
    with np.errstate(all="ignore"):
        own = 2.0**-53 / min(arithmetic.u, arithmetic.u_step, arithmetic.u_accumulation)
        e = bound * (1 + own)
        e = e + arithmetic.rounding(arithmetic.u, abs(y) + e) + np.where((y == 0) & (e == 0), 0, arithmetic.underflow)
        return np.where(np.isfinite(e) & (abs(y) + e <= arithmetic.largest), e, np.inf)


def updated(rule: str, arrays: Sequence[Host], options: Options, arithmetic: Arithmetic) -> list[Expected]:
    """The optimizer update's new (p, m, v): reference and bound."""
    rates = {name: value for name, value in options.items() if name not in ("scale", "step")}
    function: Callable[..., Any] = rule_of(rule, options["step"])
    scale = options["scale"]
    p, g, m, v = arrays
    with np.errstate(all="ignore"):
        reference = function(p, g * scale, m, v, **rates)
        tracked = [Tracked(a, arithmetic=arithmetic) for a in arrays]
        if scale != 1:
            tracked[1] = tracked[1] * scale
        results = function(*tracked, **rates)
        bounds = [r.error for r in results]
        # m ← g + β₁(m − g) is the same number in one multiplication: its difference is rounded once.
        slack = arithmetic.gamma(2, arithmetic.u_step) * (abs(g * scale) + abs(m))
        bounds[1] = bounds[1] + slack * (1 - options["beta1"])
        # p(1 − lr λ) − lr m̂/(√v̂ + ε): the first factor is rounded before the difference; where the two parts nearly
        # cancel that is more than the rounding of the result.
        bounds[0] = bounds[0] + arithmetic.gamma(2, arithmetic.u_step) * abs(p)
    return [
        Expected(name, np.asarray(t), settled(np.asarray(t), b, arithmetic))
        for name, t, b in zip(("p", "m", "v"), reference, bounds, strict=True)
    ]


def normed(gradients: Mapping[str, Host], arithmetic: Arithmetic) -> Expected:
    """The norm over all gradients, n = √Σg².

    A sum of N terms gives a relative error of γ_N(u_acc), squares γ_1 and a root its own; where norms of tensors are
    joined, each is stored and squared again.
    """
    N = sum(g.size for g in gradients.values())
    n = np.asarray(global_norm(gradients))
    a = arithmetic
    u = max(a.u_accumulation, a.u_step)
    if a.varies("sqrt"):
        own = a.own("sqrt", n * n, n) + a.gamma(4, u) * n
    else:
        own = a.gamma(a.roundings("sqrt") + 4, u) * n
    return Expected("norm", n, settled(n, a.gamma(N, a.u_accumulation) * n + own, arithmetic))


def _none(results: Sequence[Tracked]) -> list[Any]:
    return [0.0] * len(results)


def _linear(arrays: Sequence[Host], options: Options, a: Arithmetic, dy: Host | None, results: Any) -> list[Any]:
    """b may come first: K more additions then round partial sums that hold it. γ_{K+1}(u_acc)|b|."""
    x, _, b = arrays
    return [a.gamma(x.shape[-1] + 1, a.u_accumulation) * abs(b), *_none(results[1:])]


def _gelu(arrays: Sequence[Host], options: Options, a: Arithmetic, dy: Host | None, results: Any) -> list[Any]:
    """x ½(1 + f) with f = erf or tanh, instead of erfc: 1 + f is off by f's own e_f and a rounding of numbers up to 2,
    absolutely, whatever is left of it: ½(e_f + 2u)|x|. The derivative has the same ½(1 + f), and in the tanh form
    x ½(1 − f²)u′ for 2xT(1 − T)u′: 1 − f² = (1 − f)(1 + f) is off by 2(e_f + u), times ½|x|u′."""
    (x,) = arrays
    cancelled = _half_off(x, options["form"], a)
    out: list[Any] = [cancelled * abs(x)]
    if dy is not None:
        slope = 1.0 if options["form"] == "erf" else math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
        near = options["form"] == "erf" or "tanh" in a.functions or abs(x) < _SATURATED
        out.append(abs(dy) * (cancelled + 2 * cancelled * abs(x) * np.where(near, slope, 0)))
    return out


def _half_off(x: Host, form: str, a: Arithmetic) -> Any:
    """How far ½(1 + f) may be off where it is computed so."""
    name = "erf" if form == "erf" else "tanh"
    if not a.varies(name):
        return gamma(a.roundings(name) + 2, a.u_step) / 2
    from scipy.special import erf

    at = x / math.sqrt(2) if name == "erf" else math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return (a.own(name, at, erf(at) if name == "erf" else np.tanh(at)) + gamma(2, a.u_step)) / 2


def _saturated(x: Host, y: Host, bound: Host, a: Arithmetic) -> Host:
    """From |x| = 40 on, GELU is x or 0 and its slope 1 or 0 in every dtype (e^{−x²/2} is below 10⁻³⁴⁷). On the way x²
    or x³ may overflow to ∞; exp, erf and tanh of it are exact, so that is no excuse, unless they are declared not to
    be."""
    if {"erf", "tanh", "exp"} & set(a.functions):
        return bound
    return np.where(abs(x) >= 40, a.gamma(2, a.u_step) * abs(y), bound)


# u = √(2/π)(x + 0.044715x³) is 24.6 at |x| = 8, where 1 − tanh u = 2e^{−2u} = 8·10⁻²²: tanh u is ±1 in every dtype, and
# 1 − f² is 0.
_SATURATED = 8.0


def _cross_entropy(arrays: Sequence[Host], options: Options, a: Arithmetic, dy: Host | None, results: Any) -> list[Any]:
    """lse(z) − z_c with lse = m + log s rounded before the difference: u(|m| + |z_c| + 2|lse|) per row."""
    (z,) = arrays
    rows = z.reshape(-1, z.shape[-1])
    labels = np.asarray(options["labels"]).reshape(-1)
    used = labels != ops.IGNORE
    if not used.any() or not options["denominator"]:
        return _none(results)
    rows, c = rows[used], labels[used]
    m = rows.max(axis=-1)
    lse = m + np.log(np.exp(rows - m[:, None]).sum(axis=-1))
    per_row = a.gamma(2, a.u_step) * (abs(m) + abs(rows[np.arange(len(c)), c]) + 2 * abs(lse))
    scale = 1 / abs(options["denominator"])
    out: list[Any] = [per_row.sum() * scale]
    if dy is not None:  # p = e^{z − lse}: the exponent is off by as much
        p = np.exp(rows - lse[:, None])
        dz = np.zeros(z.reshape(-1, z.shape[-1]).shape)
        own = a.own("exp", rows - lse[:, None], p) if a.varies("exp") else 0.0
        dz[used] = (p * np.expm1(per_row)[:, None] + own) * abs(dy) * scale
        out.append(dz.reshape(z.shape))
    return out


def _attention(arrays: Sequence[Host], options: Options, a: Arithmetic, dy: Host | None, results: Any) -> list[Any]:
    """Kernels that never store p (Dao et al. 2022, FlashAttention, Algorithm 4) rescale running sums in the forward,
    and in the backward use p = e^{s − lse} and t_i = dy_i · y_i for t_i = Σ_j p_ij dp_ij.

    Forward: y accumulates unnormalised and is divided at the end, once more than p v, per block of keys:
    γ_S(u_acc)Σp|v|.
    Backward: t is off by the error of the stored y and of a dot product over D, Σ_d |dy|(E_y + γ_D(u_acc)|y|); it
    enters ds = p(dp − t), then dq and dk as the products with k and q. s is rounded before lse is taken away, which the
    tracked s − max already pays for. An exponential whose own error grows with its argument is off by more there, too.
    """
    q, k, v = arrays
    heads, keep = options["heads"], options.get("keep")
    mask = {name: options[name] for name in ("mask", "heads", "mask_value")}
    p, _ = ops.attention_probabilities(q, k, **mask)
    weight = p if keep is None else p * keep.astype(bool) / (1 - options["rate"])
    S, D = q.shape[1], q.shape[-1] // heads
    size = merge_heads(weight @ split_heads(abs(v), heads))
    out: list[Any] = [a.gamma(S, a.u_accumulation) * size]
    if dy is None:
        return out
    E_y = results[0].error + out[0] + a.u * abs(results[0].value)
    of_y = a.added(split_heads(abs(dy) * E_y, heads), axis=-1, keepdims=True)
    dot = split_heads(abs(dy * results[0].value), heads).sum(axis=-1, keepdims=True)
    dt = a.joined(of_y, a.gamma(D, a.u_accumulation) * dot)  # [B, A, S, 1]
    ds = p * dt / math.sqrt(D)  # [B, A, S, S]
    dv: Any = 0.0
    if a.varies("exp"):
        kept = 1.0 if keep is None else keep.astype(bool) / (1 - options["rate"])
        own = a.own("exp", np.log(np.maximum(p, np.finfo(np.float64).tiny)), p)
        dp = kept * (split_heads(abs(dy), heads) @ split_heads(abs(v), heads).swapaxes(-1, -2))
        ds = ds + own * (dp + dot) / math.sqrt(D)
        dv = merge_heads((own * kept).swapaxes(-1, -2) @ split_heads(abs(dy), heads))
    dq = merge_heads(a.products(ds, split_heads(abs(k), heads)))
    dk = merge_heads(a.products(ds.swapaxes(-1, -2), split_heads(abs(q), heads)))
    return [*out, dq, dk, dv]


_OTHER_FORMULAS: Mapping[str, Callable[..., list[Any]]] = {
    "linear": _linear, "gelu": _gelu, "cross_entropy": _cross_entropy, "attention": _attention,
}  # fmt: skip
