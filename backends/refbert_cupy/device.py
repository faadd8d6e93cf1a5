"""Finding the CUDA device, and saying in one line why there is none."""

from __future__ import annotations

import os
from typing import Any

import cupy

from refbert.errors import Unsupported

_RUNTIME = cupy.cuda.runtime


def open_device(device: str | None) -> tuple[Any, str]:
    """(CuPy's device, the library line) for "cuda", "cuda:n" or None (the first device).

    Raises `Unsupported` for a device that is not a CUDA device, RuntimeError for one that is not there or not usable.
    """
    kind, _, number = (device or "cuda").partition(":")
    if kind != "cuda" or (number and not number.isdecimal()) or (device or "").endswith(":"):
        raise Unsupported(f'backend "cupy" runs on "cuda" or "cuda:n", not on "{device}"')
    index = int(number or 0)
    count = _count()
    if index >= count:
        raise RuntimeError(
            f"there is no CUDA device {index}: CuPy sees {count}" if count else "CuPy sees no CUDA device"
        )
    chosen = cupy.cuda.Device(index)
    _probe(chosen, index)
    name = _RUNTIME.getDeviceProperties(index)["name"].decode()
    line = f"CuPy {cupy.__version__}, CUDA {_version(_RUNTIME.runtimeGetVersion())}, {name}"
    return chosen, line + (", TF32" if tf32() else "")


def tf32() -> bool:
    """Whether the environment asks CuPy for TF32 in float32 products (CUPY_TF32=1); CuPy's default, and ours, is no."""
    setting = os.environ.get("CUPY_TF32", "0")
    return setting.isdecimal() and int(setting) > 0


def _count() -> int:
    try:
        return int(_RUNTIME.getDeviceCount())
    except _RUNTIME.CUDARuntimeError as error:
        driver, runtime = _RUNTIME.driverGetVersion(), _RUNTIME.runtimeGetVersion()
        if not driver:
            raise RuntimeError("CuPy finds no NVIDIA driver; install one, or choose another backend") from error
        if driver // 1000 < runtime // 1000:
            raise RuntimeError(
                f"the NVIDIA driver supports CUDA {_version(driver)}, but this CuPy needs {_version(runtime)}: "
                f'update the driver, or install CuPy for it: pip install "refbert[cuda{driver // 1000}x]"'
            ) from error
        raise RuntimeError(f"the NVIDIA driver does not answer ({error}); nvidia-smi may say why") from error


def _probe(device: Any, index: int) -> None:
    """A product and a sum, so that a missing CUDA library or a broken device shows here and not within a model."""
    try:
        with device:
            ones = cupy.ones((2, 2), dtype="float32")
            total = float((ones @ ones).sum())
    except (ImportError, OSError, RuntimeError, cupy.cuda.compiler.CompileException) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RuntimeError(
            f"CuPy cannot compute on cuda:{index} ({reason}). If a CUDA library is missing: "
            f'pip install "cupy-cuda{_RUNTIME.runtimeGetVersion() // 1000}x[ctk]"'
        ) from error
    if total != 8:
        raise RuntimeError(f"cuda:{index} computes wrong results: the entries of [[2, 2], [2, 2]] sum to {total}")


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
