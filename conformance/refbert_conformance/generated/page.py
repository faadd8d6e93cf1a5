"""docs/generated-mutants.md, from a run's report: ``python -m refbert_conformance.generated.page REPORT.json FILE``."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from refbert_conformance.generated.operators import KINDS
from refbert_conformance.selftest import table_row

# What generated mutants have brought to light, and the suite has looked at since.
_FIRST = (
    ("`objective` of a batch without sequences", "`models/objective/accuracy`: five tasks, B = 0"),
    ("`objective` of words to be predicted that the mask hides, all of them",
     "`models/objective/accuracy`: a mask of one position"),
    ("`objective` with gradient checkpointing", "`models/objective/accuracy` and `options`"),
    ("`objective` of ids and labels out of range: clamped instead of refused", "`models/objective/calls`"),
)  # fmt: skip
_HOW = {
    "wrong": "a wrong result", "raises": "an exception", "crashes": "the end of the process", "hangs": "no answer",
    "not made": "a backend that cannot be made",
}  # fmt: skip


def page(report: Mapping[str, Any]) -> str:
    """The page, in Markdown."""
    counts = report["counts"]
    mutants = [{**one, "module": f"{one['package']}.{Path(one['file']).stem}"} for one in report["mutants"]]
    drawn = "all" if report["sample"] is None else f"{len(mutants)}, drawn by their text,"
    how = Counter(one["how"] for one in mutants if one["outcome"] == "killed")
    by = Counter(f"{one['effort']}, {one['dtype']}" for one in mutants if one["outcome"] == "killed")
    lines = [
        "# Generated mutants", "",
        "Besides [those made by hand](mutants.md), `refbert conform --self-test generated` tries mutants that are made "
        "from the syntax tree: every place in the source of `refbert.ops` and of `refbert_numpy`, changed in every way "
        "that the table of kinds names. The judge keeps the right module, the backend's process reads the changed one. "
        "A mutant is killed by the first property that fails, at the quick effort or the one asked for, in either "
        "dtype; one that computes the same is listed with the reason "
        "(`conformance/refbert_conformance/generated/equivalent.txt`) and has to survive.", "",
        "Left out is what no method of the contract reaches: the masking of tokens, clipping, and type aliases.", "",
        f"Of {report['of']} mutants, {drawn} were tried by `refbert conform --self-test generated"
        f"{_options(report)}`, refbert {report['versions']['refbert']}, NumPy {report['versions']['numpy']}: "
        f"**{counts['killed']} killed, {counts['equivalent']} compute the same, {counts['survived']} survived**. "
        f"What the killed ones gave: {', '.join(f'{_HOW[name]} ({n})' for name, n in how.most_common())}. "
        f"Found at: {', '.join(f'{name} ({n})' for name, n in by.most_common())}. "
        "Written from the run's report by `python -m refbert_conformance.generated.page REPORT FILE`.", "",
        "## By kind", "", *_totals("kind", mutants, KINDS),
        "", "## By module", "", *_totals("module", mutants, sorted({one["module"] for one in mutants})),
    ]  # fmt: skip
    lines += _rows("Survived", "survived", mutants)
    lines += _rows("Listed as computing the same, and killed", "not equivalent", mutants)
    lines += ["", "## Not found at first", "", "Mutants that survived because the suite did not try something.", ""]
    lines += [table_row("what", "now tried by"), table_row("---", "---"), *(table_row(*one) for one in _FIRST)]
    equivalent = [one for one in mutants if one["outcome"] == "equivalent"]
    if equivalent:
        lines += ["", "## Compute the same", ""]
        lines += [table_row("where", "was", "becomes", "reason"), table_row(*["---"] * 4)]
        lines += [table_row(_place(one), _code(one["was"]), _code(one["becomes"]), one["reason"]) for one in equivalent]
    lines += ["", "## What killed most", "", table_row("property", "mutants"), table_row("---", "---:")]
    killers = Counter(one["by"] for one in mutants if one["outcome"] == "killed" and one["by"])
    lines += [table_row(f"`{name}`", str(n)) for name, n in killers.most_common(20)]
    return "\n".join(lines) + "\n"


def _options(report: Mapping[str, Any]) -> str:
    sample = "all" if report["sample"] is None else report["sample"]
    options = {"effort": (report["effort"], "default"), "seed": (report["seed"], 0), "sample": (sample, 300),
               "only": (report["only"], None)}  # fmt: skip
    return "".join(f" --{name} {value}" for name, (value, usual) in options.items() if value != usual)


def _totals(of: str, mutants: Sequence[Mapping[str, Any]], values: Sequence[str]) -> list[str]:
    lines = [table_row(of, "tried", "killed", "compute the same", "survived"), table_row("---", *["---:"] * 4)]
    for value in (*values, None):
        here = Counter(one["outcome"] for one in mutants if value in (None, one[of]))
        name = "all" if value is None else f"`{value}`" if of == "module" else value
        counts = (here.total(), here["killed"], here["equivalent"], here["survived"] + here["not equivalent"])
        lines.append(table_row(name, *map(str, counts)))
    return lines


def _rows(title: str, outcome: str, mutants: Sequence[Mapping[str, Any]]) -> list[str]:
    found = [one for one in mutants if one["outcome"] == outcome]
    if not found:
        return []
    rows = [table_row(_place(one), _code(one["was"]), _code(one["becomes"])) for one in found]
    return ["", f"## {title}", "", table_row("where", "was", "becomes"), table_row(*["---"] * 3), *rows]


def _place(one: Mapping[str, Any]) -> str:
    """Without the line, which moves."""
    return f"`{one['module']}`" + (f", `{one['where']}`" if one["where"] else "")


def _code(text: str) -> str:
    return f"`{text}`"


def main() -> None:
    """Write the page."""
    report, file = map(Path, sys.argv[1:3])
    file.write_text(page(json.loads(report.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
