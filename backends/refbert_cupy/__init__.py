"""The backend "cupy": NVIDIA GPUs through CuPy.

Importing it needs CuPy, constructing a CupyBackend needs a GPU; each says in one line what is missing and what to do.
"""

from __future__ import annotations

try:
    import cupy  # noqa: F401
except ImportError as error:
    # A CuPy that is installed but broken explains itself over many lines; its cause is the one that matters.
    _reason = " ".join(str(error.__cause__ or error).split())
    raise ImportError(
        f"CuPy cannot be imported ({_reason}); install it for the CUDA version that nvidia-smi shows: "
        'pip install "refbert[cuda13x]" for 13 and later, "refbert[cuda12x]" for 12'
    ) from error

from refbert_cupy.backend import CupyBackend

__all__ = ["CupyBackend"]
