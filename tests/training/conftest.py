"""The helpers beside these tests."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model, labelled texts, a corpus and a corpus that cannot be used."""
    from runs import write_files

    return write_files(tmp_path_factory.mktemp("files"))
