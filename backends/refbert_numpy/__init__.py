"""The backend "numpy": pure NumPy, tuned. What is not tuned here is refbert.ops as it is.

backend     the ops                                   attention    blocks of scores, forward and backward
layer       a whole encoder layer for inference       activations  with their slopes; GELU through exp
objective   a whole training step                     rows         LayerNorm, sums over rows
training    its encoder      masked_lm  its head      partition    which rows are computed, by which thread
updates     the optimizers, in place                  threads      a team of them     memory  used again
"""

from refbert_numpy.backend import NumpyBackend

__all__ = ["NumpyBackend"]
