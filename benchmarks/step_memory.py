"""Peak memory of a training step: refbert's backends against transformers, each in a process of its own.

    python benchmarks/step_memory.py                              bert-base, 8 × 128, numpy and torch
    python benchmarks/step_memory.py --model bert-mini --shape 32x128 --backends numpy --json memory.json
    OMP_NUM_THREADS=1 python benchmarks/step_memory.py --gradient-checkpointing       what it saves, what it costs

Two kinds of work: ``gradients`` is the loss of masked LM (15 %) and next sentence and its gradients; ``step`` adds
clipping to norm 1 and AdamW, as a pretraining step does. Each side does three of them in a fresh process, which then
reports the most memory it ever held (VmHWM), libraries and weights included; so Linux only.

transformers is BertForPreTraining in training mode with ``loss.backward()``, clip_grad_norm_ and torch.optim.AdamW,
gradients freed between steps (zero_grad's default). Dropout is off on both sides unless --dropout says otherwise.

With --gradient-checkpointing each side has a second row, checkpointed, and its cost in processor time: a process
computes ``gradients`` with and without in turns, and the median of the ratios of neighbours counts. With one thread
(OMP_NUM_THREADS) that is the time on an idle machine, on a busy one too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WORK = ("gradients", "step")
STEPS = 3
PAIRS = 7
CHECKPOINTED = ", checkpointed"

# One step, which returns its loss; and what turns gradient checkpointing on and off.
Side = tuple[Callable[[], float], Callable[[bool], None]]


def main() -> None:
    options = parse()
    if options.side:
        print(json.dumps(cost(options) if options.work == "cost" else measure(options)))
        return
    B, S = options.shape
    report: dict[str, Any] = {"model": options.model, "B": B, "S": S, "dropout": options.dropout, "results": []}
    sides = ["transformers", *options.backends]
    costs = {side + CHECKPOINTED: fresh(side, "cost") for side in sides} if options.gradient_checkpointing else {}
    for work in WORK:
        peaks = {side: fresh(side, work) for side in (*sides, *costs)}
        theirs = peaks["transformers"]["megabytes"]
        for side, measured in peaks.items():
            result = {"work": work, "side": side, **measured, "ratio": measured["megabytes"] / theirs}
            line = f"{work:10} {side:28} {result['megabytes']:8.0f} MB   {result['ratio']:.2f} of transformers"
            if side in costs:
                plain = peaks[side.removesuffix(CHECKPOINTED)]["megabytes"]
                result |= {"of_plain": result["megabytes"] / plain} | (costs[side] if work == "gradients" else {})
                line += f", {result['of_plain']:.2f} of its own without"
                line += f" in {result['cost']:.2f} of the time" if "cost" in result else ""
            report["results"].append(result)
            print(line, flush=True)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bert-base-uncased", help="a preset's name")
    parser.add_argument("--shape", type=read_shape, default=(8, 128), metavar="BxS")
    parser.add_argument("--backends", nargs="+", default=["numpy", "torch"])
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--gradient-checkpointing", action="store_true", help="also with it, and what it costs")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--work", choices=(*WORK, "cost"), help=argparse.SUPPRESS)
    return parser.parse_args()


def read_shape(text: str) -> tuple[int, int]:
    B, S = text.split("x")
    return int(B), int(S)


def fresh(side: str, work: str) -> dict[str, Any]:
    """Measure in a process of its own, with the same arguments."""
    command = [sys.executable, __file__, *sys.argv[1:], "--side", side, "--work", work]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The peak in this process, and the last step's loss, which tells whether both sides learn the same way."""
    step, checkpointing = make(options)
    checkpointing(options.side.endswith(CHECKPOINTED))
    losses = [step() for _ in range(STEPS)]
    from refbert.benchmark import peak_process_bytes  # after the steps: no side pays for what it imports

    return {"megabytes": peak_process_bytes() / 2**20, "losses": losses}


def cost(options: argparse.Namespace) -> dict[str, Any]:
    """Processor time of gradients with checkpointing, as a multiple of that without."""
    step, checkpointing = make(options)
    ratios = []
    for _ in range(1 + PAIRS):
        seconds = []
        for on in (False, True):
            checkpointing(on)
            start = time.process_time()
            step()
            seconds.append(time.process_time() - start)
        ratios.append(seconds[1] / seconds[0])
    return {"cost": statistics.median(ratios[1:]), "costs": ratios[1:]}


def make(options: argparse.Namespace) -> Side:
    name = options.side.removesuffix(CHECKPOINTED)
    return hugging_face(options) if name == "transformers" else ours(options, name)


def configuration(options: argparse.Namespace) -> Any:
    import refbert

    rates = {"hidden_dropout_prob": options.dropout, "attention_probs_dropout_prob": options.dropout}
    return refbert.preset(options.model).replace(**rates)


def ours(options: argparse.Namespace, backend: str) -> Side:
    import refbert
    from refbert.benchmark import PRETRAINING, random_batch
    from refbert.training import Optimizer

    config = configuration(options)
    model = refbert.from_config(config, heads=PRETRAINING, backend=backend)
    batch, labels = random_batch(config, *options.shape)
    optimizer = Optimizer(rule="adamw")

    def step() -> float:
        dropout = refbert.Dropout(0, optimizer.updates) if options.dropout else None
        if options.work != "step":
            return model.device_loss_and_gradients(batch, labels, dropout=dropout)[0]
        return model.train_step(batch, labels, optimizer, lr=1e-4, dropout=dropout)[0]

    def checkpointing(on: bool) -> None:
        model.gradient_checkpointing = on

    return step, checkpointing


def hugging_face(options: argparse.Namespace) -> Side:
    import torch
    import transformers

    from refbert.benchmark import random_batch

    config = configuration(options)
    model = transformers.BertForPreTraining(transformers.BertConfig(**config.to_dict())).train()
    batch, labels = random_batch(config, *options.shape)
    inputs = {name: torch.from_numpy(x) for name, x in {"input_ids": batch.input_ids, **labels}.items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)

    def step() -> float:
        optimizer.zero_grad()
        loss = model(**inputs).loss
        loss.backward()
        if options.work == "step":
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        return float(loss.detach())

    def checkpointing(on: bool) -> None:
        if on:
            model.gradient_checkpointing_enable()
        elif model.is_gradient_checkpointing:
            model.gradient_checkpointing_disable()

    return step, checkpointing


if __name__ == "__main__":
    main()
