"""refbert against Hugging Face transformers on bert-base, in one interleaved run, and against the bare matrix products.

    python benchmarks/run.py                       forward at 1×16, 1×128, 8×128
    python benchmarks/run.py --full                also 32×128, 1×512, 8×512
    python benchmarks/run.py --shapes 8x128,8x512 --rounds 9 --json out.json
    python benchmarks/run.py --step                forward + backward, masked LM (15 %) and next sentence
    python benchmarks/run.py --device cuda         torch (and cupy, where it is available) on a GPU

Times of single runs mean nothing on a shared machine: every contender runs once per round, in turn, and what is
reported is the ratio of the medians over rounds. Outputs are compared before anything is timed; if they differ, nothing
is timed and the exit status is 1.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import refbert
from refbert import parameters, registry
from refbert.backend import UNIT_ROUNDOFF
from refbert.model import Model

QUICK, FULL = "1x16,1x128,8x128", "1x16,1x128,8x128,32x128,1x512,8x512"
HEADS = ("masked_lm", "next_sentence")


def main() -> None:
    options = parse()
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    config = refbert.preset(options.model).replace(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    weights = parameters.initialize(parameters.shapes(config, HEADS), config, seed=0)
    report: dict[str, Any] = {"versions": versions(), "model": options.model, "step": options.step, "results": []}
    print(json.dumps(report["versions"]))
    contenders = make_contenders(config, weights, options)
    for B, S in options.shapes:
        batch, labels = make_batch(config, B, S)
        calls = {name: make(batch, labels) for name, make in contenders.items()}
        if not options.step and options.device == "cpu":
            calls["bare products"] = bare_products(config, B, S)
        agreement = check(calls, 10 * config.num_hidden_layers * UNIT_ROUNDOFF[options.dtype])
        times = measure(calls, options.rounds)
        result = {"B": B, "S": S, "agreement": agreement, "seconds": times}
        report["results"].append(result)
        show(result)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shapes = parser.add_mutually_exclusive_group()
    shapes.add_argument("--shapes", type=read_shapes, default=read_shapes(QUICK), metavar="BxS,…")
    shapes.add_argument("--full", dest="shapes", action="store_const", const=read_shapes(FULL))
    parser.add_argument("--model", default="bert-base-uncased", help="a preset's name")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--step", action="store_true", help="forward and backward instead of forward")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", default="float32", help="of the torch and cupy backends and of Hugging Face on CUDA")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def read_shapes(text: str) -> list[tuple[int, int]]:
    return [(int(B), int(S)) for B, S in (one.split("x") for one in text.split(","))]


def versions() -> dict[str, Any]:
    import torch
    import transformers

    out = {
        "refbert": refbert.__version__,
        "numpy": np.__version__,
        "blas": registry.create("numpy").library,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "cpu": cpu_name(),
    }
    if torch.cuda.is_available():
        out["gpu"] = torch.cuda.get_device_name()
    return out


def cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()


def make_batch(config: refbert.BertConfig, B: int, S: int) -> tuple[refbert.Batch, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    ids = rng.integers(1000, config.vocab_size, (B, S))
    labels = np.full((B, S), -100)
    for row in labels:
        row[rng.choice(S, max(1, round(0.15 * S)), replace=False)] = rng.integers(1000, config.vocab_size)
    return refbert.Batch(input_ids=ids), {"labels": labels, "next_sentence_label": rng.integers(0, 2, B)}


Call = Callable[[], np.ndarray]
Contender = Callable[[refbert.Batch, dict[str, np.ndarray]], Call]


def make_contenders(config: refbert.BertConfig, weights: dict[str, np.ndarray], options: Any) -> dict[str, Contender]:
    """Name -> (batch, labels) -> a call that does the work once and returns what can be compared."""
    out: dict[str, Contender] = {}
    wanted = [("numpy", "cpu")] if options.device == "cpu" else []
    wanted += [("torch", options.device)] + ([("cupy", "cuda")] if options.device == "cuda" else [])
    for name, device in wanted:
        dtype = "float32" if name == "numpy" else options.dtype
        try:
            backend = registry.create(name, device=device, dtype=dtype)
        except refbert.RefbertError as error:
            print(f"{name}: {error}")
            continue
        model = Model(config, weights, backend=backend, heads=HEADS)
        out[f"refbert {name}"] = ours(model, options.step)
    for attention in ("eager", "sdpa"):
        out[f"transformers {attention}"] = hugging_face(config, weights, attention, options)
    return out


def ours(model: Model, step: bool) -> Contender:
    def contender(batch: refbert.Batch, labels: dict[str, np.ndarray]) -> Call:
        if step:
            return lambda: gradient_sample(model.device_loss_and_gradients(batch, labels)[1], model.backend.to_numpy)
        return lambda: model(batch, heads=()).last_hidden_state

    return contender


def gradient_sample(gradients: dict[str, Any], to_numpy: Callable[[Any], np.ndarray]) -> np.ndarray:
    return to_numpy(gradients["bert.encoder.layer.0.attention.self.value.weight"])


def hugging_face(config: refbert.BertConfig, weights: dict[str, np.ndarray], attention: str, options: Any) -> Contender:
    import torch
    import transformers

    theirs = transformers.BertForPreTraining(transformers.BertConfig(**config.to_dict(), attn_implementation=attention))
    state = {name: torch.from_numpy(w) for name, w in weights.items()}
    state["cls.predictions.decoder.weight"] = state["bert.embeddings.word_embeddings.weight"]
    state["cls.predictions.decoder.bias"] = state["cls.predictions.bias"]
    theirs.load_state_dict(state, strict=False)
    theirs.to(options.device, getattr(torch, options.dtype) if options.device == "cuda" else torch.float32).eval()

    def contender(batch: refbert.Batch, labels: dict[str, np.ndarray]) -> Call:
        inputs = {
            name: torch.from_numpy(getattr(batch, name)).to(options.device)
            for name in ("input_ids", "token_type_ids", "attention_mask")
        }
        targets = {name: torch.from_numpy(x).to(options.device) for name, x in labels.items()}

        def forward() -> np.ndarray:
            with torch.inference_mode():
                return theirs.bert(**inputs).last_hidden_state.float().cpu().numpy()

        def step() -> np.ndarray:
            theirs.zero_grad(set_to_none=True)
            theirs(**inputs, **targets).loss.backward()
            return theirs.bert.encoder.layer[0].attention.self.value.weight.grad.float().cpu().numpy()

        return step if options.step else forward

    return contender


def bare_products(config: refbert.BertConfig, B: int, S: int) -> Call:
    """Only the forward's matrix products, operands in place and results preallocated: what no NumPy code can beat."""
    rng = np.random.default_rng(0)
    N, H, F, A = B * S, config.hidden_size, config.intermediate_size, config.num_attention_heads
    D = H // A

    def random(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    x, up, y = random(N, H), random(N, F), random(N, H)
    q, k, v = (random(A, S, D) for _ in range(3))
    scores, context = random(A, S, S), random(A, S, D)
    layers = [([random(H, H) for _ in range(4)], random(F, H), random(H, F)) for _ in range(config.num_hidden_layers)]

    def run() -> np.ndarray:
        for square, w1, w2 in layers:
            for w in square:
                np.matmul(x, w.T, out=y)
            for _ in range(B):
                np.matmul(q, k.swapaxes(1, 2), out=scores)
                np.matmul(scores, v, out=context)
            np.matmul(x, w1.T, out=up)
            np.matmul(up, w2.T, out=y)
        return np.empty(0)

    return run


def check(calls: dict[str, Call], allowed: float) -> dict[str, float]:
    """Normwise distance of each contender's result from the first's: nobody wins by computing something else.

    ``allowed`` counts about ten rounded results a layer, each off by unit roundoff: 7e-6 for bert-base in float32.
    There contenders differ by 8e-7, and the tanh GELU would differ from the exact one by 2e-4.
    """
    results = {name: call() for name, call in calls.items()}
    reference = next(iter(results))
    first = results[reference].astype(np.float64)
    differences = {
        name: float(np.linalg.norm(result - first) / np.linalg.norm(first))
        for name, result in results.items()
        if result.size
    }
    for name, difference in differences.items():
        if not difference <= allowed:  # NaN too
            raise SystemExit(f"{name} and {reference} compute different things: {difference:.1e} apart, normwise")
    return differences


def measure(calls: dict[str, Call], rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in calls}
    gc.disable()
    for _ in range(rounds):
        for name, call in calls.items():
            # PyTorch's idle OpenMP threads spin for a while after each call and would steal the next one's core.
            time.sleep(0.25)
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
        gc.collect()
    gc.enable()
    return times


def show(result: dict[str, Any]) -> None:
    medians = {name: statistics.median(times) for name, times in result["seconds"].items()}
    peers = [name for name in medians if name.startswith("transformers") or name == "bare products"]
    print(f"\n{result['B']} × {result['S']}" + " " * 14 + "median, ms" + "".join(f"{'/ ' + p:>22}" for p in peers))
    for name, median in medians.items():
        ratios = "".join(f"{median / medians[p]:22.2f}" for p in peers)
        far = result["agreement"].get(name)
        print(f"{name:22}{median * 1e3:10.1f}{ratios}" + (f"   differs by {far:.1e}" if far else ""))


if __name__ == "__main__":
    main()
