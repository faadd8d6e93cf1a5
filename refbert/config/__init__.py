"""Configuration: the sizes and rates of one BERT, read from Hugging Face's or Google's JSON.

What follows from it alone is beside it: names and shapes, presets, profiles, operations to count. Letters used
for sizes everywhere in refbert: B batch, S sequence, H hidden, A heads, D = H/A, F feed-forward, V vocabulary,
T segment types, P positions (learned), L layers, N tokens, K classes.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from refbert.errors import ConfigError
from refbert.files.json import read_object
from refbert.files.reading import is_file, shown

# The files that hold a configuration, in the order in which they are looked for.
CONFIG_FILES = ("config.json", "bert_config.json")

# A config.json that names one of these computes something else than BERT and must not load as BERT.
_REFUSED = {
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True,),
}

# Sizes that no BERT has: ids and lengths are 32-bit in most kernels, and a model of so many layers or classes would be
# nothing but a list of names. A file of a few bytes can say more.
_MOST = {"num_hidden_layers": 10_000, "num_labels": 1 << 20}
_MOST_OTHERS = (1 << 31) - 1
# More classes than this are counted, not called LABEL_0, LABEL_1, ….
_MOST_UNNAMED = 1 << 16

_HALF_A_PAIR = re.compile("[\ud800-\udfff]")  # a surrogate by itself, which is no character

# What Hugging Face knows; where nothing is said, one label is a number and several are classes.
_PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")


@dataclass(frozen=True)
class BertConfig:
    """Sizes and rates of a BERT, under Hugging Face's names (Google's are the same where both exist).

    Devlin et al. 2019 §3 gives L, H and A; F = 4H (footnote 3); dropout, GELU and the position limit are in A.2.
    ``hidden_act`` is the file's own word: what function "gelu" means depends on the profile (`profiles`).
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0
    classifier_dropout: float | None = None
    num_labels: int = 2
    id2label: Mapping[int, str] = field(default_factory=dict)
    problem_type: str | None = None
    architectures: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden_size", "num_attention_heads", "intermediate_size",
                     "max_position_embeddings", "type_vocab_size", "num_labels"):  # fmt: skip
            _whole(name, getattr(self, name), least=1)
        _whole("num_hidden_layers", self.num_hidden_layers, least=0)
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"):
            rate = getattr(self, name)
            if rate is None and name == "classifier_dropout":
                continue
            if not _is_number(rate) or not 0 <= rate < 1:
                raise ConfigError(f"{name} must be a number in [0, 1), not {shown(rate)}")
        for name in ("layer_norm_eps", "initializer_range"):
            value = getattr(self, name)
            if not _is_number(value) or not 0 < value < math.inf or (isinstance(value, int) and value > _MOST_OTHERS):
                raise ConfigError(f"{name} must be a number above 0, not {shown(value)}")
        for name in ("hidden_act", "problem_type"):
            text = getattr(self, name)
            if not isinstance(text, str) and not (text is None and name == "problem_type"):
                raise ConfigError(f"{name} must be a text, not {shown(text)}")
        if self.problem_type not in (None, *_PROBLEM_TYPES):
            raise ConfigError(f"problem_type {shown(self.problem_type)} is none of {', '.join(_PROBLEM_TYPES)}")
        for number, label in self.id2label.items():
            _whole("id2label's numbers", number, least=0)
            if not isinstance(label, str) or _HALF_A_PAIR.search(label):
                raise ConfigError(f"id2label's {number} must be a text, not {shown(label)}")
        _whole("pad_token_id", self.pad_token_id, least=0)
        if self.pad_token_id >= self.vocab_size:
            raise ConfigError(f"pad_token_id {self.pad_token_id} is not in the vocabulary of {self.vocab_size}")
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads "
                f"{self.num_attention_heads}: every head needs D = H/A whole features"
            )

    @property
    def head_size(self) -> int:
        """D = H/A, the features of one attention head (Vaswani et al. 2017 §3.2.2: d_k = d_v = d_model/h)."""
        return self.hidden_size // self.num_attention_heads

    def replace(self, **changes: Any) -> BertConfig:
        """A copy with some fields changed; raises `ConfigError` like the constructor."""
        return dataclasses.replace(self, **changes)

    @classmethod
    def from_dict(cls, source: Mapping[str, Any], *, where: str = "configuration") -> BertConfig:
        """Read Hugging Face's ``config.json`` or Google's ``bert_config.json``, already parsed.

        Raises `ConfigError` for another architecture, a missing size or a value that makes no sense. Fields that
        do not concern the model (``transformers_version``, …) are ignored. A field that is absent or null has the
        base model's value, as in both libraries (so an absent ``intermediate_size`` is 3072, not 4H).
        """
        kind = source.get("model_type", "bert")
        if kind != "bert":
            named = f'"{kind}"' if isinstance(kind, str) else shown(kind)
            raise ConfigError(f'{where}: model_type is {named}, refbert implements "bert" only')
        for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"):
            if source.get(name) is None:
                raise ConfigError(f'{where}: not a BERT configuration, it has no "{name}"')
        for name, allowed in _REFUSED.items():
            if source.get(name) is not None and source[name] not in allowed:
                raise ConfigError(
                    f"{where}: {name}={shown(source[name])} is not BERT as published (only {allowed[0]!r})"
                )
        known = {f.name for f in dataclasses.fields(cls)}
        values = {name: value for name, value in source.items() if name in known and value is not None}
        if source.get("hidden_act", "gelu") is None:  # Google: None or "" means no activation at all
            values["hidden_act"] = "linear"
        labels = source.get("id2label")
        if isinstance(labels, Mapping) and labels:
            try:
                values["id2label"] = {int(key): _label(label) for key, label in labels.items()}
            except (TypeError, ValueError, OverflowError):
                raise ConfigError(f"{where}: id2label must be keyed by whole numbers") from None
            values["num_labels"] = len(labels)
        elif labels is not None and labels != {}:
            raise ConfigError(f"{where}: id2label must map numbers to names, not {shown(labels)}")
        else:
            values.pop("id2label", None)
        if "architectures" in values:
            named = values["architectures"]
            if not isinstance(named, list | tuple) or not all(isinstance(name, str) for name in named):
                raise ConfigError(f"{where}: architectures must be a list of names, not {shown(named)}")
            values["architectures"] = tuple(named)
        try:
            return cls(**values)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None

    @classmethod
    def from_file(cls, path: str | Path) -> BertConfig:
        """Read a configuration file; raises `ConfigError` if it is missing, not JSON, or not a BERT's."""
        path = Path(path)
        source = read_object(path, ConfigError)
        if path.name == "bert_config.json":
            source = {"type_vocab_size": 16} | source  # what Google's modeling.py takes where the file is silent
        return cls.from_dict(source, where=str(path))

    @classmethod
    def from_directory(cls, directory: str | Path) -> BertConfig:
        """Read ``config.json`` or ``bert_config.json`` in ``directory``; raises `ConfigError` if there is none."""
        for name in CONFIG_FILES:
            if is_file(Path(directory) / name, ConfigError):
                return cls.from_file(Path(directory) / name)
        raise ConfigError(f"{directory}: no config.json and no bert_config.json, so this is not a BERT checkpoint")

    def to_dict(self) -> dict[str, Any]:
        """Hugging Face's ``config.json`` as a dictionary, ready for `json.dumps`."""
        out: dict[str, Any] = {"model_type": "bert", "position_embedding_type": "absolute"}
        for name, value in dataclasses.asdict(self).items():
            if name in ("num_labels", "id2label") or value is None or value == ():
                continue
            out[name] = list(value) if isinstance(value, tuple) else value
        if not self.id2label and self.num_labels > _MOST_UNNAMED:
            return out | {"num_labels": self.num_labels}
        # Hugging Face derives num_labels from id2label.
        labels = self.id2label or {i: f"LABEL_{i}" for i in range(self.num_labels)}
        out["id2label"] = {str(i): label for i, label in labels.items()}
        out["label2id"] = {label: i for i, label in labels.items()}
        return out


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _label(value: object) -> object:
    """A class's name; numbers are names too, what is nothing or has parts is none."""
    return str(value) if isinstance(value, str | int | float) else value


def _whole(name: str, value: object, *, least: int) -> None:
    most = _MOST.get(name, _MOST_OTHERS)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name} must be a whole number of at least {least}, not {shown(value)}")
    if value > most:
        raise ConfigError(f"{name} must be at most {most:,}, not {shown(value)}")
