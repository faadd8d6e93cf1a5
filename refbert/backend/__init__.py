"""The plugin contract, where backends are found, and the reference itself as one of them."""

from __future__ import annotations

from refbert.backend.arguments import Host, KeepMasks, ModelChoices, TokenBatch
from refbert.backend.contract import (
    ATTRIBUTES,
    OPTIONAL,
    OPTIONAL_ATTRIBUTES,
    OPTIONAL_PROTOCOLS,
    REQUIRED,
    REQUIRED_BY_VERSION,
    TRAINING,
    UNIT_ROUNDOFF,
    VERSION,
    A,
    Backend,
    BlockPullback,
    Cast,
    Declarations,
    FusedEncoderLayer,
    Objective,
    Out,
    PackedEncoderLayer,
    Recomputed,
    Softmax,
    Updates,
    contract_note,
    contract_of,
    has_gradients,
    host_dtype,
    methods,
    missing_ops,
    require_updates,
    require_whole,
    says_contract,
    without_updates,
)

__all__ = [
    "ATTRIBUTES", "OPTIONAL", "OPTIONAL_ATTRIBUTES", "OPTIONAL_PROTOCOLS", "REQUIRED", "REQUIRED_BY_VERSION",
    "TRAINING", "UNIT_ROUNDOFF", "VERSION", "A", "Backend", "BlockPullback", "Cast", "Declarations",
    "FusedEncoderLayer", "Host", "KeepMasks", "ModelChoices", "Objective", "Out", "PackedEncoderLayer", "Recomputed",
    "Softmax", "TokenBatch", "Updates", "contract_note", "contract_of", "has_gradients", "host_dtype", "methods",
    "missing_ops", "require_updates", "require_whole", "says_contract", "without_updates",
]  # fmt: skip
