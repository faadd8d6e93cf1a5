"""What standards and makers of accelerators publish about the accuracy of their functions, as data.

A bound is in ULPs, against the exact result in float32: a number, or an expression of ``x``, the argument, and ``y``,
the exact result, where ``ulp(y)`` is the gap between float32 numbers at y. An absolute error e is e/ulp(y), a relative
error r·2⁻²³ is r*abs(y)/2**23/ulp(y). A function that is missing is one that the source says nothing about.

Where a source takes a function's accuracy from a formula ("inherited from sinh(x)/cosh(x)"), the bound here is at least
as wide as what the formula may give, to first order with the constants rounded up, and a comment derives it. In the
comments g = 2⁻²³: one ULP is at most g, relative to its number.

WGSL and Vulkan let + − × round either way, up to one ULP, and the derivations allow for it. The presets do not declare
it: a backend that does not round to nearest says so itself ("float32-truncated").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Preset:
    """Bounds on functions, in ULPs; also: what else of the arithmetic the source says."""

    source: str
    version: str
    functions: Mapping[str, float | str]
    also: Mapping[str, Any] = field(default_factory=dict)


# WGSL and Vulkan: within 2⁻²¹ for x in [0.5, 2], 3 ULP outside. Here the larger of the two for every x: 2⁻²¹ is 8 ULP
# at |y| = ln 2, where [0.5, 2] ends, and fewer than 3 from |y| = 2 on.
_LOG = "max(3, 1/2**21/ulp(y))"

# WGSL and Vulkan: 1/inverseSqrt(x). 2 ULP of the inverse root move the result by up to 2g, the division adds 2.5g:
# 4.5g, which is 9 ULP where y is just below a power of two.
_SQRT = "4.6*y/2**23/ulp(y)"

# WGSL and Vulkan: sinh(x)/cosh(x), each of them (exp(x) ∓ exp(−x))·0.5. exp is off by ε = (3 + 2|x|)g of itself. So
# sinh is off by ε·cosh + g·|sinh| (the subtraction), cosh by (ε + g)·cosh, and the division adds 2.5g:
#     |Δtanh| ≤ ε + g|y| + (ε + g)|y| + 2.5g|y| = ε(1 + |y|) + 4.5g|y|
# an absolute error that does not shrink with y: cancellation. Second-order terms are in 3.01 and 5. Holds for |x| ≤ 88;
# beyond, cosh(x) leaves the range in which the sources bound a division, [2⁻¹²⁶, 2¹²⁶], and then exp overflows.
_TANH = "((3.01 + 2*abs(x))*(1 + abs(y)) + 5*abs(y))/2**23/ulp(y)"

PRESETS: Mapping[str, Preset] = {
    "ieee": Preset(
        source=(
            "IEEE 754-2019, table 9.1 (recommended, correctly rounded) and 5.4.1 (division and square root, required); "
            "read in ISO WG14 N2373 and N2355, which list the operations of the table, "
            "https://www.open-std.org/jtc1/sc22/wg14/www/docs/n2373.pdf"
        ),
        version="2019",
        # The table has no erf. 1/x is a division.
        functions={
            "exp": 0.5,
            "log": 0.5,
            "tanh": 0.5,
            "sqrt": 0.5,
            "rsqrt": 0.5,
            "division": 0.5,
            "reciprocal": 0.5,
        },
    ),
    "cuda": Preset(
        source=(
            "NVIDIA, CUDA C++ Programming Guide, chapter 17, Mathematical Functions, table 17, "
            "https://docs.nvidia.com/cuda/cuda-c-programming-guide/#standard-functions; read in a copy of the guide. "
            '"Generated from extensive but not exhaustive tests", so not guaranteed'
        ),
        version="13.0, the guide's last",
        # The table counts from the correctly rounded result (expf 2, logf 1, tanhf 2, erff 2, rsqrtf 2, and 0 for the
        # others), which is itself half a ULP from the exact one. By default nvcc compiles with -prec-div=true,
        # -prec-sqrt=true and -ftz=false: IEEE division and square root, and subnormals are kept.
        functions={
            "exp": 2.5,
            "log": 1.5,
            "tanh": 2.5,
            "erf": 2.5,
            "sqrt": 0.5,
            "rsqrt": 2.5,
            "division": 0.5,
            "reciprocal": 0.5,
        },
    ),
    "opencl": Preset(
        source=(
            "Khronos, The OpenCL C Specification, Relative Error as ULPs, ULP Values for Single-Precision Built-in "
            "Math Functions (full profile), "
            "https://registry.khronos.org/OpenCL/specs/3.0-unified/html/OpenCL_C.html#relative-error-as-ulps"
        ),
        version="3.0.19, the same in 3.1.1",
        functions={
            "exp": 3,
            "log": 3,
            "tanh": 5,
            "erf": 16,
            "sqrt": 3,
            "rsqrt": 2,
            "division": 2.5,
            "reciprocal": 2.5,
        },
        also={"flush_to_zero": True},
    ),
    "opencl-fast-relaxed": Preset(
        source=(
            "Khronos, The OpenCL C Specification, Relative Error as ULPs, ULP Values for Single-Precision Built-in "
            "Math Functions With Unsafe Math Optimizations (full profile), which -cl-fast-relaxed-math turns on, "
            "https://registry.khronos.org/OpenCL/specs/3.0-unified/html/OpenCL_C.html#table-float-ulp-relaxed"
        ),
        version="3.0.19, the same in 3.1.1",
        functions={
            "exp": "3 + 2*abs(x)",  # the source: 3 + floor(|2x|)
            "log": _LOG,  # the same words as WGSL's
            # 8192, or derived: x itself for |x| ≤ 2⁻¹⁰, off by x²/3 of itself, 5.4 ULP; else
            # (exp(x) − exp(−x))/(exp(x) + exp(−x)), off by ε(1 + |y|) + 3.5g|y| as in _TANH, of which most ULPs, 3100,
            # are at the smallest |x|, 2⁻¹⁰.
            "tanh": 8192,
            # Not in the table of unsafe optimizations: erf, sqrt and rsqrt stay as they are.
            "erf": 16,
            "sqrt": 3,
            "rsqrt": 2,
            "division": 2.5,  # x and y in [2⁻⁶², 2⁶²]
            "reciprocal": 2.5,  # x in [2⁻¹²⁶, 2¹²⁶]
        },
        also={"flush_to_zero": True},
    ),
    "vulkan": Preset(
        source=(
            "Khronos, Vulkan Specification, appendix Vulkan Environment for SPIR-V, Precision and Operation of SPIR-V "
            "Instructions, https://registry.khronos.org/vulkan/specs/latest/html/vkspec.html#spirvenv-precision-operation"
        ),
        version="1.4.360, 14 August 2026",
        # No erf. 1/x is a division, bounded for divisors in [2⁻¹²⁶, 2¹²⁶].
        functions={
            "exp": "3 + 2*abs(x)",
            "log": _LOG,
            "tanh": _TANH,
            "sqrt": _SQRT,
            "rsqrt": 2,
            "division": 2.5,
            "reciprocal": 2.5,
        },
        also={"flush_to_zero": True},
    ),
    "webgpu": Preset(
        source=(
            "W3C, WebGPU Shading Language, Floating Point Accuracy, Accuracy of Concrete Floating Point Expressions, "
            "https://www.w3.org/TR/WGSL/#concrete-float-accuracy"
        ),
        version="editor's draft of 19 August 2026",
        # No erf. 1/x is a division, bounded for divisors in [2⁻¹²⁶, 2¹²⁶].
        functions={
            "exp": "3 + 2*abs(x)",
            "log": _LOG,
            "tanh": f"max(1e-5/ulp(y), {_TANH})",  # the worse of 10⁻⁵ and what is inherited
            "sqrt": _SQRT,
            "rsqrt": 2,
            "division": 2.5,
            "reciprocal": 2.5,
        },
        also={"flush_to_zero": True},
    ),
    "tosa-1.1": Preset(
        source=(
            "Arm, TOSA Specification, precision requirements of EXP, LOG, TANH, ERF, RSQRT, RECIPROCAL and MUL, "
            "https://github.com/arm/tosa-specification"
        ),
        version="1.1.0 draft of 7 August 2026; these bounds are the same in 1.0.2",
        # calcAbsErrorBound(y, k, low, 1) is 2⁻²³·max(k|y|, low, k·2⁻¹²⁶).
        functions={
            "exp": "(3 + 2*abs(x))*max(abs(y), 1/2**126)/2**23/ulp(y)",
            "log": "max(5*abs(y), 0.5)/2**23/ulp(y)",
            "tanh": "max(4*(3 + 2*abs(x))*abs(y), 0.5)/2**23/ulp(y)",
            "erf": 5,
            "sqrt": "3.1*y/2**23/ulp(y)",  # no such operator; RECIPROCAL(RSQRT(x)): 2g, then 1g
            "rsqrt": 2,
            "division": "1.6*abs(y)/2**23/ulp(y)",  # no such operator; MUL with RECIPROCAL: 1g, then g/2
            "reciprocal": 1,
        },
        also={"flush_to_zero": True},
    ),
    "tpu": Preset(
        source=(
            "JAX documentation, Numerical accuracy, float32, column TPU v2-v5e (default accuracy mode): the largest "
            "errors measured, over all arguments, https://docs.jax.dev/en/latest/accuracy.html"
        ),
        version="reviewed 18 September 2026",
        functions={
            "exp": 116,  # 1.5 with accuracy=HIGHEST
            "log": 4030.5,
            "tanh": 1365.5,
            "erf": 7.5,
            "sqrt": 3,
            "rsqrt": 2.5,
            # Not in the table. jax.lax.reciprocal is the division 1/x, and any other is taken for a product with it:
            # 198g, then g/2.
            "division": "199*abs(y)/2**23/ulp(y)",
            "reciprocal": 198,
        },
        also={"flush_to_zero": True},
    ),
}
