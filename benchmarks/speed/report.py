"""From measurements to rows: medians, spread, ratios, verdicts. Everything here is computed from the JSON alone."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from refbert.benchmark import quartiles, step_flops
from refbert.config import flops
from refbert.ops.cross_entropy import IGNORE
from speed.cases import NO_GPU, Case, Target
from speed.inputs import batch_of, config_of

BUSY = 0.25  # cores that others keep busy: above this the run is marked as made on a busy machine


@dataclass(frozen=True)
class Row:
    """One target and what was measured for it.

    ratio: ours over the best peer's, of medians; for an absolute target, bytes.   by_round: the median of the rounds'
    own ratios.   spread: quartiles of those.   cpu: ratio of the medians of CPU seconds over all threads, waiting in
    loops included: it hardly feels what else runs.   met: None where nothing was measured, and ``why`` says why not.
    busy: others used the cores meanwhile, so that times decide nothing; memory does not mind.
    """

    case: str
    row: str
    against: str
    asked: str
    most: float
    ratio: float | None = None
    by_round: float | None = None
    spread: tuple[float, float] | None = None
    cpu: float | None = None
    peer: str = ""
    met: bool | None = None
    why: str = ""
    quantity: str = "seconds"
    busy: bool = False


def rows(cases: Iterable[Case], measured: Mapping[str, Mapping[str, Any]], *, gpu: bool = True) -> list[dict[str, Any]]:
    """A row for every target of every case, measured or not; ``gpu``: whether the machine has one."""
    out = []
    for case in cases:
        found = measured.get(case.name)
        why = "not in this run" if gpu or case.work.get("device") != "cuda" else NO_GPU
        for target in case.targets:
            out.append(asdict(unmeasured(case, target, why) if found is None else row_of(case, target, found)))
    return out


def unmeasured(case: Case, target: Target, why: str) -> Row:
    """The row of a target that has no figure."""
    return Row(case.name, target.row, target.against, target.asked, target.most, why=why)


def row_of(case: Case, target: Target, found: Mapping[str, Any]) -> Row:
    """The verdict on one target."""
    known = {"case": case.name, "row": target.row, "against": target.against, "asked": target.asked}

    def missing(why: str) -> Row:
        return unmeasured(case, target, why)

    contenders = found["contenders"]
    ours = contenders.get(target.ours, {})
    if not ours.get("values"):
        return missing(f"{target.ours}: {_reason(ours)}")
    extra = {"quantity": found["quantity"], "busy": found["quantity"] == "seconds" and is_busy(found)}
    if not target.peers:
        value = statistics.median(ours["values"])
        return Row(**known, most=target.most, ratio=value, met=value <= target.most, **extra)
    usable = {}
    reasons = []
    for name in target.peers:
        peer = contenders.get(name, {})
        if not peer.get("values"):
            reasons.append(f"{name}: {_reason(peer)}")
        elif not peer.get("differs", 0.0) <= peer.get("bound", 0.0):
            # Not even the other peer's ratio: the faster one might be this.
            return missing(
                f"{target.ours} and {name} compute different things: {peer['differs']:.1e} apart, "
                f"rounding allows {peer['bound']:.1e}"
            )
        else:
            usable[name] = statistics.median(peer["values"])
    if not usable:
        return missing("; ".join(reasons))
    best = min(usable, key=lambda name: usable[name])
    ratio = statistics.median(ours["values"]) / usable[best]
    each = [mine / theirs for mine, theirs in zip(ours["values"], contenders[best]["values"], strict=False)]
    low, middle, high = quartiles(each)
    cpu = [who.get("cpu_seconds") for who in (ours, contenders[best])]  # not of memory, nor of new processes
    used = statistics.median(cpu[0]) / statistics.median(cpu[1]) if cpu[0] and cpu[1] and all(cpu[1]) else None
    return Row(
        **known, most=target.most, ratio=ratio, by_round=middle, spread=(low, high), cpu=used, peer=best,
        met=ratio <= target.most, why="; ".join(reasons), **extra,
    )  # fmt: skip


def _reason(contender: Mapping[str, Any]) -> str:
    if "failed" in contender:
        return f"failed ({contender['failed']})"
    return str(contender.get("missing", "nothing measured"))


def is_busy(found: Mapping[str, Any]) -> bool:
    """Whether other processes were at work before or after the case; True too where the system does not say."""
    load = found.get("load", {})
    seen = [load.get("others"), load.get("others after")]
    return any(x is None or x > BUSY for x in seen)


def shown(row: Mapping[str, Any]) -> str:
    """The measured figure in the words of the target."""
    if row["ratio"] is None:
        return f"not measured: {row['why']}"
    ratio = row["ratio"]
    if row["most"] > 1e3:
        return f"{ratio / 1e6:.0f} MB"
    if row["asked"].startswith("≥"):
        return f"{1 / ratio:.2f}×"
    if "1/" in row["asked"]:
        return f"1/{1 / ratio:.1f}"
    return f"{ratio:.2f}"


def verdict(row: Mapping[str, Any]) -> str:
    """Met, missed, or what keeps it from being either."""
    if row["busy"] and row["met"] is not None:
        return "undecided: busy machine"
    return {True: "met", False: "missed", None: ""}[row["met"]]


def case_text(found: Mapping[str, Any]) -> str:
    """A case as lines of text: each contender's median and half of its runs, and how far its result is from ours."""
    lines = [found["name"]]
    scale, unit = (1e-6, "MB") if found["quantity"] == "bytes" else (1e3, "ms")
    for name, contender in found["contenders"].items():
        if not contender.get("values"):
            lines.append(f"  {name:34} {_reason(contender)}")
            continue
        low, median, high = (x * scale for x in quartiles(contender["values"]))
        far = contender.get("differs")
        note = "" if far is None else f"   {far:.1e} apart (≤ {contender['bound']:.1e})"
        lines.append(f"  {name:34} {median:10.1f} {unit}   [{low:.1f}, {high:.1f}]{note}")
    return "\n".join(lines)


def row_text(row: Mapping[str, Any]) -> str:
    """A row as one line of text."""
    line = f"  {row['row']} / {row['against']}: {shown(row)}"
    if row["ratio"] is None:
        return line
    steady = "" if row["by_round"] is None else f", by round {row['by_round']:.2f}"
    cpu = "" if row["cpu"] is None else f", CPU time {row['cpu']:.2f}"
    why = f"  ({row['why']})" if row["why"] else ""
    return f"{line}   target {row['asked']}: {verdict(row)}{steady}{cpu}{why}"


def operations(work: Mapping[str, Any]) -> int | None:
    """Floating-point operations of the work, by refbert.config.flops, without padding; None if unknown."""
    if work.get("model") == "MiniLM":
        return None
    config = config_of(work)
    B, S = work["B"], work["S"]
    if work["kind"] == "step":
        labelled = int((batch_of(work)[1]["labels"] != IGNORE).sum())
        return step_flops(config, B, S, labelled)
    if work["kind"] == "packed":
        return sum(flops.forward_flops(config, int(n)) for n in batch_of(work)[0].lengths)
    return B * flops.forward_flops(config, S)


def least_bytes(work: Mapping[str, Any]) -> int | None:
    """float32 bytes that must move at least: every weight of the encoder once, and each layer's products' inputs and
    outputs once, as if nothing larger than a layer's activations stayed in a cache; three times that for a step."""
    if operations(work) is None:
        return None
    config = config_of(work)
    L, H, F = config.num_hidden_layers, config.hidden_size, config.intermediate_size
    tokens = int(batch_of(work)[0].lengths.sum())
    weights = flops.parameter_groups(config)["encoder"]
    # x, q k v, context, attended, up, y of a layer: read or written
    activations = L * tokens * (7 * H + 2 * F)
    return 4 * (weights + activations) * (3 if work["kind"] == "step" else 1)
