"""What a declaration costs: the mutants that the suite no longer sees under it.

Whoever declares less accurate arithmetic is given wider bounds, and within them a fault passes. How many of the mutants
do is counted by running them, for the declarations in `ROWS`, in float32, at the quick effort; ``cost.json`` has what
came of it. Of any other declaration it says a lower and an upper limit: what one allows, a wider one allows too, so its
mutants contain those of every narrower row, and are among those of every wider one.

``python -m refbert_conformance.cost`` counts again, and goes on where it was interrupted.
"""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from refbert.backend import Host
from refbert_conformance.tolerances.arithmetic import Arithmetic
from refbert_conformance.tolerances.functions import FUNCTIONS

Declared = Mapping[str, Any]

# The widest of each kind first: what is seen under it is seen under all that are narrower.
ROWS: tuple[Declared, ...] = (
    {"matmul_inputs": "float8_e4m3"}, {"matmul_inputs": "bfloat16"}, {"matmul_inputs": "tensorfloat32"},
    {"matmul_inputs": "bfloat16x3"},
    {"intermediates": "bfloat16"},
    {"intermediates": "tensorfloat32"},
    {"accumulation": "bfloat16"}, {"accumulation": "float16"}, {"accumulation": "float32-truncated"},
    {"flush_to_zero": True},
    *({"preset": name} for name in ("tpu", "opencl-fast-relaxed", "webgpu", "vulkan", "tosa-1.1", "opencl", "cuda",
                                    "ieee")),
)  # fmt: skip
_FILE = "cost.json"


@dataclass(frozen=True)
class Cost:
    """least, most: how many mutants of ``of`` are no longer seen; equal where that was counted."""

    least: int
    most: int
    of: int

    def __str__(self) -> str:
        if not self.most:
            return f"the suite still sees all of {self.of} mutants"
        if self.least == self.most:
            said = str(self.least)
        elif self.most == self.of:
            said = f"at least {self.least}" if self.least else "an unknown number"
        else:
            said = f"between {self.least} and {self.most}"
        return f"the suite no longer sees {said} of {self.of} mutants"


@functools.cache
def _counted() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(resources.files("refbert_conformance").joinpath(_FILE).read_text("utf-8"))
    return found


def cost(dtype: str, declared: Declared) -> Cost | None:
    """The cost of a declaration; None where nothing is declared, or nothing was counted in the dtype."""
    declared = {name: value for name, value in declared.items() if name != "nondeterministic" and value}
    counted = _counted()
    if dtype != "float32" or not declared:
        return None
    mine = Arithmetic.of(dtype, declared)
    rows = [(Arithmetic.of(dtype, row["arithmetic"]), set(row["lost"])) for row in counted["rows"]]
    least: set[str] = set()
    least = least.union(*(lost for row, lost in rows if allows(mine, row)))
    most = [lost for row, lost in rows if allows(row, mine)]
    if allows(Arithmetic.of(dtype), mine):
        most.append(set())
    return Cost(len(least), min(map(len, most), default=counted["of"]), counted["of"])


def allows(wide: Arithmetic, narrow: Arithmetic) -> bool:
    """Whether whatever the narrow arithmetic allows, the wide one does."""
    if narrow.flush_to_zero > wide.flush_to_zero or narrow.u_matmul > wide.u_matmul:
        return False
    # Sums of three times as many terms: n u more for each of two factors, where n terms of coarser ones make up for it.
    if narrow.terms > wide.terms and wide.u_matmul - narrow.u_matmul < _TERMS * narrow.u_accumulation:
        return False
    if narrow.underflow_step > wide.underflow_step or narrow.largest_step < wide.largest_step:
        return False
    if narrow.u_step > wide.u_step or narrow.u_accumulation > wide.u_accumulation:
        return False
    return all(np.all(_ulps(wide, name) >= _ulps(narrow, name)) for name in FUNCTIONS)


# Where two declarations of a function are compared: arguments from 2⁻³⁰ to 2⁷, of both signs where it has them.
_SIZES = 2.0 ** np.linspace(-30, 7, 600)
_NEAR = 2.0 ** np.arange(-23, -4)  # 1, where a logarithm is 0
# In a sum, as the suite makes them at its quick effort.
_TERMS = 1 << 12


def _ulps(a: Arithmetic, name: str) -> Host:
    """How far a function may be off, as shares of the result or absolutely, at the places of comparison."""
    x = np.concatenate([_SIZES, 1 - _NEAR, 1 + _NEAR])
    x = x if name in ("log", "sqrt", "rsqrt", "division", "reciprocal") else np.concatenate([-x, x])
    x = x[x < 80]
    with np.errstate(all="ignore"):
        exact: dict[str, Any] = {"rsqrt": 1 / np.sqrt(x), "division": 1 / x, "reciprocal": 1 / x}
        if name == "erf":  # and 1 − erf, which takes its place
            from scipy import special

            x, exact[name] = np.concatenate([x, x]), np.concatenate([special.erf(x), special.erfc(x)])
        y = exact[name] if name in exact else getattr(np, name)(x)
        return np.asarray(a.own(name, x, y))


def count(rows: Sequence[Declared], known: dict[str, Any], save: Any) -> dict[str, Any]:
    """Run the mutants under each declaration that is not among the ``known``; ``save`` is given what there is."""
    from refbert_conformance.engine.subject import Subject
    from refbert_conformance.mutants import MUTANTS
    from refbert_conformance.properties.table import all_properties
    from refbert_conformance.selftest import concerning, killer

    properties = all_properties()
    killers: dict[str, str] = known.setdefault("killers", {})

    def seen(mutant: Any, declared: Declared | None) -> str | None:
        order = sorted(concerning(mutant.op, properties), key=lambda p: p.id != killers.get(mutant.name))
        return killer(Subject(mutant.name, mutant.make, declared), order, effort="quick", seed=0)

    candidates = [m for m in MUTANTS if m.make().dtype == "float32"]
    for number, one in enumerate(candidates):
        if one.name not in killers:
            killers[one.name] = seen(one, None) or ""
            if number % 20 == 0:
                save(known)
    candidates = [m for m in candidates if killers[m.name]]
    known["of"] = len(candidates)
    found = known.setdefault("rows", [])
    for declared in rows:
        if any(row["arithmetic"] == declared for row in found):
            continue
        mine = Arithmetic.of("float32", declared)
        done = [(Arithmetic.of("float32", row["arithmetic"]), set(row["lost"])) for row in found]
        lost = []
        for one in candidates:
            if any(allows(row, mine) and one.name not in names for row, names in done):
                continue
            if any(allows(mine, row) and one.name in names for row, names in done) or seen(one, declared) is None:
                lost.append(one.name)
        found.append({"arithmetic": dict(declared), "lost": lost})
        save(known)
    return known


def table() -> str:
    """The table of the documentation, in Markdown."""
    from refbert_conformance.selftest import table_row

    counted = _counted()
    lines = [table_row("declared", "mutants no longer seen", "such as"), table_row(*["---"] * 3)]
    for row in counted["rows"]:
        ((key, value),) = row["arithmetic"].items()
        said = f"`{key}`" if value is True else f"`{key}`: `{value}`"
        lines.append(table_row(said, f"{len(row['lost'])} of {counted['of']}", "; ".join(row["lost"][:2])))
    return "\n".join(lines) + "\n"


def main() -> None:
    """Count what is not counted yet: ``python -m refbert_conformance.cost``."""
    warnings.simplefilter("ignore")
    path = resources.files("refbert_conformance").joinpath(_FILE)
    known = json.loads(path.read_text("utf-8")) if path.is_file() else {}

    def save(there: dict[str, Any]) -> None:
        with resources.as_file(path) as file:
            file.write_text(json.dumps(there, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(there.get("of", len(there["killers"])), [len(row["lost"]) for row in there.get("rows", [])], flush=True)

    count(ROWS, known, save)


if __name__ == "__main__":
    main()
