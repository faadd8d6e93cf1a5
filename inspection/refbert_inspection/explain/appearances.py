"""Where an op or block appears in BERT: found by running BERT and watching who calls whom.

A small BERT is trained for one step with each of its heads, on the reference, with dropout; and once more with each
other activation that has an op of its own. Every call of an entry is seen with the entries that it was called from.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import CodeType, FrameType
from typing import Any

import numpy as np

from refbert_inspection.explain.catalogue import Entry, entries
from refbert_inspection.explain.sources import profiled

LAYERS = 2
# In these packages an entry may be called by what is no entry itself: updates and training data.
_OUTSIDE = ("refbert.training.", "refbert.data.")


@dataclass(frozen=True)
class Appearance:
    """path: from the outermost caller to the entry's own. forward, backward: calls in one call of that caller, a mean.

    Callers outside refbert.ops and refbert.spec are named in full, with the calls that were seen. only: the
    ``hidden_act`` that it takes; "" where BERT's own does.
    """

    path: tuple[str, ...]
    forward: float
    backward: float
    only: str = ""


def appearances(entry: Entry) -> tuple[Appearance, ...]:
    """Every way in which BERT comes to the entry."""
    return _all().get(entry.name, ())


@functools.cache
def _all() -> dict[str, tuple[Appearance, ...]]:
    found: dict[str, tuple[Appearance, ...]] = {}
    for activation in ("gelu", "relu"):
        for name, seen in _one(activation).items():
            known = {one.path for one in found.get(name, ())}
            new = [replace(one, only="" if activation == "gelu" else activation) for one in seen]
            found[name] = found.get(name, ()) + tuple(one for one in new if one.path not in known)
    return found


def _one(activation: str) -> dict[str, tuple[Appearance, ...]]:
    names = {e.function.__code__: e.name for e in entries()}
    calls: Counter[tuple[tuple[str, ...], str, bool]] = Counter()
    runs: Counter[tuple[str, ...]] = Counter()

    def watch(frame: FrameType, event: str, _: object) -> None:
        name = names.get(frame.f_code) if event == "call" else None
        if name is None:
            return
        path, backward = _callers(frame, names)
        calls[path, name, backward] += 1
        if not backward:
            runs[*path, name] += 1

    for run in _runs(activation):
        with profiled(watch):
            run()
    found: dict[str, tuple[Appearance, ...]] = {}
    for path, name in sorted({(path, name) for path, name, _ in calls if path}):
        forward, backward = (calls[path, name, way] / (runs[path] or 1) for way in (False, True))
        found[name] = (*found.get(name, ()), Appearance(path, forward, backward))
    return found


def _callers(frame: FrameType, names: dict[CodeType, str]) -> tuple[tuple[str, ...], bool]:
    """The entries up the stack, outermost first, and whether a pullback lies between the innermost and this call."""
    path: list[str] = []
    backward = False
    at = frame.f_back
    while at is not None:
        module = at.f_globals.get("__name__", "")
        if at.f_code in names:
            path.append(names[at.f_code])
        elif at.f_code.co_name == "pullback" and module.startswith(("refbert.ops.", "refbert.spec.")):
            # The entry inside whose function the pullback is written.
            owner = next((name for outer, name in names.items() if at.f_code in outer.co_consts), None)
            if owner:
                backward = backward or not path
                path.append(owner)
        elif module.startswith(_OUTSIDE) and not path:
            path.append(f"{module}.{at.f_code.co_qualname}")
            break
        at = at.f_back
    return tuple(reversed(path)), backward


def _runs(activation: str) -> Iterator[Callable[[], object]]:
    from refbert.config import BertConfig
    from refbert.config.heads import PRETRAINING
    from refbert.loading import from_config
    from refbert.randomness import Dropout
    from refbert.text.batching import Batch

    config = BertConfig(
        vocab_size=9, hidden_size=4, num_hidden_layers=LAYERS, num_attention_heads=2, intermediate_size=8,
        hidden_act=activation, max_position_embeddings=4, num_labels=3,
    )  # fmt: skip
    ids = np.array([[1, 4, 5, 2], [1, 6, 2, 0]])
    batch = Batch(ids, attention_mask=ids != 0)
    tagged = np.where(ids > 3, 1, -100)
    regression = replace(config, num_labels=1, problem_type="regression")
    several = replace(config, problem_type="multi_label_classification")
    cases: list[tuple[Any, tuple[str, ...], dict[str, Any]]] = [
        (config, PRETRAINING, {"labels": tagged, "next_sentence_label": np.array([0, 1])}),
        (config, ("sequence_classification",), {"labels": np.array([2, 0])}),
        (regression, ("sequence_classification",), {"labels": np.array([0.5, 1.5])}),
        (several, ("sequence_classification",), {"labels": np.array([[1, 0, 1], [0, 0, 0]])}),
        (config, ("token_classification",), {"labels": tagged}),
        (config, ("question_answering",), {"start_positions": np.array([1, 0]), "end_positions": np.array([2, 1])}),
        (config, ("multiple_choice",), {"labels": np.array([1])}),
    ]
    for one, heads, labels in cases if activation == BertConfig().hidden_act else cases[:1]:
        model = from_config(one, heads=heads, seed=0, backend="reference")
        yield functools.partial(model.loss_and_gradients, batch, labels, dropout=Dropout(0))
    yield _updates
    yield _masking


def _updates() -> None:
    from refbert.backend.reference import ReferenceBackend
    from refbert.training.optimizer import Optimizer

    for rule in ("bert_adam", "adamw", "lamb"):
        Optimizer(rule).step(ReferenceBackend(), {"w": np.ones(2)}, {"w": np.ones(2)}, lr=0.1)


def _masking() -> None:
    from refbert.data.masking import mask_batch
    from refbert.data.settings import Pretraining

    ids = np.array([[1, 4, 5, 2]])
    draws, continues = np.full((1, 3, 4), 0.5), np.zeros(9, bool)
    mask_batch(ids, ids < 3, np.array([4]), draws, Pretraining(), mask_id=3, continues=continues)
