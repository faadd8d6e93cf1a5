"""Settings of a run: each declared once, with its default, its range and the help of its command-line option.

`refbert.cli.options` makes the options of ``refbert pretrain`` and ``refbert finetune`` from the fields.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from refbert.config.profiles import Profile, get_profile
from refbert.errors import InputError, warn
from refbert.training.optimizer import Optimizer
from refbert.training.run import RunDirectory, agreed

RULES = ("bert_adam", "adamw", "lamb")
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def setting(
    default: Any = MISSING,
    help: str = "",
    *,
    name: str | None = None,
    least: float | None = None,
    above: float | None = None,
    choices: Sequence[str] = (),
    metavar: str | None = None,
    envvar: str | None = None,
    path: bool = False,
    free: str | None = None,
) -> Any:
    """Declare a field of settings.

    help: the option's; a field without help gets no option here. name: the option's, where it is not the field's.
    least, above: each value must be at least, or more than, that. choices: it must be one of. path: the option's value
    is made absolute. free: it may change when a run goes on; the weights then agree "bit by bit" or up to "rounding".
    """
    return dataclasses.field(default=default, metadata={
        "help": help, "name": name, "least": least, "above": above, "choices": tuple(choices), "metavar": metavar,
        "envvar": envvar, "path": path, "free": free,
    })  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """The settings that both kinds of training have.

    optimizer: None: the profile's (bert_adam or adamw). dropout: None: the configuration's. mixed_precision: the dtype
    of forward and backward, where it is not the weights' (`refbert.training.precision`). gradient_checkpointing: layers
    keep only their input and run again in the backward (`refbert.spec.encoder`). save_minutes: a checkpoint is written
    after so long, where fewer updates than ``save_every`` were made meanwhile.

    Raises `InputError` for a value of another type or out of range.
    """

    SEED_BITS: ClassVar[int] = 64

    optimizer: str | None = setting(None, "Default: the profile's.", choices=RULES)
    weight_decay: float = setting(0.01, "Not of biases and LayerNorms.", least=0)
    max_norm: float = setting(1.0, "Gradients are clipped to this norm.", above=0)
    dropout: float | None = setting(None, "Default: the configuration's.")
    seed: int = setting(0, "Of new weights, order, masks and dropout.")
    profile: str | None = None
    backend: str = setting("numpy", free="rounding")
    dtype: str | None = setting(None, free="rounding")
    device: str | None = setting(None, free="rounding")
    mixed_precision: str | None = setting(
        None, "Of forward and backward alone: bfloat16.", metavar="DTYPE", free="rounding"
    )
    gradient_checkpointing: bool = setting(
        False, "Less memory, more time: layers run again in the backward.", free="rounding"
    )
    save_minutes: float = setting(5.0, "Between checkpoints, at most.", above=0, free="bit by bit")

    def __post_init__(self) -> None:
        _check_types(self)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):
                object.__setattr__(self, field.name, tuple(value))
            for one in value if isinstance(value, list | tuple) else (value,):
                _check_range(field.metadata.get("name") or field.name, one, field.metadata)
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise InputError(f"dropout must be in [0, 1), not {self.dropout}")
        if not 0 <= self.seed < 2**self.SEED_BITS:
            raise InputError(f"seed must be a whole number from 0 to 2^{self.SEED_BITS} - 1, not {self.seed}")

    def new_optimizer(self, profile: Profile | None = None) -> Optimizer:
        """Make the optimizer; ``profile``: the model's, where the settings leave it open."""
        known = profile or get_profile(self.profile or "google")
        rule = self.optimizer or ("adamw" if known.bias_correction else "bert_adam")
        return Optimizer(
            rule=rule, weight_decay=self.weight_decay, max_norm=self.max_norm, clip_epsilon=known.clip_epsilon
        )

    def to_json(self) -> dict[str, Any]:
        """Return the settings as run.json holds them."""
        return json.loads(json.dumps(dataclasses.asdict(self)))  # type: ignore[no-any-return]

    def decisive(self) -> dict[str, Any]:
        """Return those that may not change when the run is resumed."""
        return {name: value for name, value in self.to_json().items() if name not in self.free()}

    @classmethod
    def free(cls, *kinds: str) -> frozenset[str]:
        """Return the names of those that may change; of those ``kinds`` alone, where some are given."""
        found = ((field.name, field.metadata.get("free")) for field in dataclasses.fields(cls))
        return frozenset(name for name, kind in found if kind is not None and (not kinds or kind in kinds))

    @classmethod
    def resumed(cls, directory: str | Path, given: Mapping[str, Any]) -> Self:
        """Return the settings of the run in ``directory``, with what may change taken from ``given``.

        Raises `InputError` that names a setting which differs and may not; warns where the rounding will be another.
        """
        run = RunDirectory(directory)
        recorded = run.read()["settings"]
        chosen = agreed(recorded, json.loads(json.dumps(dict(given))), free=cls.free(), where=run.path)
        changed = sorted(name for name in cls.free("rounding") if chosen.get(name) != recorded.get(name))
        if changed:
            warn(
                f"{run.path}: going on with another {', '.join(changed)}: the weights will differ by rounding from "
                "those of a run that was not stopped",
                stacklevel=2,
            )
        return run.settings(cls, chosen)


def _check_types(settings: Any) -> None:
    """Raise `InputError` that names the first field whose value is not of its type, whoever gave it.

    A whole number is a number; true is not; a list is a tuple.
    """
    for name, kind in typing.get_type_hints(type(settings)).items():
        if typing.get_origin(kind) is not ClassVar and not _is(getattr(settings, name), kind):
            raise InputError(f"{name} must be {_said(kind)}, not {getattr(settings, name)!r:.60}")


def _check_range(name: str, value: Any, limits: Mapping[str, Any]) -> None:
    least, above, choices = limits.get("least"), limits.get("above"), limits.get("choices")
    if value is None:
        return
    if choices and value not in choices:
        raise InputError(f'unknown {name} "{value}" (known: {", ".join(choices)})')
    if least is not None and not least <= value < math.inf:
        raise InputError(f"{name} must be {least} or more, not {value}")
    if above is not None and not above < value < math.inf:
        raise InputError(f"{name} must be a number above {above}, not {value}")


def _is(value: Any, kind: Any) -> bool:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return any(_is(value, one) for one in inner)
    if origin is tuple:
        return isinstance(value, list | tuple) and all(_is(item, inner[0]) for item in value)
    if kind in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, int | float if kind is float else kind)


def _said(kind: Any) -> str:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_said(one) for one in inner)
    if origin is tuple:
        return f"a list, each {_said(inner[0])}"
    return "none" if kind is types.NoneType else _WORDS.get(kind, kind.__name__)
