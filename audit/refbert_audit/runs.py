"""A pretraining run of the paper's length, fine-tuning runs of its grid: their settings, examples and optimizers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from refbert.backend.reference import ReferenceBackend
from refbert.data.settings import Pretraining
from refbert.training.finetuning_settings import PAPER_GRID, Settings
from refbert.training.optimizer import Optimizer
from refbert.training.pretraining_settings import Settings as PretrainingSettings

# All else is as it is when nothing is said.
RUN = PretrainingSettings(files=("corpus.txt",), steps=1_000_000)


def examples_of_a_run(**changes: Any) -> Pretraining:
    """What decides a run's examples."""
    return replace(RUN.data(), **changes)


def optimizer_of_a_run(**changes: Any) -> Optimizer:
    """A run's optimizer before the first update."""
    return replace(RUN.new_optimizer(), m={}, v={}, **changes)


def updated(optimizer: Optimizer, w: float, g: float, lr: float) -> float:
    """One weight, w, after an update with gradient g."""
    new, _ = optimizer.step(ReferenceBackend(), {"w": np.array([w])}, {"w": np.array([g])}, lr=lr)
    return float(new["w"][0])


def finetuning(**changes: Any) -> Settings:
    """Settings of fine-tuning as the paper's A.3 has them; nothing is read or run for that."""
    options: dict[str, Any] = {"task": "classify", "model": "m", "train": "t", "dev": "d", **PAPER_GRID, **changes}
    return Settings(**options)
