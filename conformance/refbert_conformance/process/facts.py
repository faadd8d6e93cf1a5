"""What a report says of the backend and of what else a verdict may depend on."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

import refbert
from refbert.backend import contract_of, says_contract
from refbert_conformance.cases.pools import SHAPES
from refbert_conformance.engine.subject import Subject


def described(subject: Subject) -> dict[str, Any]:
    """The backend, for the report. shapes: how many per op were tried where that is limited."""
    backend = subject.backend
    return {
        "given": subject.given,
        **{name: str(getattr(backend, name, "")) for name in ("name", "library", "dtype", "device")},
        "dtypes": list(map(str, getattr(backend, "dtypes", None) or ())),
        "contract": contract_of(backend),
        "contract_said": says_contract(backend),
        "gradients": subject.gradients,
        "arithmetic": {**subject.arithmetic.described(), "given": subject.declared is not None},
        "shapes": SHAPES if subject.compiles else None,
    }


def versions() -> dict[str, str]:
    """What else a verdict may depend on."""
    found = {name: version(name) for name in ("numpy", "scipy", "hypothesis")}
    return {
        "refbert": refbert.__version__,
        "python": platform.python_version(),
        **found,
        "platform": platform.platform(),
    }
