"""Strict expected failures, kept by the adopter in a TOML file.

    [[waiver]]
    property = "backward/layer_norm/accuracy"     # an id, or a pattern with * that matches some
    dtype = "bfloat16"                            # optional: only there
    effort = "thorough"                           # optional: only at this one
    when = "S > 512 and mask == 'ragged'"         # optional: only where this holds of the case
    reason = "PyTorch's CPU kernel adds up dgamma and dbeta in bfloat16"

A waiver that matches no property is an error; one whose property passes fails the run, and so does one with a condition
that all passing cases meet, or that speaks of what no case has. Waived properties lower the score.
"""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refbert.backend import UNIT_ROUNDOFF
from refbert.errors import InputError
from refbert.files import reading as files
from refbert_conformance.engine.conditions import Condition
from refbert_conformance.engine.property import EXAMPLES

_KEYS = ("property", "reason", "dtype", "effort", "when")


@dataclass(frozen=True)
class Waiver:
    """What it is for: properties by id, a dtype, an effort and a condition of the case, None: any."""

    ids: tuple[str, ...]
    reason: str
    dtype: str | None = None
    effort: str | None = None
    when: str | None = None


def read(path: Path, ids: Sequence[str]) -> tuple[Waiver, ...]:
    """The waivers of a file; raises `InputError` for one that is not as described above."""
    try:
        data = tomllib.loads(files.read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not TOML ({error})") from None
    entries = data.get("waiver")
    if not isinstance(entries, list) or set(data) != {"waiver"}:
        raise InputError(f"{path}: expected [[waiver]] entries and nothing else")
    return tuple(_read(f"{path}: waiver {number}", entry, ids) for number, entry in enumerate(entries, start=1))


def _read(where: str, entry: Any, ids: Sequence[str]) -> Waiver:
    if not isinstance(entry, dict) or set(entry) - set(_KEYS):
        raise InputError(f"{where} may have {', '.join(_KEYS[:-1])} and {_KEYS[-1]} only")
    for key in ("property", "reason"):
        if not isinstance(entry.get(key), str) or not entry[key].strip():
            raise InputError(f"{where} has no {key}")
    for key in _KEYS:
        if not isinstance(entry.get(key, ""), str):
            raise InputError(f"{where}: {key} is not a text")
    for key, known in (("dtype", UNIT_ROUNDOFF), ("effort", EXAMPLES)):
        if entry.get(key) not in (None, *known):
            raise InputError(f'{where}: {key} is one of {", ".join(known)}, not "{entry[key]}"')
    if "when" in entry:
        try:
            Condition(entry["when"])
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
    matching = tuple(i for i in ids if fnmatch.fnmatchcase(i, entry["property"]))
    if not matching:
        raise InputError(f'{where}, "{entry["property"]}", matches no property')
    return Waiver(matching, entry["reason"], *(entry.get(key) for key in _KEYS[2:]))


def concerning(waivers: Sequence[Waiver], dtype: str, effort: str) -> tuple[dict[str, str], dict[str, list[Waiver]]]:
    """What is waived in a run: (id -> reason, of whole properties; id -> the waivers with a condition, of others)."""
    whole: dict[str, str] = {}
    parts: dict[str, list[Waiver]] = {}
    for one in waivers:
        if one.dtype in (None, dtype) and one.effort in (None, effort):
            for id in one.ids:
                if one.when is None:
                    whole[id] = one.reason
                else:
                    parts.setdefault(id, []).append(one)
    return whole, {id: found for id, found in parts.items() if id not in whole}
