"""The library behind the name: where its array API is, and what it does otherwise than the standard.

array-api-compat gives PyTorch, Dask, CuPy and NumPy the standard's names; the others have them.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import array_api_compat
import numpy as np

# All that `backend` asks of a namespace, beside operators and dtypes.
USED = (
    "abs", "arange", "asarray", "astype", "concat", "exp", "log", "matrix_transpose", "max", "maximum", "minimum",
    "permute_dims", "reshape", "sqrt", "sum", "take", "tanh", "where", "zeros",
)  # fmt: skip
EXAMPLES = "array-api:numpy, array-api:torch, array-api:jax.numpy or array-api:dask.array"


@dataclass(frozen=True)
class Library:
    """namespace: its functions. text: its name and version. device: an object of its own, or None for its choice.

    settings: what its calls run in. compiles: every new shape costs a compilation. lazy: it computes what is looked at,
    each time anew. flushes: numbers below the normal range become 0, which the standard leaves open.
    """

    namespace: Any
    text: str
    device: Any
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
        with settings():
            try:
                least = np.full(1, np.finfo(dtype).smallest_normal, dtype)
                probe = xp.asarray(least, dtype=getattr(xp, dtype), device=chosen)
            except (AttributeError, TypeError, ValueError) as error:
                raise RuntimeError(f"{name} has no {dtype} here ({error})") from error
            half = cls.to_numpy(probe / 2)
            if half.dtype != dtype:
                raise RuntimeError(f"{name} has no {dtype} here: it computes in {half.dtype}")
            lazy = array_api_compat.is_lazy_array(probe) and not jax  # JAX keeps what it has computed
        version = getattr(sys.modules[root], "__version__", "of no version")
        return cls(
            namespace=xp, text=f"{root} {version} through the array API", device=chosen,
            device_name=str(array_api_compat.device(probe)), settings=settings, compiles=jax, lazy=lazy,
            flushes=not half.all(),
        )  # fmt: skip

    @staticmethod
    def to_numpy(x: Any) -> Any:
        """By DLPack, the standard's way, or where a library has not got that by NumPy's protocol."""
        with contextlib.suppress(AttributeError, BufferError, RuntimeError, TypeError, ValueError):
            return np.from_dlpack(x, device="cpu")
        return np.asarray(x)


def _namespace(name: str) -> Any:
    if not all(part.isidentifier() for part in name.split(".")):
        wrong = f'"{name}" is no name' if name else "it needs the name"
        raise RuntimeError(f"{wrong} of an array library's namespace; write {EXAMPLES}")
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{name} cannot be imported ({error}); install its library, or write {EXAMPLES}") from error
    try:
        xp = array_api_compat.array_namespace(module.asarray(0.0))
    except (AttributeError, TypeError, ValueError) as error:
        raise RuntimeError(f"{name} is no namespace of the array API ({error}); write {EXAMPLES}") from error
    lacking = ", ".join(function for function in USED if not hasattr(xp, function))
    if lacking:
        raise RuntimeError(f"{name} has not all of the array API: it lacks {lacking}")
    return xp


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
