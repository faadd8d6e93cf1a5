"""The reference: every operation of BERT, forward and backward, in plain NumPy. One file per operation or two akin.

Read a file from the top: where it comes from, the shapes, the equation, the derivation of the gradient, the code.
Every op is a pure function ``op(...) -> (y, pullback)``; ``pullback(dy)`` returns one cotangent per array argument, in
signature order, changes nothing, and may be called again. The optimizer updates and the masking of tokens, which have
no gradient, return new arrays instead.

Where the papers are silent: an empty batch gives empty results, zero gradients for the weights and a loss of 0; a
sequence of length 1 attends to itself with probability 1; a row without a visible key and a batch without labels are
decided in `attention_probabilities` and `cross_entropy`.

The ops compute in the dtype that they are given. float64 is the reference; everything else is held to it.
"""

from refbert.ops.adamw import adamw
from refbert.ops.add import add
from refbert.ops.attention import attention, attention_probabilities
from refbert.ops.bert_adam import bert_adam
from refbert.ops.clip_by_global_norm import clip_by_global_norm
from refbert.ops.cross_entropy import IGNORE, cross_entropy
from refbert.ops.dropout import dropout
from refbert.ops.embedding import embedding
from refbert.ops.gather import gather
from refbert.ops.gelu import gelu
from refbert.ops.lamb import lamb
from refbert.ops.layer_norm import layer_norm
from refbert.ops.linear import linear
from refbert.ops.mask_tokens import mask_tokens
from refbert.ops.mean_squared_error import mean_squared_error
from refbert.ops.relu import relu
from refbert.ops.shape import reshape, transpose
from refbert.ops.softmax import softmax
from refbert.ops.tanh import tanh

__all__ = [
    "IGNORE", "adamw", "add", "attention", "attention_probabilities", "bert_adam", "clip_by_global_norm",
    "cross_entropy", "dropout", "embedding", "gather", "gelu", "lamb", "layer_norm", "linear", "mask_tokens",
    "mean_squared_error", "relu", "reshape", "softmax", "tanh", "transpose",
]  # fmt: skip
