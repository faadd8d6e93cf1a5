"""What it costs that judge and judged are two processes: the suite at quick effort over the wire, and in one process.

    python benchmarks/two_processes.py [--backend NAME] [--only PATTERN] [--rounds N]

Both in turns; CPU seconds of all processes together and wall seconds, medians, and their ratios. Then the time of one
small call.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import warnings

import numpy as np

from refbert.backend import registry
from refbert_conformance.engine import runner
from refbert_conformance.engine.subject import Subject
from refbert_conformance.properties.table import matching


def seconds() -> tuple[float, float]:
    """(wall, CPU of this process and of the children that have ended)."""
    spent = os.times()
    return time.perf_counter(), spent.user + spent.system + spent.children_user + spent.children_system


def tried(make, properties) -> tuple[float, float]:
    """(wall, CPU) of the properties on a backend that is made for them."""
    wall, cpu = seconds()
    subject = make()
    for one in properties:
        result = runner.run(one, subject, effort="quick")
        assert result.outcome in ("passed", "unsupported"), (one.id, result.message)
    del subject  # and its process ends
    wall_then, cpu_then = seconds()
    return wall_then - wall, cpu_then - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--only")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    properties = matching(chosen.only)
    ways = {
        "one process": lambda: Subject(chosen.backend, lambda: registry.create(chosen.backend)),
        "two processes": lambda: Subject.named(chosen.backend),
    }
    found = {name: [] for name in ways}
    for _ in range(chosen.rounds):
        for name, make in ways.items():
            found[name].append(tried(make, properties))
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in found.items()}
    for name, (wall, cpu) in medians.items():
        print(f"{name:14} {wall:7.1f} s wall {cpu:7.1f} s CPU, {len(properties)} properties")
    ratios = [b / a for a, b in zip(*medians.values(), strict=True)]
    print(f"{'ratio':14} {ratios[0]:7.2f}        {ratios[1]:7.2f}")
    for name, make in ways.items():
        subject = make()
        x = subject.device(np.ones((4, 4)))
        began = time.perf_counter()
        for _ in range(1000):
            subject.backend.relu(x)
        print(f"relu of 4 x 4, {name}: {(time.perf_counter() - began) * 1000:.0f} us")


if __name__ == "__main__":
    main()
