"""The suite on trial: every mutant must be found, by a named property, whatever the seed; the correct backend by
none.

A mutant is killed by the first property that fails. Only properties that need the changed op are tried (the others see
a correct backend), in the order of the levels, with as many examples as the effort has; the one that found it under
the seed before comes first. Mutants are shared out among processes, one for each core.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from refbert.errors import InputError
from refbert_conformance.engine import runner
from refbert_conformance.engine.property import LEVELS, Property
from refbert_conformance.engine.subject import Subject
from refbert_conformance.properties.table import all_properties

SEEDS = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class Kill:
    """A mutant, and the property that found it under each seed (None: it survived)."""

    mutant: Any
    killers: tuple[str | None, ...]

    @property
    def survived(self) -> bool:
        """Under any seed."""
        return None in self.killers


def concerning(op: str, properties: Sequence[Property]) -> list[Property]:
    """The properties that need an op: those about it first, then what is composed of it."""
    whole = op in ("asarray", "to_numpy", "backend")
    found = [p for p in properties if op in p.needs or p.op == op or (whole and p.level == "contract")]
    return sorted(found, key=lambda p: (p.op != op, LEVELS.index(p.level)))


def killer(subject: Subject, properties: Iterable[Property], *, effort: str, seed: int) -> str | None:
    """The id of the first property that fails."""
    for property in properties:
        if runner.run(property, subject, effort=effort, seed_number=seed, shrinking=0.0).outcome == "failed":
            return property.id
    return None


def trial(
    effort: str = "default", seeds: Sequence[int] = SEEDS, only: str | None = None,
    tell: Callable[[Kill], None] = lambda kill: None,
) -> list[Kill]:  # fmt: skip
    """Every mutant under every seed; ``tell`` hears of each as it is done."""
    from refbert_conformance.mutants import MUTANTS

    chosen = [
        number for number, mutant in enumerate(MUTANTS) if only is None or only in mutant.name or only in mutant.area
    ]
    found = []
    # A process that is started anew reads how many threads BLAS may use: with as many as cores they would wait.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for number, killers in zip(chosen, pool.map(partial(_killers, effort, seeds), chosen), strict=True):
            found.append(Kill(MUTANTS[number], killers))
            tell(found[-1])
    return found


def _killers(effort: str, seeds: Sequence[int], number: int) -> tuple[str | None, ...]:
    from refbert_conformance.mutants import MUTANTS

    warnings.simplefilter("ignore")
    mutant = MUTANTS[number]
    properties = concerning(mutant.op, all_properties())
    found: list[str | None] = []
    for seed in seeds:
        properties.sort(key=lambda p: not found or p.id != found[-1])
        found.append(killer(Subject(mutant.name, mutant.make), properties, effort=effort, seed=seed))
    return tuple(found)


def run_self_test(*, effort: str, only: str | None) -> int:
    """For the command line: prints as it goes; 0 if every mutant is killed and the correct backend is not."""
    from refbert_conformance.mutants import Correct, CorrectHalf

    warnings.simplefilter("ignore")
    started = time.perf_counter()

    def tell(kill: Kill) -> None:
        names = dict.fromkeys(k or "SURVIVED" for k in kill.killers)
        print(f"{'SURVIVED' if kill.survived else 'killed'}  {kill.mutant.name}: {', '.join(names)}", flush=True)

    innocent = []
    if only is None:
        for seed in SEEDS:
            for made in (Correct, partial(Correct, "float64"), CorrectHalf):
                correct = Subject("correct", made)
                hit = killer(correct, all_properties(), effort=effort, seed=seed)
                if hit is not None:
                    innocent.append(f"{correct.dtype}, seed {seed}: {hit}")
    kills = trial(effort, only=only, tell=tell)
    if not kills:
        raise InputError(f'no mutant matches "{only}"')
    survivors = [k.mutant.name for k in kills if k.survived]
    for line in innocent:
        print(f"FALSE ALARM  the correct backend, {line}")
    print(
        f"{len(kills) - len(survivors)} of {len(kills)} mutants killed under {len(SEEDS)} seeds; "
        f"{len(innocent)} false alarms; {time.perf_counter() - started:.0f} s"
    )
    return 1 if survivors or innocent else 0


def table_row(*cells: str) -> str:
    """A row of a table in Markdown."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def table(kills: Sequence[Kill]) -> str:
    """The mutant table of the documentation, in Markdown."""
    lines = [table_row("op", "mutant", "area", "killed by"), table_row(*["---"] * 4)]
    for kill in kills:
        names = ", ".join(f"`{name}`" for name in dict.fromkeys(str(k) for k in kill.killers))
        op, _, what = kill.mutant.name.partition(": ")
        lines.append(table_row(op, what, kill.mutant.area, names))
    return "\n".join(lines) + "\n"


def museum(kills: Sequence[Kill]) -> str:
    """The museum's page of the documentation, in Markdown, from the kills of its mutants."""
    from refbert_conformance.mutants.museum import MUSEUM, OUTSIDE

    def thread(name: str) -> str:
        _, repository, _, number = name.split("/")
        return f"[{repository}#{number}](https://github.com/{name})"

    found = {kill.mutant.name: kill for kill in kills}
    lines = [
        "# A museum of published bugs", "",
        f"{len(MUSEUM)} faults of {len({e.project.partition(',')[0] for e in MUSEUM})} libraries, from their issue "
        "trackers, each rebuilt from its description as a [mutant](mutants.md): a correct backend with that fault. "
        "What was wrong is told in our words; where a fault could not be rebuilt as it was, the row says what differs. "
        "`refbert conform --self-test --only museum` finds all of them, at the default effort, under seeds "
        f"{', '.join(map(str, SEEDS))}. Faults that refbert itself has brought to light are in "
        "[findings](findings.md). Generated by `python -m refbert_conformance.selftest docs/museum.md museum`.", "",
        table_row("project", "what was wrong", "thread", "the mutant", "found by"), table_row(*["---"] * 5),
    ]  # fmt: skip
    for exhibit in MUSEUM:
        killers = ", ".join(f"`{name}`" for name in dict.fromkeys(map(str, found[exhibit.mutant.name].killers)))
        lines.append(table_row(exhibit.project, exhibit.wrong, thread(exhibit.thread), exhibit.mutant.name, killers))
    lines += [
        "", "## Not found at first", "",
        "The suite missed these. What was added asks for no more than that fault's kind, and every correct backend "
        "passes it.", "", table_row("the mutant", "thread", "what was added"), table_row(*["---"] * 3),
        *(table_row(e.mutant.name, thread(e.thread), e.added) for e in MUSEUM if e.added),
        "", "## Not in the museum", "",
        "Faults that the contract cannot express, or does not call faults.", "",
        table_row("project", "what was wrong", "thread", "why there is no mutant"), table_row(*["---"] * 4),
        *(table_row(project, wrong, thread(name), why) for project, name, wrong, why in OUTSIDE),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write docs/mutants.md, or docs/museum.md: ``python -m refbert_conformance.selftest FILE [museum]``."""
    import sys

    warnings.simplefilter("ignore")
    of_museum = sys.argv[2:] == ["museum"]
    kills = trial(
        only="museum" if of_museum else None, tell=lambda kill: print(kill.mutant.name, set(kill.killers), flush=True)
    )
    if of_museum:
        page = museum(kills)
    else:
        head = (
            "# Mutants\n\nWhat `refbert conform --self-test` finds: every bug below, at the default effort, "
            f"under seeds {', '.join(map(str, SEEDS))}, and those of [the museum](museum.md). Generated by "
            "`python -m refbert_conformance.selftest docs/mutants.md`; where seeds differ in "
            "what finds it first, all are named.\n\n"
        )
        page = head + table([kill for kill in kills if kill.mutant.area != "museum"])
    Path(sys.argv[1]).write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
