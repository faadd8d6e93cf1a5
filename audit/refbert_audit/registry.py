"""Claims: what a document says, from the text files in audit/refbert_audit/claims, and the check beside it in code.

A file is named for its document, and lists the claims in the order of the report:

    bert.params.tied  agrees*  §3.1
        The masked-LM output layer over the vocabulary adds no matrix of its own: it is the embedding table.

An id, the verdict on record, and where it is said, with two spaces between; then the statement in our own words; then,
where it deviates, who does what ("google: the mean"). A star marks what is inferred.

The check of a claim is the function that is named for it, bert_params_tied, in any module there.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from types import ModuleType

from refbert.errors import InputError
from refbert_audit import sources
from refbert_audit.findings import VERDICTS, Values, Verdict
from refbert_audit.sources import DOCUMENTS

Check = Callable[..., Values]
# A party's word in a list of statements -> how it is called.
PARTIES = {
    "paper": "Devlin et al.", "vaswani": "Vaswani et al.", "google": "Google", "hf": "Hugging Face",
    "article": "the article", "refbert": "refbert",
}  # fmt: skip
_PARTY = re.compile(rf"({'|'.join(PARTIES)}): (.+)")


@dataclass(frozen=True)
class Statement:
    """What a document says, in our words.

    where: its section. expects: the verdict on record. who: party -> what it does, for what deviates.
    inferred: the document does not say it in so many words; it follows from what the document says, or readers take it
    for granted.
    """

    id: str
    where: str
    says: str
    expects: Verdict
    inferred: bool
    who: Mapping[str, str]

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


@dataclass(frozen=True)
class Claim(Statement):
    """A statement and its check, which takes nothing, or a checkpoint's directory (or None) where weights decide."""

    check: Check

    @property
    def about(self) -> str:
        """What the check does: its docstring."""
        return inspect.getdoc(self.check) or ""

    @property
    def code(self) -> str:
        """The check's own source."""
        return inspect.getsource(self.check)

    @property
    def file(self) -> str:
        """The file that the check is written in, from the root on: "audit/refbert_audit/claims/bert_model.py"."""
        return f"audit/{self.check.__module__.replace('.', '/')}.py"

    @property
    def takes_model(self) -> bool:
        """Whether the check can make use of a checkpoint."""
        return bool(inspect.signature(self.check).parameters)


def checks(modules: Iterable[ModuleType]) -> dict[str, Check]:
    """Name -> check of all that these modules define; raises ValueError for two of a name and one without a docstring.

    What a module defines by a name that begins as an id does is a check.
    """
    found: dict[str, Check] = {}
    for module in modules:
        for name, check in vars(module).items():
            if name.split("_")[0] in DOCUMENTS and check.__module__ == module.__name__:
                if name in found:
                    raise ValueError(f"there are two checks {name}")
                if not inspect.getdoc(check):
                    raise ValueError(f"{name}: a check needs a docstring")
                found[name] = check
    return found


def read(text: str) -> list[Statement]:
    """The statements of a file; raises ValueError for an entry that is not one, naming it."""
    found = []
    for entry in re.findall(r"^[^#\s].*(?:\n +.*)*", text, re.MULTILINE):
        first, *below = (line.strip() for line in entry.split("\n"))
        says = " ".join(line for line in below if not _PARTY.match(line))
        parts = first.split("  ")
        if len(parts) != 3 or not says:
            raise ValueError(f"{first!r}: not an id, a verdict and a place, with a statement below")
        id, verdict, where = parts
        document = DOCUMENTS.get(id.split(".")[0])
        expects = next((v for v in VERDICTS if v == verdict.rstrip("*")), None)
        if document is None:
            raise ValueError(f"claim {id}: its first word must be one of {', '.join(DOCUMENTS)}")
        if expects is None:
            raise ValueError(f"claim {id}: no verdict {verdict!r}")
        inferred = verdict.endswith("*") or document.kind == "derived"
        who = {PARTIES[line[1]]: line[2] for line in map(_PARTY.match, below) if line}
        found.append(Statement(id, where, says, expects, inferred, who))
    return found


def all_claims() -> list[Claim]:
    """Every claim, by document, then as listed; raises ValueError for a statement or a check without the other."""
    return list(_claims())


@functools.cache
def _claims() -> tuple[Claim, ...]:
    from refbert_audit import claims

    modules = pkgutil.iter_modules(claims.__path__, f"{claims.__name__}.")
    found = checks(importlib.import_module(module.name) for module in modules)
    folder = files(claims)
    stated = [s for name in DOCUMENTS for s in read(folder.joinpath(f"{name}.txt").read_text(encoding="utf-8"))]
    names = [re.sub(r"\W", "_", s.id) for s in stated]
    if alone := set(names) ^ set(found):
        raise ValueError(f"not one statement and one check each: {', '.join(sorted(alone))}")
    if len(names) != len(found):
        raise ValueError("not one statement and one check each: a statement comes twice")
    return tuple(Claim(**vars(s), check=found[name]) for s, name in zip(stated, names, strict=True))


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
