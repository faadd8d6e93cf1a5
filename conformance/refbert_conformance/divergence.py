"""Where a model goes wrong first: every op of the spec, checked on the very inputs that the backend gave it.

`Lockstep` runs the spec on pairs, the backend's array beside the truth's. Each op is judged by itself (its own inputs,
taken from the backend, through the truth, within its bound), so that an early error does not blame the ops after it;
and the distance of the two ways is kept, place by place, to show how the error grows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from refbert import ops
from refbert.backend import Host
from refbert.reference import ReferenceBackend
from refbert_conformance.bounds import ARRAYS, expected
from refbert_conformance.measure import Failure, Record, as_number, row_failure
from refbert_conformance.noise import _POSITIONAL, tolerances
from refbert_conformance.subject import Subject, backward, forward


class Pair:
    """The backend's array and the truth's."""

    def __init__(self, device: Any, truth: Host) -> None:
        self.device, self.truth = device, truth

    @property
    def shape(self) -> tuple[int, ...]:
        """Of both."""
        return tuple(self.truth.shape)


class Lockstep:
    """A backend of pairs. first: the first op beyond its bound. growth: place -> relative distance of the two ways."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.first: dict[str, Any] | None = None
        self.growth: dict[str, float] = {}
        self.name = "lockstep"
        if subject.has("encoder_layer"):
            self.encoder_layer = self._encoder_layer

    def asarray(self, x: Host) -> Pair:
        """Both ways."""
        return Pair(self.subject.device(x), np.asarray(x, np.float64))

    def to_numpy(self, x: Pair) -> Host:
        """The backend's."""
        return self.subject.host(x.device)

    def __getattr__(self, op: str) -> Callable[..., Any]:
        if op not in ARRAYS:
            raise AttributeError(op)

        def call(*arguments: Any, **options: Any) -> Any:
            names = ARRAYS[op]
            pairs = arguments[: len(names)]
            if len(arguments) > len(names):
                options |= {_POSITIONAL[op]: arguments[len(names)]}
            where = place()
            y, back = forward(self.subject, op, [p.device for p in pairs], options)
            truth, truth_back = getattr(ops, op)(*(p.truth for p in pairs), **options)
            inputs = [self.host(p) for p in pairs]
            result = Pair(y, np.asarray(truth))
            self.judge(op, where, "forward", [y], lambda: expected(op, inputs, options, self.subject.arithmetic)[:1])
            self.grown(where, result)

            def pullback(dy: Pair) -> tuple[Pair, ...]:
                where = place()
                got = backward(back, dy.device, len(names))
                given = self.host(dy)
                self.judge(
                    op, where, "backward", got,
                    lambda: expected(op, inputs, options, self.subject.arithmetic, given)[1:],
                )  # fmt: skip
                return tuple(Pair(g, np.asarray(t)) for g, t in zip(got, truth_back(dy.truth), strict=True))

            return result, pullback

        return call

    def host(self, pair: Pair) -> Host:
        """The backend's numbers, exactly."""
        return np.asarray(self.subject.host(pair.device), np.float64)

    def judge(self, op: str, where: str, direction: str, got: Any, want: Callable[[], Any]) -> None:
        """Note the first that is beyond its bound."""
        if self.first is not None:
            return
        record = Record(self.subject.arithmetic)
        try:
            for one, expectation in zip(got, want(), strict=True):
                record.compare(self.subject.host(one, expectation.y.shape, expectation.name), expectation)
        except Failure as failure:
            rho = as_number(failure.worst.rho if failure.worst is not None else None)
            self.first = {"where": where, "op": op, "direction": direction, "rho": rho, "message": str(failure)}

    def grown(self, where: str, pair: Pair) -> None:
        """How far apart the two ways are at a place: its last op counts."""
        with np.errstate(all="ignore"):
            size = float(np.linalg.norm(pair.truth)) or 1.0
            self.growth[where] = float(np.linalg.norm(self.host(pair) - pair.truth)) / size

    def _encoder_layer(self, x: Pair, params: Mapping[str, Pair], **options: Any) -> Pair:
        where = place()
        names = list(params)
        y = self.subject.op("encoder_layer")(x.device, {n: params[n].device for n in names}, **options)
        inputs, weights = self.host(x), {n: self.host(params[n]) for n in names}
        result = Pair(y, _layer(ReferenceBackend(), x.truth, {n: params[n].truth for n in names}, options))
        if self.first is None:
            (want,) = tolerances(lambda b: {"y": _layer(b, inputs, weights, options)}, self.subject.arithmetic)
            try:
                row_failure(self.subject.host(y, want.y.shape, "y"), want)
            except Failure as failure:
                self.first = {
                    "where": where, "op": "encoder_layer", "direction": "forward",
                    "rho": as_number(failure.worst.rho if failure.worst else None), "message": str(failure),
                }  # fmt: skip
        self.grown(where, result)
        return result


def _layer(backend: Any, x: Host, params: Mapping[str, Host], options: Mapping[str, Any]) -> Host:
    from refbert.spec.choices import Choices
    from refbert.spec.encoder import encoder_layer

    c = Choices(
        layers=1, heads=options["heads"], activation=options["activation"], layer_norm_eps=options["eps"],
        mask_value=options["mask_value"], hidden_dropout=0.0, attention_dropout=0.0, classifier_dropout=0.0,
        masked_lm_epsilon=0.0, span_mean_over_batch=False,
    )  # fmt: skip
    y, _ = encoder_layer(backend, params, x, options["mask"], c)
    return np.asarray(y)


_BLOCKS = {
    "embeddings": "embeddings", "self_attention": "attention", "attention_map": "attention map",
    "feed_forward": "feed-forward", "pooler": "pooler", "masked_lm": "masked-LM head",
    "next_sentence": "next-sentence head",
    "classifier": "classifier", "question_answering": "answer head", "masked_lm_loss": "masked-LM loss",
    "mean_loss": "loss", "regression_loss": "loss", "choice_loss": "loss", "span_loss": "span loss",
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
