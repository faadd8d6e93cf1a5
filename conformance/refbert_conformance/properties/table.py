"""The table of all properties.

Levels come in the order in which trust is built: an op's gradient means little while its contract is broken.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from refbert.errors import InputError
from refbert_conformance.engine.property import LEVELS, Property
from refbert_conformance.properties import (
    blocks,
    contract,
    invariance,
    large_sizes,
    layers,
    numerics,
    objective,
    pretrained,
    real_sizes,
    symmetries,
    training_steps,
    updates,
)

_MODULES = (
    contract, numerics, real_sizes, symmetries, blocks, layers, objective, training_steps, updates,
)  # fmt: skip


# Lanes: what is judged only where it is asked for, by ``--require`` and ``--sizes``.
INVARIANCE, LARGE = "batch-invariance", "large"
_LANES = {INVARIANCE: invariance, LARGE: large_sizes}


def all_properties(model: str | None = None, lanes: Sequence[str] = ()) -> tuple[Property, ...]:
    """Every property, by level; the pretrained level only for the ``model`` that it needs, and of the others those that
    all are judged by, and those of the ``lanes``."""
    found = [p for module in _MODULES for p in module.properties()]
    if model is not None:
        found += pretrained.properties(model)
    for lane in lanes:
        found += _LANES[lane].properties()
    assert len({p.id for p in found}) == len(found), "two properties of one id"
    return tuple(sorted(found, key=lambda p: LEVELS.index(p.level)))


def selected(ids: Sequence[str], model: str | None = None) -> tuple[Property, ...]:
    """The properties of those ids, in their order."""
    table = {p.id: p for p in all_properties(model, tuple(_LANES))}
    return tuple(table[i] for i in ids)


def matching(pattern: str | None, model: str | None = None, lanes: Sequence[str] = ()) -> tuple[Property, ...]:
    """Those whose id holds the text, or matches a pattern with * or ?; raises `InputError` if there are none."""
    found = all_properties(model, lanes)
    if pattern is None:
        return found

    def matches(id: str) -> bool:
        return fnmatch.fnmatchcase(id, pattern) if any(c in pattern for c in "*?[") else pattern in id

    chosen = tuple(p for p in found if matches(p.id))
    if not chosen:
        if any(matches(p.id) for p in pretrained.properties("")):
            raise InputError(f'"{pattern}" asks for pretrained weights, and no model is named: add --model PATH')
        raise InputError(f'no property matches "{pattern}" (an id looks like {found[0].id}; --list shows them all)')
    return chosen
