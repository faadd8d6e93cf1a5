"""Hugging Face transformers as one side of a comparison: the same text through its model, with hooks on its modules.

Its modules have the names of our tensors, since both are the checkpoint's; what has a counterpart is compared:
every linear map, LayerNorm, embedding and activation, attention (eager, which alone gives its probabilities away), the
pooler, the logits, and the gradients of all of these and of the weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from refbert.backend import Host
from refbert.checkpoint.export import architectures
from refbert.errors import BackendUnavailable, InputError
from refbert.ops.cross_entropy import IGNORE
from refbert_conformance.tolerances.arithmetic import Arithmetic
from refbert_inspection.tracing.difference import Side
from refbert_inspection.tracing.passes import GRADIENT, projection
from refbert_inspection.tracing.setting import Setting

DTYPES = ("float32", "float64")
# The ends of names that differ from ours.
_RENAMED = {
    "intermediate.intermediate_act_fn": "intermediate.{activation}",
    "transform.transform_act_fn": "transform.{activation}",
    "pooler.activation": "pooler.tanh",
}
# One row for all sequences there, one for each here: the same numbers, but not the same gradients.
_POSITIONS = "bert.embeddings.position_embeddings"


def load_model(directory: Path, heads: tuple[str, ...], *, pooler: bool, dtype: str = "float32") -> Any:
    """The checkpoint as transformers reads it, for inference, with eager attention.

    Raises `BackendUnavailable` without transformers, and `InputError` for heads or a file that it has no class for.
    """
    if dtype not in DTYPES:
        raise InputError(f'transformers is compared in {" or ".join(DTYPES)}, not in "{dtype}"')
    classes = architectures(heads)
    if len(classes) != 1:
        raise InputError(f"transformers has no one class with the heads {', '.join(heads)}")
    try:
        import torch
        import transformers
    except ImportError as error:
        raise BackendUnavailable(f'transformers is not here ({error}); pip install "transformers>=5" torch') from None
    kind = getattr(transformers, classes[0])
    options: dict[str, Any] = {"add_pooling_layer": pooler} if not heads else {}
    logging: Any = transformers.logging
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = kind.from_pretrained(
                directory, attn_implementation="eager", dtype=getattr(torch, dtype), local_files_only=True, **options
            )
    except (OSError, ValueError) as error:
        raise InputError(f"{directory}: transformers cannot load it ({' '.join(str(error).split())[:200]})") from None
    finally:
        logging.set_verbosity(level)
    return model.eval()


def side_of_transformers(model: Any, setting: Setting, *, dtype: str = "float32") -> Side:
    """transformers' pass, under our names."""
    import torch
    import transformers

    seen: dict[str, Any] = {}
    hooks = []
    names = _Names(setting)
    for path, module in model.named_modules():
        name = names.of(path, hasattr(model, "bert"))
        if name:
            hooks.append(module.register_forward_hook(_keep(seen, name)))
    batch = setting.batch
    arrays = {
        "input_ids": batch.input_ids,
        "token_type_ids": batch.token_type_ids,
        "attention_mask": batch.attention_mask,
    }
    given = {name: torch.from_numpy(x) for name, x in arrays.items()}
    labels = {name: torch.from_numpy(np.asarray(x)) for name, x in (setting.labels or {}).items()}
    if setting.heads == ("next_sentence",) and labels:
        labels = {"labels": labels["next_sentence_label"]}
    out = model(**given, **labels, output_attentions=True)
    found = {name: names.shaped(name, x.detach().numpy()) for name, x in seen.items()}
    if setting.backward:
        if labels:
            out.loss.backward()
        else:
            last = seen[f"bert.encoder.layer.{setting.choices.layers - 1}.output.LayerNorm"]
            r = torch.from_numpy(projection(batch, setting.parameters)).to(last.dtype)
            (last * r).sum().backward()
        found |= {
            GRADIENT + name: names.shaped(name, x.grad.numpy())
            for name, x in seen.items()
            if x.retains_grad and x.grad is not None and name != _POSITIONS
        }
        prefix = "" if hasattr(model, "bert") else "bert."
        found |= {
            GRADIENT + prefix + name: p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None
        }
    for hook in hooks:
        hook.remove()
    label = f"transformers {transformers.__version__} ({dtype})"
    return Side(label, Arithmetic.of(dtype), setting, {name: np.asarray(x) for name, x in found.items()})


def _keep(seen: dict[str, Any], name: str) -> Callable[..., None]:
    def hook(module: Any, inputs: Any, output: Any) -> None:
        pair = output if isinstance(output, tuple) else (output,)
        if name.endswith("attention.self.context"):
            seen[name.removesuffix("context") + "probabilities"] = pair[1]
        seen[name] = pair[0]
        if pair[0].requires_grad:
            pair[0].retain_grad()

    return hook


class _Names:
    """transformers' modules and shapes as ours."""

    def __init__(self, setting: Setting) -> None:
        self._sequences = setting.batch.shape[0]
        self._activation = setting.choices.activation.partition("_")[0]
        labels = (setting.labels or {}).get("labels")
        masked_lm = "masked_lm" in setting.heads and setting.backward and labels is not None
        # In a backward pass only the labelled positions go through the masked-LM head.
        self._rows: Host | None = np.flatnonzero(np.asarray(labels).reshape(-1) != IGNORE) if masked_lm else None

    def of(self, path: str, has_heads: bool) -> str:
        """Our name for a module's result, or "" for one that has no counterpart."""
        path = path if has_heads else f"bert.{path}"
        for ending, ours in _RENAMED.items():
            if path.endswith(ending):
                return path.removesuffix(ending) + ours.format(activation=self._activation)
        if path.endswith("attention.self"):
            return path + ".context"
        leaves = ("dense", "LayerNorm", "query", "key", "value", "decoder", "_embeddings")
        heads = ("cls.seq_relationship", "classifier", "qa_outputs")
        return path if path.endswith(leaves) or path in heads else ""

    def shaped(self, name: str, x: Host) -> Host:
        """The masked-LM head's tensors as the rows that the spec computes."""
        if name == _POSITIONS:
            return np.broadcast_to(x, (self._sequences, *x.shape[1:]))
        if not name.startswith("cls.predictions."):
            return x
        rows = x.reshape(-1, x.shape[-1])
        return rows if self._rows is None else rows[self._rows]
