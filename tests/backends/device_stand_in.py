"""A stand-in for CuPy on machines without a GPU: it computes with NumPy, and refuses what CuPy refuses.

It is not a GPU, and nothing that passes here has run on one: the version says "stand-in", and so does the library
line of a backend built on it. What it is for:

- Arrays are of a class of their own. NumPy cannot convert them, and they do not mix with NumPy arrays, except where
  CuPy takes those (as an index). NumPy's functions reach them only through the dispatch protocols, only if they are
  listed in UFUNCS or FUNCTIONS, and `test_cupy.py` checks that the installed CuPy has all of these and every method.
  NumPy scalars are refused outright: they promote differently in CuPy 13 and 14.
- Work outside ``with Device(...)`` is an error; in CuPy it would happen on whichever device is current.
- ``empty`` is full of NaN, indices outside the array wrap around, and a maximum of no entries is an error, as in CuPy.
- CUDA kernels are run, not replaced: their source is compiled by the C++ compiler, with one fiber per CUDA thread and
  barriers that are checked. Every launch runs twice, threads in ascending and in descending order between barriers,
  and both runs must agree to the bit, which they do not if a barrier is missing. Arguments are checked against the
  kernel's parameter list, buffers have guard zones, inputs must come out unchanged. Only the two float16 conversion
  instructions are replaced, and of course the CPU's `exp` is not the GPU's.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import re
import shutil
import subprocess
import tempfile
import threading
import types
from pathlib import Path

import numpy as np

# NumPy ufuncs that may reach a device array, by name, as CuPy's __array_ufunc__ looks them up.
UFUNCS = ("add", "subtract", "multiply", "divide", "maximum", "sqrt", "exp", "tanh", "matmul", "greater")
# NumPy functions that may reach it through __array_function__.
FUNCTIONS = ("zeros_like",)
# What a NumPy scalar is not: these mix with arrays in every version of CuPy without changing their dtype.
SCALARS = (bool, int, float)

_current = threading.local()  # its depth: how many `with Device(...)` this thread is in


def _working():
    if not _current.__dict__.get("depth"):
        raise AssertionError("work on device arrays outside `with Device(...)`")


def _own(x):
    return DeviceArray(np.asarray(x))


def _operand(x):
    if isinstance(x, DeviceArray):
        return x._a
    if type(x) in SCALARS:
        return x
    raise TypeError(f"Unsupported type {type(x)}")


def _index(index, shape):
    """The index as NumPy's; a single whole-number array wraps around, as in CuPy."""
    parts = index if isinstance(index, tuple) else (index,)
    parts = tuple(p._a if isinstance(p, DeviceArray) else p for p in parts)
    if len(parts) == 1 and isinstance(parts[0], np.ndarray) and parts[0].dtype.kind in "iu" and shape[0]:
        return parts[0] % shape[0]
    return parts if isinstance(index, tuple) else parts[0]


def _wide(a):
    """CuPy reduces and multiplies float16 in float32."""
    return a.astype(np.float32) if a.dtype == np.float16 else a


def _apply(name, *inputs):
    _working()
    if name not in UFUNCS:
        raise TypeError(f"the stand-in does not know the ufunc {name}")
    arrays = [_operand(x) for x in inputs]
    if name == "matmul":
        x, z = arrays
        if x.ndim == z.ndim == 2 and len(x) * z.shape[1] == 1:  # as in CuPy's tensordot_core: terms, then their sum
            return _own(_wide(x.ravel() * z.ravel()).sum().astype(np.result_type(x, z)).reshape(1, 1))
        return _own((_wide(x) @ _wide(z)).astype(np.result_type(x, z)))
    return _own(getattr(np, name)(*arrays))


class DeviceArray:
    """What stands in for cupy.ndarray."""

    __array_priority__ = 100

    def __init__(self, a):
        self._a = a

    shape = property(lambda self: self._a.shape)
    dtype = property(lambda self: self._a.dtype)
    ndim = property(lambda self: self._a.ndim)
    size = property(lambda self: self._a.size)

    @property
    def T(self):
        return _own(self._a.T)

    def __array__(self, dtype=None, copy=None):
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        if method == "at" and ufunc.__name__ == "add" and not options:
            _working()
            target, index, values = inputs
            np.add.at(_operand(target), _index(index, target.shape), _operand(values))
            return None
        if method != "__call__" or options:
            return NotImplemented
        return _apply(ufunc.__name__, *inputs)

    def __array_function__(self, function, types, args, options):
        if function.__name__ not in FUNCTIONS:
            return NotImplemented
        return globals()[f"_{function.__name__}"](*args, **options)

    # Methods: each must exist on cupy.ndarray.

    def reshape(self, *shape):
        _working()
        return _own(self._a.reshape(*shape))

    def transpose(self, *axes):
        _working()
        return _own(self._a.transpose(*axes))

    def swapaxes(self, a, b):
        _working()
        return _own(self._a.swapaxes(a, b))

    def copy(self):
        _working()
        return _own(self._a.copy())

    def astype(self, dtype, copy=True):
        _working()
        return self if not copy and self._a.dtype == dtype else _own(self._a.astype(dtype))

    def sum(self, axis=None, keepdims=False):
        _working()
        return _own(_wide(self._a).sum(axis=axis, keepdims=keepdims).astype(self._a.dtype))

    def max(self, axis=None, keepdims=False):
        _working()
        if self._a.size == 0:
            raise ValueError("zero-size array to reduction operation cupy_max which has no identity")
        return _own(self._a.max(axis=axis, keepdims=keepdims))

    def __len__(self):
        return len(self._a)

    def __bool__(self):
        return bool(self._a)

    def __int__(self):
        return int(self._a)

    def __float__(self):
        return float(self._a)

    def __getitem__(self, index):
        _working()
        return _own(self._a[_index(index, self.shape)])

    def __setitem__(self, index, value):
        _working()
        self._a[_index(index, self.shape)] = _operand(value)

    def __neg__(self):
        _working()
        return _own(-self._a)


def _operators():
    def forward(name):
        return lambda self, other: _apply(name, self, other)

    def backward(name):
        return lambda self, other: _apply(name, other, self)

    for dunder, name in {
        "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "matmul": "matmul",
    }.items():  # fmt: skip
        setattr(DeviceArray, f"__{dunder}__", forward(name))
        setattr(DeviceArray, f"__r{dunder}__", backward(name))
    DeviceArray.__gt__ = forward("greater")


_operators()


# Functions of the module


def _asarray(x):
    _working()
    if not isinstance(x, np.ndarray):
        raise TypeError(f"the backend hands NumPy arrays to cupy.asarray, not {type(x)}")
    return DeviceArray(x.copy(order="K"))  # CuPy keeps the memory order, too


def _asnumpy(x):
    if not isinstance(x, DeviceArray):
        raise TypeError(f"the backend hands device arrays to cupy.asnumpy, not {type(x)}")
    return x._a.copy()


def _empty(shape, dtype):
    _working()
    a = np.empty(shape, dtype)
    a.fill(np.nan if a.dtype.kind == "f" else 99)
    return DeviceArray(a)


def _ones(shape, dtype):
    _working()
    return DeviceArray(np.ones(shape, dtype))


def _zeros_like(x):
    _working()
    return DeviceArray(np.zeros_like(x._a))


def _stack(arrays):
    _working()
    return DeviceArray(np.stack([x._a for x in arrays]))


def _ascontiguousarray(x):
    _working()
    return x if x._a.flags.c_contiguous else DeviceArray(np.ascontiguousarray(x._a))


# Devices


class CUDARuntimeError(RuntimeError):
    """What CuPy raises when the CUDA runtime fails."""


class CompileException(Exception):
    """What CuPy raises when NVRTC refuses a source."""


class Device:
    """What stands in for cupy.cuda.Device."""

    def __init__(self, device):
        self.id = device

    def __enter__(self):
        _current.depth = _current.__dict__.get("depth", 0) + 1
        return self

    def __exit__(self, *error):
        _current.depth -= 1


def module(*, devices=1, failure=None, driver=12090):
    """A module to put into sys.modules as ``cupy``. ``failure``: what counting the devices dies of."""

    def count():
        if failure:
            raise CUDARuntimeError(failure)
        return devices

    runtime = types.SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError,
        getDeviceCount=count,
        driverGetVersion=lambda: driver,
        runtimeGetVersion=lambda: 12090,
        getDeviceProperties=lambda index: {"name": b"stand-in (NumPy, no GPU)"},
    )
    cupy = types.ModuleType("cupy")
    cupy.__version__ = "stand-in"
    cupy.ndarray = DeviceArray
    cupy.asarray, cupy.asnumpy, cupy.ascontiguousarray = _asarray, _asnumpy, _ascontiguousarray
    cupy.empty, cupy.ones, cupy.stack, cupy.zeros_like = _empty, _ones, _stack, _zeros_like
    cupy.RawModule = RawModule
    cupy.cuda = types.SimpleNamespace(
        Device=Device, runtime=runtime, compiler=types.SimpleNamespace(CompileException=CompileException)
    )
    return cupy


# Kernels

_SHIM = r"""
#include <cmath>
#include <cstring>
#include <functional>
#include <ucontext.h>
#include <vector>
using std::erfc; using std::exp; using std::fmax; using std::log; using std::sqrt;
#define __global__
#define __device__
#define __shared__ static
struct Extent { unsigned x; };
static Extent threadIdx, blockIdx, blockDim, gridDim;

enum State { ready, waiting, done };
struct Fiber { ucontext_t context; std::vector<char> stack; State state; };
static std::vector<Fiber> fibers;
static ucontext_t scheduler;
static unsigned current;
static std::function<void()> body;

static void leave(State state) {
    fibers[current].state = state;
    swapcontext(&fibers[current].context, &scheduler);
}
static void __attribute__((noinline)) __syncthreads() {
    unsigned me = current;
    leave(waiting);
    current = me;
    threadIdx.x = me;
}
static void enter() { body(); leave(done); }

// 0, or 1 if some threads reached a barrier and others did not.
static int run(long long blocks, unsigned threads, int descending) {
    gridDim.x = blocks; blockDim.x = threads;
    if (fibers.size() < threads) fibers.resize(threads);
    for (long long b = 0; b < blocks; b++) {
        blockIdx.x = b;
        for (unsigned t = 0; t < threads; t++) {
            Fiber& f = fibers[t];
            f.stack.resize(1 << 15);
            getcontext(&f.context);
            f.context.uc_stack.ss_sp = f.stack.data();
            f.context.uc_stack.ss_size = f.stack.size();
            f.context.uc_link = &scheduler;
            makecontext(&f.context, enter, 0);
            f.state = ready;
        }
        for (unsigned finished = 0; finished < threads;) {
            finished = 0;
            for (unsigned i = 0; i < threads; i++) {
                current = descending ? threads - 1 - i : i;
                threadIdx.x = current;
                swapcontext(&scheduler, &fibers[current].context);
            }
            for (unsigned t = 0; t < threads; t++) finished += fibers[t].state == done;
            if (finished && finished < threads) return 1;
        }
    }
    return 0;
}
"""

_HALF = r"""
inline float widen(unsigned short v) { _Float16 h; std::memcpy(&h, &v, 2); return h; }
inline unsigned short narrow(float v) { _Float16 h = v; unsigned short u; std::memcpy(&u, &h, 2); return u; }
"""

_NUMBERS = {"long long": np.int64, "double": np.float64}
_GUARD = 64  # bytes either side of every buffer


def compiler():
    """The path of a C++ compiler, or None."""
    return shutil.which("g++")


@functools.cache
def _build(code):
    """(library, {kernel: [(C type, const, pointer)]}) of a CUDA source."""
    from refbert_cupy import kernels

    kinds = {name: kind for kind, name in re.findall(r"typedef (.+?) (scalar|wide);", code)}
    signatures, wrappers = {}, []
    for name, text in re.findall(r"__global__ void (\w+)\(([^)]*)\)", code):
        parameters = []
        for parameter in text.split(","):
            const, kind, star = re.fullmatch(r"\s*(const )?(.+?)(\*?) \w+\s*", parameter).groups()
            parameters.append((kinds.get(kind, kind), bool(const), bool(star)))
        signatures[name] = parameters
        arguments = ", ".join(
            f"({kind}*)a[{i}]" if star else f"*({kind}*)a[{i}]" for i, (kind, _, star) in enumerate(parameters)
        )
        wrappers.append(
            f'extern "C" int run_{name}(long long blocks, unsigned threads, int descending, void** a) {{\n'
            f"    body = [=] {{ {name}({arguments}); }};\n    return run(blocks, threads, descending);\n}}\n"
        )
    text = _SHIM + code.replace(kernels.HALF, _HALF) + "".join(wrappers)
    folder = Path(tempfile.mkdtemp(prefix="device-stand-in-"))
    stem = folder / hashlib.sha256(text.encode()).hexdigest()[:16]
    stem.with_suffix(".cpp").write_text(text, encoding="utf-8")
    subprocess.run(
        [compiler(), "-std=c++17", "-O1", "-ffp-contract=off", "-fPIC", "-shared", "-o", f"{stem}.so", f"{stem}.cpp"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    library = ctypes.CDLL(f"{stem}.so")
    shutil.rmtree(folder)
    return library, signatures


class RawModule:
    """What stands in for cupy.RawModule."""

    def __init__(self, *, code, options=()):
        self._code = code

    def get_function(self, name):
        library, signatures = _build(self._code)
        return functools.partial(_launch, getattr(library, f"run_{name}"), signatures[name], name)


_stream = threading.Lock()  # kernels run one after the other, as on CuPy's one default stream


def _launch(function, parameters, name, grid, block, arguments):
    _working()
    if len(arguments) != len(parameters):
        raise TypeError(f"{name} takes {len(parameters)} arguments, got {len(arguments)}")
    if not (0 < grid[0] < 2**31 and 0 < block[0] <= 1024 and block[0] & (block[0] - 1) == 0):
        raise ValueError(f"{name}: grid {grid}, block {block}")
    _check(parameters, name, arguments)
    results = []
    for descending in (0, 1):
        buffers = [_Buffer(x) for x in arguments]
        pointers = (ctypes.c_void_p * len(buffers))(*(b.address for b in buffers))
        with _stream:
            failed = function(ctypes.c_longlong(grid[0]), ctypes.c_uint(block[0]), ctypes.c_int(descending), pointers)
        if failed:
            raise AssertionError(f"{name}: a barrier that not all threads reach")
        results.append(buffers)
    for i, ((_, const, star), x, once, again) in enumerate(zip(parameters, arguments, *results, strict=True)):
        if not once.intact():
            raise AssertionError(f"{name} writes outside argument {i}")
        if once.bytes() != again.bytes():
            raise AssertionError(f"{name}: argument {i} depends on the order of the threads (a missing barrier?)")
        if (const or not star) and once.bytes() != _Buffer(x).bytes():
            raise AssertionError(f"{name} writes to its input {i}")
        if star and not const:
            x._a[...] = np.frombuffer(once.bytes(), x.dtype).reshape(x.shape)


def _check(parameters, name, arguments):
    sizes = {"float": "float32", "double": "float64", "long long": "int64", "unsigned char": "uint8",
             "unsigned short": "float16"}  # fmt: skip
    for i, ((kind, _, star), x) in enumerate(zip(parameters, arguments, strict=True)):
        if not star:
            if type(x) is not _NUMBERS[kind]:
                raise TypeError(f"{name}: argument {i} is {type(x)}, the kernel takes {kind}")
        elif not isinstance(x, DeviceArray) or x.dtype != sizes[kind] or not x._a.flags.c_contiguous:
            raise TypeError(f"{name}: argument {i} must be a row-major device array of {kind}, got {type(x)} "
                            f"{getattr(x, 'dtype', '')}")  # fmt: skip


class _Buffer:
    """An argument's memory between two guard zones (NaN in any float format, so that reading them shows)."""

    def __init__(self, x):
        data = x._a.tobytes() if isinstance(x, DeviceArray) else x.tobytes()
        self._size = len(data)
        self._memory = ctypes.create_string_buffer(b"\xff" * _GUARD + data + b"\xff" * _GUARD, self._size + 2 * _GUARD)
        self.address = ctypes.addressof(self._memory) + _GUARD

    def bytes(self):
        return self._memory.raw[_GUARD : _GUARD + self._size]

    def intact(self):
        return self._memory.raw[:_GUARD] + self._memory.raw[_GUARD + self._size :] == b"\xff" * (2 * _GUARD)


@contextlib.contextmanager
def working():
    """For tests that touch device arrays themselves."""
    with Device(0):
        yield
