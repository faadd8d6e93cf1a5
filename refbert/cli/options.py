"""The options that commands share, each written once; and those that are made of settings' fields."""

from __future__ import annotations

import dataclasses
import os
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from refbert.config.profiles import PROFILES
from refbert.models import DEFAULT

Command = Callable[..., Any]
Decorator = Callable[[Command], Command]

COUNT = click.IntRange(1, 2**31)  # no array is longer

backend_option = click.option(
    "--backend",
    default="numpy",
    show_default=True,
    help="A name from `refbert backends`, package.module:Class, or exec:COMMAND.",
)
dtype_option = click.option("--dtype", help="What the backend computes in; default: its own first choice.")
device_option = click.option("--device", help='Where: "cpu", "cuda", "cuda:1", …')
profile_option = click.option(
    "--profile", type=click.Choice(tuple(PROFILES)), help="Whose numbers, where Google's and Hugging Face's differ."
)
model_option = click.option(
    "--model", envvar="REFBERT_MODEL", default=DEFAULT, show_default=True,
    help="A directory, a hub name, or small-english or small-chinese, which come with refbert (or set REFBERT_MODEL).",
)  # fmt: skip


def placing(command: Command) -> Command:
    """``--backend``, ``--dtype`` and ``--device``."""
    return backend_option(dtype_option(device_option(command)))


def computing(command: Command) -> Command:
    """`placing` and ``--profile``: what `refbert.load` takes beside a name."""
    return placing(profile_option(command))


def json_option(instead_of: str = "a table", each: str = "") -> Decorator:
    """``--json``."""
    help = f"One JSON object{each and f' per {each}'} instead of {instead_of}."
    return click.option("--json", "as_json", is_flag=True, help=help)


def count_option(name: str, default: int, help: str) -> Decorator:
    """A number from 1."""
    return click.option(name, type=COUNT, default=default, show_default=True, help=help)


def file_option(*names: str, help: str, metavar: str = "FILE", **more: Any) -> Decorator:
    """A file to write."""
    kind = click.Path(dir_okay=False, path_type=Path)
    return click.option(*names, type=kind, metavar=metavar, help=help, **more)


def is_given(name: str, *, environment: bool = True) -> bool:
    """Whether the command line (or the ``environment``) gives the option."""
    source = click.get_current_context().get_parameter_source(name)
    return source is not None and (source.name == "COMMANDLINE" or (environment and source.name == "ENVIRONMENT"))


def of_settings(kind: type, *names: str) -> Decorator:
    """Make options of the fields that have help, all or some: first ``kind``'s own, then those that it inherits."""

    def decorate(command: Command) -> Command:
        fields = [field for field in dataclasses.fields(kind) if field.metadata.get("help")]
        fields = [field for field in fields if not names or field.name in names]
        fields.sort(key=lambda field: field.name not in kind.__annotations__)
        hints = typing.get_type_hints(kind)
        for field in reversed(fields):  # the last decorator's option is shown first
            command = _option(field, hints[field.name])(command)
        return command

    return decorate


def given_settings(kind: type, options: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that are given, as the fields have them; the others have the fields' defaults."""
    return {
        field.name: _value(field, options[field.name])
        for field in dataclasses.fields(kind)
        if field.name in options and is_given(field.name)
    }


class _Several(click.ParamType[Any]):
    """Values with commas between them."""

    def __init__(self, kind: type) -> None:
        self._kind = kind
        self.name = "TEXT[,TEXT…]" if kind is str else "N[,N…]"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return tuple(self._kind(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a number, or several with commas between them", param, context)


def _option(field: dataclasses.Field[Any], hint: Any) -> Decorator:
    about, default = field.metadata, field.default
    if typing.get_origin(hint) is types.UnionType:  # with None
        (hint,) = {one for one in typing.get_args(hint) if one is not types.NoneType}
    several = typing.get_origin(hint) is tuple
    kind = typing.get_args(hint)[0] if several else hint
    name = "--" + (about["name"] or field.name).replace("_", "-")
    how: dict[str, Any] = {"help": about["help"], "metavar": about["metavar"], "envvar": about["envvar"]}
    if kind is bool:
        if default or about["free"]:  # else there is nothing to take back
            name = f"{name}/--no{name[1:]}"
        how |= {"is_flag": True, "default": default}
    elif several:
        if default:
            how["help"] += f" [default: {','.join(map(str, typing.cast('tuple[Any, ...]', default)))}]"
        how |= {"multiple": True, "type": str if about["path"] else _Several(kind)}
    else:
        at_least = click.IntRange(min=int(about["least"])) if kind is int and about["least"] is not None else kind
        how["type"] = click.Choice(about["choices"]) if about["choices"] else at_least
        if default not in (None, dataclasses.MISSING):
            how |= {"default": default}
    return click.option(name, field.name, show_default=how.get("default") not in (None, False), **how)


def _value(field: dataclasses.Field[Any], value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(one for part in value for one in (part if isinstance(part, tuple) else (_path(field, part),)))
    return _path(field, value)


def _path(field: dataclasses.Field[Any], value: Any) -> Any:
    """A file's or directory's absolute path; a model that is no directory here is a name."""
    if not field.metadata["path"] or value == "-" or (field.name == "model" and not os.path.isdir(value)):
        return value
    return str(Path(value).resolve())
