"""A backend that runs another one and keeps every tensor that the spec makes of it, under its name.

The spec is run as it is, on `Tensor`s instead of the backend's arrays. A fused block is not offered, so everything is
composed of ops; dropout's sites and the parameters' names decide what a tensor is called (`names`).

Backward: an op's pullback is given the cotangent of the op's result, which the spec has summed over all uses by then.
So what arrives at a pullback is the gradient of the loss with respect to that tensor, and is kept with it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from refbert import ops
from refbert.backend import REQUIRED, Backend, Host
from refbert.backend.wrapper import OpsAlone
from refbert.errors import BackendError
from refbert_inspection.tracing.names import gathered, named

OPS = frozenset(REQUIRED) - {"asarray", "to_numpy"}


class Tensor:
    """A backend's array and what it is called. gradient: it is the cotangent of what has that name."""

    def __init__(
        self, device: Any, name: str, *, gradient: bool = False, host: Host | None = None, made_by: Call | None = None
    ) -> None:
        self.device, self.name, self.gradient, self.host, self.made_by = device, name, gradient, host, made_by

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's."""
        return tuple(self.device.shape)


@dataclass
class Call:
    """One op: what went in, what came out, and after the backward the cotangents.

    inputs: names of the array arguments.   arrays: the same on the host, only if asked for (`Recording.keep_inputs`).
    gradient: of the result, as the pullback was given it.   cotangents: what the pullback returned, as for arrays.
    probabilities: of attention, [B, A, S, S].
    sums: this is an addition of gradients in the backward pass, and ``name`` that of what they are gradients of.
    written: inputs that the op changed, which none may; stale: inputs that something has changed since they were made.
    stale_back, written_back: the same of the pullback, and of the cotangent that it was given.
    order, back_order: when the op and its pullback ran, on one clock.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    options: Mapping[str, Any]
    y: Host
    arrays: tuple[Host, ...] = ()
    gradient: Host | None = None
    cotangents: tuple[Host, ...] = ()
    probabilities: Host | None = None
    sums: bool = False
    written: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    stale_back: tuple[str, ...] = ()
    written_back: bool = False
    order: int = 0
    back_order: int = 0


class Recording(OpsAlone):
    """The spec's view of a backend that is being watched. calls: every op, in the order in which they ran.

    keep_inputs: also keep what every op was given and what every pullback returned, to judge each by itself; and look
    whether an op has changed its inputs.
    """

    def __init__(self, backend: Backend[Any], *, keep_inputs: bool = False) -> None:
        super().__init__(backend)
        self.keep_inputs = keep_inputs
        self.calls: list[Call] = []
        self._names: dict[str, int] = {}
        self._clock = 0

    def parameters(self, arrays: Mapping[str, Any]) -> dict[str, Tensor]:
        """The backend's own arrays as named tensors."""
        return {name: Tensor(array, name) for name, array in arrays.items()}

    def finish(self) -> list[Call]:
        """The calls, all of them named."""
        for call in self.calls:
            if not call.name:
                call.name = self._unique(gathered(call.inputs[0]))
        return self.calls

    def again(self, call: Call) -> Tensor:
        """The result of an earlier op, to go on from."""
        return Tensor(self.backend.asarray(call.y), call.name, host=call.y, made_by=call)

    def asarray(self, x: Host) -> Tensor:
        """A cotangent to start from."""
        return Tensor(self.backend.asarray(x), "", gradient=True)

    def to_numpy(self, x: Tensor) -> Host:
        """The backend's numbers."""
        found: Host = self.backend.to_numpy(x.device)
        return found

    def call(self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Keep an op's result, and what its pullback is given."""
        return self._op(name, function, arguments, options) if name in OPS else function(*arguments, **options)

    def _op(
        self, op: str, function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, ...]]]:
        tensors = [a for a in arguments if isinstance(a, Tensor)]
        given = [a.device if isinstance(a, Tensor) else a for a in arguments]
        self._settle(tensors)
        arrays = tuple(self._given(t) for t in tensors) if self.keep_inputs else ()
        try:
            y, back = function(*given, **options)
        except Exception as error:
            raise BackendError(f'backend "{self.name}": {op} of {tensors[0].name} raised {_said(error)}') from error
        self._clock += 1
        sums = op == "add" and tensors[0].gradient
        name = tensors[0].name if sums else self._unique(named(op, [t.name for t in tensors], y.shape))
        call = Call(
            op, name, tuple(t.name for t in tensors), bound_options(op, arguments, options), self._copy(y), arrays,
            sums=sums, order=self._clock,
        )  # fmt: skip
        if self.keep_inputs:
            pairs = list(zip(tensors, arrays, strict=True))
            call.stale = tuple(t.name for t, x in pairs if x is not t.host)
            call.written = tuple(t.name for t, x in pairs if self._differs(t, x))
        if op == "attention":
            call.probabilities = self._probabilities(tensors, options)
        self.calls.append(call)

        def pullback(dy: Tensor) -> tuple[Tensor, ...]:
            self._clock += 1
            call.back_order, call.gradient = self._clock, self._given(dy)
            if self.keep_inputs:  # what the pullback closes over, still as it was?
                call.stale_back = tuple(t.name for t, x in zip(tensors, arrays, strict=True) if self._differs(t, x))
            try:
                found = tuple(back(dy.device))
            except Exception as error:
                raise BackendError(
                    f'backend "{self.name}": the pullback of {op} at {call.name} raised {_said(error)}'
                ) from error
            if self.keep_inputs and self._differs(dy, call.gradient):
                call.written_back = True
            if self.keep_inputs:
                call.cotangents = tuple(self._copy(d) for d in found)
            return tuple(Tensor(d, t.name, gradient=True) for t, d in zip(tensors, found, strict=True))

        return Tensor(y, name, gradient=sums, host=call.y, made_by=call), pullback

    def _probabilities(self, tensors: list[Tensor], options: Mapping[str, Any]) -> Host:
        """The op does not give its probabilities away: the backend computes them once more, without dropout."""
        asked = {name: options[name] for name in ("mask", "heads", "mask_value")}
        q, k = tensors[0].device, tensors[1].device
        return self._copy(self.backend.attention_probabilities(q, k, **asked)[0])

    def _settle(self, tensors: list[Tensor]) -> None:
        """Name the gathered rows that are among an op's inputs."""
        for tensor in tensors:
            if tensor.name or tensor.gradient or tensor.made_by is None:
                continue
            into = next((t.name for t in tensors if t.name.endswith((".weight", ".bias"))), "")
            call = tensor.made_by
            call.name = call.name or self._unique(gathered(call.inputs[0], into))
            tensor.name = call.name

    def _unique(self, name: str) -> str:
        if not name:
            return ""
        self._names[name] = self._names.get(name, 0) + 1
        return name if self._names[name] == 1 else f"{name}#{self._names[name]}"

    def _copy(self, x: Any) -> Host:
        return np.array(self.backend.to_numpy(x))

    def _given(self, tensor: Tensor) -> Host:
        """What an op is about to read: the host's copy where it still holds, and a new one where it does not."""
        if tensor.host is None:
            parameter = not tensor.gradient and tensor.name.endswith((".weight", ".bias"))
            tensor.host = self.backend.to_numpy(tensor.device) if parameter else self._copy(tensor.device)
        elif self.keep_inputs and self._differs(tensor, tensor.host):
            return self._copy(tensor.device)
        return tensor.host

    def _differs(self, tensor: Tensor, host: Host) -> bool:
        return not np.array_equal(self.backend.to_numpy(tensor.device), host, equal_nan=True)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def bound_options(op: str, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call that are not arrays of the backend, by name, with the defaults left out."""
    bound = _signature(op).bind(*arguments, **options).arguments
    return {name: value for name, value in bound.items() if not isinstance(value, Tensor)}


@cache
def _signature(op: str) -> inspect.Signature:
    return inspect.signature(getattr(ops, op))
