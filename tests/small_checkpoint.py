"""A tiny checkpoint with a vocabulary, written by refbert: enough for the command line's paths."""

from __future__ import annotations

import refbert

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "a", "cat", "sat", "on", "mat", "##s", "dog", "."]


def write_small_checkpoint(directory):
    """A BertForPreTraining of 16 positions in ``directory``."""
    config = refbert.BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=20,
        max_position_embeddings=16,
        initializer_range=0.5,
    )
    refbert.from_config(config, heads=("masked_lm", "next_sentence"), seed=1).save(directory)
    (directory / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return directory
