"""Save and restore the checkpoints of a run, atomically.

    DIR/checkpoints/step-00001000/
        model.safetensors  config.json  tokenizer files     what refbert and Hugging Face load
        optimizer.safetensors                               Adam's moments, "m.NAME" and "v.NAME"
        training.json                                       updates, place in the data, settings, digests of the files

The name `step-…` stands for a whole checkpoint at every moment (`refbert.files.writing`). Numbers are stored in the
precision that they are computed in, and read back bit by bit.

Disks lose bits, and copies are cut short: every file is compared with its digest before anything is taken from it. One
that is damaged is put aside as `damaged-step-…`, and the one before it is gone on from.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from refbert.checkpoint.safetensors_file import read_safetensors, write_safetensors
from refbert.errors import CheckpointError, warn
from refbert.files.digests import digest, digest_of_file
from refbert.files.json import parse_json, write_json
from refbert.files.writing import atomic, atomic_directory, files_in
from refbert.model import Model
from refbert.training.optimizer import Optimizer

TRAINING = "training.json"
MOMENTS = "optimizer.safetensors"
_NAME = re.compile(r"step-(\d{8,})")
_VERSION = 2
_DAMAGED = "damaged-"


class Damaged(CheckpointError):
    """A checkpoint that is not what was written."""


@dataclass(frozen=True)
class State:
    """What a checkpoint holds beside weights and moments.

    updates: how many there have been. source: the data's `state`. settings: what a run must agree on to go on with it.
    """

    updates: int
    source: Mapping[str, Any]
    settings: Mapping[str, Any]


def save(directory: Path, model: Model, optimizer: Optimizer, state: State) -> Path:
    """Write ``directory/step-…``; returns its path.

    One that is there already is the same one, written before the run was cut off, and stays. Raises `CheckpointError`
    if it cannot be written; what was there before is then still there.
    """
    place = place_of(directory, state.updates)
    if place.exists():
        return place
    moments = {f"{kind}.{name}": x for kind in "mv" for name, x in getattr(optimizer, kind).items()}
    try:
        with atomic_directory(place) as partial:
            model.save(partial)
            write_safetensors(partial / MOMENTS, moments, model.backend)
            facts = {
                "format": _VERSION, "updates": state.updates, "source": dict(state.source),
                "settings": dict(state.settings), "profile": model.profile.name, "heads": list(model.heads),
                "pooler": model.has_pooler,
                "digests": {path.relative_to(partial).as_posix(): digest_of_file(path) for path in files_in(partial)},
            }  # fmt: skip
            write_json(partial / TRAINING, sealed(facts), CheckpointError)
    except (OSError, CheckpointError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{place}: cannot be written ({reason}); earlier checkpoints are whole") from None
    return place


def saved(directory: Path) -> list[Path]:
    """List the checkpoints in ``directory``, oldest first."""
    if not directory.is_dir():
        return []
    found = [(int(match[1]), path) for path in directory.iterdir() if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def place_of(directory: Path, updates: int) -> Path:
    """Return the path of the checkpoint after so many updates."""
    return directory / f"step-{updates:08d}"


def updates_of(place: Path) -> int:
    """Return the number of updates in a checkpoint's name."""
    return int(place.name.removeprefix("step-"))


def read_state(place: Path) -> State:
    """Read a checkpoint's `State`; raises `Damaged` if it is not what was written."""
    facts = _facts(place)
    return State(facts["updates"], facts["source"], facts["settings"])


def export(place: Path, directory: Path) -> None:
    """Copy a checkpoint's model into ``directory``, each file atomically; raises `Damaged` if it is not whole, OSError.

    The weights come last, because with them the directory holds a model.
    """
    check_whole(place)
    directory.mkdir(exist_ok=True)
    others = [path for path in place.iterdir() if path.suffix in (".json", ".txt") and path.name != TRAINING]
    for file in [*sorted(others), place / "model.safetensors"]:
        with atomic(directory / file.name) as part:
            shutil.copyfile(file, part)


def check_whole(place: Path) -> None:
    """Raise `Damaged` unless every file of the checkpoint is, byte by byte, the one that was written.

    Raises `CheckpointError` where that cannot be known, for want of permission.
    """
    for name, expected in _facts(place)["digests"].items():
        try:
            found = digest_of_file(place / name)
        except FileNotFoundError:
            raise Damaged(f"{place}: damaged ({name} is not there)") from None
        except PermissionError as error:
            raise CheckpointError(f"{place / name}: cannot be read ({error.strerror})") from None
        except OSError as error:
            raise Damaged(f"{place}: damaged ({name} cannot be read: {error.strerror})") from None
        if found != expected:
            raise Damaged(f"{place}: damaged ({name} is not what was written)")


def last_whole(directory: Path) -> Path | None:
    """Return the last checkpoint that is whole; put later ones, which are not, aside with a `RefbertWarning`.

    None if there is no checkpoint. Raises `Damaged`, and touches nothing, if there are some and none is whole.
    """
    damaged: list[tuple[Path, str]] = []
    for place in reversed(saved(directory)):
        try:
            check_whole(place)
        except Damaged as error:
            damaged.append((place, str(error)))
            continue
        for other, reason in damaged:
            put_aside(other, f"{reason}; going on from {place.name}, the one before")
        return place
    if damaged:
        raise Damaged(f"{damaged[0][1]}, and none before it is whole: delete {directory} to begin again at step 0")
    return None


def put_aside(place: Path, why: str) -> None:
    """Rename a damaged checkpoint, so that it is neither taken for one nor lost, and warn.

    Raises `CheckpointError` if it cannot be renamed.
    """
    aside = place.with_name(f"{_DAMAGED}{place.name}")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        place.rename(aside)
    except OSError as error:
        raise CheckpointError(f"{place}: damaged, and cannot be put aside ({error.strerror})") from None
    warn(f"{why}; the damaged one is kept as {aside.name}", stacklevel=3)


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object with a digest of what else is in it."""
    plain = json.loads(json.dumps({name: value for name, value in content.items() if name != "digest"}))
    return {**plain, "digest": digest([json.dumps(plain, sort_keys=True)])}


def is_sealed(content: Any) -> bool:
    """Whether an object is what `sealed` made of it."""
    return isinstance(content, dict) and content == sealed(content)


def _facts(place: Path) -> dict[str, Any]:
    try:
        facts = parse_json((place / TRAINING).read_bytes(), place / TRAINING, Damaged)
    except PermissionError as error:
        raise CheckpointError(f"{place / TRAINING}: cannot be read ({error.strerror})") from None
    except (OSError, Damaged):
        raise Damaged(f"{place}: damaged ({TRAINING} cannot be read)") from None
    if is_sealed(facts) and facts["format"] == _VERSION:
        return dict(facts)
    if isinstance(facts, dict) and facts.get("format") != _VERSION and "digest" not in facts:
        raise CheckpointError(f"{place}: written by another release of refbert")
    raise Damaged(f"{place}: damaged ({TRAINING} is not what was written)")


def restore(place: Path, model: Model, optimizer: Optimizer) -> State:
    """Read weights, moments and count of updates from a checkpoint of the same model.

    Raises `Damaged` for one that is not what was written, and `CheckpointError` for another model's.
    """
    check_whole(place)
    state = read_state(place)
    weights, moments = read_safetensors(place / "model.safetensors"), read_safetensors(place / MOMENTS)
    found, expected = ({n: tuple(x.shape) for n, x in arrays.items()} for arrays in (weights, model.parameters))
    if found != expected:
        raise CheckpointError(f"{place}: the checkpoint of another model (other tensors or shapes)")
    asarray = model.backend.asarray
    # Copies: a view of the mapped file would change under the run if the file did, and keep a deleted one on the disk.
    for name in list(model.parameters):
        model.parameters[name] = asarray(np.array(weights[name]))
    optimizer.m.clear()
    optimizer.v.clear()
    for label, x in moments.items():
        kind, name = label.split(".", 1)
        getattr(optimizer, kind)[name] = asarray(np.array(x))
    optimizer.updates = state.updates
    return state
