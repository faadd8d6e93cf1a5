"""Labels: from what a user passes to what the objective reads, with every mistake named."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from refbert.backend import Host
from refbert.config import BertConfig
from refbert.config.heads import HEADS
from refbert.errors import InputError
from refbert.ops.cross_entropy import IGNORE
from refbert.text.batching import Batch, refuse


def is_regression(config: BertConfig) -> bool:
    """Whether the sequence classifier is trained on numbers (Hugging Face's rule: K = 1, or said so)."""
    return config.problem_type == "regression" or (config.problem_type is None and config.num_labels == 1)


def is_multi_label(config: BertConfig) -> bool:
    """Whether a sequence may have several classes, each with a probability of its own, or none."""
    return config.problem_type == "multi_label_classification"


def read_labels(labels: object, batch: Batch, heads: tuple[str, ...], config: BertConfig) -> dict[str, Host]:
    """The label arrays by Hugging Face's names (`refbert.config.heads.HEADS`), checked against batch and sizes.

    ``labels`` is a mapping of those names, or, for a model with one head that takes one array, that array. Raises
    `InputError` for an unknown name, a wrong shape, a label out of range, or labels for no head.
    """
    if not heads:
        raise InputError("this checkpoint has no head, so there is nothing to compute a loss of")
    if not isinstance(labels, Mapping):
        names = {name for head in heads for name in HEADS[head].labels}
        if len(names) != 1:
            raise InputError(f"this model takes several label arrays: pass a mapping with {', '.join(sorted(names))}")
        labels = {names.pop(): labels}
    if heads == ("next_sentence",) and "labels" in labels:  # what Hugging Face calls them where there are no others
        labels = {"next_sentence_label" if name == "labels" else name: value for name, value in labels.items()}
    known = {name: head for head in heads for name in HEADS[head].labels}
    out = {}
    for name, value in labels.items():
        if value is None:
            continue
        if name not in known:
            raise InputError(f'unknown labels "{name}"; this model takes {", ".join(known)}')
        out[name] = _read(name, value, known[name], batch, config)
    if not any(all(name in out for name in HEADS[head].labels) for head in heads):
        raise InputError(f"no head has all its labels; this model takes {', '.join(known)}")
    return out


def _read(name: str, value: object, head: str, batch: Batch, config: BertConfig) -> Host:
    array = np.asarray(value)
    B, S = batch.input_ids.shape
    one = HEADS[head]
    if one.label == "problem" and is_multi_label(config):
        return _several(name, array, (B, config.num_labels))
    if one.label == "problem" and is_regression(config):
        if array.shape == (B,) and config.num_labels == 1:
            array = array.reshape(B, 1)
        _expect(name, array, (B, config.num_labels))
        targets = array.astype(np.float64)
        if not np.isfinite(targets).all():
            raise InputError(f"{name} must be finite numbers")
        return targets
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"{name} must be whole numbers, not {array.dtype}")
    if one.label == "choice":
        if array.ndim != 1 or (B and (not len(array) or B % len(array))):
            raise InputError(f"{name} has shape {array.shape}; a batch of {B} rows must be a whole number of choices "
                             "for each label")  # fmt: skip
        limit = B // max(len(array), 1)
    elif one.label == "position":
        _expect(name, array, (B,))
        limit = None  # a position outside the window means: no answer here
    else:
        _expect(name, array, (B,) if one.reads == "pooled" else (B, S))
        limit = one.outputs(config)
    if limit is not None:
        wrong = (array != IGNORE) & ((array < 0) | (array >= limit))
        refuse(name, array, wrong, f"must be {IGNORE} (ignored) or in [0, {limit})")
    return array.astype(np.int64)


def _several(name: str, array: Host, shape: tuple[int, int]) -> Host:
    """Which classes a sequence has, in any kind of number: [B, K] of 0, 1 and IGNORE."""
    if shape[1] == 1 and array.shape == shape[:1]:
        array = array.reshape(shape)
    _expect(name, array, shape)
    if not (np.issubdtype(array.dtype, np.number) or array.dtype == np.bool_):
        raise InputError(f"{name} must be numbers, not {array.dtype}")
    wrong = ~np.isin(array, (0, 1, IGNORE))
    refuse(name, array, wrong, f"of several labels each is 0 or 1 ({IGNORE}: ignored)")
    return array.astype(np.int64)


def _expect(name: str, array: Host, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise InputError(f"{name} has shape {array.shape}, expected {shape}")
