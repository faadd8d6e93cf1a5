"""Killed at any moment and resumed, a pretraining run ends with the weights that it would have had: bit by bit.

    python benchmarks/kill_and_resume.py [--kills 20] [--backend numpy] [--seed 0] [--out FILE.json]

One run is left alone. Each of the others is killed (SIGKILL) at a moment drawn evenly from the time that the first one
took, preparation and checkpoints included, and then resumed with the same command. Its final weights, Adam's moments
and metrics must be those of the first. Exits with 1 at a difference, or if a resumed run does not finish.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SENTENCE = "the cat sat on a mat and dogs ran home under old trees while birds sang in the blue evening sky"
CONFIG = {
    "model_type": "bert", "vocab_size": 90, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 256, "max_position_embeddings": 64,
}  # fmt: skip
OPTIONS = {
    "steps": 60, "batch-size": 12, "micro-batch": 8, "short-length": 32, "long-length": 64, "vocab-size": 90,
    "save-every": 4, "keep": 2, "learning-rate": 0.002, "examples": "dynamic",
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as scratch:
        here = Path(scratch)
        write_text(here)
        command = [
            sys.executable, "-m", "refbert", "pretrain", here / "corpus.txt", "--size", here / "config.json",
            "--backend", arguments.backend, *(x for name, value in OPTIONS.items() for x in (f"--{name}", value)),
        ]  # fmt: skip
        seconds = finish(command, here / "alone")
        expected = results(here / "alone")
        print(f"left alone: {OPTIONS['steps']} steps in {seconds:.1f} s", flush=True)
        rows = [
            trial(command, here / f"run{n}", rng.uniform(0, seconds), expected, f"{n:2}")
            for n in range(1, arguments.kills + 1)
        ]
    wrong = [row for row in rows if row["differs"]]
    inside = [row for row in rows if row["killed_after_updates"] is not None]
    verdict = "different" if wrong else "equal"
    print(
        f"{len(rows)} kills, {len(inside)} of them while training: "
        + (f"{len(wrong)} runs ended otherwise" if wrong else "every resumed run is bitwise the run left alone")
    )
    if arguments.out:
        report: dict[str, Any] = {"backend": arguments.backend, "seed": arguments.seed, "options": OPTIONS}
        report |= {"seconds_alone": round(seconds, 2), "verdict": verdict, "kills": rows}
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 1 if wrong else 0


def trial(command: list[Any], out: Path, moment: float, expected: dict[str, Any], name: str) -> dict[str, Any]:
    """Start, kill after ``moment`` seconds, resume, compare."""
    process = subprocess.Popen(
        list(map(str, [*command, "--output", out])), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(moment)
    survived = process.poll() is not None
    process.kill()
    process.wait()
    entries = metrics(out)
    found = sorted(path.name for path in (out / "checkpoints").glob("*"))
    finish([*command, "--resume"], out)
    differs = [what for what, value in results(out).items() if value != expected[what]]
    row = {
        "seconds": round(moment, 3),
        "killed_after_updates": entries[-1]["step"] + 1 if entries else None,
        "had_finished": survived,
        "found": found,
        "differs": differs,
    }
    where = "before the first update" if not entries else f"after update {entries[-1]['step'] + 1}"
    print(f"kill {name} at {moment:5.2f} s, {where}, {', '.join(found) or 'no checkpoint'}: "
          + (f"DIFFERENT: {', '.join(differs)}" if differs else "equal"), flush=True)  # fmt: skip
    return row


def finish(command: list[Any], out: Path) -> float:
    """Run to the end; the seconds that took. Exits with 1 if it fails."""
    started = time.perf_counter()
    done = subprocess.run(list(map(str, [*command, "--output", out])), capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{out.name} ended with status {done.returncode}: {done.stderr}")
        sys.exit(1)
    return time.perf_counter() - started


def results(out: Path) -> dict[str, Any]:
    """What must be equal: the files' bytes, and all of the metrics but the time."""
    last = max((out / "checkpoints").iterdir())
    return {
        "weights": (out / "model.safetensors").read_bytes(),
        "moments": (last / "optimizer.safetensors").read_bytes(),
        "metrics": [{name: x for name, x in entry.items() if name != "seconds"} for entry in metrics(out)],
    }


def metrics(out: Path) -> list[dict[str, Any]]:
    from refbert.training.metrics import read_metrics

    return list(read_metrics(out / "metrics.jsonl"))


def write_text(directory: Path) -> None:
    """Eighty documents of made-up sentences, the same every time."""
    rng, words = random.Random(1), SENTENCE.split()
    with (directory / "corpus.txt").open("w", encoding="utf-8") as file:
        for _ in range(80):
            for _ in range(rng.randint(3, 12)):
                file.write(" ".join(rng.choices(words, k=rng.randint(3, 9))) + ".\n")
            file.write("\n")
    (directory / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
