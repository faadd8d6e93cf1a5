"""refbert: the reference implementation of BERT.

refbert.ops          the reference: every operation, forward and backward, in plain NumPy
refbert.spec         the model composed of those operations
refbert.load         a checkpoint, ready to run on any backend
refbert.backend.registry     the backends that are installed
"""

import sys

if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:
    # python -m refbert: Python has put the current directory before its own, and a json.py may lie there.
    del sys.path[0]

from refbert.config import BertConfig
from refbert.config.presets import preset
from refbert.config.profiles import PROFILES, Profile
from refbert.errors import RefbertError, RefbertWarning
from refbert.loading import from_config, load
from refbert.model import Model, Output
from refbert.randomness import Dropout
from refbert.text.batching import Batch

__version__ = "0.1.0"

__all__ = [
    "PROFILES", "Batch", "BertConfig", "Dropout", "Model", "Output", "Profile", "RefbertError", "RefbertWarning",
    "from_config", "load", "preset",
]  # fmt: skip
