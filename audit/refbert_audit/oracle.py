"""Hugging Face transformers as an oracle, where it is installed."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import numpy as np

from refbert.checkpoint.export import architectures
from refbert.config import BertConfig
from refbert.config.presets import preset
from refbert.model import Model
from refbert.text.batching import Batch
from refbert_audit.findings import Unavailable
from refbert_audit.shared import shared

LIBRARIES = ("transformers", "torch")


def lacking() -> tuple[str, ...]:
    """Those of the two libraries that are not installed here."""
    return tuple(name for name in LIBRARIES if find_spec(name) is None)


def name() -> str:
    """Who speaks for Hugging Face here, with the release; or that nobody does."""
    if lacking():
        return "not installed"
    try:
        return f"transformers {version('transformers')}"
    except PackageNotFoundError:
        return "transformers"


def library(module: str = "transformers") -> Any:
    """A module of transformers or PyTorch; nothing is asked of the network.

    Raises `Unavailable` where either is not installed, or does not work: nothing else stands in for them.
    """
    missing = lacking()
    if missing:
        raise Unavailable(f"{' and '.join(missing)} (pip install {' '.join(missing)})")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Unavailable(f"{module}, which is installed but cannot be imported ({error})") from None


def class_of(heads: Sequence[str]) -> Any:
    """Hugging Face's class with these heads."""
    (cls,) = architectures(heads)
    return getattr(library(), cls)


def config_of(config: BertConfig, **changes: Any) -> Any:
    """Hugging Face's configuration of the same sizes, with eager attention unless told otherwise."""
    fields = {k: v for k, v in config.to_dict().items() if k not in ("id2label", "label2id", "model_type")}
    fields = {"attn_implementation": "eager", "num_labels": config.num_labels} | fields | changes
    return library().BertConfig(**fields)


def twin(model: Model, **changes: Any) -> Any:
    """Hugging Face's model with ``model``'s heads and weights, in float64, in inference mode."""
    torch = library("torch")
    cls = class_of(model.heads)
    options: dict[str, Any] = {"add_pooling_layer": model.has_pooler} if not model.heads else {}
    theirs = cls(config_of(model.config, **changes), **options).double().eval()
    ours = {name: torch.tensor(x) for name, x in model.state_dict().items()}
    prefix = "" if model.heads else "bert."
    with torch.no_grad():
        for their_name, p in theirs.named_parameters():
            p.copy_(ours[prefix + their_name])
    return theirs


def outputs(theirs: Any, batch: Batch, **labels: Any) -> Any:
    """What Hugging Face's model makes of a batch, without gradients."""
    torch = library("torch")
    with torch.no_grad():
        return theirs(**tensors(batch), **{k: torch.tensor(np.asarray(v)) for k, v in labels.items()})


def tensors(batch: Batch) -> dict[str, Any]:
    """The three arrays of a batch, under Hugging Face's names."""
    torch = library("torch")
    names = ("input_ids", "token_type_ids", "attention_mask")
    return {name: torch.tensor(getattr(batch, name)) for name in names}


@shared
def parameter_count(heads: Sequence[str], name: str) -> int:
    """Parameters of Hugging Face's class at a preset's size, built without memory (on PyTorch's "meta" device)."""
    torch = library("torch")
    with torch.device("meta"):
        theirs = class_of(heads)(config_of(preset(name)))
    return sum(p.numel() for p in theirs.parameters())
