"""A backend around another one: whoever watches, guards or changes a backend's calls."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from refbert.backend import OPTIONAL


class Wrapper:
    """Whatever is called on it goes through `call`; all else is the backend's own."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend

    def __getattr__(self, name: str) -> Any:
        if name == "backend":  # it is being copied, and has none yet
            raise AttributeError(name)
        found = getattr(self.backend, name)
        if not callable(found):
            return found
        method = self.__dict__[name] = self.wrapped(name, found)  # found without this the next time
        return method

    def wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A method of the backend, or a pullback that it gave, by way of `call`."""

        @functools.wraps(function)
        def called(*arguments: Any, **options: Any) -> Any:
            return self.call(name, function, arguments, options)

        return called

    def call(self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Call the backend's ``function``."""
        return function(*arguments, **options)


class OpsAlone(Wrapper):
    """A wrapper without the optional blocks, so that the spec composes everything of ops. What an op takes and gives
    may be anything that `call` makes of it.
    """

    def __getattr__(self, name: str) -> Any:
        if name in OPTIONAL:
            raise AttributeError(name)
        return super().__getattr__(name)
