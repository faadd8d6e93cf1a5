"""Models that come with refbert: a folder for each, in Hugging Face's layout, with its model card in README.md.

small-english   a small English BERT, of MiniLM's layers and refbert's pretraining; recipes/small-english is how.
small-chinese   a small Chinese and English BERT, of refbert's pretraining alone; recipes/small-chinese is how.
"""

from __future__ import annotations

from pathlib import Path

# What `refbert run` takes where no model is named.
DEFAULT = "small-english"


def shipped(name: str) -> Path | None:
    """The folder of the model of that name, or None if none of that name comes with refbert."""
    here = Path(__file__).parent
    names = {folder.name for folder in here.iterdir() if (folder / "config.json").is_file()}
    return here / name if name in names else None
