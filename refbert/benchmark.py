"""How fast a model runs on a backend, and how near that is to what the backend's own matrix products allow.

Letters as in refbert.config. Operations are those of refbert.config.flops: matrix products only, two for each
multiplication and addition. A fraction of 1 would mean that everything but the products is free.

Everything goes through the plugin contract, so a third party's backend is measured like a built-in one. Devices that
compute behind the caller's back are waited for by reading one row of the result, not all of it: moving [B, S, H] to
the host is no part of a forward pass.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from refbert.backend import Backend, Host, host_dtype
from refbert.config import BertConfig, flops
from refbert.config.heads import PRETRAINING
from refbert.errors import InputError
from refbert.model import Model
from refbert.ops.cross_entropy import IGNORE
from refbert.spec.bert import bert
from refbert.text.batching import Batch

MASKED = 0.15  # of the tokens are labelled in a step, as in Devlin et al. 2019 §3.1


@dataclass(frozen=True)
class Speed:
    """What `measure` found.

    seconds: of each timed run, after the warm-up.           flops: of one run, forward or forward and backward.
    limit: operations per second of the backend's own `linear` on large arrays.
    process_bytes: the most memory that the whole process has held so far; None where the system does not say.
    device_bytes: the most that the backend's library has held on an accelerator; None on a CPU or for one unknown here.
    """

    tokens: int
    flops: int
    seconds: tuple[float, ...]
    limit: float
    process_bytes: int | None
    device_bytes: int | None

    @property
    def median(self) -> float:
        """Seconds of a typical run."""
        return statistics.median(self.seconds)

    @property
    def tokens_per_second(self) -> float:
        """Tokens, padding included if there were any, per second."""
        return self.tokens / self.median

    @property
    def flops_per_second(self) -> float:
        """Operations in matrix products per second."""
        return self.flops / self.median

    @property
    def fraction(self) -> float:
        """How much of the limit is reached."""
        return self.flops_per_second / self.limit


def measure(
    model: Model, *, batch_size: int, length: int, step: bool = False, rounds: int = 7, limit: float | None = None
) -> Speed:
    """Time forward passes, or with ``step`` forward and backward of the pretraining loss, on random ids.

    A step labels 15 % of the tokens and needs the heads masked_lm and next_sentence; dropout is off. ``limit``: as
    `product_limit` gave it before, else it is measured. Raises `InputError` for sizes that the model does not have.
    """
    config = model.config
    if batch_size < 1 or rounds < 1:
        raise InputError(f"batch size and rounds must be at least 1, not {batch_size} and {rounds}")
    if not 0 < length <= config.max_position_embeddings:
        raise InputError(f"length must be between 1 and the model's {config.max_position_embeddings}, not {length}")
    if step and not set(PRETRAINING) <= set(model.heads):
        raise InputError(f"a step needs the heads {' and '.join(PRETRAINING)}; this model has {model.heads or 'none'}")
    batch, labels = random_batch(config, batch_size, length)
    if step:
        masked = int((labels["labels"] != IGNORE).sum())
        work = step_flops(config, batch_size, length, masked)
        seconds = timed(lambda: step_and_wait(model, batch, labels), rounds)
    else:
        work = batch_size * flops.forward_flops(config, length, pooler=model.has_pooler)
        seconds = timed(lambda: forward_and_wait(model, batch), rounds)
    # Memory before the limit is measured, whose matrices are no part of the model's.
    memory = peak_process_bytes(), peak_device_bytes(model.backend)
    return Speed(batch_size * length, work, seconds, limit or product_limit(model.backend), *memory)


def random_batch(config: BertConfig, B: int, S: int, *, seed: int = 0) -> tuple[Batch, dict[str, Host]]:
    """Random ids without padding, and labels for a pretraining step: 15 % of each row, at least one token."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, config.vocab_size, (B, S))
    labels = np.full((B, S), IGNORE)
    chosen = max(1, round(MASKED * S))
    for row in labels:
        row[rng.choice(S, chosen, replace=False)] = rng.integers(0, config.vocab_size, chosen)
    return Batch(input_ids=ids), {"labels": labels, "next_sentence_label": rng.integers(0, 2, B)}


def step_flops(config: BertConfig, B: int, S: int, masked: int) -> int:
    """Operations of forward and backward with both pretraining heads, ``masked`` positions of the batch labelled."""
    body = B * flops.training_flops(config, S, ("next_sentence",))
    head = flops.training_flops(config, S, ("masked_lm",), masked_positions=masked)
    return body + head - flops.training_flops(config, S, ())


def forward_and_wait(model: Model, batch: Batch) -> Any:
    """The last hidden states [B, S, H] as `Model.__call__` computes them, left where they are; over when they are."""
    batch.check(model.config)
    encoded, _ = bert(model.backend, model.parameters, batch, model.choices, pooled=model.has_pooler, gradients=False)
    wait(model.backend, encoded.hidden)
    return encoded.hidden


def step_and_wait(model: Model, batch: Batch, labels: dict[str, Host]) -> tuple[float, dict[str, Any]]:
    """Loss and gradients by name, over when the device is done."""
    loss, gradients = model.device_loss_and_gradients(batch, labels)
    # The first layers' gradients come last.
    wait(model.backend, gradients["bert.embeddings.word_embeddings.weight"])
    return loss, gradients


def wait(backend: Backend[Any], x: Any) -> None:
    """Return when x [..., H] is computed, by reading its first row."""
    backend.to_numpy(backend.gather(x, np.zeros(1, np.int64))[0])


def product_limit(backend: Backend[Any], *, seconds: float = 1.0) -> float:
    """Operations per second of the backend's `linear` on square matrices, the best of several runs.

    The matrices are as large as a run of about a tenth of a second (or 8192) makes them, so that neither the call nor
    the bias counts. The best run, not a typical one: a limit is what the machine can do undisturbed.
    """
    rng, dtype = np.random.default_rng(0), host_dtype(backend.dtype)
    n = 256
    while True:
        x, w = (backend.asarray(rng.standard_normal((n, n)).astype(dtype)) for _ in range(2))
        run = partial(_multiply, backend, x, w, backend.asarray(np.zeros(n, dtype)))
        run()  # the first run pays for libraries, kernels and memory
        best = min(_seconds(run) for _ in range(3))
        if best > 0.1 or n >= 8192:
            break
        n *= 2
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop:
        best = min(best, _seconds(run))
    return 2 * n**3 / best


def _multiply(backend: Backend[Any], x: Any, w: Any, bias: Any) -> None:
    wait(backend, backend.linear(x, w, bias)[0])


def timed(run: Callable[[], object], rounds: int) -> tuple[float, ...]:
    """Seconds of each of ``rounds`` runs after two that do not count, without garbage collection in between."""
    run()
    run()
    enabled = gc.isenabled()
    gc.disable()
    try:
        return tuple(_seconds(run) for _ in range(rounds))
    finally:
        if enabled:
            gc.enable()


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """(first quartile, median, third quartile)."""
    low, middle, high = np.percentile(np.asarray(values, dtype=float), (25, 50, 75)).tolist()
    return low, middle, high


def peak_process_bytes() -> int | None:
    """The largest resident size that this process has had, in bytes; None where the system does not say.

    Linux's VmHWM starts anew with the program; getrusage's maximum would include the parent's size before exec.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_device_bytes(backend: Backend[Any]) -> int | None:
    """The most memory held on an accelerator by the library behind the backend; None on a CPU, or if unknown."""
    if not backend.device.startswith("cuda"):
        return None
    # Only libraries that the backend has imported already: nothing heavy is loaded for this.
    if backend.name == "torch" and "torch" in sys.modules:
        return int(sys.modules["torch"].cuda.max_memory_reserved(backend.device))
    if backend.name == "cupy" and "cupy" in sys.modules:
        return int(sys.modules["cupy"].get_default_memory_pool().total_bytes())
    return None
