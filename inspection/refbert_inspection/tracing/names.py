"""What a tensor of a pass is called: from the parameters that its op was given, or from where its inputs come from.

The spec hands every op its parameters, and a parameter's name says where in the model the op stands. So nothing in the
spec needs a name for us:

    linear(x, w, b), layer_norm(x, γ, β), embedding(table)   the parameters' own name: bert.encoder.layer.0.output.dense
    attention(q, k, v)      bert.encoder.layer.0.attention.self.context (and .probabilities)
    an activation           the place of its input and the op's word: bert.encoder.layer.0.intermediate.gelu
    add, dropout, …         likewise, of the last input: the residual after output.dense is output.add
    gather                  of what its result goes into: bert.pooler.gather, cls.predictions.transform.gather
    a loss                  the place of its logits: cls.predictions.loss; the sum of several losses is "loss"

A name that comes up again gets #2, #3, …: bert.embeddings.add is words + segments, add#2 that + positions.
"""

from __future__ import annotations

from collections.abc import Sequence

from refbert.config.heads import HEADS

# How layers and heads are counted, here and wherever refbert speaks of one.
NUMBERING = "Layers and heads are numbered from 0, as in the parameters' names: layer 0 is encoder.layer.0."

# Projections whose parameters stand directly under the head's name: they are a place of their own.
PROJECTIONS = frozenset(head.parameter for head in HEADS.values() if not head.tied)
_LOSSES = ("cross_entropy", "mean_squared_error")
_PARAMETERS = (".weight", ".bias")


def stem(parameter: str) -> str:
    """A parameter's name without ``.weight`` or ``.bias``."""
    for ending in _PARAMETERS:
        parameter = parameter.removesuffix(ending)
    return parameter


def place(name: str) -> str:
    """Where a tensor stands: its name without the last part."""
    return name if name in PROJECTIONS else name.rpartition(".")[0]


def named(op: str, inputs: Sequence[str], shape: Sequence[int]) -> str:
    """The name of an op's result, from the names of its array arguments; "" where only its use will tell (gather)."""
    last = inputs[-1]
    parameters = [name for name in inputs if name.endswith(_PARAMETERS)]
    if parameters:
        # The masked-LM decoder takes its matrix from the embeddings and its bias from the head.
        own = stem(parameters[-1])
        return own if stem(parameters[0]) == own else f"{own}.decoder"
    if op == "gather":
        return ""
    if op == "attention":
        return joined(place(last), "context")
    if op in _LOSSES:
        return joined(place(last), "loss")
    if op == "add" and not shape:
        return "loss"
    return joined(place(last), op)


def gathered(source: str, into: str = "") -> str:
    """The name of gathered rows: the place of the parameters that they go into, or else of what they come from."""
    return joined(place(stem(into)) if into else place(source), "gather")


def joined(place: str, name: str) -> str:
    """``place.name``, or the name alone where there is no place."""
    return f"{place}.{name}" if place else name


def hidden_state_names(layers: int) -> list[str]:
    """The embeddings' output and every layer's."""
    return ["bert.embeddings.LayerNorm", *(f"bert.encoder.layer.{i}.output.LayerNorm" for i in range(layers))]


def layer_of(name: str) -> int | str:
    """The layer's number (see `NUMBERING`), "embeddings" or "heads"."""
    if name.startswith("bert.embeddings."):
        return "embeddings"
    if name.startswith("bert.encoder.layer."):
        return int(name.split(".")[3])
    return "heads"
