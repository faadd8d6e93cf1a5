"""The plugin contract, where backends are found, and the reference itself as one of them."""

from __future__ import annotations

from refbert.backend.contract import (
    OPTIONAL,
    REQUIRED,
    TRAINING,
    UNIT_ROUNDOFF,
    Backend,
    BlockPullback,
    FusedEncoderLayer,
    Host,
    Objective,
    Optimizers,
    Out,
    TokenMasking,
    has_gradients,
    host_dtype,
    missing_ops,
    require_whole,
)

__all__ = [
    "OPTIONAL",
    "REQUIRED",
    "TRAINING",
    "UNIT_ROUNDOFF",
    "Backend",
    "BlockPullback",
    "FusedEncoderLayer",
    "Host",
    "Objective",
    "Optimizers",
    "Out",
    "TokenMasking",
    "has_gradients",
    "host_dtype",
    "missing_ops",
    "require_whole",
]
