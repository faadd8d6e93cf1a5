"""Each mutant on trial: the judge keeps the right module, the backend's process reads the mutated one.

A mutant is killed by the first property that fails. Only properties that need a method which reaches the change are
tried, those of the method itself first, cheap ones before dear ones, few examples before many, in every dtype. Import
errors, crashes and hangs kill too, and are told apart. A mutant that is listed as computing the same must survive.
"""

from __future__ import annotations

import json
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from refbert.errors import BackendUnavailable
from refbert_conformance.engine.property import Property
from refbert_conformance.generated import operators
from refbert_conformance.generated.equivalent import Key, reasons
from refbert_conformance.generated.operators import Mutant
from refbert_conformance.generated.packages import PACKAGES, Package, all_mutants, chosen
from refbert_conformance.process.facts import versions
from refbert_conformance.process.records import Row, as_data
from refbert_conformance.process.sharing import usual, weight
from refbert_conformance.process.supervisor import Limits, Supervisor
from refbert_conformance.properties.table import all_properties

FORMAT = "refbert-generated-mutants/1"
SAMPLE = 300
OUTCOMES = ("killed", "equivalent", "survived", "not equivalent")
# An example that takes longer to compute hangs. The longest of a correct backend's takes a second.
_LIMITS = Limits(seconds=5.0, memory=4 << 30)


@dataclass(frozen=True)
class Verdict:
    """What came of a mutant. how: "wrong" results, "raises", "crashes", "hangs" or "not made", of one that is killed.
    by: the property that failed. reason: why it computes the same, as is listed."""

    id: str
    package: str
    file: str
    where: str
    kind: str
    was: str
    becomes: str
    outcome: str
    how: str = ""
    by: str = ""
    dtype: str = ""
    effort: str = ""
    message: str = ""
    reason: str = ""
    seconds: float = 0.0


def concerning(methods: frozenset[str], effort: str) -> list[Property]:
    """The properties that need one of the contract's methods: those about it first, cheap ones before dear ones."""
    found = [p for p in _properties() if p.op in methods or methods.intersection(p.needs)]
    return sorted(found, key=lambda p: (p.op not in methods, weight(p, effort)))


@cache
def _properties() -> tuple[Property, ...]:
    return all_properties()


def tried(package: Package, mutant: Mutant, effort: str, seed: int, listed: Mapping[Key, str]) -> Verdict:
    """One mutant on trial."""
    started = time.perf_counter()
    reason = listed.get(mutant.key, "")
    planted = [str(package.path(mutant.file)), operators.mutated(package.source(mutant.file), mutant.number)]
    found = killed(package, planted, package.methods(mutant), effort, seed)
    outcome = ("not equivalent" if reason else "killed") if found else ("equivalent" if reason else "survived")
    return Verdict(
        mutant.id, package.name, mutant.file, mutant.where, mutant.kind, mutant.was, mutant.becomes, outcome,
        **found, reason=reason, seconds=round(time.perf_counter() - started, 2),
    )  # fmt: skip


def killed(package: Package, planted: Sequence[str], methods: frozenset[str], effort: str, seed: int) -> dict[str, str]:
    """What is known of the kill; {} if there is none. ``planted``: a file of the package, and what it is read as."""
    for some in dict.fromkeys(("quick", effort)):
        properties = concerning(methods, some)
        for dtype in package.dtypes:
            job = {
                "given": package.backend, "dtype": dtype, "device": None, "effort": some, "seed": seed,
                "explain": False, "shrinking": 0.0, "plant": planted,
                "environ": {"OPENBLAS_NUM_THREADS": str(package.threads)},
            }  # fmt: skip
            with Supervisor(job, _LIMITS) as supervisor:
                try:
                    supervisor.make()
                except BackendUnavailable as error:
                    return _kill("not made", "", dtype, some, str(error))
                for p in properties:
                    row = supervisor.judge(p.id)
                    if row.outcome in ("failed", "inconclusive"):
                        return _kill(_how(row), p.id, dtype, some, row.message)
    return {}


def _kill(how: str, by: str, dtype: str, effort: str, message: str) -> dict[str, str]:
    return {"how": how, "by": by, "dtype": dtype, "effort": effort, "message": message[:200]}


def _how(row: Row) -> str:
    if row.outcome == "inconclusive" or row.message.startswith("the backend hung"):
        return "hangs"
    if row.message.startswith("the backend "):
        return "crashes"
    return "raises" if row.message.startswith("raised ") else "wrong"


def trial(
    mutants: Sequence[tuple[Package, Mutant]], effort: str = "default", seed: int = 0, jobs: int = 1,
    listed: Mapping[Key, str] | None = None,
) -> Iterator[Verdict]:  # fmt: skip
    """Every mutant's verdict, as it is known, in order."""
    names = [(PACKAGES.index(package), mutant) for package, mutant in mutants]
    found = partial(_tried, effort, seed, dict(reasons() if listed is None else listed))
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(found, names)


def _tried(effort: str, seed: int, listed: Mapping[Key, str], one: tuple[int, Mutant]) -> Verdict:
    warnings.simplefilter("ignore")
    number, mutant = one
    return tried(PACKAGES[number], mutant, effort, seed, listed)


def innocent(package: Package, methods: frozenset[str], seed: int) -> dict[str, str]:
    """How the package is taken for a mutant when a module is planted as it is; {} if it is not."""
    file = next(one for one in package.files if operators.mutants(package.source(one), one))
    return killed(
        package, [str(package.path(file)), operators.mutated(package.source(file), None)], methods, "quick", seed
    )


def report(
    verdicts: Sequence[Verdict], *, effort: str, seed: int, sample: int | None, only: str | None, seconds: float
) -> dict[str, Any]:
    """A trial as data."""
    counts = Counter(one.outcome for one in verdicts)
    return {
        "format": FORMAT, "created": datetime.now(UTC).isoformat(timespec="seconds"), "versions": versions(),
        "effort": effort, "seed": seed, "sample": sample, "only": only, "of": len(all_mutants()),
        "seconds": round(seconds, 1), "counts": {name: counts[name] for name in OUTCOMES}, "mutants": as_data(verdicts),
    }  # fmt: skip


def run_generated(
    *, effort: str, seed: int, only: str | None, sample: int | None, jobs: int | None, json_file: Path | None
) -> int:
    """For the command line: prints as it goes; 0 if every mutant is killed, or listed and survives."""
    from refbert.cli.output import write_text

    warnings.simplefilter("ignore")
    started = time.perf_counter()
    mutants = chosen(sample, seed, only)
    alarms = 0
    for package in dict.fromkeys(package for package, _ in mutants):
        seen = frozenset().union(*(package.methods(one) for of, one in mutants if of is package))
        if alarm := innocent(package, seen, seed):
            alarms += 1
            print(f"FALSE ALARM  {package.name}, with nothing changed, {alarm['dtype']}: {alarm['by'] or alarm['how']}")
    verdicts = []
    for one in trial(mutants, effort, seed, jobs or usual("cpu", len(mutants))):
        verdicts.append(one)
        print(f"{len(verdicts)}/{len(mutants)}  {said(one)}", flush=True)
    found = report(
        verdicts, effort=effort, seed=seed, sample=sample, only=only, seconds=time.perf_counter() - started
    )  # fmt: skip
    if json_file is not None:
        write_text(json_file, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    counts = found["counts"]
    print(
        f"{len(verdicts)} of {found['of']} mutants: {counts['killed']} killed, "
        f"{counts['equivalent']} compute the same, "
        f"{counts['survived']} survived, {counts['not equivalent']} killed though listed as computing the same; "
        f"{alarms} false alarms; {found['seconds']:.0f} s"
    )
    return 1 if alarms or counts["survived"] or counts["not equivalent"] else 0


def said(one: Verdict) -> str:
    """A verdict in a line."""
    if one.outcome in ("killed", "not equivalent"):
        how = "" if one.how == "wrong" else f" ({one.how})"
        word = "killed" if one.outcome == "killed" else "NOT EQUIVALENT"
        return f"{word}  {one.id}: {one.by or one.message}{how}"
    if one.outcome == "equivalent":
        return f"computes the same  {one.id}: {one.reason}"
    return f"SURVIVED  {one.id}, in {one.where or 'the module'}: {one.was}  →  {one.becomes}"
