"""Claims: found in audit/refbert_audit/claims, kept in the order in which their documents and files are read."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from refbert.errors import InputError
from refbert_audit import sources
from refbert_audit.findings import VERDICTS, Finding, Verdict
from refbert_audit.sources import DOCUMENTS

Check = Callable[..., Finding]


@dataclass(frozen=True)
class Claim:
    """A checkable statement.

    where: the section of the document. says: the statement, in our words. expects: the verdict on record. check: takes
    nothing, or a checkpoint's directory (or None) where weights would decide more. inferred: the document does not say
    it in so many words; it follows from what the document says, or readers take it for granted.
    """

    id: str
    where: str
    says: str
    expects: Verdict
    check: Check
    inferred: bool = False

    @property
    def document(self) -> str:
        """The title of the document that it is from."""
        return DOCUMENTS[self.id.split(".")[0]].title

    @property
    def kind(self) -> sources.Kind:
        """As what its document is counted."""
        return DOCUMENTS[self.id.split(".")[0]].kind

    @property
    def links(self) -> list[tuple[str, str]]:
        """``where`` in pieces, each with the address where it is read, or ""."""
        return sources.links(self.id, self.where)

    @property
    def about(self) -> str:
        """What the check does: its docstring."""
        return inspect.getdoc(self.check) or ""

    @property
    def code(self) -> str:
        """The check's own source."""
        return inspect.getsource(self.check)

    @property
    def takes_model(self) -> bool:
        """Whether the check can make use of a checkpoint."""
        return bool(inspect.signature(self.check).parameters)


_claims: dict[str, Claim] = {}


def claim(id: str, *, where: str, says: str, expects: Verdict, inferred: bool = False) -> Callable[[Check], Check]:
    """Register a check; raises ValueError for an id that is taken or of no document, and for what is left out."""

    def register(check: Check) -> Check:
        if id in _claims and _claims[id].check.__module__ != check.__module__:
            raise ValueError(f"there are two claims {id}")
        if id.split(".")[0] not in DOCUMENTS:
            raise ValueError(f"claim {id}: its first word must be one of {', '.join(DOCUMENTS)}")
        if expects not in VERDICTS:
            raise ValueError(f"claim {id}: no verdict {expects!r}")
        if not (where and says and inspect.getdoc(check)):
            raise ValueError(f"claim {id}: it needs where, says and a docstring")
        derived = DOCUMENTS[id.split(".")[0]].kind == "derived"
        _claims[id] = Claim(id, where, says, expects, check, inferred or derived)
        return check

    return register


@functools.cache
def _read() -> None:
    from refbert_audit import claims

    names = [module.name for module in pkgutil.iter_modules(claims.__path__)]
    first = [name for name in claims.ORDER if name in names]
    for name in [*first, *sorted(set(names).difference(first))]:
        importlib.import_module(f"{claims.__name__}.{name}")


def all_claims() -> list[Claim]:
    """Every claim, by document, then by file, then as written."""
    _read()
    order = list(DOCUMENTS)
    return sorted(_claims.values(), key=lambda c: order.index(c.id.split(".")[0]))


def select(names: Sequence[str]) -> list[Claim]:
    """The claims of these ids and groups ("bert." or "bert.params"); all, if there are none.

    Raises `InputError` for a name that is neither, with the names near it.
    """
    claims = all_claims()
    if not names:
        return claims
    wanted: set[str] = set()
    for name in names:
        found = {c.id for c in claims if c.id == name or c.id.startswith(name.rstrip(".") + ".")}
        if not found:
            raise InputError(f'no claim or group "{name}"; {_near(name, [c.id for c in claims])}')
        wanted |= found
    return [c for c in claims if c.id in wanted]


def _near(name: str, ids: Sequence[str]) -> str:
    groups = {".".join(id.split(".")[:n]) + "." for id in ids for n in range(1, id.count(".") + 1)}
    near = difflib.get_close_matches(name, [*ids, *sorted(groups)], n=3, cutoff=0.5)
    if near:
        return f"near it: {', '.join(near)}"
    return f"groups: {', '.join(f'{document}.' for document in DOCUMENTS)}"


def module_of(check: Check) -> str:
    """The file that a check is written in, from the package on: "audit/refbert_audit/claims/bert_model.py"."""
    return f"audit/{sys.modules[check.__module__].__name__.replace('.', '/')}.py"
