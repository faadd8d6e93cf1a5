"""What is mutated, and who sees it: refbert.ops behind the backend "reference", refbert_numpy behind "numpy"."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from refbert.backend import OPTIONAL, REQUIRED
from refbert.errors import InputError
from refbert_conformance.generated import operators
from refbert_conformance.generated.operators import Mutant
from refbert_conformance.generated.reach import reached


@dataclass(frozen=True)
class Package:
    """name: of the package that is mutated. backend, type: what shows it. dtypes: what that is tried in, in turn.
    threads: of BLAS in its process, whatever the machine: what a team of threads does would not run on one."""

    name: str
    backend: str
    type: str
    dtypes: tuple[str, ...]
    threads: int

    @cached_property
    def folder(self) -> Path:
        """Where its modules are. It is not imported: a backend is no part of the judge's process."""
        spec = find_spec(self.name)
        assert spec is not None
        assert spec.submodule_search_locations is not None
        return Path(spec.submodule_search_locations[0])

    def source(self, file: str) -> str:
        """A module's text."""
        return self.path(file).read_text(encoding="utf-8")

    def path(self, file: str) -> Path:
        """Where a mutant's file is."""
        return self.folder.parent / file

    @cached_property
    def files(self) -> tuple[str, ...]:
        """From the folder above the package on."""
        return tuple(str(path.relative_to(self.folder.parent)) for path in sorted(self.folder.rglob("*.py")))

    @cached_property
    def mutants(self) -> tuple[Mutant, ...]:
        """Those that a method of the contract reaches."""
        found = (mutant for file in self.files for mutant in operators.mutants(self.source(file), file))
        return tuple(mutant for mutant in found if self.methods(mutant))

    def methods(self, mutant: Mutant) -> frozenset[str]:
        """The contract's methods that can see it; what no definition holds runs whenever the package is imported."""
        where = mutant.where
        while where and where not in self._reach:
            where = where.rpartition(".")[0]
        return self._reach[where] if where else frozenset().union(*self._reach.values())

    @cached_property
    def _reach(self) -> dict[str, frozenset[str]]:
        sources = [self.source(file) for file in self.files]
        if self.type == "ReferenceBackend":
            spec = find_spec("refbert.backend.reference")
            assert spec is not None
            assert spec.origin is not None
            sources.append(Path(spec.origin).read_text(encoding="utf-8"))
        return reached(sources, self.type, (*REQUIRED, *OPTIONAL))


PACKAGES = (
    Package("refbert.ops", "reference", "ReferenceBackend", ("float64", "float32"), 1),
    Package("refbert_numpy", "numpy", "NumpyBackend", ("float32", "float64"), 2),
)


def all_mutants() -> list[tuple[Package, Mutant]]:
    """Of all packages."""
    return [(package, mutant) for package in PACKAGES for mutant in package.mutants]


def chosen(sample: int | None, seed: int, only: str | None) -> list[tuple[Package, Mutant]]:
    """Those whose id holds the text ``only``, and of these ``sample``, drawn by ``seed``; in their order.

    What is drawn depends on each mutant by itself: where the code changes, the others of the sample stay in it.
    """
    found = [(package, one) for package, one in all_mutants() if only is None or only in one.id]
    if not found:
        raise InputError(f'no mutant matches "{only}"; an id looks like {PACKAGES[0].mutants[0].id}')
    if sample is None:
        return found
    drawn = {id(one) for _, one in sorted(found, key=lambda pair: _lot(pair[1], seed))[:sample]}
    return [pair for pair in found if id(pair[1]) in drawn]


def _lot(mutant: Mutant, seed: int) -> tuple[bytes, str]:
    of = "\n".join((str(seed), *mutant.key))
    return hashlib.blake2b(of.encode(), digest_size=8).digest(), mutant.id
