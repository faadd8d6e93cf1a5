"""What only a new process can show: time from its start to the first embedding, and the memory that it took."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from speed import onnx_bert
from speed.cases import Case, Missing
from speed.worker import QUIET

SCRIPT = Path(__file__).parent / "first_embedding.py"
TEXT = "The reference implementation of BERT in pure NumPy."


def first_embeddings(
    case: Case, work: dict[str, Any], rounds: int, results: dict[str, dict[str, np.ndarray]]
) -> dict[str, dict[str, Any]]:
    """Contenders in turn, each run a new process, after one run that brings the files into memory."""
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as directory:
        graph = Path(directory) / "model.onnx"
        for contender in case.contenders:
            try:
                if contender.side == "onnxruntime":
                    onnx_bert.write(work["checkpoint"], graph)
                _, _, vector = _run(contender.side, work["checkpoint"], graph)
            except Missing as error:
                found[contender.name] = {"missing": str(error)}
                continue
            results[contender.name] = {"vector": vector}
            found[contender.name] = {"values": []}
        for _ in range(rounds):
            for contender in case.contenders:
                if "values" in found[contender.name]:
                    seconds, peak, _ = _run(contender.side, work["checkpoint"], graph)
                    found[contender.name]["values"].append(seconds if work["quantity"] == "seconds" else float(peak))
    return found


def _run(side: str, checkpoint: str, graph: Path) -> tuple[float, int, np.ndarray]:
    """(seconds until the process says that it has the vector, its peak bytes then, the vector)."""
    command = [sys.executable, str(SCRIPT), side, checkpoint, str(graph), TEXT]
    start = time.perf_counter()
    # Python's own bytecode counts as installed for everybody, also for a checkout: the run before the rounds writes it.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | QUIET
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        said = process.stdout.readline()
        seconds = time.perf_counter() - start
        rest, wrong = process.stdout.read(), process.stderr.read()
    if said.strip() != "embedded":
        raise Missing((wrong.strip().splitlines() or ["the process ended without a word"])[-1])
    peak, *vector = rest.split()
    return seconds, int(peak), np.array([float.fromhex(x) for x in vector])
