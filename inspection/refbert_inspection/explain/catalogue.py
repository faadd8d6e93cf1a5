"""What can be explained: every op of refbert.ops and every block of refbert.spec, found by looking."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from refbert import ops, spec
from refbert.errors import InputError
from refbert_inspection.explain.documents import Document, Section, read

# The order in which refbert.spec says that it is to be read; the files that are not blocks of the model are not in it.
READING_ORDER = ("embeddings", "attention", "feed_forward", "encoder", "pooler", "heads", "losses", "bert")
# How a function that hands back a pullback says so in its signature.
_PULLBACK = re.compile(r"\b(BlockPullback|Out|Callable)\[")


@dataclass(frozen=True)
class Entry:
    """One page. kind: "op" or "block". function: the reference's, or the spec's."""

    name: str
    kind: str
    function: Callable[..., Any]

    @property
    def module(self) -> str:
        """The module that it is written in."""
        return self.function.__module__

    @property
    def file(self) -> str:
        """Its file, from the package on: "refbert/ops/gelu.py"."""
        return self.module.replace(".", "/") + ".py"

    @property
    def signature(self) -> str:
        """The call without types: "layer_norm(x, gamma, beta, *, eps)"."""
        parameters = [p.replace(annotation=p.empty) for p in inspect.signature(self.function).parameters.values()]
        return f"{self.name}{inspect.Signature(parameters)}"

    @property
    def says(self) -> str:
        """What the function's own docstring says of the call: what comes out, and what it raises."""
        document = read(self.function.__doc__)
        notes = (" ".join(s.text.split()) for s in document.of("note"))
        return " ".join([document.summary, *notes])

    @property
    def summary(self) -> str:
        """The entry in one line."""
        alone = len([e for e in entries() if e.module == self.module]) == 1
        return self._of_module.summary if alone else read(self.function.__doc__).summary

    @property
    def sections(self) -> tuple[Section, ...]:
        """The function's sections; where it has none of a kind, and for notes, those of its module."""
        own = read(self.function.__doc__)
        kept = {s.kind for s in own.sections} - {"note"}
        shared = [s for s in self._of_module.sections if s.kind not in kept]
        rank = {"source": 0, "shapes": 1, "equation": 2, "gradient": 2, "note": 3}
        # Python's sort is stable: equations and gradients stay in the order in which they are written.
        return tuple(sorted([*shared, *(s for s in own.sections if s.kind != "note")], key=lambda s: rank[s.kind]))

    @property
    def _of_module(self) -> Document:
        return read(sys.modules[self.module].__doc__)


@functools.cache
def entries() -> tuple[Entry, ...]:
    """Every op by name, then every block in the order of reading."""
    found = [Entry(name, "op", getattr(ops, name)) for name in ops.__all__ if callable(getattr(ops, name))]
    for module in READING_ORDER:
        for name, value in vars(importlib.import_module(f"{spec.__name__}.{module}")).items():
            if inspect.isfunction(value) and value.__module__.endswith(f".{module}") and _is_block(name, value):
                found.append(Entry(name, "block", value))
    return tuple(found)


def _is_block(name: str, function: Callable[..., Any]) -> bool:
    signature = inspect.signature(function)
    takes_ops = next(iter(signature.parameters), "") == "ops"
    return not name.startswith("_") and takes_ops and bool(_PULLBACK.search(str(signature.return_annotation)))


def find(name: str) -> Entry:
    """The entry of that name ("layer_norm", "layer-norm", "LayerNorm" alike); raises `InputError`, with near names."""
    wanted = _plain(name)
    for entry in entries():
        if _plain(entry.name) == wanted:
            return entry
    plain = {_plain(e.name): e.name for e in entries()}
    near = difflib.get_close_matches(wanted, plain, n=3, cutoff=0.5)
    near += [key for key in plain if len(wanted) > 2 and wanted in key and key not in near]
    hint = f"near it: {', '.join(plain[key] for key in near)}" if near else "`refbert explain` lists all"
    raise InputError(f'nothing named "{name}" to explain; {hint}')


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).lower()
