"""Where it was measured: versions, CPU, GPU, and what else was running."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

from refbert.backend import registry

PACKAGES = ("refbert", "numpy", "torch", "transformers", "sentence-transformers", "onnxruntime", "onnx", "cupy-cuda12x",
            "cupy-cuda13x", "tokenizers")  # fmt: skip


def describe(threads: int) -> dict[str, Any]:
    """Versions and hardware, as plain data."""
    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": threads,
        "gpus": gpus(),
        "memory_bytes": _memory(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "numpy_library": registry.create("numpy").library,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    out = {}
    for package in PACKAGES:
        try:
            out[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return out


def cpu_name() -> str:
    """The model and, where Linux says, family, number and widest vector instructions: names are often vague."""
    facts: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            facts.setdefault(key.strip(), value.strip())
    except OSError:
        return platform.processor()
    name = facts.get("model name", platform.processor())
    if "cpu family" in facts:
        name += f" (family {facts['cpu family']}, model {facts.get('model', '?')}"
        wide = [x for x in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if x in facts.get("flags", "").split()]
        name += f", {wide[0]})" if wide else ")"
    return name


@lru_cache(maxsize=1)
def gpus() -> tuple[str, ...]:
    """NVIDIA GPUs by name; empty without any, or without nvidia-smi."""
    if shutil.which("nvidia-smi") is None:
        return ()
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in done.stdout.splitlines() if line.strip())


def others(seconds: float = 1.0) -> float | None:
    """How many cores other processes keep busy while this one sleeps; None where the system does not say."""
    before = _busy()
    if before is None:
        return None
    time.sleep(seconds)
    after = _busy()
    assert after is not None
    return max(0.0, round((after - before) / os.sysconf("SC_CLK_TCK") / seconds, 2))


def _busy() -> int | None:
    try:
        first = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()
    except (OSError, IndexError):
        return None
    # user nice system idle iowait irq softirq steal
    return sum(int(n) for i, n in enumerate(first[1:9]) if i not in (3, 4))


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
