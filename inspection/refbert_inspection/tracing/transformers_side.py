"""Hugging Face transformers as one side of a comparison: the same text through its model, with hooks on its modules.

Its modules have the names of our tensors, since both are the checkpoint's; what has a counterpart is compared:
every linear map, LayerNorm, embedding and activation, attention (eager, which alone gives its probabilities away), the
pooler, the logits, and the gradients of all of these and of the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from refbert.backend import Host
from refbert.ops.cross_entropy import IGNORE
from refbert_conformance.tolerances.arithmetic import Arithmetic
from refbert_inspection import hugging_face
from refbert_inspection.tracing.difference import Side
from refbert_inspection.tracing.names import PROJECTIONS, hidden_state_names
from refbert_inspection.tracing.passes import GRADIENT, probabilities_of, projection
from refbert_inspection.tracing.setting import Setting

# The ends of names that differ from ours.
_RENAMED = {
    "intermediate.intermediate_act_fn": "intermediate.{activation}",
    "transform.transform_act_fn": "transform.{activation}",
    "pooler.activation": "pooler.tanh",
}
# One row for all sequences there, one for each here: the same numbers, but not the same gradients.
_POSITIONS = "bert.embeddings.position_embeddings"


def side_of_transformers(model: Any, setting: Setting, *, dtype: str = "float32") -> Side:
    """transformers' pass, under our names."""
    torch = hugging_face.library("torch")
    seen: dict[str, Any] = {}
    hooks = []
    names = _Names(setting)
    prefix = "" if hasattr(model, "bert") else "bert."
    for path, module in model.named_modules():
        name = names.of(prefix + path)
        if name:
            hooks.append(module.register_forward_hook(_keep(seen, name)))
    labels = dict(setting.labels or {})
    if setting.heads == ("next_sentence",) and labels:
        labels = {"labels": labels["next_sentence_label"]}
    out = model(**hugging_face.inputs(setting.batch, **labels), output_attentions=True)
    found = {name: names.shaped(name, x.detach().numpy()) for name, x in seen.items()}
    if setting.backward:
        if labels:
            out.loss.backward()
        else:
            last = seen[hidden_state_names(setting.choices.layers)[-1]]
            r = torch.from_numpy(projection(setting.batch, setting.parameters)).to(last.dtype)
            (last * r).sum().backward()
        found |= {
            GRADIENT + name: names.shaped(name, x.grad.numpy())
            for name, x in seen.items()
            if x.retains_grad and x.grad is not None and name != _POSITIONS
        }
        found |= {
            GRADIENT + prefix + name: p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None
        }
    for hook in hooks:
        hook.remove()
    label = f"{hugging_face.release()} ({dtype})"
    return Side(label, Arithmetic.of(dtype), setting, {name: np.asarray(x) for name, x in found.items()})


def _keep(seen: dict[str, Any], name: str) -> Callable[..., None]:
    def hook(module: Any, inputs: Any, output: Any) -> None:
        pair = output if isinstance(output, tuple) else (output,)
        if name.endswith("attention.self.context"):
            seen[probabilities_of(name)] = pair[1]
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

    def of(self, path: str) -> str:
        """Our name for a module's result, or "" for one that has no counterpart."""
        for ending, ours in _RENAMED.items():
            if path.endswith(ending):
                return path.removesuffix(ending) + ours.format(activation=self._activation)
        if path.endswith("attention.self"):
            return path + ".context"
        leaves = ("dense", "LayerNorm", "query", "key", "value", "decoder", "_embeddings")
        return path if path.endswith(leaves) or path in PROJECTIONS else ""

    def shaped(self, name: str, x: Host) -> Host:
        """The masked-LM head's tensors as the rows that the spec computes."""
        if name == _POSITIONS:
            return np.broadcast_to(x, (self._sequences, *x.shape[1:]))
        if not name.startswith("cls.predictions."):
            return x
        rows = x.reshape(-1, x.shape[-1])
        return rows if self._rows is None else rows[self._rows]
