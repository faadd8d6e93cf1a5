"""Contenders in turn, round after round, and whether they computed the same thing.

On a shared machine single times swing by a factor of two for seconds at a time. Every contender runs once a round, each
round starts with another, and what counts is the ratio of the medians; the median of the rounds' own ratios beside it
shows whether the machine was steady.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from refbert.backend import UNIT_ROUNDOFF
from speed import fresh
from speed.cases import NO_GPU, Case, Contender, Missing
from speed.inputs import Checkpoints
from speed.machine import gpus, others
from speed.worker import Failed, Worker

SETTLE = 0.1  # seconds before each turn: PyTorch's idle threads spin for a while after their work
SHORT = 0.2  # a turn lasts about this long at least: shorter work is done several times, and its median counts


@dataclass
class Settings:
    """How to measure."""

    checkpoints: Checkpoints
    rounds: int
    threads: int
    sentences: str | None = None
    say: Callable[[str], None] = print
    # Workers that may be used again, by what makes them what they are.
    workers: dict[str, Worker] = field(default_factory=dict)

    def worker(self, contender: Contender, threads: int) -> Worker:
        key = repr((contender.side, sorted(contender.options.items()), sorted(contender.env.items()), threads))
        if key not in self.workers:
            self.workers[key] = Worker(contender, threads)
        return self.workers[key]

    def close(self) -> None:
        for worker in self.workers.values():
            worker.close()
        self.workers.clear()


def measure(case: Case, settings: Settings) -> dict[str, Any]:
    """What `report` reads: the contenders' values (seconds, or bytes), or why there are none; agreement; load."""
    out: dict[str, Any] = {
        "name": case.name,
        "group": case.group,
        "kind": case.kind,
        "quantity": "bytes" if case.kind == "peak" else case.work.get("quantity", "seconds"),
        "work": dict(case.work),
        "contenders": {},
    }
    try:
        if case.work.get("device") == "cuda" and not gpus():
            raise Missing(NO_GPU)
        work = dict(case.work) | {"checkpoint": settings.checkpoints.path(case.work), "sentences": settings.sentences}
    except Missing as error:
        out["contenders"] = {contender.name: {"missing": str(error)} for contender in case.contenders}
        return out
    out["load"] = {"average": list(os.getloadavg()), "others": others()}
    results: dict[str, dict[str, np.ndarray]] = {}
    if case.kind == "start":
        found = fresh.first_embeddings(case, work, settings.rounds, results)
    elif case.kind == "peak":
        found = _peaks(case, work, settings, results)
    else:
        found = _timed(case, work, settings, results)
    out["contenders"] = found
    out["load"]["others after"] = others()
    bound = agreement_bound(case.work)
    ours = case.contenders[0].name
    for name, result in results.items():
        if name != ours and ours in results:
            found[name]["differs"] = distance(results[ours], result)
            found[name]["bound"] = bound
    return out


def _timed(
    case: Case, work: dict[str, Any], settings: Settings, results: dict[str, dict[str, np.ndarray]]
) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    ready: dict[str, tuple[Worker, int]] = {}
    for contender in case.contenders:
        settings.say(f"  preparing {contender.name}")
        try:
            worker = settings.worker(contender, work.get("threads", settings.threads))
            worker.prepare(work | dict(contender.work))
            result = worker.result()  # the first warm-up
            if contender.alike:
                results[contender.name] = result
            seconds = worker.time(1)[0][0]  # the second
        except (Missing, Failed) as error:
            found[contender.name] = {"missing" if isinstance(error, Missing) else "failed": str(error)}
            continue
        repeats = max(1, min(10, math.ceil(SHORT / max(seconds, 1e-6))))
        ready[contender.name] = worker, repeats
        found[contender.name] = {"values": [], "cpu_seconds": [], "repeats": repeats}
    names = list(ready)
    for turn in range(settings.rounds):
        for name in names[turn % max(1, len(names)) :] + names[: turn % max(1, len(names))]:
            worker, repeats = ready[name]
            time.sleep(SETTLE)
            runs = worker.time(repeats)
            found[name]["values"].append(float(np.median([wall for wall, _ in runs])))
            found[name]["cpu_seconds"].append(float(np.median([cpu for _, cpu in runs])))
    return found


def _peaks(
    case: Case, work: dict[str, Any], settings: Settings, results: dict[str, dict[str, np.ndarray]]
) -> dict[str, dict[str, Any]]:
    """Peak memory of new processes that load the model and do the work twice; three suffice, memory hardly varies."""
    found: dict[str, dict[str, Any]] = {contender.name: {"values": []} for contender in case.contenders}
    for _ in range(min(3, settings.rounds)):
        for contender in case.contenders:
            if "values" not in found[contender.name]:
                continue
            worker = Worker(contender, settings.threads)
            try:
                worker.prepare(work | dict(contender.work))
                worker.time(2)
                found[contender.name]["values"].append(float(worker.peak()))
                if contender.name not in results:
                    results[contender.name] = worker.result()
            except (Missing, Failed) as error:
                found[contender.name] = {"missing" if isinstance(error, Missing) else "failed": str(error)}
            finally:
                worker.close()
    return found


def distance(x: Mapping[str, np.ndarray], y: Mapping[str, np.ndarray]) -> float:
    """The largest normwise relative distance over the arrays of one name; infinite if names or shapes differ."""
    if x.keys() != y.keys() or any(x[name].shape != y[name].shape for name in x):
        return math.inf
    out = 0.0
    for name in x:
        a, b = x[name].astype(np.float64), y[name].astype(np.float64)
        far = float(np.linalg.norm(a - b) / max(float(np.linalg.norm(a)), 1e-300))
        out = max(out, far if math.isfinite(far) else math.inf)
    return out


def agreement_bound(work: Mapping[str, Any]) -> float:
    """How far two right results may be apart, normwise: 4 √n u.

    n results are rounded one after the other on the way from input to output, about ten a layer forward and thirty
    forward and backward; roundings are independent, so they add up like a random walk, and 4 is four standard
    deviations. u is the unit roundoff of the coarser of the two sides' dtypes. bert-base forward in float32: 2.6e-6;
    what is measured is 8e-7, and the tanh GELU in place of the exact one would be 2e-4 apart.
    """
    layers = 6 if work["model"] == "MiniLM" else _layers(work)
    rounded = (30 if work["kind"] == "step" else 10) * max(1, layers)
    return 4 * math.sqrt(rounded) * UNIT_ROUNDOFF[work.get("dtype", "float32")]


def _layers(work: Mapping[str, Any]) -> int:
    import refbert

    return int(work.get("sizes", {}).get("num_hidden_layers", refbert.preset(work["model"]).num_hidden_layers))
