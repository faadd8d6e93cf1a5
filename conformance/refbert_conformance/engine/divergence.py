"""Where a model goes wrong first: every op of the spec, judged on the very inputs that the backend gave it.

`Lockstep` runs the spec on the backend. Each op is judged by itself (its own inputs, as the backend made them, through
the reference, within its bound), so that an early error does not blame the ops after it, and no error hides in a bound
for the whole. Where it shall show how the error grows, it carries the reference's own way along.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from refbert import ops
from refbert.backend import Host
from refbert.backend.reference import ReferenceBackend
from refbert.backend.wrapper import OpsAlone
from refbert_conformance.engine.measure import Failure, Record, row_failure, same_bits
from refbert_conformance.engine.subject import Subject, backward, forward
from refbert_conformance.tolerances.bounds import Expected, expecting
from refbert_conformance.tolerances.noise import by_name, tolerances


@dataclass(frozen=True)
class Divergence:
    """The first operation of a model that is beyond its own bound."""

    where: str | None
    op: str | None
    direction: str | None
    rho: float | None
    message: str | None = None

    def __str__(self) -> str:
        rho = "" if self.rho is None else f", ρ = {self.rho:.3g}"
        return f"{self.op} ({self.direction}) in {self.where}{rho}"


@dataclass(frozen=True)
class Place:
    """How far a model is from the reference at one of its blocks: relatively, and in bounds."""

    where: str
    error: float | None
    rho: float | None = None


class Made:
    """A backend's array, its numbers when it was made, and what the reference has there (None: not asked)."""

    def __init__(self, device: Any, host: Host, reference: Host | None = None) -> None:
        self.device, self.host, self.reference = device, host, reference

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return tuple(self.host.shape)


class Lockstep(OpsAlone):
    """A backend that judges another. failure: the first op beyond its bound, and ``first`` where that is, for reports.
    growth: place -> relative distance from the reference, with ``growing``.
    """

    def __init__(self, subject: Subject, record: Record | None = None, *, growing: bool = False) -> None:
        super().__init__(subject.backend)
        self.subject = subject
        self.record = record or Record(subject.arithmetic)
        self.growing = growing
        self.failure: Failure | None = None
        self.first: Divergence | None = None
        self.growth: dict[str, float] = {}

    def asarray(self, x: Host) -> Made:
        """On the backend."""
        return self.put_each([x])[0]

    def put_each(self, arrays: Sequence[Host]) -> tuple[Made, ...]:
        """Each of them on the backend."""
        references = [np.asarray(x, np.float64) if self.growing else None for x in arrays]
        return self.made("asarray", "", self.subject.devices(arrays), references)

    def to_numpy(self, x: Made) -> Host:
        """The backend's numbers."""
        return self.get_each([x])[0]

    def get_each(self, arrays: Sequence[Made]) -> list[Host]:
        """Those of each."""
        self.unchanged(*arrays)
        return [x.host for x in arrays]

    def made(
        self, op: str, direction: str, devices: Sequence[Any], references: Sequence[Host | None]
    ) -> tuple[Made, ...]:
        """Each with its numbers copied: a backend that uses memory again changes them later."""
        try:
            hosts = [np.array(x) for x in self.subject.hosts(devices)]
        except Failure as failure:
            self.wrong(op, direction, failure)
            raise
        return tuple(Made(*one) for one in zip(devices, hosts, references, strict=True))

    def unchanged(self, *arrays: Made) -> None:
        """Note the first that is no longer what it was when it was made."""
        now = self.subject.hosts(x.device for x in arrays)
        if not all(same_bits(found, x.host) for found, x in zip(now, arrays, strict=True)):
            self.wrong("memory", "", Failure("an earlier result has been changed since it was made"))

    def __getattr__(self, name: str) -> Any:
        return self._encoder_layer if name == "encoder_layer" and self.subject.has(name) else super().__getattr__(name)

    def call(self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Judge an op by itself, and its pullback."""
        given, options = by_name(name, arguments, options)
        self.unchanged(*given)
        y, back = forward(self.subject, name, [x.device for x in given], options)
        reference, reference_back = (
            getattr(ops, name)(*(x.reference for x in given), **options) if self.growing else (None, lambda dy: None)
        )
        inputs = [np.asarray(x.host, np.float64) for x in given]
        want, want_back = expecting(name, inputs, options, self.subject.arithmetic)
        (result,) = self.made(name, "forward", [y], [reference])
        self.judge(name, "forward", [result], lambda: [want])
        self.grown(result)

        def pullback(dy: Made) -> tuple[Made, ...]:
            self.unchanged(*given, dy)
            got = backward(back, dy.device, len(given))
            cotangent = np.asarray(dy.host, np.float64)
            references = reference_back(dy.reference) or [None] * len(got)
            cotangents = self.made(name, "backward", got, references)
            self.judge(name, "backward", cotangents, lambda: want_back(cotangent))
            return cotangents

        return result, pullback

    def judge(self, op: str, direction: str, got: Sequence[Made], want: Callable[[], Sequence[Expected]]) -> None:
        """Note the first that is beyond its bound."""
        self.note(op, direction, lambda: self.record.compare_all([x.host for x in got], want()))

    def note(self, op: str, direction: str, check: Callable[[], None]) -> None:
        """Nothing but the first failure counts: what comes after it has been given wrong numbers."""
        if self.failure is not None:
            return
        try:
            check()
        except Failure as failure:
            self.wrong(op, direction, failure)

    def wrong(self, op: str, direction: str, found: Failure) -> None:
        """Keep a failure, if it is the first, and where the spec is."""
        if self.failure is None:
            where = place()
            rho = found.worst.rho if found.worst is not None else None
            self.first = Divergence(where, op, direction, rho, str(found))
            self.failure = Failure(f"{where}: {' '.join(x for x in (op, direction) if x)}: {found}", found.worst)

    def grown(self, x: Made) -> None:
        """How far the backend is from the reference at this place: its last op counts."""
        if x.reference is None:
            return
        with np.errstate(all="ignore"):
            size = float(np.linalg.norm(x.reference)) or 1.0
            self.growth[place()] = float(np.linalg.norm(x.host - x.reference)) / size

    def _encoder_layer(self, x: Made, params: Mapping[str, Made], **options: Any) -> Made:
        given = {n: params[n] for n in params}
        self.unchanged(x, *given.values())
        y = self.subject.op("encoder_layer")(x.device, {n: w.device for n, w in given.items()}, **options)
        inputs = np.asarray(x.host, np.float64)
        weights = {n: np.asarray(w.host, np.float64) for n, w in given.items()}
        reference = None
        if self.growing:
            known = {n: w.reference for n, w in given.items()}
            reference = composed_layer(ReferenceBackend(), x.reference, known, options)
        (result,) = self.made("encoder_layer", "forward", [y], [reference])

        def check() -> None:
            (want,) = tolerances(lambda b: {"y": composed_layer(b, inputs, weights, options)}, self.subject.arithmetic)
            row_failure(result.host, want, self.record)

        self.note("encoder_layer", "forward", check)
        self.grown(result)
        return result


def judge_ops(subject: Subject, run: Callable[[Any], Mapping[str, Host]], record: Record) -> Mapping[str, Host]:
    """What ``run(backend)`` returns; raises `Failure` for its first op that is beyond its bound."""
    lockstep = Lockstep(subject, record)
    with np.errstate(all="ignore"):
        found = run(lockstep)
    if lockstep.failure is not None:
        raise lockstep.failure
    return found


def composed_layer(backend: Any, x: Any, params: Mapping[str, Any], options: Mapping[str, Any]) -> Host:
    """What a backend's own `encoder_layer` computes: the spec's, on the ops of the reference or of `Noisy`."""
    from refbert.spec.choices import Choices
    from refbert.spec.encoder import encoder_layer

    told = dict(options)
    mask = told.pop("mask")
    y, _ = encoder_layer(backend, params, x, mask, Choices.of_layer(**told))
    return np.asarray(y)


_BLOCKS = {
    "embeddings": "embeddings", "self_attention": "attention", "attention_map": "attention map",
    "feed_forward": "feed-forward", "pooler": "pooler", "masked_lm": "masked-LM head",
    "next_sentence": "next-sentence head",
    "classifier": "classifier", "question_answering": "answer head", "masked_lm_loss": "masked-LM loss",
    "mean_loss": "loss", "regression_loss": "loss", "multi_label_loss": "loss", "choice_loss": "loss",
    "span_loss": "span loss",
}  # fmt: skip


def place() -> str:
    """Which block of the spec is calling, read off the stack: the spec itself does not carry names for us."""
    layer, block = "", ""
    frame: Any = sys._getframe(1)
    while frame is not None:
        if "refbert/spec" in frame.f_code.co_filename.replace("\\", "/"):
            function = frame.f_code.co_qualname.split(".")[0]
            block = block or _BLOCKS.get(function, "")
            if function == "encoder" and not layer:
                layer = f"encoder layer {frame.f_locals.get('i', '?')}"
        frame = frame.f_back
    return ", ".join(x for x in (layer, block) if x) or "objective"
