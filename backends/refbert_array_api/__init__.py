"""The backend "array-api": every operation in the words of the Python array API standard, for any library.

`array-api:torch`, `array-api:jax.numpy`, `array-api:dask.array`: what follows the colon is the library's namespace.

backend   the operations, in nothing but the standard
library   the library by its name, and what it does otherwise than the standard
"""

try:
    import array_api_compat as _compat  # noqa: F401
except ImportError as error:
    raise ImportError(
        f'array-api-compat is not installed ({error}); install it with: pip install "refbert[array-api]"'
    ) from error

from refbert_array_api.backend import ArrayApiBackend

__all__ = ["ArrayApiBackend"]
