"""Hugging Face transformers beside refbert: its class for the same heads, with the same sizes and weights.

Attention is eager, the one implementation that gives its probabilities away. Nothing is asked of the network.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from refbert.checkpoint.export import architectures
from refbert.config import BertConfig
from refbert.errors import BackendUnavailable, InputError
from refbert.model import Model
from refbert.text.batching import Batch

LIBRARIES = ("transformers", "torch")
DTYPES = ("float32", "float64")  # those that `load` takes


class Unavailable(BackendUnavailable):
    """transformers or PyTorch is not here, or does not work. lacking: which, and how to get it."""

    def __init__(self, lacking: str) -> None:
        super().__init__(f"Hugging Face's model needs {lacking}")
        self.lacking = lacking


def missing() -> tuple[str, ...]:
    """Those of the two libraries that are not installed here."""
    return tuple(name for name in LIBRARIES if find_spec(name) is None)


def release() -> str:
    """The release of transformers that is installed: "transformers 5.24.0"; or "not installed"."""
    if missing():
        return "not installed"
    try:
        return f"transformers {version('transformers')}"
    except PackageNotFoundError:
        return "transformers"


def library(module: str = "transformers") -> Any:
    """A module of transformers or PyTorch; raises `Unavailable` where either is not installed, or does not work."""
    names = missing()
    if names:
        raise Unavailable(f"{' and '.join(names)} (pip install {' '.join(names)})")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Unavailable(f"{module}, which is installed but cannot be imported ({error})") from None


def class_of(heads: Sequence[str]) -> Any:
    """Hugging Face's class with these heads; raises `InputError` where no one class has them."""
    names = architectures(heads)
    if len(names) != 1:
        raise InputError(f"transformers has no one class with the heads {', '.join(heads)}")
    return getattr(library(), names[0])


def config_of(config: BertConfig, **changes: Any) -> Any:
    """Hugging Face's configuration of the same sizes."""
    fields = {k: v for k, v in config.to_dict().items() if k not in ("id2label", "label2id", "model_type")}
    fields = {"attn_implementation": "eager", "num_labels": config.num_labels} | fields | changes
    return library().BertConfig(**fields)


def twin(model: Model, **changes: Any) -> Any:
    """Hugging Face's model with ``model``'s heads and weights, in float64, in inference mode.

    ``changes``: of Hugging Face's configuration.
    """
    torch = library("torch")
    options = _pooler(model.heads, model.has_pooler)
    theirs = class_of(model.heads)(config_of(model.config, **changes), **options).double().eval()
    ours = model.state_dict()
    prefix = "" if model.heads else "bert."
    with torch.no_grad():
        for name, p in theirs.named_parameters():
            p.copy_(torch.tensor(ours[prefix + name]))
    return theirs


def load(directory: Path, heads: Sequence[str], *, pooler: bool, dtype: str = "float32") -> Any:
    """The checkpoint as transformers itself reads it, for inference.

    Raises `Unavailable` without transformers, and `InputError` for another dtype, and for heads or a file that it has
    no class for.
    """
    if dtype not in DTYPES:
        raise InputError(f'transformers is compared in {" or ".join(DTYPES)}, not in "{dtype}"')
    kind, torch = class_of(heads), library("torch")
    logging = library().logging
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    options = {"dtype": getattr(torch, dtype), "attn_implementation": "eager", **_pooler(heads, pooler)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return kind.from_pretrained(directory, local_files_only=True, **options).eval()
    except (OSError, ValueError) as error:
        raise InputError(f"{directory}: transformers cannot load it ({' '.join(str(error).split())[:200]})") from None
    finally:
        logging.set_verbosity(level)


def inputs(batch: Batch, **labels: Any) -> dict[str, Any]:
    """A batch's arrays and labels as PyTorch's, by Hugging Face's names."""
    arrays = {name: getattr(batch, name) for name in ("input_ids", "token_type_ids", "attention_mask")} | labels
    return {name: library("torch").tensor(np.asarray(x)) for name, x in arrays.items()}


def outputs(theirs: Any, batch: Batch, **labels: Any) -> Any:
    """What Hugging Face's model makes of a batch, without gradients."""
    with library("torch").no_grad():
        return theirs(**inputs(batch, **labels))


def _pooler(heads: Sequence[str], pooler: bool) -> dict[str, bool]:
    """The option for a pooler, which only the class without heads takes."""
    return {} if heads else {"add_pooling_layer": pooler}
