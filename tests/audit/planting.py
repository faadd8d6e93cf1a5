"""Errors planted in refbert, each of which some claims of the audit have to notice.

`planted.txt` holds them: a file, what is in it ("- "), what it becomes ("+ "), and the claims that are then no longer
as recorded ("= "). Each is planted as a module is read, in a process of its own, and nothing on the disk changes.

    python tests/audit/planting.py                                  all of them: what goes unnoticed, and the time
    python tests/audit/planting.py bert.masking. google.gelu        those of some claims or groups
    python tests/audit/planting.py --write docs/audit-mutations.md  all of them, as a table

refbert must not be imported before an error is planted, so nothing here imports it outside the child.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refbert_conformance.process.planting import plant

ROOT = Path(__file__).resolve().parent.parent.parent
ERRORS = Path(__file__).with_name("planted.txt")
_LONG = 160  # of what a claim then says, as much as a table has room for
TABLE = ROOT / "docs" / "audit-mutations.md"


@dataclass(frozen=True)
class Planted:
    """One error. file: from the root on. claims: whose verdict or values it must change."""

    file: str
    was: str
    becomes: str
    claims: tuple[str, ...]

    def source(self) -> str:
        """The module with the error; raises ValueError unless what was there is there, once."""
        text = (ROOT / self.file).read_text(encoding="utf-8")
        if text.count(self.was) != 1:
            times = text.count(self.was)
            raise ValueError(f"{self.file}: {self.was!r} is there {times} times, not once: see {ERRORS.name}")
        return text.replace(self.was, self.becomes)


def read(path: Path = ERRORS) -> list[Planted]:
    """All errors, in order; raises ValueError for a line that is none of the four kinds."""
    out: list[Planted] = []
    file = ""
    was: list[str] = []
    becomes: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        mark, rest = line[:2], line[2:]
        if not line or line.startswith("#"):
            continue
        if mark == "- ":
            was.append(rest)
        elif mark == "+ ":
            becomes.append(rest)
        elif mark == "= ":
            out.append(Planted(file, "\n".join(was), "\n".join(becomes), tuple(rest.split())))
            was, becomes = [], []
        elif line.endswith(".py"):
            file = line
        else:
            raise ValueError(f"{path.name}:{number}: {line!r}")
    return out


def run(errors: Iterable[Planted]) -> Iterator[tuple[Planted, list[dict[str, Any]]]]:
    """Each error and what its claims then are: id, verdict, ok, says. One process each."""
    for error in errors:
        yield error, _in_a_child(error)


def _in_a_child(error: Planted) -> list[dict[str, Any]]:
    source = error.source()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            answer = json.dumps(_audited(error, source))
        except BaseException as problem:  # noqa: BLE001 - the parent is told, whatever it is
            answer = json.dumps(f"{type(problem).__name__}: {problem}")
        with os.fdopen(writing, "w") as out:
            out.write(answer)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = json.loads(pipe.read() or '"the process ended"')
    os.waitpid(child, 0)
    if isinstance(answer, str):
        raise RuntimeError(f"{error.file}: {error.becomes!r}: {answer}")
    return answer


def _audited(error: Planted, source: str) -> list[dict[str, Any]]:
    plant(ROOT / error.file, source)
    audit = importlib.import_module("refbert_audit")
    summary = importlib.import_module("refbert_audit.formatting").summary
    claims = [one for one in audit.all_claims() if one.id in error.claims]
    return [
        {"id": o.claim.id, "verdict": o.verdict, "ok": o.ok, "says": summary(o)}
        for o in audit.run(claims)
    ]  # fmt: skip


def warm(errors: Sequence[Planted]) -> None:
    """Import once, before the processes part, what takes long and is not refbert."""
    names = ["numpy", "scipy.special", "tokenizers"]
    if any(id.startswith("hf.") for error in errors for id in error.claims):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        names += ["torch", "transformers.models.bert.modeling_bert", "transformers.activations"]
        names += ["transformers.data.data_collator", "transformers.optimization"]
        names += ["transformers.models.bert.tokenization_bert"]
    for name in names:
        importlib.import_module(name)


def table(found: Sequence[tuple[Planted, list[dict[str, Any]]]]) -> str:
    """All of it as a page of the documentation, by claim."""
    rows = {o["id"]: (error, o) for error, outcomes in found for o in outcomes}
    lines = [
        "# Errors that the audit notices",
        "",
        "A claim that cannot fail is worth nothing. So for every claim that the [audit](audit.md) decides there is an",
        "error, planted in refbert or in what it copies from a document (`audit/refbert_audit/quoted.py`), after",
        "which it is no longer as recorded: the verdict is another, or a value. Files are named from the root on.",
        "",
        "Claims that nothing decides without weights or data measure nothing and are not counted as agreeing. The two",
        "that a checkpoint decides (`--model`) are tried with other weights and another vocabulary in `tests/audit`.",
        "",
        "Generated by `python tests/audit/planting.py --write docs/audit-mutations.md`, which takes some minutes.",
        "",
        "| claim | in | was | becomes | then |",
        "| --- | --- | --- | --- | --- |",
    ]
    for id in ordered(rows):
        error, o = rows[id]
        lines.append(f"| `{id}` | {shown(error)} | {o['verdict']}: {_cell(o['says'])} |")
    return "\n".join(lines) + "\n"


def ordered(ids: Iterable[str]) -> list[str]:
    """By document, then by name."""
    documents = ("bert", "transformer", "google", "hf", "costs", "article")
    return sorted(ids, key=lambda id: (documents.index(id.split(".")[0]), id))


def shown(error: Planted) -> str:
    """The error as three cells of a table."""
    return f"`{error.file}` | {_code(error.was)} | {_code(error.becomes)}"


def _code(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "<br>".join(f"`{line.replace('|', chr(92) + '|')}`" for line in lines) or "*nothing*"


def _cell(text: str) -> str:
    if len(text) > _LONG:
        text = f"{text[:_LONG]}…"
    return text.replace("|", "\\|").replace("[", "\\[").replace("_", "\\_").replace("*", "\\*").replace("<", "&lt;")


def main() -> int:
    """Run them; 1 if one goes unnoticed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", metavar="ID | GROUP")
    parser.add_argument("--errors", type=Path, default=ERRORS, help="another file of them")
    parser.add_argument("--write", type=Path, metavar="FILE", help="the table of all")
    given = parser.parse_args()
    groups = tuple(given.groups)
    errors = [e for e in read(given.errors) if not groups or any(id.startswith(groups) for id in e.claims)]
    began = time.perf_counter()
    warm(errors)
    found = []
    unnoticed = 0
    for error, outcomes in run(errors):
        found.append((error, outcomes))
        for o in outcomes:
            missed = o["ok"] or o["verdict"] in ("error", "unavailable")
            unnoticed += missed
            if missed or given.write is None:
                print(f"{'MISSED ' if missed else ''}{o['id']}: {o['verdict']}: {o['says']}", flush=True)
    if given.write is not None:
        given.write.write_text(table(found), encoding="utf-8")
    claims = sum(len(outcomes) for _, outcomes in found)
    print(f"{len(errors)} errors, {claims} claims, {unnoticed} unnoticed, {time.perf_counter() - began:.0f} s")
    return int(unnoticed > 0)


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    raise SystemExit(main())
