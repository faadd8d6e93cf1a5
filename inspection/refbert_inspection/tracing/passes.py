"""One pass of a model over one batch, with everything that the spec composes kept under its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from refbert.backend import Backend, Host
from refbert.config.heads import HEADS, POOLED_HEADS
from refbert.spec.bert import bert, objective
from refbert.spec.choices import Choices
from refbert.spec.head_table import head_logits
from refbert.spec.pooler import pooler
from refbert.spec.scope import Scope
from refbert.text.batching import Batch
from refbert_inspection.tracing.names import hidden_state_names
from refbert_inspection.tracing.recording import Call, Recording, Tensor

# Where the gradients start when there is nothing to take a loss of: the seed of the projection's random numbers.
SEED = 0
# What a gradient is called in `Pass.arrays`: this, and the name of what it is the gradient of.
GRADIENT = "gradient of "


@dataclass(frozen=True)
class Pass:
    """What a pass made.

    calls: the ops in the order in which they ran, those of the backward's additions (``sums``) included.
    gradients: by parameter name; empty without a backward.   loss: None without labels.
    """

    choices: Choices
    backend: Backend[Any]
    calls: tuple[Call, ...]
    gradients: Mapping[str, Host] = field(default_factory=dict)
    loss: float | None = None

    @property
    def forward(self) -> tuple[Call, ...]:
        """The ops of the forward pass."""
        return tuple(call for call in self.calls if not call.sums)

    @property
    def backward(self) -> tuple[Call, ...]:
        """The ops whose gradient is known, in the order of the backward."""
        return tuple(sorted((c for c in self.forward if c.gradient is not None), key=lambda c: c.back_order))

    def gradients_of_tensors(self) -> dict[str, Host]:
        """The gradient of every tensor that has one, by the tensor's name, in the order of the backward."""
        return {call.name: call.gradient for call in self.backward if call.gradient is not None}

    def made(self) -> Iterator[tuple[str, str, Host, Call]]:
        """(name, op, tensor, its call) of the forward, attention's probabilities [B, A, S, S] before its context."""
        for call in self.forward:
            if call.probabilities is not None:
                yield probabilities_of(call.name), "attention_probabilities", call.probabilities, call
            yield call.name, call.op, call.y, call

    def tensors(self) -> dict[str, Host]:
        """Every tensor of the forward by its name."""
        return {name: x for name, _, x, _ in self.made()}

    def arrays(self) -> dict[str, Host]:
        """All there is to save: tensors, "gradient of " each that has one, and those of the parameters."""
        gradients = {**self.gradients_of_tensors(), **self.gradients}
        return self.tensors() | {GRADIENT + name: g for name, g in gradients.items()}


def probabilities_of(context: str) -> str:
    """The name of the probabilities behind an attention's context."""
    return context.removesuffix("context") + "probabilities"


def run_pass(
    backend: Backend[Any], parameters: Mapping[str, Any], batch: Batch, choices: Choices, heads: tuple[str, ...], *,
    labels: Mapping[str, Host] | None = None, backward: bool = False, keep_inputs: bool = False,
) -> Pass:  # fmt: skip
    """The spec on a backend that is watched; ``parameters`` are the backend's arrays.

    Without ``backward``: embeddings, encoder, pooler, and every head's logits. With it and with labels: the loss that
    they give, and its gradients; with it and without labels: the gradients of Σ r h_L, r [B, S, H] standard normal
    numbers, which needs no head. No dropout.
    """
    recording = Recording(backend, keep_inputs=keep_inputs)
    p = recording.parameters(parameters)
    loss, found = None, {}
    if backward and labels:
        value, _, pullback = objective(recording, p, batch, labels, heads, choices)
        loss = float(recording.to_numpy(value))
        found = pullback(recording.asarray(np.ones(())))
        _outputs(recording, p, batch, choices, [name for name in heads if name in POOLED_HEADS])
    else:
        _, pull = bert(recording, p, batch, choices, pooled=False, gradients=backward)
        _outputs(recording, p, batch, choices, heads)
        if backward:
            found = pull(recording.asarray(projection(batch, parameters)), None)
    gradients = {name: np.array(recording.to_numpy(g)) for name, g in found.items()}
    return Pass(choices, backend, tuple(recording.finish()), gradients, loss)


def projection(batch: Batch, parameters: Mapping[str, Any]) -> Host:
    """The cotangent [B, S, H] of the last hidden states where there is no loss: exact in every dtype (k/8).

    0 at padding, because Hugging Face's table of words gives [PAD] no gradient.
    """
    H = int(parameters["bert.embeddings.word_embeddings.weight"].shape[1])
    drawn = np.random.default_rng(SEED).standard_normal((*batch.shape, H))
    return np.asarray(np.rint(8 * drawn) / 8 * batch.attention_mask[:, :, None])


def _outputs(recording: Recording, p: Mapping[str, Tensor], batch: Batch, c: Choices, heads: Any) -> None:
    """The pooler and the heads' logits on top of the last layer, those that have not been computed yet."""
    made = {call.name: call for call in recording.calls}
    ops: Any = recording
    hidden = recording.again(made[hidden_state_names(c.layers)[-1]])
    pooled: Any = recording.again(made["bert.pooler.tanh"]) if "bert.pooler.tanh" in made else None
    if pooled is None and "bert.pooler.dense.weight" in p:
        pooled, _ = pooler(ops, Scope(p, "bert.pooler."), hidden)
    for name in heads:
        last = HEADS[name].parameter + (".decoder" if HEADS[name].tied else "")
        if last not in made:
            x = pooled if name in POOLED_HEADS else hidden
            head_logits(name, ops, p, x, c, positions=np.arange(batch.input_ids.size))
