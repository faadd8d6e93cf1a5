"""What several of the suite's commands take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from refbert.errors import InputError
from refbert.files.json import parse_json

Command = TypeVar("Command", bound=Callable[..., Any])

DTYPES = ("float32", "float64", "float16", "bfloat16")


def arithmetic_option(help: str) -> Callable[[Command], Command]:
    """``--arithmetic``, with what it is for; an example follows."""
    return click.option("--arithmetic", metavar="JSON", help=f'{help} {{"accumulation": "float16"}}.')


def declared_arithmetic(text: str | None, dtype: str = "float32") -> dict[str, Any] | None:
    """What ``--arithmetic`` declares; raises `InputError` or `BackendError` for what no backend may declare."""
    from refbert_conformance.kit.files import check_arithmetic
    from refbert_conformance.process.records import Wrong

    if text is None:
        return None
    declared: dict[str, Any] = parse_json(text, "--arithmetic")
    try:
        check_arithmetic(dtype, declared)
    except Wrong as wrong:
        raise InputError(f'--arithmetic: {wrong}; it takes JSON such as {{"accumulation": "float16"}}') from None
    return declared
