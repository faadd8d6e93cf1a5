"""What a property is: one row of the verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from refbert_conformance.engine.measure import Record
from refbert_conformance.engine.subject import Subject

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

LEVELS = ("contract", "forward", "backward", "blocks", "models", "pretrained", "training", "invariance")

# Examples at each effort, for a property of cost 1; `Property.cost` divides them. Chosen for the time that the whole
# run may take on two cores: 10 seconds, a minute, ten minutes.
EXAMPLES: Mapping[str, int] = {"quick": 6, "default": 80, "thorough": 1000}

Examples = tuple[Any, ...] | Callable[[Subject], tuple[Any, ...]]

Check = Callable[[Subject, Any, Record], None]
FIRST = "The very first call of a new instance is as right as any."


@dataclass(frozen=True)
class Property:
    """One thing that holds of one op, or of the backend as a whole.

    level, op, name: its place; together they are its id. says: what holds, in one sentence. needs: the contract's
    methods without which it is unsupported. draw: the strategy of its examples (None: it has exactly one). corpus:
    examples that always run, ``larger`` ones from the default effort on, ``largest`` in a thorough one. What depends
    on the subject is a function of it. check(subject, example, record): raises `Failure`. cost: how many times as long
    as an ordinary example one of these takes. ``low=False``: needs float32 or float64 to be judged.
    """

    level: str
    op: str
    name: str
    says: str
    check: Check
    draw: SearchStrategy[Any] | Callable[[Subject], SearchStrategy[Any]] | None = None
    corpus: Examples = ()
    larger: Examples = ()
    largest: Examples = ()
    needs: tuple[str, ...] = ()
    cost: float = 1.0
    low: bool = True

    @property
    def id(self) -> str:
        """level/op/name."""
        return f"{self.level}/{self.op}/{self.name}"

    def always(self, subject: Subject, effort: str) -> tuple[Any, ...]:
        """The examples that run at an effort, whatever Hypothesis draws; () if there are none."""
        reached = tuple(EXAMPLES).index(effort) + 1
        found = (self.corpus, self.larger, self.largest)[:reached]
        return tuple(example for some in found for example in (some(subject) if callable(some) else some))

    def strategy(self, subject: Subject) -> SearchStrategy[Any] | None:
        """What Hypothesis draws examples from."""
        return self.draw(subject) if callable(self.draw) else self.draw

    def examples(self, effort: str) -> int:
        """How many examples Hypothesis draws at an effort."""
        return max(1, round(EXAMPLES[effort] / self.cost)) if self.draw is not None else 1


def about(level: str, op: str, *needs: str, **common: Any) -> Callable[..., Property]:
    """Properties of one op, by name, what holds, check and all else; ``needs``: ops besides."""
    return partial(Property, level, op, needs=("asarray", "to_numpy", op, *needs), **common)


def first_call(check: Check) -> Check:
    """The check on a new instance, of which it is the very first call."""
    return lambda subject, example, record: check(subject.fresh(), example, record)
