"""Level "invariance": a sequence's numbers, bit for bit, whatever is computed beside it.

Not a matter of right or wrong: a correct kernel may choose its block by the size of a batch, and another block sums in
another order. Who replays a training step, compares two servers or caches by content needs to know. So this is a table
of yes and no (``refbert invariance``), and a condition only where it is asked for (``conform --require``).
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from refbert.backend import Host
from refbert.backend.wrapper import OpsAlone
from refbert.spec.encoder import encoder_layer
from refbert.spec.scope import Scope
from refbert.text.batching import Batch
from refbert.wire import command
from refbert_conformance.cases.inputs import rounded
from refbert_conformance.cases.model_cases import ModelRecipe, inference, on
from refbert_conformance.engine.divergence import place
from refbert_conformance.engine.measure import Failure, Record, Unsupported, same_bits
from refbert_conformance.engine.property import Property
from refbert_conformance.engine.subject import Subject
from refbert_conformance.properties.blocks import SPEC, With
from refbert_conformance.tolerances.bounds import ARRAYS

_LENGTH, _SEQUENCES = 24, 12
_COUNTS = (1, 2, 3, 4, 8)  # of threads
# Small, and so wide that products choose their blocks by the size of a batch.
_SMALL = ModelRecipe(3, "masked_lm", 2, B=1, S=128, A=2, D=32, F=256, V=60, mask="all", scale=0.1)
_WIDE = ModelRecipe(3, "masked_lm", 1, B=1, S=128, A=4, D=64, F=1024, V=60, mask="all", scale=0.05)


@dataclass(frozen=True)
class Context:
    """A batch: sequences by number, the one looked at among them, each padded to a length."""

    sequences: tuple[int, ...]
    length: int = _LENGTH
    looked_at: int = 0

    @property
    def row(self) -> int:
        """Where the sequence stands."""
        return self.sequences.index(self.looked_at)

    def __str__(self) -> str:
        padded = f", padded to {self.length} tokens" if self.length != _LENGTH else ""
        return f"as number {self.row + 1} of {len(self.sequences)}{padded}"


_OTHERS = tuple(range(1, _SEQUENCES))
# What is changed about the batch -> the batches that are compared with the sequence alone.
CONTEXTS: dict[str, tuple[str, tuple[Context, ...]]] = {
    "in a batch": (
        "Alone, or first in a batch of any size.",
        tuple(Context((0, *(_OTHERS[i % 11] for i in range(size - 1)))) for size in (2, 3, 4, 7, 8, 16, 17, 32, 33)),
    ),
    "at any place": (
        "At any place in a batch.",
        tuple(Context((*_OTHERS[:at], 0, *_OTHERS[at:6])) for at in range(7)),
    ),
    "with padding": (
        "With any padding behind it.",
        tuple(Context((0, *_OTHERS[:n]), length) for n in (0, 2) for length in (25, 28, 32, 33, 64, 100)),
    ),
    "in any split": (
        "Each sequence of a batch, however it is split.",
        tuple(
            Context(tuple(range(start, min(start + size, _SEQUENCES))), looked_at=k)
            for size in (12, 6, 5, 2) for k in range(_SEQUENCES) for start in (k // size * size,)
        ),
    ),
    "200 times": ("200 times in a row.", (Context((0,)),) * 200),
}  # fmt: skip

# (backend, context) -> the numbers of every row of the batch, [B, S, H]
Way = Callable[[Any, Context], Host]


def properties() -> list[Property]:
    """Forward and backward, by what is changed; sequences end to end in place of padded ones."""
    found = [
        Property("invariance", op, name, says, partial(_compared, op, name), needs=SPEC)
        for op in _WAYS
        for name, (says, _) in CONTEXTS.items()
    ]
    return [
        *found,
        *(
            Property("invariance", op, "any number of threads", "On 1, 2, 3, 4 and 8 threads.", partial(_threads, op),
                     needs=SPEC)
            for op in _WAYS
        ),
        Property("invariance", "packed", "or padded", "A packed layer gives what a padded one gives.", _packed,
                 needs=(*SPEC, "encoder_layer", "packed_encoder_layer")),
    ]  # fmt: skip


def _batch(context: Context) -> Batch:
    rng = np.random.default_rng(7)
    ids = rng.integers(0, _SMALL.V, (_SEQUENCES, _LENGTH))
    found = np.random.default_rng(8).integers(0, _SMALL.V, (len(context.sequences), context.length))
    found[:, :_LENGTH] = ids[list(context.sequences)]
    mask = np.zeros_like(found)
    mask[:, :_LENGTH] = 1
    return Batch(found, np.zeros_like(found), mask)


def _vectors(context: Context, H: int, dtype: str, salt: int, *, padding: float) -> Host:
    """[B, S, H] of numbers that belong to the sequences."""
    own = rounded(np.random.default_rng(salt).standard_normal((_SEQUENCES, _LENGTH, H)), dtype)
    found = np.full((len(context.sequences), context.length, H), padding)
    found[:, :_LENGTH] = own[list(context.sequences)]
    return found


def _forward(recipe: ModelRecipe, dtype: str) -> Way:
    def way(backend: Any, context: Context) -> Host:
        run = inference(With(recipe, batch=lambda: _batch(context)), dtype)  # type: ignore[arg-type]
        return run(backend)[f"hidden_states[{recipe.layers}]"]

    return way


def _backward(recipe: ModelRecipe, dtype: str) -> Way:
    """The gradient of a layer's input; nothing flows back from padding."""
    weights, H = recipe.parameters(dtype), recipe.A * recipe.D

    def way(backend: Any, context: Context) -> Host:
        p = Scope(on(backend, weights), "bert.encoder.layer.0.")
        x, dy = (_vectors(context, H, dtype, salt, padding=value) for salt, value in ((9, 1.0), (10, 0.0)))
        mask = _batch(context).attention_mask
        _, pullback = encoder_layer(backend, p, backend.asarray(x), mask, recipe.choices, site="layer", draws=None)
        dx, _ = pullback(backend.asarray(dy))
        return np.asarray(backend.to_numpy(dx))

    return way


_WAYS: dict[str, Callable[[ModelRecipe, str], Way]] = {"forward": _forward, "backward": _backward}


def _compared(op: str, name: str, subject: Subject, example: Any, record: Record) -> None:
    if subject.arithmetic.nondeterministic:
        raise Unsupported("the backend declares ops nondeterministic")
    for recipe in (_SMALL, _WIDE) if name != "200 times" else (_SMALL,):
        way = _WAYS[op](recipe, subject.dtype)
        alone: dict[int, Host] = {}
        for number, context in enumerate(CONTEXTS[name][1], 1):
            by_itself = Context((context.looked_at,), looked_at=context.looked_at)
            if context.looked_at not in alone:
                alone[context.looked_at] = np.array(way(subject.backend, by_itself)[0])
            got = way(subject.backend, context)[context.row, :_LENGTH]
            if not same_bits(np.array(got), alone[context.looked_at]):
                first = _first(subject, way, by_itself, context)
                again = f"call {number} of the same batch" if name == "200 times" else str(context)
                raise Failure(f"a sequence {again} has other bits than alone; {first} (H = {recipe.A * recipe.D})")


def _threads(op: str, subject: Subject, example: Any, record: Record) -> None:
    """A whole batch, in processes of the backend's own."""
    variable = getattr(subject.backend, "threads", None)
    if not variable:
        raise Unsupported("the backend names no variable that says how many threads it uses")
    batch = Context((0, *_OTHERS[:7]))
    for recipe in (_SMALL, _WIDE):
        way, first = _WAYS[op](recipe, subject.dtype), None
        for count in _COUNTS:
            start = ["env", f"{variable}={count}", *command.words(command.hosted(subject.given))]
            other = Subject.named(command.PREFIX + shlex.join(start), subject.dtype, str(subject.backend.device))
            got = np.array(way(other.backend, batch))
            first = got if first is None else first
            if not same_bits(got, first):
                raise Failure(f"a batch has other bits on {count} threads than on 1 (H = {recipe.A * recipe.D})")


def _packed(subject: Subject, example: Any, record: Record) -> None:
    p = {
        name.removeprefix("bert.encoder.layer.0."): w for name, w in _SMALL.parameters(subject.dtype).items()
        if name.startswith("bert.encoder.layer.0.")
    }  # fmt: skip
    params, c = on(subject.backend, p), _SMALL.choices
    for context in (Context((0,)), Context((3, 0, 5)), Context((1, 0), 33)):
        x = _vectors(context, _SMALL.A * _SMALL.D, subject.dtype, 9, padding=1.0)
        y = subject.op("encoder_layer")(
            subject.device(x), params, mask=_batch(context).attention_mask, **c.layer_options()
        )
        padded = np.array(subject.host(y, x.shape, "y")[context.row, :_LENGTH])
        rows = np.concatenate([part[:_LENGTH] for part in x])
        lengths = np.full(len(x), _LENGTH)
        y = subject.op("packed_encoder_layer")(
            subject.device(rows), params, lengths=lengths, heads=c.heads, activation=c.activation, eps=c.layer_norm_eps
        )
        packed = subject.host(y, rows.shape, "y")[context.row * _LENGTH :][:_LENGTH]
        if not same_bits(np.array(packed), padded):
            raise Failure(f"a sequence {context} has other bits packed than padded")


class _Noting(OpsAlone):
    """A backend of whose every op the results are noted, with what called it."""

    def __init__(self, backend: Any) -> None:
        super().__init__(backend)
        self.noted: list[tuple[str, Host]] = []

    def call(self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Note the result, and those of the pullback."""
        result = function(*arguments, **options)
        if name not in ARRAYS:
            return result
        y, back = result
        self._note(name, "forward", [y])
        if not callable(back):
            return result

        def pullback(dy: Any) -> Any:
            found = back(dy)
            self._note(name, "backward", found)
            return found

        return y, pullback

    def _note(self, op: str, direction: str, arrays: Sequence[Any]) -> None:
        where = place()
        self.noted += [(f"{op} ({direction}) in {where}", np.array(self.backend.to_numpy(x))) for x in arrays]


def _first(subject: Subject, way: Way, alone: Context, context: Context) -> str:
    """The first op whose numbers for the sequence differ."""
    noting = _Noting(subject.backend), _Noting(subject.backend)
    for each, one in zip(noting, (alone, context), strict=True):
        way(each, one)
    for (what, a), (_, b) in zip(*(each.noted for each in noting), strict=False):
        for mine, theirs in zip(_of(a, alone), _of(b, context), strict=False):
            if not same_bits(np.array(mine), np.array(theirs)):
                return f"first in {what}"
    return "op by op they are the same: it is the backend's own layer"


def _of(x: Host, context: Context) -> Iterator[Host]:
    """What a result has of the sequence; nothing if its shape does not say."""
    B, S = len(context.sequences), context.length
    if x.ndim == 2 and x.shape[0] == B * S:
        x = x.reshape(B, S, -1)
    if x.ndim == 3 and x.shape[:2] == (B, S):
        yield x[context.row, :_LENGTH]
    elif x.ndim == 4 and x.shape[0] == B and x.shape[2:] == (S, S):
        yield x[context.row, :, :_LENGTH, :_LENGTH]
