"""What is measured, as data: cases of contenders that do the same work, and targets for ratios between them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

GROUPS = ("forward", "step", "packed", "encode", "cold_start", "memory", "torch_cpu", "cuda")


NO_GPU = "no NVIDIA GPU on this machine"


class Missing(Exception):
    """A contender's library or hardware is not here; the message says which."""


@dataclass(frozen=True)
class Contender:
    """Who does the work.

    side: the module speed.work_<side> that knows how.     options: what that module is told (backend, dtype, …).
    env: environment variables of its process.             work: changes to the case's work, for this one only.
    alike: False where the result is not to be compared (bare products compute nothing that could be).
    """

    name: str
    side: str
    options: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    work: Mapping[str, Any] = field(default_factory=dict)
    alike: bool = True


@dataclass(frozen=True)
class Target:
    """``ours`` may take at most ``most`` times what the best of ``peers`` takes; with no peers, at most ``most`` bytes.

    row: the line of docs/performance.md that it belongs to.   asked: the target in that table's words.
    """

    row: str
    against: str
    ours: str
    peers: tuple[str, ...]
    most: float
    asked: str


@dataclass(frozen=True)
class Case:
    """One interleaved comparison.

    kind: "timed" (workers, round after round), "start" (a new process for each run: seconds to the first embedding, and
    its peak memory) or "peak" (peak memory of a new process that does the work).
    work: what is done: kind, model or sizes, B, S, ….     quick: part of --quick.
    """

    name: str
    group: str
    work: Mapping[str, Any]
    contenders: tuple[Contender, ...]
    targets: tuple[Target, ...] = ()
    kind: str = "timed"
    quick: bool = False


def at_most(ratio: float) -> str:
    return f"≤ {ratio:.2f}"


def all_cases() -> list[Case]:
    """Every case, in the order of docs/performance.md."""
    return [case for group in GROUPS for case in importlib.import_module(f"speed.{group}").CASES]


def select(cases: list[Case], only: list[str]) -> list[Case]:
    """The cases named in ``only``: by group, by name, or else by how names begin; ValueError for what names none."""
    if not only:
        return cases
    chosen: set[str] = set()
    for wanted in only:
        found = {case.name for case in cases if wanted in (case.group, case.name)}
        found = found or {case.name for case in cases if case.name.startswith(wanted)}
        if not found:
            groups = dict.fromkeys(case.group for case in cases)
            raise ValueError(f'no row "{wanted}"; groups: {", ".join(groups)}; --list names the rows')
        chosen |= found
    return [case for case in cases if case.name in chosen]


def refbert(backend: str, *, dtype: str | None = None, device: str | None = None, **env: str) -> Contender:
    """refbert on one of its backends."""
    told = [dtype] if dtype and dtype != "float32" else []
    told += ["TF32"] if env.get("CUPY_TF32") else []
    name = " ".join([f"refbert {backend}", *told])
    return Contender(name, "refbert", {"backend": backend, "dtype": dtype, "device": device}, env)


def hugging_face(attention: str, **options: Any) -> Contender:
    """Hugging Face's BERT with its attention "eager" or "sdpa"; compile, labelled_only, dtype, device, tf32."""
    name = f"Hugging Face {attention}"
    name += " compiled" if options.get("compile") else ""
    name += " labelled only" if options.get("labelled_only") else ""
    name += f" {options['dtype']}" if options.get("dtype", "float32") != "float32" else ""
    name += " TF32" if options.get("tf32") else ""
    return Contender(name, "hugging_face", {"attention": attention, **options})


BOTH = (hugging_face("eager"), hugging_face("sdpa"))
BOTH_NAMES = tuple(contender.name for contender in BOTH)

# Two ways to use two cores: BLAS's own threads, or a shard of the tokens for each of our threads. What a backend does
# decides which is its limit, so the faster one counts.
PRODUCTS = (
    Contender("bare products", "products", {"shards": False}, alike=False),
    Contender("bare products sharded", "products", {"shards": True}, {"OPENBLAS_NUM_THREADS": "1"}, alike=False),
)
PRODUCT_NAMES = tuple(contender.name for contender in PRODUCTS)
ONNXRUNTIME = Contender("onnxruntime fused", "onnxruntime")
