"""Finding backends: by name through the entry-point group ``refbert.backends``, or as ``package.module:Class``."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any

from refbert.backend import Backend
from refbert.errors import BackendError, BackendUnavailable, RefbertError, UnknownBackend, Unsupported

GROUP = "refbert.backends"


def names() -> tuple[str, ...]:
    """The names of all installed backends, refbert's own first; nothing is imported."""
    own = ("reference", "numpy", "torch", "cupy")
    found = {entry.name for entry in entry_points(group=GROUP)}
    return tuple(name for name in own if name in found) + tuple(sorted(found.difference(own)))


def backend_class(name: str) -> Any:
    """The class behind a name or a ``package.module:Class``.

    Raises `UnknownBackend` if there is none, `BackendUnavailable` if importing it fails for want of a library.
    """
    if ":" in name:
        entry = EntryPoint(name=name, value=name, group=GROUP)
    else:
        matches = tuple(entry_points(group=GROUP, name=name))
        if not matches:
            near = difflib.get_close_matches(name, names(), n=1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            raise UnknownBackend(
                f'unknown backend "{name}"{hint} Installed: {", ".join(names())}. '
                "A backend that is not installed is named as package.module:Class"
            )
        entry = matches[0]
    try:
        module = _import(entry.module, here=":" in name)
    except ModuleNotFoundError as error:
        if error.name and (entry.module == error.name or entry.module.startswith(error.name + ".")):
            raise UnknownBackend(f'backend "{name}": there is no module "{error.name}" to import') from error
        raise BackendUnavailable(f'backend "{name}" is unavailable: {_one_line(error)}') from error
    except ImportError as error:
        raise BackendUnavailable(f'backend "{name}" is unavailable: {_one_line(error)}') from error
    except Exception as error:
        raise BackendError(f'backend "{name}": importing {entry.module} failed: {_one_line(error)}') from error
    try:
        return getattr(module, entry.attr)
    except AttributeError as error:
        raise UnknownBackend(f'backend "{name}": {entry.module} has no "{entry.attr}"') from error


def create(name: str, *, dtype: str | None = None, device: str | None = None) -> Backend[Any]:
    """The backend of that name, ready to compute in ``dtype`` on ``device`` (``None``: its own defaults).

    Raises `UnknownBackend`, `BackendUnavailable` (library or device missing; the message says how to get it) or
    `Unsupported` (a dtype or device that it does not offer).
    """
    cls = backend_class(name)
    offered = tuple(getattr(cls, "dtypes", ()))
    if dtype is not None and offered and dtype not in offered:
        raise Unsupported(f'backend "{name}" does not offer dtype "{dtype}" (it offers {", ".join(offered)})')
    try:
        backend: Backend[Any] = cls(dtype=dtype, device=device)
    except RefbertError:
        raise
    except (ImportError, OSError, RuntimeError) as error:
        raise BackendUnavailable(f'backend "{name}" is unavailable: {_one_line(error)}') from error
    return backend


def _import(module: str, *, here: bool) -> ModuleType:
    """Import a module, with ``here`` also from the current directory, as ``python -m`` does: the ``refbert`` command
    does not have that on its path, and a backend is tried out before it is installed."""
    if here and "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    return importlib.import_module(module)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text or type(error).__name__
