"""Strict expected failures, kept by the adopter in a TOML file.

    [[waiver]]
    property = "backward/layer_norm/accuracy"     # an id, or a pattern with * that matches some
    dtype = "bfloat16"                            # optional: only there
    reason = "PyTorch's CPU kernel adds up dgamma and dbeta in bfloat16"

A waiver that matches no property is an error; one whose property passes fails the run. Waived properties lower the
score.
"""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from refbert import files
from refbert.errors import InputError


def read(path: Path, ids: Sequence[str], dtype: str) -> Mapping[str, str]:
    """id -> reason, for the dtype; raises `InputError` for a file that is not as described above."""
    try:
        data = tomllib.loads(files.read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not TOML ({error})") from None
    entries = data.get("waiver")
    if not isinstance(entries, list) or set(data) != {"waiver"}:
        raise InputError(f"{path}: expected [[waiver]] entries and nothing else")
    found: dict[str, str] = {}
    for number, entry in enumerate(entries, start=1):
        pattern, reason = _entry(path, number, entry)
        matching = [i for i in ids if fnmatch.fnmatchcase(i, pattern)]
        if not matching:
            raise InputError(f'{path}: waiver {number}, "{pattern}", matches no property')
        if entry.get("dtype", dtype) == dtype:
            found |= dict.fromkeys(matching, reason)
    return found


def _entry(path: Path, number: int, entry: Any) -> tuple[str, str]:
    if not isinstance(entry, dict) or set(entry) - {"property", "reason", "dtype"}:
        raise InputError(f"{path}: waiver {number} may have property, reason and dtype only")
    for key in ("property", "reason"):
        if not isinstance(entry.get(key), str) or not entry[key].strip():
            raise InputError(f"{path}: waiver {number} has no {key}")
    return entry["property"], entry["reason"]
