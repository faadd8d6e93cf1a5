"""Files that are there whole or not at all, and what a killed process leaves beside them."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

import refbert
from refbert.errors import CheckpointError, InputError
from refbert.files import writing
from refbert.files.writing import atomic, write_text
from refbert.text.tokenization import Tokenizer

KILLED = (
    "import os, sys, signal\nfrom pathlib import Path\nfrom refbert.files.writing import atomic\n"
    "with atomic(Path(sys.argv[1])) as part:\n    part.write_text('half')\n"
)


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def killed_while_writing(path):
    done = subprocess.run([sys.executable, "-c", f"{KILLED}    os.kill(os.getpid(), 9)", path], check=False)
    assert done.returncode == -9


def test_whole_or_as_it_was(tmp_path):
    write_text(tmp_path / "x", "one")
    with suppress(ZeroDivisionError), atomic(tmp_path / "x") as part:
        part.write_text("two")
        assert (tmp_path / "x").read_text() == "one"
        raise ZeroDivisionError
    assert (tmp_path / "x").read_text() == "one"
    assert names(tmp_path) == ["x"]
    with pytest.raises(InputError, match="x: cannot be written .No such file or directory"):
        write_text(tmp_path / "none" / "x", "")


@pytest.mark.parametrize("name", ["model.safetensors", "a[b]*?.txt", "ü" * 127, "x" * 255])
def test_what_a_killed_process_leaves_goes_at_the_next_write(tmp_path, name):
    killed_while_writing(tmp_path / name)
    assert len(names(tmp_path)) == 1
    assert not (tmp_path / name).exists()
    write_text(tmp_path / name, "whole")
    assert names(tmp_path) == [name]


def test_somebody_elses_files_stay(tmp_path):
    """Names that look alike, another file's leftover, a directory, a link; and one that is being written."""
    killed_while_writing(tmp_path / "other")
    theirs = [
        ".x.part",
        ".x.12345",
        ".x.refbert-part-",
        ".x.refbert-part-123",
        ".x.refbert-part-123456789",
        "tmp1.part",
    ]
    for name in theirs:
        (tmp_path / name).write_text("mine")
    (tmp_path / ".x.refbert-part-00000000").mkdir()
    (tmp_path / ".x.refbert-part-00000001").symlink_to(tmp_path / "tmp1.part")
    before = set(names(tmp_path))
    code = f"{KILLED}    print(1, flush=True)\n    sys.stdin.read()\n"
    writer = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "x"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    writer.stdout.readline()
    (living,) = set(names(tmp_path)) - before
    write_text(tmp_path / "x", "mine")
    assert set(names(tmp_path)) == before | {living, "x"}
    writer.communicate()
    assert writer.returncode == 0
    assert (tmp_path / "x").read_text() == "half"  # the last to finish has the name
    assert set(names(tmp_path)) == before | {"x"}


def test_links_are_followed_and_devices_written_to(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there" / "x")
    write_text(tmp_path / "link", "one")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "x").read_text() == "one"
    write_text(Path(os.devnull), "gone")
    assert not Path(os.devnull).is_file()


def test_permissions_are_those_of_a_new_file(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "x", "")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640


def test_a_model_that_was_being_saved(tmp_path):
    """Weights, configuration and every file of the tokenizer."""
    config = refbert.BertConfig(
        vocab_size=6, hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4,
        max_position_embeddings=4,
    )  # fmt: skip
    model = refbert.from_config(config)
    model.tokenizer = Tokenizer.from_vocabulary(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"])
    model.save(tmp_path / "whole")
    files = names(tmp_path / "whole")
    assert len(files) == 5
    for file in files:
        killed_while_writing(tmp_path / "whole" / file)
    assert len(names(tmp_path / "whole")) == 10
    model.save(tmp_path / "whole", overwrite=True)
    assert names(tmp_path / "whole") == files


def test_what_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing.os, "fsync", full)
    with pytest.raises(InputError, match="x: cannot be written .No space left on device"):
        write_text(tmp_path / "x", "")
    with pytest.raises(CheckpointError, match="cannot be written .No space left on device"):
        Tokenizer.from_vocabulary(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]).save(tmp_path)
    assert names(tmp_path) == []
