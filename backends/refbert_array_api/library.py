"""The library behind the name: where its array API is, and what it does otherwise than the standard.

array-api-compat gives PyTorch, Dask, CuPy and NumPy the standard's names; the others have them.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import array_api_compat
import numpy as np

# All that `backend` asks of a namespace, beside operators, its dtype and int64.
USED = (
    "abs", "asarray", "astype", "concat", "exp", "log", "matrix_transpose", "max", "maximum", "minimum", "permute_dims",
    "reshape", "sqrt", "sum", "take", "tanh", "where",
)  # fmt: skip
EXAMPLES = "array-api:numpy, array-api:torch, array-api:jax.numpy or array-api:dask.array"


@dataclass(frozen=True)
class Library:
    """namespace: its functions. text: its name and version. asarray: its own, for the device that was asked for.

    settings: what its calls run in. compiles: every new shape costs a compilation. lazy: it computes what is looked at,
    each time anew. flushes: numbers below the normal range become 0, which the standard leaves open.
    """

    namespace: Any
    text: str
    asarray: Callable[..., Any]
    device_name: str
    settings: Callable[[], contextlib.AbstractContextManager[None]]
    compiles: bool
    lazy: bool
    flushes: bool

    @classmethod
    def named(cls, name: str, dtype: str, device: str | None) -> Library:
        """By its namespace; ImportError or RuntimeError, in one line, without it, the dtype or the device."""
        xp, root = _namespace(name), name.partition(".")[0]
        chosen, jax = _device(xp, name, device), array_api_compat.is_jax_namespace(xp)
        settings = _jax_as_the_standard if jax else contextlib.nullcontext
        asarray = xp.asarray if chosen is None else functools.partial(xp.asarray, device=chosen)
        with settings():
            try:
                least = np.full(1, np.finfo(dtype).smallest_normal, dtype)
                probe = asarray(least, dtype=getattr(xp, dtype))
                found = probe / 2
                half = cls.to_numpy(found)
            except Exception as error:  # as many kinds as there are libraries
                raise RuntimeError(f"{name} has no {dtype} here ({_line(error)})") from error
            if half.dtype == object:
                raise RuntimeError(f"{name} shows no numbers: NumPy reads its arrays neither by DLPack nor else")
            if half.dtype != dtype:
                raise RuntimeError(f"{name} has no {dtype} here: it computes in {half.dtype}")
            # JAX keeps what it has computed; a library that nobody knows says by its arrays that they are plans.
            lazy = not jax and (array_api_compat.is_lazy_array(found) or hasattr(found, "compute"))
            _try(xp, name, asarray(np.ones((2, 3), dtype), dtype=getattr(xp, dtype)), asarray(np.ones(2, np.int64)))
            small = cls.to_numpy(xp.exp(asarray(np.log(least) - 2, dtype=getattr(xp, dtype))))
        versions = (getattr(sys.modules[module], "__version__", "") for module in (root, name))
        version = next(filter(None, versions), "of no version")
        return cls(
            namespace=xp, text=f"{root} {version} through the array API", asarray=asarray,
            device_name=str(getattr(probe, "device", "cpu")), settings=settings, compiles=jax, lazy=lazy,
            flushes=not (half.all() and small.all()),
        )  # fmt: skip

    @staticmethod
    def to_numpy(x: Any) -> Any:
        """By DLPack, the standard's way, or where a library has not got that by what it has instead."""
        with contextlib.suppress(AttributeError, BufferError, RuntimeError, TypeError, ValueError):
            return np.from_dlpack(x, device="cpu")
        for its_own in ("unwrap_numpy", "todense"):  # ndonnx, sparse
            if hasattr(x, its_own):
                return np.asarray(getattr(x, its_own)())
        return np.asarray(x)


def _namespace(name: str) -> Any:
    if not all(part.isidentifier() for part in name.split(".")):
        wrong = f'"{name}" is no name' if name else "it needs the name"
        raise RuntimeError(f"{wrong} of an array library's namespace; write {EXAMPLES}")
    try:
        module = importlib.import_module(name)
    except Exception as error:  # also what a library raises that lacks a part of its own
        why = _line(error)
        raise ImportError(f"{name} cannot be imported ({why}); install its library, or write {EXAMPLES}") from error
    try:
        xp = array_api_compat.array_namespace(module.asarray(0.0))
    except Exception as error:
        raise RuntimeError(f"{name} is no namespace of the array API ({_line(error)}); write {EXAMPLES}") from error
    its_own = getattr(xp, "__name__", name)
    if name.partition(".")[0] not in its_own.split("."):
        raise RuntimeError(f"{name} has no arrays of its own, only those of {its_own}; write {EXAMPLES}")
    lacking = ", ".join(name for name in (*USED, "int64") if not hasattr(xp, name))
    if lacking:
        raise RuntimeError(f"{name} has not all of the array API: it lacks {lacking}")
    return xp


def _line(error: Exception) -> str:
    """What it says, in one line: some say pages."""
    return textwrap.shorten(f"{error}" or type(error).__name__, 200, placeholder=" …")


def _try(xp: Any, name: str, x: Any, index: Any) -> None:
    """Functions that some libraries have by name, but only for some arrays; x is [2, 3], index two numbers below 2."""
    trials: dict[str, Callable[[], Any]] = {
        "asarray": lambda: xp.asarray(x, copy=True),
        "concat": lambda: xp.concat([x, x], axis=0),
        "matmul": lambda: xp.exp(x) @ xp.matrix_transpose(x),
        "permute_dims": lambda: xp.permute_dims(xp.reshape(x, (2, 1, 3)), (1, 2, 0)),
        "sum": lambda: x - xp.max(x, axis=-1, keepdims=True) + xp.sum(x, axis=0),
        "take": lambda: xp.take(x, index, axis=0),
        "where": lambda: xp.where(x > 0, xp.minimum(x, xp.abs(x)), xp.astype(x > 0, x.dtype)),
    }
    for function, trial in trials.items():
        try:
            trial()
        except Exception as error:
            raise RuntimeError(f"{name} has not all of the array API: {function} fails ({_line(error)})") from error


def _device(xp: Any, library: str, name: str | None) -> Any:
    """The first of the library's devices whose text holds the name; None for its own choice."""
    if name is None:
        return None
    devices = [device for device in xp.__array_namespace_info__().devices() if device is not None]
    for device in devices:
        if name.lower() in str(device).lower():
            return device
    raise RuntimeError(f'{library} has no device "{name}" here, only {", ".join(map(str, devices))}')


@contextlib.contextmanager
def _jax_as_the_standard() -> Iterator[None]:
    """Outside of this JAX makes float32 of float64, and GPUs and TPUs round operands; both are a thread's settings."""
    import jax

    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        yield
