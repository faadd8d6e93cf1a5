"""Published sizes, by name: configurations that need no file.

Source   google-research/bert's README (the releases and their vocabularies, and the 24 miniatures of Turc et
         al. 2019) and Devlin et al. 2019 Table 6 (its ablation over sizes).
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from refbert.config import BertConfig
from refbert.errors import ConfigError

UNCASED, CASED, CHINESE, MULTILINGUAL_CASED, MULTILINGUAL_UNCASED = 30522, 28996, 21128, 119547, 105879


def _size(layers: int, hidden: int, heads: int, vocabulary: int = UNCASED) -> BertConfig:
    return BertConfig(
        vocab_size=vocabulary, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=4 * hidden,
    )  # fmt: skip


# Devlin et al. 2019 Table 6: (L, H, A).
TABLE_6 = ((3, 768, 12), (6, 768, 3), (6, 768, 12), (12, 768, 12), (12, 1024, 16), (24, 1024, 16))
# Turc et al. 2019 Table 1: every L with every H, and A = H/64.
MINIATURE_LAYERS, MINIATURE_HIDDEN = (2, 4, 6, 8, 10, 12), (128, 256, 512, 768)

_BASE, _LARGE = (12, 768, 12), (24, 1024, 16)

PRESETS: Mapping[str, BertConfig] = {
    "bert-base-uncased": _size(*_BASE),
    "bert-base-cased": _size(*_BASE, CASED),
    "bert-base-chinese": _size(*_BASE, CHINESE),
    "bert-base-multilingual-cased": _size(*_BASE, MULTILINGUAL_CASED),
    "bert-base-multilingual-uncased": _size(*_BASE, MULTILINGUAL_UNCASED),
    "bert-large-uncased": _size(*_LARGE),
    "bert-large-cased": _size(*_LARGE, CASED),
    "bert-large-uncased-whole-word-masking": _size(*_LARGE),
    "bert-large-cased-whole-word-masking": _size(*_LARGE, CASED),
    **{f"table6-{L}-{H}-{A}": _size(L, H, A) for L, H, A in TABLE_6},
    **{
        f"bert_uncased_L-{L}_H-{H}_A-{H // 64}": _size(L, H, H // 64)
        for L in MINIATURE_LAYERS
        for H in MINIATURE_HIDDEN
    },
    "bert-tiny": _size(2, 128, 2),
    "bert-mini": _size(4, 256, 4),
    "bert-small": _size(4, 512, 8),
    "bert-medium": _size(8, 512, 8),
}


def preset_of(model: str) -> BertConfig | None:
    """The preset that a command's MODEL means; None where it is a path that exists, or another name."""
    return None if os.path.exists(model) else PRESETS.get(model.rsplit("/", 1)[-1])


def preset(name: str) -> BertConfig:
    """The configuration of that name, with or without its organisation; raises `ConfigError` for an unknown one."""
    short = name.rsplit("/", 1)[-1]
    try:
        return PRESETS[short]
    except KeyError:
        import difflib  # here: for those who mistyped

        near = difflib.get_close_matches(short, PRESETS, n=3) or list(PRESETS)[:5]
        raise ConfigError(f'no preset "{name}"; near it: {", ".join(near)}') from None
