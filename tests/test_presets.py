"""Presets: the published sizes, counted to the last parameter and as Hugging Face counts them."""

from __future__ import annotations

import pytest
import torch
import transformers

from refbert.config import BertConfig
from refbert.config.parameters import count
from refbert.config.presets import PRESETS, preset
from refbert.errors import ConfigError

# google-research/bert's README: L, H, A and the number of lines of each release's vocab.txt.
RELEASES = {
    "bert-base-uncased": (12, 768, 12, 30522),
    "bert-base-cased": (12, 768, 12, 28996),
    "bert-base-chinese": (12, 768, 12, 21128),
    "bert-base-multilingual-cased": (12, 768, 12, 119547),
    "bert-base-multilingual-uncased": (12, 768, 12, 105879),
    "bert-large-uncased": (24, 1024, 16, 30522),
    "bert-large-cased": (24, 1024, 16, 28996),
    "bert-large-uncased-whole-word-masking": (24, 1024, 16, 30522),
    "bert-large-cased-whole-word-masking": (24, 1024, 16, 28996),
}

# Devlin et al. 2019 Table 6: L, H, A and the exact parameters, pooler included.
TABLE_6 = {
    (3, 768, 12): 45_691_392,
    (6, 768, 3): 66_955_008,
    (6, 768, 12): 66_955_008,
    (12, 768, 12): 109_482_240,
    (12, 1024, 16): 183_987_200,
    (24, 1024, 16): 335_141_888,
}

# Turc et al. 2019's five named sizes, in millions of parameters as its Table 1 prints them.
MINIATURES = {(2, 128, 2): 4.4, (4, 256, 4): 11.3, (4, 512, 8): 29.1, (8, 512, 8): 41.7, (12, 768, 12): 110.1}


def sizes(config):
    return config.num_hidden_layers, config.hidden_size, config.num_attention_heads


@pytest.mark.parametrize("name", RELEASES)
def test_releases(name):
    L, H, A, V = RELEASES[name]
    assert preset(name) == BertConfig(
        vocab_size=V, hidden_size=H, num_hidden_layers=L, num_attention_heads=A, intermediate_size=4 * H
    )


@pytest.mark.parametrize("name", RELEASES)
def test_counts_of_the_releases(name):
    # Of two releases of one size only the word embeddings differ.
    L, H, _, V = RELEASES[name]
    assert count(preset(name)) == {12: 109_482_240, 24: 335_141_888}[L] + (V - 30522) * H


def test_base_chinese():
    assert count(preset("bert-base-chinese")) == 102_267_648


@pytest.mark.parametrize("size", TABLE_6)
def test_table_6(size):
    L, H, A = size
    config = preset(f"table6-{L}-{H}-{A}")
    assert sizes(config) == size
    assert config.vocab_size == 30522
    assert count(config) == TABLE_6[size]


def test_the_24_miniatures():
    names = [name for name in PRESETS if name.startswith("bert_uncased_L-")]
    assert len(names) == 24
    for name in names:
        config = preset(f"google/{name}")
        L, H, A = (int(part.split("-")[1]) for part in name.removeprefix("bert_uncased_").split("_"))
        assert sizes(config) == (L, H, A)
        assert (A * 64, config.intermediate_size) == (H, 4 * H)
    assert {sizes(preset(name))[:2] for name in names} == {
        (L, H) for L in (2, 4, 6, 8, 10, 12) for H in (128, 256, 512, 768)
    }


@pytest.mark.parametrize("size", MINIATURES)
def test_miniatures_as_printed(size):
    L, H, A = size
    config = preset(f"bert_uncased_L-{L}_H-{H}_A-{A}")
    counted = count(config, ("masked_lm", "next_sentence"))
    assert round(counted / 1e6, 1) == MINIATURES[size], counted


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("bert-tiny", "bert_uncased_L-2_H-128_A-2"),
        ("bert-mini", "bert_uncased_L-4_H-256_A-4"),
        ("bert-small", "bert_uncased_L-4_H-512_A-8"),
        ("bert-medium", "bert_uncased_L-8_H-512_A-8"),
    ],
)
def test_aliases(alias, name):
    assert preset(alias) == preset(name)


@pytest.mark.parametrize("name", PRESETS)
def test_hugging_face_counts_the_same(name):
    config = preset(name)
    theirs = transformers.BertConfig.from_dict(config.to_dict())
    with torch.device("meta"):
        assert count(config) == sum(p.numel() for p in transformers.BertModel(theirs).parameters())


def test_with_and_without_the_organisation():
    assert preset("google-bert/bert-base-cased") is preset("bert-base-cased")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("bert-base-uncase", "bert-base-uncased"),
        ("bert-larg-cased", "bert-large-cased"),
        ("bert_uncased_L-2_H-128_A-4", "bert_uncased_L-2_H-128_A-2"),
        ("gpt", "bert-base-uncased"),
        ("", "bert-base-uncased"),
    ],
)
def test_an_unknown_name_is_answered_with_near_ones(name, near):
    with pytest.raises(ConfigError, match=f'no preset "{name}"; near it: .*{near}'):
        preset(name)
