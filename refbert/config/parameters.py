"""Parameters: every tensor's name and shape, initialisation, and exact counts without allocating.

Names are Hugging Face's, always with the ``bert.`` prefix; shapes are PyTorch's ([out, in] for a matrix), so that a
memory-mapped checkpoint is used as it lies on disk. The masked-LM decoder is the word-embedding matrix itself
(tied; Devlin et al. 2019 does not say so, Google's run_pretraining.py does) and therefore has no entry of its own.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from refbert.config import BertConfig
from refbert.config.heads import CLASSIFIERS, HEADS, POOLED_HEADS
from refbert.config.profiles import HF, Profile
from refbert.errors import ConfigError

Shapes = dict[str, tuple[int, ...]]


def shapes(config: BertConfig, heads: Collection[str] = (), *, pooler: bool = True) -> Shapes:
    """Name -> shape of every parameter of the encoder with ``heads``.

    ``heads``: names of `refbert.config.heads.HEADS`. ``pooler=False`` leaves the pooler out (Hugging Face's masked-LM,
    token and question-answering models do); asking for a head that needs it raises `ConfigError`.
    """
    for name in heads:
        if name not in HEADS:
            raise ConfigError(f'unknown head "{name}" (known: {", ".join(HEADS)})')
    if len(set(CLASSIFIERS) & set(heads)) > 1:
        raise ConfigError("a checkpoint has one `classifier`: choose one of "
                          f"{', '.join(CLASSIFIERS[:-1])} and {CLASSIFIERS[-1]}")  # fmt: skip
    if not pooler and POOLED_HEADS & set(heads):
        raise ConfigError(f"{', '.join(sorted(POOLED_HEADS & set(heads)))} needs the pooler")
    H, F, V = config.hidden_size, config.intermediate_size, config.vocab_size
    out: Shapes = {
        "bert.embeddings.word_embeddings.weight": (V, H),
        "bert.embeddings.position_embeddings.weight": (config.max_position_embeddings, H),
        "bert.embeddings.token_type_embeddings.weight": (config.type_vocab_size, H),
        **_layer_norm("bert.embeddings.LayerNorm", H),
    }
    for i in range(config.num_hidden_layers):
        layer = f"bert.encoder.layer.{i}"
        for name in ("query", "key", "value"):
            out |= _dense(f"{layer}.attention.self.{name}", H, H)
        out |= _dense(f"{layer}.attention.output.dense", H, H)
        out |= _layer_norm(f"{layer}.attention.output.LayerNorm", H)
        out |= _dense(f"{layer}.intermediate.dense", H, F)
        out |= _dense(f"{layer}.output.dense", F, H)
        out |= _layer_norm(f"{layer}.output.LayerNorm", H)
    if pooler:
        out |= _dense("bert.pooler.dense", H, H)
    for head in (HEADS[name] for name in HEADS if name in heads):
        if head.tied:
            out |= _dense(f"{head.parameter}.transform.dense", H, H)
            out |= _layer_norm(f"{head.parameter}.transform.LayerNorm", H)
            out[f"{head.parameter}.bias"] = (head.outputs(config),)
        else:
            out |= _dense(head.parameter, H, head.outputs(config))
    return out


def count(config: BertConfig, heads: Collection[str] = (), *, pooler: bool = True) -> int:
    """Exact number of parameters, from the shapes alone: 109,482,240 for BERT base with its pooler."""
    return sum(math.prod(shape) for shape in shapes(config, heads, pooler=pooler).values())


def initialize(
    parameter_shapes: Shapes, config: BertConfig, *, seed: int, profile: Profile = HF, dtype: npt.DTypeLike = np.float32
) -> dict[str, np.ndarray]:
    """Fresh weights: N(0, initializer_range²) matrices, zero biases, LayerNorm gain 1 and shift 0.

    Google cuts the normal at two standard deviations (so the true deviation of 0.02 is 0.01759); Hugging Face does
    not, and zeroes the embedding row of the padding token. Each tensor has its own generator, keyed by its name and
    the seed, so that a tensor's values do not depend on which others exist. Raises `ConfigError` for a seed that is
    negative or has more than 64 bits.
    """
    if not 0 <= seed < 2**64:
        raise ConfigError(f"seed must be a whole number from 0 to 2^64 - 1, not {seed}")
    out = {}
    for name, shape in parameter_shapes.items():
        kind = name.rsplit(".", 1)[-1]
        if kind == "bias":
            out[name] = np.zeros(shape, dtype)
        elif "LayerNorm" in name:
            out[name] = np.ones(shape, dtype)
        else:
            rng = np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(name.encode())]))
            z = rng.standard_normal(shape)
            if profile.truncated_normal:
                while (outside := np.abs(z) > 2).any():
                    z[outside] = rng.standard_normal(int(outside.sum()))
            out[name] = (config.initializer_range * z).astype(dtype)
            if not profile.truncated_normal and name == "bert.embeddings.word_embeddings.weight":
                out[name][config.pad_token_id] = 0
    return out


def _dense(name: str, n_in: int, n_out: int) -> Shapes:
    return {f"{name}.weight": (n_out, n_in), f"{name}.bias": (n_out,)}


def _layer_norm(name: str, size: int) -> Shapes:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}
