"""The fused CUDA kernels, and how they are launched.

Every kernel does its arithmetic in ``wide`` (float64 for float64, float32 for float32 and float16) and rounds once, on
the way out, to ``scalar``, the dtype of the arrays. Row kernels run one block per row: each thread walks the row in
steps of the block, and a tree in shared memory adds up what the threads found, in the same order every time.

The formulas are those of refbert.ops; read them there.
"""

from __future__ import annotations

import functools
from typing import Any

import cupy
import numpy as np

# dtype of the arrays -> the dtype that the arithmetic is done in
WIDE = {"float64": "float64", "float32": "float32", "float16": "float32"}

# Lanes per block for elementwise kernels, and the most that a row gets. The shared arrays below have this size.
THREADS = 256

_PLAIN = """
__device__ inline wide widen(scalar v) { return v; }
__device__ inline scalar narrow(wide v) { return v; }
"""

# float16 as its 16 bits, converted by the two instructions themselves: no header has to be found at run time.
HALF = """
__device__ inline float widen(unsigned short v) {
    float w;
    asm("cvt.f32.f16 %0, %1;" : "=f"(w) : "h"(v));
    return w;
}
__device__ inline unsigned short narrow(float v) {
    unsigned short h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(v));
    return h;
}
"""

_PRELUDE = {
    "float64": "typedef double scalar;\ntypedef double wide;\n" + _PLAIN,
    "float32": "typedef float scalar;\ntypedef float wide;\n" + _PLAIN,
    "float16": "typedef unsigned short scalar;\ntypedef float wide;\n" + HALF,
}

_KERNELS = (
    f"#define THREADS {THREADS}\n"
    + """
// The sum (the largest) of every thread's value, known to every thread. blockDim.x is a power of two.
__device__ inline wide block_sum(wide value) {
    __shared__ wide parts[THREADS];
    parts[threadIdx.x] = value;
    __syncthreads();
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) parts[threadIdx.x] += parts[threadIdx.x + half];
        __syncthreads();
    }
    wide total = parts[0];
    __syncthreads();  // nobody may write the next call's parts before everybody has read this total
    return total;
}

__device__ inline wide block_max(wide value) {
    __shared__ wide parts[THREADS];
    parts[threadIdx.x] = value;
    __syncthreads();
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) parts[threadIdx.x] = fmax(parts[threadIdx.x], parts[threadIdx.x + half]);
        __syncthreads();
    }
    wide largest = parts[0];
    __syncthreads();
    return largest;
}

#define EACH_ENTRY(i, n) \\
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (long long)gridDim.x * blockDim.x)
#define ROW ((long long)blockIdx.x)
#define EACH_COLUMN(j, n) for (long long j = threadIdx.x; j < n; j += blockDim.x)

// Phi(x), the standard normal distribution function, and phi(x), its density.
__device__ inline wide normal_cdf(wide x) { return (wide)0.5 * erfc(x * (wide)-0.70710678118654752440); }
__device__ inline wide normal_pdf(wide x) { return exp((wide)-0.5 * x * x) * (wide)0.39894228040143267794; }

// T(x) = (1 + tanh u)/2 = 1/(1 + e^(-2u)), u = c (x + a x^3); 1 - T is the same of -u, without cancellation.
#define TANH_C ((wide)0.79788456080286535588)
#define TANH_A ((wide)0.044715)
__device__ inline wide tanh_u(wide x) { return TANH_C * (x + TANH_A * x * x * x); }
__device__ inline wide logistic(wide w) {
    wide e = exp(w < 0 ? w : -w);
    return (w < 0 ? e : 1) / (1 + e);
}

// A score as the softmax sees it; the codes are those of refbert_cupy.backend.mask_codes.
__device__ inline wide masked(wide score, unsigned char code, wide mask_value) {
    switch (code) {
        case 0: return score + mask_value;
        case 1: return score;
        case 2: return mask_value;
        default: return 0;
    }
}

extern "C" {

__global__ void gelu_erf(const scalar* x, scalar* y, long long n) {
    EACH_ENTRY(i, n) {
        wide v = widen(x[i]);
        y[i] = narrow(v * normal_cdf(v));
    }
}

__global__ void gelu_erf_back(const scalar* x, const scalar* dy, scalar* dx, long long n) {
    EACH_ENTRY(i, n) {
        wide v = widen(x[i]);
        dx[i] = narrow(widen(dy[i]) * (normal_cdf(v) + v * normal_pdf(v)));
    }
}

__global__ void gelu_tanh(const scalar* x, scalar* y, long long n) {
    EACH_ENTRY(i, n) {
        wide v = widen(x[i]);
        y[i] = narrow(v * logistic(2 * tanh_u(v)));
    }
}

__global__ void gelu_tanh_back(const scalar* x, const scalar* dy, scalar* dx, long long n) {
    EACH_ENTRY(i, n) {
        wide v = widen(x[i]);
        wide u = tanh_u(v), T = logistic(2 * u), one_minus_T = logistic(-2 * u);
        wide slope = TANH_C * (1 + 3 * TANH_A * v * v);
        dx[i] = narrow(widen(dy[i]) * (T + 2 * v * T * one_minus_T * slope));
    }
}

__global__ void layer_norm(
    const scalar* x, const scalar* gamma, const scalar* beta, scalar* y, wide* mean, wide* r, long long H, double eps
) {
    x += ROW * H;
    y += ROW * H;
    wide sum = 0;
    EACH_COLUMN(j, H) sum += widen(x[j]);
    wide mu = block_sum(sum) / H;
    wide squares = 0;
    EACH_COLUMN(j, H) {
        wide d = widen(x[j]) - mu;
        squares += d * d;
    }
    wide scale = 1 / sqrt(block_sum(squares) / H + (wide)eps);
    EACH_COLUMN(j, H) y[j] = narrow(widen(gamma[j]) * ((widen(x[j]) - mu) * scale) + widen(beta[j]));
    if (threadIdx.x == 0) {
        mean[ROW] = mu;
        r[ROW] = scale;
    }
}

// Also dy xhat, entry by entry: its column sums are dgamma.
__global__ void layer_norm_back(
    const scalar* x, const scalar* gamma, const scalar* dy, const wide* mean, const wide* r, scalar* dx, wide* dgammas,
    long long H
) {
    x += ROW * H;
    dy += ROW * H;
    dx += ROW * H;
    dgammas += ROW * H;
    wide mu = mean[ROW], scale = r[ROW];
    wide sum_q = 0, sum_qx = 0;
    EACH_COLUMN(j, H) {
        wide xhat = (widen(x[j]) - mu) * scale;
        wide q = widen(dy[j]) * widen(gamma[j]);
        sum_q += q;
        sum_qx += q * xhat;
        dgammas[j] = widen(dy[j]) * xhat;
    }
    wide mean_q = block_sum(sum_q) / H, mean_qx = block_sum(sum_qx) / H;
    EACH_COLUMN(j, H) {
        wide xhat = (widen(x[j]) - mu) * scale;
        dx[j] = narrow(scale * (widen(dy[j]) * widen(gamma[j]) - mean_q - xhat * mean_qx));
    }
}

// Row i of x belongs to row i / rows_per_code of codes.
__global__ void softmax(
    const scalar* x, const unsigned char* codes, scalar* p, long long C, long long rows_per_code, double scale,
    double mask_value
) {
    x += ROW * C;
    p += ROW * C;
    codes += ROW / rows_per_code * C;
    wide largest = masked(widen(x[0]) * (wide)scale, codes[0], (wide)mask_value);
    EACH_COLUMN(j, C) largest = fmax(largest, masked(widen(x[j]) * (wide)scale, codes[j], (wide)mask_value));
    wide m = block_max(largest);
    wide sum = 0;
    EACH_COLUMN(j, C) sum += exp(masked(widen(x[j]) * (wide)scale, codes[j], (wide)mask_value) - m);
    wide s = block_sum(sum);
    EACH_COLUMN(j, C) p[j] = narrow(exp(masked(widen(x[j]) * (wide)scale, codes[j], (wide)mask_value) - m) / s);
}

__global__ void softmax_back(const scalar* p, const scalar* dp, scalar* dx, long long C, double scale) {
    p += ROW * C;
    dp += ROW * C;
    dx += ROW * C;
    wide sum = 0;
    EACH_COLUMN(j, C) sum += widen(p[j]) * widen(dp[j]);
    wide t = block_sum(sum);
    EACH_COLUMN(j, C) dx[j] = narrow(widen(p[j]) * (widen(dp[j]) - t) * (wide)scale);
}

// A negative label: the row does not count.
__global__ void cross_entropy(
    const scalar* z, const long long* labels, wide* losses, wide* maxima, wide* sums, long long C
) {
    z += ROW * C;
    long long label = labels[ROW];
    if (label < 0) {  // the whole block takes this way: nobody is left waiting at a barrier
        if (threadIdx.x == 0) losses[ROW] = maxima[ROW] = sums[ROW] = 0;
        return;
    }
    wide largest = widen(z[0]);
    EACH_COLUMN(j, C) largest = fmax(largest, widen(z[j]));
    wide m = block_max(largest);
    wide sum = 0;
    EACH_COLUMN(j, C) sum += exp(widen(z[j]) - m);
    wide s = block_sum(sum);
    if (threadIdx.x == 0) {
        losses[ROW] = log(s) - (widen(z[label]) - m);
        maxima[ROW] = m;
        sums[ROW] = s;
    }
}

__global__ void cross_entropy_back(
    const scalar* z, const long long* labels, const wide* maxima, const wide* sums, const scalar* dloss, scalar* dz,
    long long C, double per_row
) {
    z += ROW * C;
    dz += ROW * C;
    long long label = labels[ROW];
    wide m = maxima[ROW], s = sums[ROW], weight = widen(dloss[0]) * (wide)per_row;
    EACH_COLUMN(j, C) {
        wide p = label < 0 ? (wide)0 : exp(widen(z[j]) - m) / s;
        dz[j] = narrow(label < 0 ? (wide)0 : (p - (j == label ? 1 : 0)) * weight);
    }
}

}
"""
)


def source(dtype: str) -> str:
    """The CUDA source for arrays of a dtype; complete in itself."""
    return _PRELUDE[dtype] + _KERNELS


@functools.cache
def _kernel(dtype: str, name: str) -> Any:
    return cupy.RawModule(code=source(dtype), options=("-std=c++17",)).get_function(name)


def per_entry(name: str, arrays: tuple[Any, ...], n: int) -> None:
    """Launch an elementwise kernel over n entries; the dtype is that of the first array."""
    if n:
        blocks = min(-(-n // THREADS), 2**16)  # each block strides over the rest
        _kernel(str(arrays[0].dtype), name)((blocks,), (THREADS,), (*arrays, np.int64(n)))


def per_row(name: str, arrays: tuple[Any, ...], rows: int, columns: int, *scalars: int | float) -> None:
    """Launch a row kernel; the kernel gets the arrays, the number of columns, and the scalars (int64 or float64)."""
    if not rows or not columns:
        return
    threads = min(THREADS, max(32, 1 << (columns - 1).bit_length()))
    # Sized scalars: a Python number's C type is CuPy's choice.
    sized = tuple(np.int64(s) if isinstance(s, int) else np.float64(s) for s in (columns, *scalars))
    _kernel(str(arrays[0].dtype), name)((rows,), (threads,), (*arrays, *sized))
