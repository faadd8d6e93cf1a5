"""A corpus a hundred times as large takes no more memory, neither to build nor to read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from corpora import small_tokenizer

from refbert.data.store import tokenizer_fingerprint

needs_proc = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from Linux's /proc")

# The peak of the process, in kB. Not getrusage's: that begins with the peak of the process that started this one.
PEAK = "next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM'))"
START = f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom corpora import small_tokenizer\n"


def peak(code):
    done = subprocess.run(
        [sys.executable, "-c", f"{START}{code}\nprint({PEAK})"], capture_output=True, text=True, check=True
    )
    return 1024 * int(done.stdout)


def large_store(directory, documents):
    """A store of ``documents`` documents of 10 sentences of 25 tokens, without text: 2 bytes a token on disk."""
    directory.mkdir()
    sentences, tokens = 10 * documents, 250 * documents
    arrays = {
        "ids.bin": np.full(tokens, 70, dtype=np.uint16),
        "sentences.bin": np.arange(0, tokens + 1, 25),
        "documents.bin": np.arange(0, sentences + 1, 10),
    }
    for name, array in arrays.items():
        array.tofile(directory / name)
    header = {
        "version": 1,
        "documents": documents,
        "files": [documents // 3, documents - documents // 3],
        "sentences": sentences,
        "tokens": tokens,
        "dtype": "uint16",
        "bytes": {name: array.nbytes for name, array in arrays.items()},
        "fingerprint": "",
        "key": None,
        "tokenizer": tokenizer_fingerprint(small_tokenizer()),
    }
    (directory / "store.json").write_text(json.dumps(header))
    return sum(header["bytes"].values())


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("weights", [None, (2.5, 0.1)])
def test_reading_takes_no_more(tmp_path, weights):
    peaks, sizes = [], []
    for documents in (3_000, 300_000):
        sizes.append(large_store(tmp_path / f"{documents}", documents))
        peaks.append(
            peak(
                "from refbert.data import *\n"
                f"store = Store.open({str(tmp_path / str(documents))!r})\n"
                "source = PretrainingSource(store, small_tokenizer(), seed=1, phases=[Phase(9, 128, 64)],\n"
                f"    settings=Pretraining(weights={weights}))\n"
                "for step in range(150): source.next(step)"
            )
        )
    # 1.5 MB and 150 MB of ids. Noise between two runs of the same is under 1 MB; a hundredth of the difference is 2.
    assert sizes[1] > 150e6
    assert peaks[1] - peaks[0] < (sizes[1] - sizes[0]) / 50, (peaks, sizes)


@pytest.mark.slow
@needs_proc
def test_building_takes_no_more(tmp_path):
    """Lines of one long word ([UNK]) and white space are cheap to tokenize: what is measured is what is held."""
    peaks, sizes = [], []
    for megabytes in (1, 100):
        file = tmp_path / f"{megabytes}.txt"
        with open(file, "wb") as out:
            for _ in range(megabytes):
                out.write((b"x" * 250 + b" w1 w2 w3" + b" " * 740 + b"\n") * 1000 + b"\n")
        sizes.append(file.stat().st_size)
        peaks.append(
            peak(
                "from refbert.data import *\n"
                f"build_store([{str(file)!r}], small_tokenizer(), {str(tmp_path / f'{megabytes} store')!r})"
            )
        )
    assert peaks[1] - peaks[0] < (sizes[1] - sizes[0]) / 20, (peaks, sizes)
