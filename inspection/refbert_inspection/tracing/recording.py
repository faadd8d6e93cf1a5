"""A backend that runs another one and keeps every tensor that the spec makes of it, under its name.

The spec is run as it is, on `Tensor`s instead of the backend's arrays. A fused block is not offered, so everything is
composed of ops; dropout's sites and the parameters' names decide what a tensor is called (`names`).

Backward: an op's pullback is given the cotangent of the op's result, which the spec has summed over all uses by then.
So what arrives at a pullback is the gradient of the loss with respect to that tensor, and is kept with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from refbert.backend import Backend, Host
from refbert.backend.wrapper import OpsAlone
from refbert.errors import BackendError
from refbert_conformance.tolerances.bounds import ARRAYS
from refbert_conformance.tolerances.noise import by_name
from refbert_inspection.tracing.names import gathered, named


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

    inputs: names of the array arguments.   options: all other arguments, by name, without defaults.
    sums: this is an addition of gradients in the backward pass, and ``name`` that of what they are gradients of.
    order, back_order: when the op and its pullback ran, on one clock.
    probabilities: of attention, [B, A, S, S].   gradient: of the result, as the pullback was given it.

    Only if asked for (`Recording.keep_inputs`): arrays: the inputs on the host.   cotangents: what the pullback
    returned.   stale, stale_back: inputs that something has changed before the op or its pullback ran.
    wrote, wrote_back: what the op or its pullback itself has written into, which none may; "" if nothing.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    options: Mapping[str, Any]
    y: Host
    sums: bool
    order: int
    back_order: int = 0
    probabilities: Host | None = None
    gradient: Host | None = None
    arrays: tuple[Host, ...] = ()
    cotangents: tuple[Host, ...] = ()
    stale: tuple[str, ...] = ()
    stale_back: tuple[str, ...] = ()
    wrote: str = ""
    wrote_back: str = ""


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
        if name not in ARRAYS:
            return function(*arguments, **options)
        tensors, options = by_name(name, arguments, options)
        self._settle(tensors)
        arrays = tuple(self._given(t) for t in tensors) if self.keep_inputs else ()
        stale = tuple(t.name for t, x in zip(tensors, arrays, strict=False) if x is not t.host)
        devices = [t.device for t in tensors]
        y, back = self._tried(f"{name} of {tensors[0].name}", lambda: function(*devices, **options))
        self._clock += 1
        inputs = tuple(t.name for t in tensors)
        sums = name == "add" and tensors[0].gradient
        its_name = inputs[0] if sums else self._unique(named(name, inputs, y.shape))
        call = Call(name, its_name, inputs, options, self._copy(y), sums, self._clock, arrays=arrays, stale=stale)
        call.wrote = next((f"wrote into its input {of}" for of in self._changed(tensors, arrays)), "")
        if name == "attention":
            # It does not give its probabilities away: the backend computes them once more, without dropout.
            asked = {option: options[option] for option in ("mask", "heads", "mask_value")}
            call.probabilities = self._copy(self.backend.attention_probabilities(*devices[:2], **asked)[0])
        self.calls.append(call)

        def pullback(dy: Tensor) -> tuple[Tensor, ...]:
            self._clock += 1
            call.back_order, call.gradient = self._clock, self._given(dy)
            call.stale_back = tuple(self._changed(tensors, arrays))  # what the pullback closes over
            found = self._tried(f"the pullback of {name} at {call.name}", lambda: tuple(back(dy.device)))
            if self.keep_inputs:
                if self._differs(dy, call.gradient):
                    call.wrote_back = "its pullback wrote into the cotangent that it was given"
                call.cotangents = tuple(self._copy(d) for d in found)
            return tuple(Tensor(d, of, gradient=True) for of, d in zip(inputs, found, strict=True))

        return Tensor(y, its_name, gradient=sums, host=call.y, made_by=call), pullback

    def _tried(self, what: str, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except Exception as error:
            said = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise BackendError(f'backend "{self.name}": {what} raised {said}') from error

    def _changed(self, tensors: Iterable[Tensor], arrays: Iterable[Host]) -> Iterable[str]:
        """The names of those that are no longer as ``arrays`` has them; none where these were not kept."""
        return (t.name for t, x in zip(tensors, arrays, strict=False) if self._differs(t, x))

    def _settle(self, tensors: Iterable[Tensor]) -> None:
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
