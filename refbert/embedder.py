"""From a text's hidden states to its one vector: pooling, and what sentence-transformers puts behind it.

Source   Reimers and Gurevych 2019 §3 (mean, max and [CLS] pooling); the other poolings, Dense and Normalize are
         sentence-transformers' modules of those names.
Shapes   hidden states of N tokens in a row, [N, H], and how many each text has, [B]  ->  vectors [B, E]

    h_1 … h_n are one text's hidden states, specials included:
    cls h_1        mean 1/n Σ_i h_i        max max_i h_i            mean_sqrt_len_tokens 1/√n Σ_i h_i
    lasttoken h_n                          weightedmean Σ_i i h_i / Σ_i i
    Several are joined one behind the other, so that E is a multiple of H until a Dense changes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from refbert.backend import Backend, Host
from refbert.errors import InputError
from refbert.ops.gelu import gelu
from refbert.spec.bert import bert
from refbert.spec.choices import Choices
from refbert.spec.packed import packed_bert
from refbert.spec.pooler import pooler
from refbert.spec.scope import Scope
from refbert.text.batching import Batch

# "pooler" is BERT's own pooled vector, which no sentence-transformers model uses.
POOLINGS = ("mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken", "pooler")


def pool(rows: Host, lengths: Host, pooling: str, *, skip: int = 0) -> Host:
    """Vectors [B, H] of the hidden states ``rows`` [N, H] of texts of ``lengths`` [B] tokens.

    ``skip``: so many first tokens of each text count for nothing (a prompt's). A token keeps its number as a weight.
    """
    rows = rows.astype(np.result_type(rows, np.float32), copy=False)
    if skip or pooling == "weightedmean":
        place = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)  # [N], from 0 in each text
        rows, place, lengths = rows[place >= skip], place[place >= skip], lengths - skip
    starts = np.cumsum(lengths) - lengths
    if pooling == "cls":
        return np.asarray(rows[starts])
    if pooling == "lasttoken":
        return np.asarray(rows[starts + lengths - 1])
    if pooling == "max":
        return np.asarray(np.maximum.reduceat(rows, starts, axis=0))
    if pooling == "weightedmean":
        weights = (place[:, None] + 1).astype(rows.dtype)
        return np.asarray(np.add.reduceat(rows * weights, starts, axis=0) / np.add.reduceat(weights, starts, axis=0))
    n = lengths[:, None].astype(rows.dtype)
    return np.asarray(np.add.reduceat(rows, starts, axis=0) / (n if pooling == "mean" else np.sqrt(n)))


@dataclass(frozen=True, eq=False)
class Normalize:
    """Each vector scaled to length 1."""

    def __str__(self) -> str:
        return "Normalize"

    def __call__(self, x: Host) -> Host:
        """[B, E] to [B, E]; a vector of zeros stays that."""
        return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12))

    def size(self, n_in: int) -> int:
        """[B, E] stays [B, E]."""
        return n_in


@dataclass(frozen=True, eq=False)
class Dense:
    """y = act(x Wᵀ + b), and with ``residual`` R that plus x Rᵀ; weight and residual are [out, in]."""

    weight: Host
    bias: Host | None
    activation: str = "tanh"
    residual: Host | None = None

    def __str__(self) -> str:
        out, size = self.weight.shape
        return f"Dense {size} → {out}, {self.activation}"

    def __call__(self, x: Host) -> Host:
        """[B, in] to [B, out]."""
        y = x @ self.weight.T.astype(x.dtype)
        if self.bias is not None:
            y += self.bias.astype(x.dtype)
        if self.activation == "tanh":
            y = np.tanh(y)
        elif self.activation == "relu":
            y = np.maximum(y, 0)
        elif self.activation == "gelu":
            y = gelu(y, form="erf")[0]
        elif self.activation == "sigmoid":
            y = sigmoid(y)
        return np.asarray(y) if self.residual is None else y + x @ self.residual.T.astype(x.dtype)

    def size(self, n_in: int) -> int:
        """[B, in] becomes [B, out]; raises `InputError` for another number than ``in``."""
        out, expected = self.weight.shape
        if n_in != expected:
            raise InputError(f"its Dense module takes vectors of {expected} numbers, the pooling makes {n_in}")
        return int(out)


@dataclass(frozen=True, eq=False)
class Embedder:
    """How a checkpoint makes vectors of texts; what it says unless told otherwise is refbert's own choice.

    pooling: names from `POOLINGS`. modules: what follows it, in order. dimensions: only so many first numbers of the
    result stay (None: all). normalize: whether these are scaled to length 1. prompt: put before each text, in pairs
    before the first; prompts: others by name. include_prompt: whether its tokens are pooled. max_length: tokens (None:
    the model's positions). truncate: whether longer texts are cut to that.
    """

    pooling: tuple[str, ...] = ("mean",)
    modules: tuple[Dense | Normalize, ...] = (Normalize(),)
    dimensions: int | None = None
    normalize: bool = False
    prompt: str = ""
    prompts: Mapping[str, str] = field(default_factory=dict)
    include_prompt: bool = True
    max_length: int | None = None
    truncate: bool = False

    def told(self, pooling: str | Sequence[str] | None, normalize: bool | None) -> Embedder:
        """With another pooling, and with or without length 1 at the end; None leaves it. Raises `InputError`."""
        names = self.pooling if pooling is None else (pooling,) if isinstance(pooling, str) else tuple(pooling)
        for name in names:
            if name not in POOLINGS:
                raise InputError(f'unknown pooling "{name}" (known: {", ".join(POOLINGS)})')
        if not names:
            raise InputError("no pooling named")
        modules = self.modules
        if normalize is not None and modules and isinstance(modules[-1], Normalize):
            modules = modules[:-1]
        return replace(self, pooling=names, modules=modules, normalize=bool(normalize))

    def size(self, hidden_size: int) -> int:
        """E, the length of a vector; raises `InputError` if a module does not fit what comes before it."""
        size = hidden_size * len(self.pooling)
        for module in self.modules:
            size = module.size(size)
        return size if self.dimensions is None else min(size, self.dimensions)

    def finish(self, pooled: Host) -> Host:
        """The vectors [B, E] of what the poolings made, [B, H · poolings]."""
        for module in self.modules:
            pooled = module(pooled)
        pooled = pooled[:, : self.dimensions]
        return Normalize()(pooled) if self.normalize else pooled


# What a checkpoint has that says nothing of it.
DEFAULT = Embedder()


def with_prompt(texts: Sequence[Any], prompt: str) -> list[Any]:
    """The texts, and of pairs the first, with ``prompt`` before each; what is no text stays for others to refuse."""
    out = []
    for text in texts:
        if isinstance(text, str):
            text = prompt + text
        elif isinstance(text, tuple | list) and text and isinstance(text[0], str):
            text = (prompt + text[0], *text[1:])
        out.append(text)
    return out


def token_states(ops: Backend[Any], p: Mapping[str, Any], batch: Batch, c: Choices) -> Any:
    """The last hidden states [N, H] of the batch's tokens, text behind text; no padding is computed where ops can."""
    seen = batch.attention_mask.astype(bool)
    if hasattr(ops, "packed_encoder_layer"):
        return packed_bert(ops, p, batch.input_ids[seen], batch.token_type_ids[seen], batch.lengths, c)
    encoded, _ = bert(ops, p, batch, c, pooled=False, gradients=False)
    rows, _ = ops.gather(encoded.hidden, np.flatnonzero(seen))
    return rows


def pooled_vectors(
    ops: Backend[Any], p: Mapping[str, Any], states: Any, lengths: Host, poolings: Sequence[str], *, skip: int = 0
) -> Host:
    """The poolings' vectors, one behind the other, [B, H · poolings], of `token_states`."""
    rows = ops.to_numpy(states)
    vectors = {name: pool(rows, lengths, name, skip=skip) for name in poolings if name != "pooler"}
    if "pooler" in poolings:
        first, _ = ops.gather(states, np.cumsum(lengths) - lengths)  # [B, H]
        alone, _ = ops.reshape(first, (len(lengths), 1, rows.shape[1]))
        vectors["pooler"] = ops.to_numpy(pooler(ops, Scope(p, "bert.pooler."), alone)[0])
    return np.concatenate([vectors[name] for name in poolings], axis=1)


def sigmoid(x: Host) -> Host:
    """1/(1 + e⁻ˣ), computed from e to the power of what is not positive, which cannot overflow."""
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1, e) / (1 + e))
