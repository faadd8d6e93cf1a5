"""The backend under test, and how to make another one like it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from refbert.backend import TRAINING, Host, has_gradients, registry
from refbert.wire import command
from refbert.wire.connection import connection_of
from refbert.wire.remote import get_each, put_each
from refbert_conformance.engine.guards import INFERENCE, ForInference
from refbert_conformance.engine.measure import Failure, Record, Unsupported
from refbert_conformance.tolerances.arithmetic import Arithmetic
from refbert_conformance.tolerances.bounds import Expected


@dataclass
class Subject:
    """given: what the user named. make: constructs a fresh backend. backend: the one that properties use. compiles:
    every new shape costs it a compilation (see `pools`). gradients: it is not for inference only. declared: the
    arithmetic to judge it by, in place of the one that it declares.
    """

    given: str
    make: Callable[[], Any]
    declared: Mapping[str, Any] | None = None
    backend: Any = field(init=False)
    arithmetic: Arithmetic = field(init=False)
    compiles: bool = field(init=False)
    gradients: bool = field(init=False)

    def __post_init__(self) -> None:
        self.backend = self.make()
        self.gradients = has_gradients(self.backend)
        if not self.gradients:
            make, self.make = self.make, lambda: ForInference(make())
            self.backend = ForInference(self.backend)
        own = getattr(self.backend, "arithmetic", None)
        self.arithmetic = Arithmetic.of(str(self.backend.dtype), own if self.declared is None else self.declared)
        self.compiles = bool(getattr(self.backend, "compiles", False))

    @classmethod
    def named(
        cls, given: str, dtype: str | None = None, device: str | None = None, declared: Mapping[str, Any] | None = None
    ) -> Subject:
        """By name, in a process of its own; raises what `refbert.backend.registry.create` raises."""
        return cls(given, lambda: registry.create(command.hosted(given), dtype=dtype, device=device), declared)

    @property
    def mode(self) -> str:
        """What the backend has changed in its process's floating-point arithmetic, or "" (see `refbert.wire.host`)."""
        return getattr(connection_of(self.backend), "mode", "")

    def fresh(self) -> Subject:
        """Another like it, whose backend has not been called."""
        return Subject(self.given, self.make, self.declared)

    @property
    def dtype(self) -> str:
        """What the backend computes in."""
        return self.arithmetic.dtype

    def has(self, op: str) -> bool:
        """Whether the backend offers the op."""
        return callable(getattr(self.backend, op, None))

    def op(self, name: str, backend: Any = None) -> Callable[..., Any]:
        """The backend's op; raises `Unsupported` if it has none."""
        found = getattr(self.backend if backend is None else backend, name, None)
        if not callable(found):
            raise Unsupported(INFERENCE if name in TRAINING and not self.gradients else f"the backend has no {name}")
        return found  # type: ignore[no-any-return]

    def device(self, x: Host) -> Any:
        """A host array as the backend's."""
        return self.backend.asarray(x)

    def devices(self, arrays: Iterable[Host]) -> list[Any]:
        """Each host array as the backend's."""
        return list(put_each(self.backend, list(arrays)))

    def again(self, *arrays: Host) -> None:
        """Let arrays that `host` gave hold what they would hold by now, were the backend in this process."""
        connection = connection_of(self.backend)
        if connection is not None:
            for x in arrays:
                connection.again(x)

    def host(self, x: Any, shape: tuple[int, ...] | None = None, name: str = "result") -> Host:
        """A backend's array on the host; with ``shape``, `Failure` before anything of another size is copied."""
        return _numpy(self.backend.to_numpy(_with_shape(x, shape, name)), name)

    def hosts(self, arrays: Iterable[Any], due: Iterable[Expected] | None = None) -> list[Host]:
        """Each of the backend's arrays on the host; with what is ``due``: as many, of these shapes and names."""
        arrays = list(arrays)
        named = [(one.y.shape, one.name) for one in due] if due is not None else [(None, "result")] * len(arrays)
        if len(arrays) != len(named):
            raise Failure(f"expected {len(named)} arrays ({', '.join(name for _, name in named)}), got {len(arrays)}")
        found = get_each(self.backend, [_with_shape(x, *one) for x, one in zip(arrays, named, strict=True)])
        return [_numpy(x, name) for x, (_, name) in zip(found, named, strict=True)]

    def judge(self, record: Record, arrays: Iterable[Any], due: Sequence[Expected]) -> None:
        """`Record.compare` each of the backend's arrays with what is due."""
        record.compare_all(self.hosts(arrays, due), due)


def forward(
    subject: Subject, op: str, arrays: Any, options: Any, backend: Any = None
) -> tuple[Any, Callable[..., Any]]:
    """(y, pullback) of an op on the backend's arrays; `Failure` if it gives anything else."""
    result = subject.op(op, backend)(*arrays, **options)
    if not isinstance(result, tuple) or len(result) != 2 or not callable(result[1]):
        raise Failure(f"{op} must return (y, pullback), it returned {_kind(result)}")
    return result


def backward(pullback: Callable[..., Any], dy: Any, count: int) -> tuple[Any, ...]:
    """The cotangents; `Failure` if they are not a tuple of ``count``."""
    cotangents = pullback(dy)
    if not isinstance(cotangents, tuple | list) or len(cotangents) != count:
        raise Failure(f"the pullback must return a tuple of {count}, it returned {_kind(cotangents)}")
    return tuple(cotangents)


def backward_if_any(subject: Subject, pullback: Callable[..., Any], dy: Any, count: int) -> tuple[Any, ...]:
    """The cotangents, or none of a backend that is for inference only."""
    return backward(pullback, dy, count) if subject.gradients else ()


def _with_shape(x: Any, shape: tuple[int, ...] | None, name: str) -> Any:
    found = getattr(x, "shape", None)
    if found is None:
        raise Failure(f"{name} is {_kind(x)}, not an array of the backend (it has no shape)")
    if shape is not None and tuple(found) != shape:
        raise Failure(f"{name} has shape {tuple(found)}, expected {shape}")
    return x


def _numpy(array: Any, name: str) -> Host:
    if not isinstance(array, np.ndarray):
        raise Failure(f"{name}: to_numpy gave {_kind(array)}, not a NumPy array")
    return array


def _kind(x: Any) -> str:
    if isinstance(x, tuple | list):
        return f"a {type(x).__name__} of {len(x)}"
    return "an array" if hasattr(x, "shape") else type(x).__name__
