"""What a property is, and the table of all of them.

A property says one thing about one op (or about the backend as a whole), and has a strategy for what to try and a check
that raises `Failure`. Levels come in the order in which trust is built: an op's gradient means little while its
contract is broken.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from refbert.errors import InputError
from refbert_conformance.engine.measure import Record
from refbert_conformance.engine.subject import Subject

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

LEVELS = ("contract", "forward", "backward", "blocks", "models", "pretrained", "training")

# Examples at each profile, for a property of cost 1; `Property.cost` divides them. Chosen for the time that the whole
# run may take on two cores: 10 seconds, a minute, ten minutes.
EXAMPLES: Mapping[str, int] = {"quick": 6, "default": 80, "thorough": 1000}


@dataclass(frozen=True)
class Property:
    """One row of the verdict.

    level, op, name: its place; together they are its id. says: what holds, in one sentence. needs: the contract's
    methods without which it is unsupported. draw: from a subject, the strategy of its examples (None: it has exactly
    one). corpus: examples that always run, and ``larger`` ones from the default profile on, ``largest`` in a
    thorough one. check(subject, example, record): raises `Failure`.
    show: an example as text, for people. cost: how many times as long as an ordinary example one of these takes.
    ``low=False``: needs float32 or float64 to be judged. exact: nothing is measured, only equality.
    """

    level: str
    op: str
    name: str
    says: str
    check: Callable[[Subject, Any, Record], None]
    draw: Callable[[Subject], SearchStrategy[Any]] | None = None
    corpus: Callable[[Subject], tuple[Any, ...]] | None = None
    larger: Callable[[Subject], tuple[Any, ...]] | None = None
    largest: Callable[[Subject], tuple[Any, ...]] | None = None
    needs: tuple[str, ...] = ()
    cost: float = 1.0
    low: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """level/op/name."""
        return f"{self.level}/{self.op}/{self.name}"

    def always(self, subject: Subject, profile: str) -> tuple[Any, ...]:
        """The examples that run at a profile, whatever Hypothesis draws; () if there are none."""
        reached = tuple(EXAMPLES).index(profile) + 1
        found = (self.corpus, self.larger, self.largest)[:reached]
        return tuple(example for some in found if some is not None for example in some(subject))

    def examples(self, profile: str) -> int:
        """How many examples Hypothesis draws at a profile."""
        return max(1, round(EXAMPLES[profile] / self.cost)) if self.draw is not None else 1


def all_properties(model: str | None = None) -> tuple[Property, ...]:
    """Every property, by level; the pretrained level only for the ``model`` that it needs."""
    from refbert_conformance.properties import (
        blocks,
        contract,
        numerics,
        objective,
        packed,
        pretrained,
        real_sizes,
        symmetries,
        training_steps,
        update_contract,
    )

    found = [
        p
        for module in (
            contract,
            numerics,
            real_sizes,
            symmetries,
            blocks,
            packed,
            objective,
            training_steps,
            update_contract,
        )
        for p in module.properties()
    ]
    if model is not None:
        found += pretrained.properties(model)
    assert len({p.id for p in found}) == len(found), "two properties of one id"
    return tuple(sorted(found, key=lambda p: LEVELS.index(p.level)))


def selected(ids: Sequence[str], model: str | None = None) -> tuple[Property, ...]:
    """The properties of those ids, in their order."""
    table = {p.id: p for p in all_properties(model)}
    return tuple(table[i] for i in ids)


def matching(pattern: str | None, model: str | None = None) -> tuple[Property, ...]:
    """Those whose id holds the text, or matches a pattern with * or ?; raises `InputError` if there are none."""
    found = all_properties(model)
    if pattern is None:
        return found

    def matches(id: str) -> bool:
        return fnmatch.fnmatchcase(id, pattern) if any(c in pattern for c in "*?[") else pattern in id

    chosen = tuple(p for p in found if matches(p.id))
    if not chosen:
        from refbert_conformance.properties import pretrained

        if any(matches(p.id) for p in pretrained.properties("")):
            raise InputError(f'"{pattern}" asks for pretrained weights, and no model is named: add --model PATH')
        raise InputError(f'no property matches "{pattern}" (an id looks like {found[0].id}; --list shows them all)')
    return chosen
