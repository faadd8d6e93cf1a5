"""Finding backends: by name through the entry-point group ``refbert.backends``, as ``name:argument`` where the backend
takes one, as ``package.module:Class``, or as ``exec:COMMAND`` (docs/wire-protocol.md)."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from refbert.backend import Backend, contract_of
from refbert.errors import BackendError, BackendUnavailable, RefbertError, UnknownBackend, Unsupported

GROUP = "refbert.backends"
DEFAULT = "numpy"
# refbert's own, as pyproject.toml declares them too. Known here because reading what is installed takes 40 ms, a fifth
# of the time to a first embedding: the default is made without.
OWN = {
    "reference": "refbert.backend.reference:ReferenceBackend",
    "numpy": "refbert_numpy:NumpyBackend",
    "torch": "refbert_torch:TorchBackend",
    "cupy": "refbert_cupy:CupyBackend",
    "array-api": "refbert_array_api:ArrayApiBackend",
}


def names() -> tuple[str, ...]:
    """The names of all installed backends, refbert's own first; nothing is imported.

    Raises `BackendError` where two packages have given two backends one name.
    """
    return (*OWN, *sorted(set(_installed()).difference(OWN)))


def backend_class(name: str) -> Any:
    """The class behind a name, a ``package.module:Class`` or an ``exec:COMMAND``.

    Raises `UnknownBackend` if there is none, `BackendUnavailable` if importing it fails for want of a library, and
    `BackendError` if it fails otherwise, or if two packages have given two backends one name.
    """
    if name.startswith("exec:"):
        from refbert.wire import command

        return partial(command.create, name)
    path, colon, attribute = name.partition(":")
    given = name if all((*path.split("."), attribute)) else None
    target = given if colon else OWN[name] if name == DEFAULT else (OWN | _installed()).get(name)
    if target is None:
        import difflib  # here: for those who mistyped

        near = difflib.get_close_matches(name.lower(), names(), n=1)
        hint = f'; did you mean "{near[0]}"?' if near else "."
        raise UnknownBackend(
            f'unknown backend "{name}"{hint} Installed: {", ".join(names())}. '
            "A backend that is not installed is named as package.module:Class or exec:COMMAND"
        )
    path, _, attribute = target.partition(":")
    with _blaming(name, f"importing {path} failed"):
        try:
            if colon and "" not in sys.path and os.getcwd() not in sys.path:
                # A backend is tried out before it is installed. The directory comes last: a file there that is called
                # like a module of Python's or of a library is not meant.
                sys.path.append(os.getcwd())
            module = importlib.import_module(path)
        except ModuleNotFoundError as error:
            if error.name and (path == error.name or path.startswith(error.name + ".")):
                raise UnknownBackend(f'backend "{name}": there is no module "{error.name}" to import') from error
            raise
    with _blaming(name, f"{path} does not give {attribute}"):
        try:
            return getattr(module, attribute)
        except AttributeError as error:
            place = getattr(module, "__file__", None) or "built into Python"
            raise UnknownBackend(f'backend "{name}": {path} has no "{attribute}" ({place})') from error


def _class_and_argument(name: str) -> tuple[Any, dict[str, str]]:
    """The class behind a name; and of "NAME:ARGUMENT", where an installed backend's class takes one, the argument."""
    plugin, colon, argument = name.partition(":")
    if colon and plugin in names():
        cls = backend_class(plugin)
        if hasattr(cls, "argument"):
            return cls, {"argument": argument}
    return backend_class(name), {}


def _installed() -> dict[str, str]:
    """What other packages than refbert have installed: name -> ``package.module:Class``."""
    from importlib.metadata import entry_points

    found: dict[str, str] = {}
    for entry in entry_points(group=GROUP):
        if entry.dist is not None and entry.dist.name == "refbert":
            continue
        target = f"{entry.module}:{entry.attr}"
        other = OWN.get(entry.name) or found.setdefault(entry.name, target)
        if other != target:
            raise BackendError(
                f'two backends are called "{entry.name}": {other} and {target}; uninstall one, or name it otherwise in '
                f'its package\'s entry points "{GROUP}"'
            )
    return found


def create(name: str, *, dtype: str | None = None, device: str | None = None) -> Backend[Any]:
    """The backend of that name, ready to compute in ``dtype`` on ``device`` (``None``: its own defaults).

    Raises `UnknownBackend`, `BackendUnavailable` (library or device missing; the message says how to get it),
    `Unsupported` (a dtype or device that it does not offer) or `BackendError` (what is named makes no backend, or
    one of a contract that is not known here).
    """
    cls, argument = _class_and_argument(name)
    if device is not None and not device.strip():
        raise Unsupported(f'backend "{name}": a device has a name, as "cpu" has, not "{device}"')
    with _blaming(name, f"{name if ':' in name else cls}(dtype=…, device=…) makes no backend"):
        contract_of(cls, name)  # before it is made: another contract may make it otherwise
        offered = tuple(getattr(cls, "dtypes", ()))
        if dtype is not None and offered and dtype not in offered:
            raise Unsupported(f'backend "{name}" does not offer dtype "{dtype}" (it offers {", ".join(offered)})')
        return checked(name, lambda: cls(dtype=dtype, device=device, **argument))


def checked(name: str, make: Callable[[], Any]) -> Backend[Any]:
    """What ``make`` gives, if it is a backend of a contract that is known here; else raises `BackendError`."""
    backend: Backend[Any] = make()
    is_one = isinstance(getattr(backend, "dtype", None), str)
    if not is_one or not all(callable(getattr(backend, method, None)) for method in ("asarray", "to_numpy")):
        raise BackendError(
            f'backend "{name}" makes {type(backend).__name__}, no backend: without a dtype, asarray or to_numpy'
        )
    contract_of(backend, name)
    return backend


@contextlib.contextmanager
def _blaming(name: str, what: str) -> Iterator[None]:
    """Whatever a plugin's code raises is its own: unavailable if something is missing, else ``what``."""
    try:
        yield
    except RefbertError:
        raise
    except (ImportError, OSError, RuntimeError) as error:
        raise BackendUnavailable(f'backend "{name}" is unavailable: {_one_line(error)}') from error
    except (Exception, SystemExit) as error:
        raise BackendError(f'backend "{name}": {what} ({type(error).__name__}: {_one_line(error)})') from error


def _one_line(error: BaseException) -> str:
    try:
        return " ".join(str(error).split()) or type(error).__name__
    except Exception:  # noqa: BLE001 (a plugin's own, however its author has made it)
        return type(error).__name__
