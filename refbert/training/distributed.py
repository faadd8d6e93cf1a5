"""Data parallelism: each process takes rows of every batch, and the gradients are summed over all of them.

    torchrun --nproc-per-node N -m refbert pretrain …

torchrun sets RANK, WORLD_SIZE and LOCAL_RANK for each process; PyTorch's distributed engine carries the sums (gloo on
the CPU, NCCL between GPUs), whatever backend computes them. All processes hold the same weights and moments, apply the
same update, and so stay the same; process 0 alone writes files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import Any

import numpy as np

from refbert.backend import Backend, host_dtype
from refbert.errors import BackendUnavailable, InputError, RefbertError

# Numbers that travel together: few enough to keep memory small, enough that the way is not the cost.
_BUCKET = 2**22
# How long a process waits for the others: the first prepares the data while they do.
_PATIENCE = timedelta(hours=2)


class WorkerLost(RefbertError):
    """Another process of the run has ended; this one cannot go on alone."""


class Processes:
    """One process, alone: rank 0 of 1, and every sum is what went in."""

    rank = 0
    count = 1

    def sum_arrays(self, backend: Backend[Any], arrays: dict[str, Any]) -> None:
        """Replace each array by its sum over all processes."""

    def sum_numbers(self, numbers: list[float]) -> list[float]:
        """The sums over all processes, in float64."""
        return numbers

    def check_same(self, what: str, value: str) -> None:
        """Wait for every process; raise `InputError` unless all have the same value."""


ALONE = Processes()


class TorchProcesses(Processes):
    """Processes started by torchrun, connected by torch.distributed; ``device`` says where the backend computes."""

    def __init__(self, device: str) -> None:
        import torch
        import torch.distributed as dist

        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        nccl = device.startswith("cuda") and dist.is_nccl_available()
        self._device = torch.device("cuda", local_rank) if nccl else torch.device("cpu")
        if nccl:
            torch.cuda.set_device(self._device)
        try:
            dist.init_process_group("nccl" if nccl else "gloo", timeout=_PATIENCE)
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
            raise BackendUnavailable(f"the processes cannot be connected ({reason})") from None
        self.rank, self.count = dist.get_rank(), dist.get_world_size()

    def sum_arrays(self, backend: Backend[Any], arrays: dict[str, Any]) -> None:
        """In buckets, each summed in the precision that `Backend.to_numpy` gives; a bucket's parts are let go first."""
        import torch

        dtype = torch.float64 if host_dtype(backend.dtype) is np.float64 else torch.float32
        names = sorted(arrays)  # the same order everywhere
        while names:
            bucket: list[tuple[str, tuple[int, ...]]] = []
            parts: list[torch.Tensor] = []
            while names and sum(part.numel() for part in parts) < _BUCKET:
                name = names.pop(0)
                x = arrays.pop(name)
                bucket.append((name, tuple(x.shape)))
                native = isinstance(x, torch.Tensor)
                if not native:
                    x = torch.from_numpy(np.ascontiguousarray(backend.to_numpy(x)))
                parts.append(x.detach().to(self._device, dtype).reshape(-1))
            sizes = [part.numel() for part in parts]
            flat = torch.cat(parts)
            parts.clear()
            self._together("all_reduce", flat)
            for (name, shape), piece in zip(bucket, torch.split(flat, sizes), strict=True):
                summed = piece.reshape(shape)
                if native and self._device.type == "cuda":
                    arrays[name] = summed.to(getattr(torch, backend.dtype), copy=True)
                else:
                    arrays[name] = backend.asarray(summed.cpu().numpy().copy())

    def sum_numbers(self, numbers: list[float]) -> list[float]:
        """In float64."""
        import torch

        tensor = torch.tensor(numbers, dtype=torch.float64, device=self._device)
        self._together("all_reduce", tensor)
        return [float(x) for x in tensor.cpu()]

    def check_same(self, what: str, value: str) -> None:
        """Gather every process's value; raise `InputError` where they differ."""
        seen = [""] * self.count
        self._together("all_gather_object", seen, value)
        if len(set(seen)) > 1:
            raise InputError(f"the processes do not have the same {what}: start all of them with the same arguments")

    def close(self) -> None:
        """Leave the process group."""
        import torch.distributed as dist

        dist.destroy_process_group()

    def _together(self, collective: str, *arguments: Any) -> None:
        """Call one of `torch.distributed`'s collectives, to which every process comes; raises `WorkerLost`."""
        import torch.distributed as dist

        try:
            getattr(dist, collective)(*arguments)
        except RuntimeError as error:
            # The engine's own words are long and name its source files; they stay as the cause.
            raise WorkerLost(f"process {self.rank} of {self.count} has lost another process") from error


@contextmanager
def processes(device: str) -> Iterator[Processes]:
    """Connect the processes that torchrun started, if any; raises `BackendUnavailable` if PyTorch is missing."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield ALONE
        return
    try:
        import torch.distributed as dist

        available = dist.is_available()
    except ImportError:
        available = False
    if not available:
        raise BackendUnavailable('several processes need PyTorch: pip install "refbert[torch]"')
    with closing(TorchProcesses(device)) as made:
        yield made


def local_device(device: str | None) -> str | None:
    """Return this process's device: with several GPUs on a machine, "cuda" means the one of its local rank."""
    if device == "cuda" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return device
