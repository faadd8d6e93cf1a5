"""A command in this process, and the weights that two of them left."""

from __future__ import annotations

import pytest

from refbert.checkpoint.safetensors_file import read_safetensors
from refbert.cli import main


def cli(capsys, *arguments):
    """(status, stdout, stderr)."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return (left.value.code or 0, *capsys.readouterr())


def same_weights(one, other):
    """The models of two directories are the same, bit by bit."""
    a, b = (read_safetensors(directory / "model.safetensors") for directory in (one, other))
    assert list(a) == list(b)
    for name, x in a.items():
        assert x.tobytes() == b[name].tobytes(), name
