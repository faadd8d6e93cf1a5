"""What follows from a configuration alone: sizes, names and shapes, presets, profiles, operations to count."""

from refbert.config.bert_config import CONFIG_FILES, BertConfig

__all__ = ["CONFIG_FILES", "BertConfig"]
