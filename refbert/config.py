"""Configuration: the sizes and rates of one BERT, read from Hugging Face's or Google's JSON.

Letters used for sizes everywhere in refbert: B batch, S sequence, H hidden, A heads, D = H/A, F feed-forward,
V vocabulary, T segment types, P positions (learned), L layers, N tokens, K classes.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from refbert.errors import ConfigError

# The files that hold a configuration, in the order in which they are looked for.
CONFIG_FILES = ("config.json", "bert_config.json")

# A config.json that names one of these computes something else than BERT and must not load as BERT.
_REFUSED = {
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True,),
}


@dataclass(frozen=True)
class BertConfig:
    """Sizes and rates of a BERT, under Hugging Face's names (Google's are the same where both exist).

    Devlin et al. 2019 §3 gives L, H and A; F = 4H (footnote 3); dropout, GELU and the position limit are in A.2.
    ``hidden_act`` is the file's own word: what function "gelu" means depends on the profile (`refbert.profiles`).
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
                raise ConfigError(f"{name} must be a number in [0, 1), not {rate!r}")
        for name in ("layer_norm_eps", "initializer_range"):
            value = getattr(self, name)
            if not _is_number(value) or not 0 < value < math.inf:
                raise ConfigError(f"{name} must be a number above 0, not {value!r}")
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
            raise ConfigError(f'{where}: model_type is "{kind}", refbert implements "bert" only')
        for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"):
            if source.get(name) is None:
                raise ConfigError(f'{where}: not a BERT configuration, it has no "{name}"')
        for name, allowed in _REFUSED.items():
            if source.get(name) is not None and source[name] not in allowed:
                raise ConfigError(f"{where}: {name}={source[name]!r} is not BERT as published (only {allowed[0]!r})")
        known = {f.name for f in dataclasses.fields(cls)}
        values = {name: value for name, value in source.items() if name in known and value is not None}
        if source.get("hidden_act", "gelu") is None:  # Google: None or "" means no activation at all
            values["hidden_act"] = "linear"
        labels = source.get("id2label")
        if isinstance(labels, Mapping) and labels:
            try:
                values["id2label"] = {int(key): str(label) for key, label in labels.items()}
            except (TypeError, ValueError) as error:
                raise ConfigError(f"{where}: id2label must be keyed by whole numbers") from error
            values["num_labels"] = len(labels)
        else:
            values.pop("id2label", None)
        if "architectures" in values:
            if not isinstance(values["architectures"], list | tuple):
                raise ConfigError(f"{where}: architectures must be a list, not {values['architectures']!r}")
            values["architectures"] = tuple(str(name) for name in values["architectures"])
        try:
            return cls(**values)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None

    @classmethod
    def from_file(cls, path: str | Path) -> BertConfig:
        """Read a configuration file; raises `ConfigError` if it is missing, not JSON, or not a BERT's."""
        path = Path(path)
        try:
            source = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"{path}: no such file") from None
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not JSON ({error})") from None
        if not isinstance(source, dict):
            raise ConfigError(f"{path}: not a BERT configuration (a JSON object is expected)")
        if path.name == "bert_config.json":
            source = {"type_vocab_size": 16} | source  # what Google's modeling.py takes where the file is silent
        return cls.from_dict(source, where=str(path))

    @classmethod
    def from_directory(cls, directory: str | Path) -> BertConfig:
        """Read ``config.json`` or ``bert_config.json`` in ``directory``; raises `ConfigError` if there is none."""
        for name in CONFIG_FILES:
            if (Path(directory) / name).is_file():
                return cls.from_file(Path(directory) / name)
        raise ConfigError(f"{directory}: no config.json and no bert_config.json, so this is not a BERT checkpoint")

    def to_dict(self) -> dict[str, Any]:
        """Hugging Face's ``config.json`` as a dictionary, ready for `json.dumps`."""
        out: dict[str, Any] = {"model_type": "bert", "position_embedding_type": "absolute"}
        for name, value in dataclasses.asdict(self).items():
            if name in ("num_labels", "id2label") or value is None or value == ():
                continue
            out[name] = list(value) if isinstance(value, tuple) else value
        # Hugging Face derives num_labels from id2label.
        labels = self.id2label or {i: f"LABEL_{i}" for i in range(self.num_labels)}
        out["id2label"] = {str(i): label for i, label in labels.items()}
        out["label2id"] = {label: i for i, label in labels.items()}
        return out


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(name: str, value: object, *, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name} must be a whole number of at least {least}, not {value!r}")
