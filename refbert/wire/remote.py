"""The caller's side of the wire protocol: a backend whose every method is a message to another process.

Its arrays are numbers that the other side knows; they are given up there when nobody has them here any more.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from refbert.backend import (
    ATTRIBUTES,
    OPTIONAL,
    OPTIONAL_ATTRIBUTES,
    OPTIONAL_PROTOCOLS,
    REQUIRED,
    Backend,
    Host,
    KeepMasks,
    ModelChoices,
    TokenBatch,
    methods,
)
from refbert.errors import BackendError, Unsupported, one_line, warn
from refbert.wire.connection import Connection, RemoteError
from refbert.wire.frames import plain, valued

_BATCH = ("input_ids", "token_type_ids", "attention_mask")
# A function as an argument cannot travel.
AT_HOME = ("recomputed",)
# By method, the arguments that go by position, even where the caller names them: a table for every language.
_BY_POSITION = {
    name: [
        p.name for p in inspect.signature(getattr(protocol, name)).parameters.values() if p.kind is not p.KEYWORD_ONLY
    ]
    for protocol in (Backend, *OPTIONAL_PROTOCOLS)
    for name in methods(protocol)
}


class RemoteArray:
    """An array on the other side; here there is its shape. Also a function there, until nobody has it any more."""

    def __init__(self, number: int, shape: tuple[int, ...], backend: RemoteBackend) -> None:
        self.number, self.shape, self._backend = number, shape, backend
        self._gone = backend.connection.gone

    def __del__(self) -> None:
        self._gone.append(self.number)

    def __float__(self) -> float:
        return float(self._backend.to_numpy(self))

    def __repr__(self) -> str:
        return f"array {self.number} of shape {self.shape}"


class RemoteBackend:
    """A backend of the contract in another process. What it offers, and is, that process says."""

    def __init__(self, connection: Connection, *, dtype: str | None = None, device: str | None = None) -> None:
        self.connection = connection
        try:
            said, _ = connection.ask("open", dtype=dtype, device=device)
        except NotImplementedError as error:
            raise Unsupported(str(error)) from None
        except (RemoteError, IndexError, ValueError) as error:
            raise BackendError(f"{type(error).__name__}: {error}") from None
        self._instance = said.get("instance", 0)
        said = {name: valued(value, lambda word, value: str(value)) for name, value in (connection.said | said).items()}
        for name in ATTRIBUTES:
            setattr(self, name, said.get(name))
        for name in OPTIONAL_ATTRIBUTES:
            if name in said:
                setattr(self, name, said[name])
        offers = said.get("offers")
        self._offers = frozenset(map(str, offers if isinstance(offers, tuple) else ())) - frozenset(AT_HOME)
        odd = sorted(self._offers.difference(REQUIRED, OPTIONAL))
        if odd:
            warn(f'backend "{self.name}" offers {one_line(", ".join(odd))}, which the contract does not have')
        signatures: Mapping[str, Any] = said.get("signatures") or {}
        self._signatures = {name: _signature(one) for name, one in signatures.items() if one is not None}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._offers:
            raise AttributeError(f"the backend has no {name}")
        if name == "objective":
            return self._objective

        def method(*arguments: Any, **options: Any) -> Any:
            return self._call(name, arguments, options)

        method.__name__ = name
        if name in self._signatures:
            method.__signature__ = self._signatures[name]  # type: ignore[attr-defined]
        return method

    def asarray(self, x: Host, /) -> Any:
        """A host array as the backend's own."""
        tensors = [np.asarray(x)]
        return self._ask("put", tensors, tensors, value={"tensor": 0})

    def to_numpy(self, x: Any, /) -> Any:
        """The same numbers on the host."""
        ok, tensors = self.connection.ask("get", instance=self._instance, value=plain(x, [], _known))
        array = self._result(ok, tensors, [], None)
        if "kept" in ok and isinstance(array, np.ndarray):
            self.connection.keep(array, ok["kept"])
        return array

    def put_each(self, arrays: Sequence[Host]) -> Sequence[Any]:
        """`asarray` of each, in one message if the other side takes several."""
        if "lists" not in self.connection.extensions or len(arrays) < 2:
            return [self.asarray(x) for x in arrays]
        tensors = [np.asarray(x) for x in arrays]
        value = [{"tensor": number} for number in range(len(tensors))]
        return self._several(self._ask("put", tensors, tensors, value=value), len(tensors))

    def get_each(self, arrays: Sequence[Any]) -> Sequence[Any]:
        """`to_numpy` of each, likewise."""
        if "lists" not in self.connection.extensions or len(arrays) < 2:
            return [self.to_numpy(x) for x in arrays]
        return self._several(self._ask("get", [], value=[plain(x, [], _known) for x in arrays]), len(arrays))

    def _several(self, results: Any, count: int) -> Sequence[Any]:
        if not isinstance(results, tuple) or len(results) != count:
            raise RemoteError(f"it was given {count} arrays, and its result is not as many")
        return results

    def _objective(
        self, params: Mapping[str, Any], batch: TokenBatch, labels: Mapping[str, Host], heads: Any,
        choices: ModelChoices, *, draws: KeepMasks | None = None, denominators: Mapping[str, float] | None = None,
    ) -> Any:  # fmt: skip
        """As the contract has it; the batch and the choices travel as objects of their members."""
        members = {name: getattr(choices, name) for name in ModelChoices.__annotations__}
        arguments = (params, {name: getattr(batch, name) for name in _BATCH}, labels, tuple(heads), members)
        return self._call("objective", arguments, {"draws": draws, "denominators": denominators}, draws)

    def _call(self, op: str, arguments: Any, options: Mapping[str, Any], draws: KeepMasks | None = None) -> Any:
        tensors: list[Host] = []
        named = dict(options)
        later = _BY_POSITION.get(op, ())[1 + len(arguments) :]
        arguments = (*arguments, *(named.pop(name) for name in later if name in named))
        args, named = (plain(one, tensors, _known) for one in (arguments, named))
        return self._ask("call", tensors, tensors, draws, op=op, args=args, options=named)

    def _ask(
        self, do: str, tensors: list[Host], given: list[Host] | None = None, draws: KeepMasks | None = None, **more: Any
    ) -> Any:  # fmt: skip
        """The result of a request. ``given``: the host arrays that the backend may have written into: then it has done
        so here, too. ``draws`` also serve the result's pullback."""
        ok, answered = self.connection.ask(do, tensors, draws, instance=self._instance, **more)
        wrote, given = ok.get("wrote", ()), given or []
        with contextlib.suppress(TypeError, IndexError, ValueError):
            for number, content in zip(wrote, answered[len(answered) - len(wrote) :], strict=True):
                given[number][...] = content
        return self._result(ok, answered, given, draws)

    def _result(
        self, ok: dict[str, Any], tensors: list[Host], given: list[Host], draws: KeepMasks | None
    ) -> Any:  # fmt: skip
        def known(word: str, value: dict[str, Any]) -> Any:
            if word == "array":
                shape = tuple(value["shape"])
                return RemoteArray(self.connection.take(value["array"]), shape, self)
            if word == "tensor":
                return tensors[value["tensor"]]
            if word == "pullback":
                return self._pullback(RemoteArray(self.connection.take(value["pullback"]), (), self), given, draws)
            return type(str(value.get("other"))[:60], (), {})()

        try:
            return valued(ok.get("result"), known)
        except (KeyError, IndexError, TypeError, RecursionError) as error:
            lacks = f"without {error}" if isinstance(error, KeyError) else str(error)
            raise RemoteError(f"its result is none that the protocol knows ({lacks})") from None

    def _pullback(self, function: RemoteArray, given: list[Host], draws: KeepMasks | None) -> Callable[..., Any]:
        def pullback(*arguments: Any) -> Any:
            tensors: list[Host] = []
            args = plain(tuple(arguments), tensors, _known)
            return self._ask("pull", tensors, given, draws, pullback=function.number, args=args)

        return pullback


def put_each(backend: Any, arrays: Sequence[Host]) -> Sequence[Any]:
    """Each host array as the backend's, by its ``put_each`` if it has one: in few messages to another process."""
    several = getattr(type(backend), "put_each", None)
    return [backend.asarray(x) for x in arrays] if several is None else several(backend, arrays)


def get_each(backend: Any, arrays: Sequence[Any]) -> Sequence[Any]:
    """Each of the backend's arrays on the host, likewise."""
    several = getattr(type(backend), "get_each", None)
    return [backend.to_numpy(x) for x in arrays] if several is None else several(backend, arrays)


def _known(value: Any) -> Any:
    if isinstance(value, RemoteArray):
        return {"array": value.number}
    if callable(getattr(value, "keep", None)):
        return {"callback": "keep"}
    raise TypeError(f"a backend in another process cannot be given {type(value).__name__}")


def _signature(parameters: Any) -> inspect.Signature:
    """From [[name, kind, whether it has a default], …]."""
    kinds = {kind.name: kind for kind in (
        inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.VAR_POSITIONAL,
        inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD,
    )}  # fmt: skip
    return inspect.Signature([
        inspect.Parameter(name, kinds[kind], **({"default": None} if optional else {}))
        for name, kind, optional in parameters
    ])  # fmt: skip
