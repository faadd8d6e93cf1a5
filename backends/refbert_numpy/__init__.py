"""The backend "numpy": pure NumPy, tuned. What is not tuned here is refbert.ops as it is."""

from refbert_numpy.backend import NumpyBackend

__all__ = ["NumpyBackend"]
