"""Read an engine's arrays: what each is, by its name and shape, and what it says of tokens."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from refbert.backend import Host
from refbert.checkpoint.safetensors_file import read_safetensors
from refbert.config.heads import HEADS
from refbert.errors import CheckpointError, InputError
from refbert.files.reading import is_file, reading
from refbert.model import Model
from refbert.text.batching import refuse

HIDDEN, POOLER, VECTORS = "hidden", "pooler", "vectors"
TOKENS = ("input_ids", "attention_mask", "token_type_ids")
# What the names of the field stand for; logits are of the head that their shape fits.
_NAMES: Mapping[str, str] = {
    **dict.fromkeys(("last_hidden_state", "hidden_states", "token_embeddings"), HIDDEN),
    "pooler_output": POOLER,
    **dict.fromkeys(("sentence_embedding", "sentence_embeddings", "embeddings", "embedding"), VECTORS),
    "logits": "logits",
    "prediction_logits": "masked_lm",
    "seq_relationship_logits": "next_sentence",
    "start_logits": "start",
    "end_logits": "end",
    **{f"{head}_logits": head for head in HEADS},
}
KNOWN = (*_NAMES, *TOKENS)
_UNNAMED = "the array"


@dataclass(frozen=True, eq=False)
class Array:
    """One output: per text [B, D], or per token [B, S, D]; float64.

    kind: "hidden", "pooler", "vectors", or a head's name. part: which of the head's outputs, where it is one of them.
    u: the unit roundoff of what the file holds them in, which they were rounded to once more.
    """

    name: str
    kind: str
    values: Host
    part: int | None = None
    u: float = 0.0

    @property
    def per_token(self) -> bool:
        """Whether there is a row for each token."""
        return self.values.ndim == 3

    @property
    def rows(self) -> Host:
        """All rows, text by text."""
        return self.values.reshape(-1, self.values.shape[-1])


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a file has: arrays to judge, arrays [B, S] of tokens by name, names that nothing is known of."""

    arrays: tuple[Array, ...]
    tokens: Mapping[str, Host]
    unknown: tuple[str, ...]

    @property
    def length(self) -> int | None:
        """How many columns a batch had, where an array shows it."""
        shapes = [x.values.shape[1] for x in self.arrays if x.per_token] + [x.shape[1] for x in self.tokens.values()]
        return shapes[0] if shapes else None


def read_outputs(path: Path, model: Model, count: int) -> Outputs:
    """The outputs for ``count`` texts; raises `InputError` for what a model of these sizes cannot have made of them."""
    found = _read(path)
    known = [name for name in found if name in KNOWN or name == _UNNAMED]
    if not set(known) - set(TOKENS):
        raise InputError(
            f"{path}: no output is known by its name here (there is: {', '.join(found) or 'nothing'}; "
            f"known: {', '.join(_NAMES)})"
        )
    arrays, tokens, lengths = [], {}, {}
    for name in known:
        x, where = found[name], f"{path}: {name}"
        if name in TOKENS:
            tokens[name] = _whole(x, where)
            limits = {"input_ids": model.config.vocab_size, "token_type_ids": model.config.type_vocab_size}
            top = limits.get(name, 2)
            wrong = (tokens[name] < 0) | (tokens[name] >= top)
            refuse(where, tokens[name], wrong, f"the model takes 0 to {top - 1}")
        else:
            array = _array(name, _floating(x, where), model, where)
            arrays.append(replace(array, u=float(np.finfo(x.dtype).eps) / 2))
        if not x.shape or x.shape[0] != count:
            raise InputError(f"{where} has {x.shape[0] if x.shape else 'no'} rows, and there are {count} texts")
        if name in TOKENS or arrays[-1].per_token:
            lengths[name] = x.shape[1]
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise InputError(f"{path}: arrays of different lengths ({shown}): they are not of one batch")
    return Outputs(tuple(arrays), tokens, tuple(name for name in found if name not in known))


def _read(path: Path) -> dict[str, Host]:
    if not is_file(path):
        with reading(path), path.open("rb"):
            raise InputError(f"{path}: not a regular file")
    if path.suffix == ".safetensors":
        try:
            return read_safetensors(path)
        except CheckpointError as error:
            raise InputError(str(error)) from None
    try:
        with reading(path), path.open("rb") as file:
            held = np.load(file, allow_pickle=False)
            return {name: held[name] for name in held.files} if hasattr(held, "files") else {_UNNAMED: held}
    except ValueError as error:
        if "ickle" in str(error):
            raise InputError(f"{path}: no .npz, .npy or .safetensors, or one that holds Python objects") from None
        raise InputError(f"{path}: cannot be read ({error})") from None
    except (EOFError, zipfile.BadZipFile, pickle.UnpicklingError, KeyError, MemoryError) as error:
        raise InputError(f"{path}: empty, damaged or cut short ({error})") from None


def _whole(x: Host, where: str) -> Host:
    if x.dtype.kind not in "iub" or x.ndim != 2 or not x.size:
        raise InputError(f"{where} must be whole numbers [B, S], not {x.dtype} {list(x.shape)}")
    return x.astype(np.int64)


def _floating(x: Host, where: str) -> Host:
    if x.dtype.kind != "f":
        raise InputError(f"{where} is {x.dtype}; outputs are floating point")
    if not x.size:
        raise InputError(f"{where} is empty: {list(x.shape)}")
    return x.astype(np.float64)


def _array(name: str, x: Host, model: Model, where: str) -> Array:
    H, kind = model.config.hidden_size, _NAMES.get(name, "")
    if kind in ("start", "end"):
        _require_head("question_answering", model, where)
        if x.ndim != 2:
            raise InputError(f"{where} must be [B, S], not {list(x.shape)}")
        return Array(name, "question_answering", x[..., None], ("start", "end").index(kind))
    if kind == VECTORS and x.ndim == 3:
        kind = HIDDEN
    if name == _UNNAMED:
        widths = {2: {model.embedder.size(H): VECTORS}, 3: {H: HIDDEN}}
        kind = widths.get(x.ndim, {}).get(x.shape[-1], "logits") if x.ndim else "logits"
    if kind == "logits":
        kind = _head_of(x, model, where)
    if kind in HEADS:
        _require_head(kind, model, where)
        width, dimensions = HEADS[kind].outputs(model.config), 2 if HEADS[kind].reads == "pooled" else 3
    else:
        width = model.embedder.size(H) if kind == VECTORS else H
        dimensions = 3 if kind == HIDDEN else 2
    if kind == POOLER and not model.has_pooler:
        raise InputError(f"{where}: this model has no pooler")
    if x.ndim != dimensions:
        axes = "[B, S, …]" if dimensions == 3 else "[B, …]"
        raise InputError(f"{where} must have {dimensions} axes, {axes}, not {list(x.shape)}")
    if x.shape[-1] != width:
        raise InputError(f"{where} has {x.shape[-1]} numbers a row, and the model makes {width}")
    return Array(name, kind, x)


def _require_head(head: str, model: Model, where: str) -> None:
    if head not in model.heads:
        raise InputError(f"{where}: this model has no {head} head (it has: {', '.join(model.heads) or 'none'})")


def _head_of(x: Host, model: Model, where: str) -> str:
    reads = {2: ("pooled",), 3: ("positions", "tokens")}.get(x.ndim, ())
    for head in model.heads:
        if HEADS[head].reads in reads and HEADS[head].outputs(model.config) == x.shape[-1]:
            return head
    has = ", ".join(f"{head} [B, {'' if HEADS[head].reads == 'pooled' else 'S, '}{HEADS[head].outputs(model.config)}]"
                    for head in model.heads)  # fmt: skip
    raise InputError(f"{where} is {list(x.shape)}, which no head of this model makes (it has: {has or 'none'})")
