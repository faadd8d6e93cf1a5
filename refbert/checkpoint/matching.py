"""Which parameters of a model a checkpoint holds: its heads, and the match of names and shapes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from refbert.backend import Host
from refbert.checkpoint.mapped import is_finite
from refbert.checkpoint.reading import Checkpoint
from refbert.config import BertConfig
from refbert.config.heads import CLASSIFIERS, HEADS
from refbert.config.parameters import Shapes, shapes
from refbert.errors import CheckpointError


@dataclass(frozen=True)
class Matched:
    """parameters: the expected tensors that the checkpoint holds, in the order asked for.

    missing: expected, not in the checkpoint. unused: in the checkpoint, not expected.
    """

    parameters: dict[str, Host]
    missing: tuple[str, ...]
    unused: tuple[str, ...]


def heads_in(names: Collection[str], config: BertConfig) -> tuple[tuple[str, ...], bool]:
    """The heads of `refbert.config.heads.HEADS` whose tensors are all there, in that order; whether the pooler is.

    ``classifier`` belongs to three heads. ``config.architectures`` decides; failing that, a checkpoint without pooler
    holds a token classifier, and one whose matrix (where ``names`` maps to arrays) has a single row although the
    configuration has several labels is multiple choice; otherwise it is a sequence classifier.
    """
    have = set(names)
    pooler = {"bert.pooler.dense.weight", "bert.pooler.dense.bias"} <= have
    bare = config.replace(num_hidden_layers=0)  # no head depends on the layers
    body = set(shapes(bare))
    found = {head for head in HEADS if set(shapes(bare, (head,))) - body <= have}
    if not found.isdisjoint(CLASSIFIERS):
        named = [head for head in CLASSIFIERS if HEADS[head].architecture in config.architectures]
        weight = names.get("classifier.weight") if isinstance(names, Mapping) else None
        if named:
            classifier = named[0]
        elif not pooler:
            classifier = "token_classification"
        elif weight is not None and weight.shape[:1] == (1,) and config.num_labels != 1:
            classifier = "multiple_choice"
        else:
            classifier = "sequence_classification"
        found = found.difference(CLASSIFIERS) | {classifier}
    return tuple(head for head in HEADS if head in found), pooler


def match(checkpoint: Checkpoint, shapes: Shapes, *, untouched: bool = False) -> Matched:
    """Pick the tensors that a model of these shapes expects.

    ``untouched``: they are as they were read, so that those of a mapped file need not stay in memory.
    Raises `CheckpointError` for a tensor of another shape, and for one that holds NaN or infinity; names that do not
    match are reported in the result.
    """
    parameters = {}
    for name, expected in shapes.items():
        if name not in checkpoint.tensors:
            continue
        tensor = checkpoint.tensors[name]
        if tensor.shape != expected:
            raise CheckpointError(
                f"{checkpoint.files[0]}: {name} has shape {list(tensor.shape)}, the configuration asks for "
                f"{list(expected)}{_hint(name, tensor.shape, expected)}"
            )
        if not is_finite(tensor, let_go=untouched):
            raise CheckpointError(f"{checkpoint.files[0]}: {name} holds NaN or infinite weights; it is of no use")
        parameters[name] = tensor
    return Matched(
        parameters,
        missing=tuple(name for name in shapes if name not in checkpoint.tensors),
        unused=tuple(name for name in checkpoint.tensors if name not in shapes),
    )


# The size in the configuration that fixes a tensor's first dimension.
_ROWS = {
    "bert.embeddings.word_embeddings.weight": "vocab_size",
    "bert.embeddings.position_embeddings.weight": "max_position_embeddings",
    "bert.embeddings.token_type_embeddings.weight": "type_vocab_size",
    "cls.predictions.bias": "vocab_size",
    "classifier.weight": "num_labels",
    "classifier.bias": "num_labels",
}


def _hint(name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> str:
    if len(found) == 2 and found == expected[::-1]:
        return " (it is transposed)"
    if name in _ROWS and found[1:] == expected[1:] and found:
        return f" ({_ROWS[name]} is {expected[0]}, the tensor says {found[0]})"
    return " (is this the configuration of another checkpoint?)"
