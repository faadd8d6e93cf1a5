"""SIGINT and SIGTERM before the first update: heard at once, one line, 130 or 143, and nothing half made."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time

import pytest
from launching import launch

pytestmark = pytest.mark.slow

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}
SOON = 15  # seconds, on a machine with much else to do; what is stopped takes minutes


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """So many words that vocabulary and tokens take their time."""
    path = tmp_path_factory.mktemp("text")
    draw = random.Random(0)
    pieces = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=4)) for _ in range(3000)]
    with (path / "x.txt").open("w", encoding="utf-8") as file:
        for n in range(20_000):
            file.write(" ".join("".join(draw.choices(pieces, k=3)) for _ in range(12)) + "\n" * (1 + (n % 9 == 0)))
    with (path / "x.csv").open("w", encoding="utf-8") as file:
        file.write("text,label\n")
        for n in range(20_000):
            file.write(f"{' '.join(draw.choices(pieces, k=60))},{n % 2}\n")
    return path


def until(process, said):
    """Wait until a line of stderr begins with that."""
    for line in process.stderr:
        if line.startswith(said):
            return
    pytest.fail(f"it ended with {process.wait()}")


def stopped(process, number, out, says):
    """It ends soon, as it should, and nothing of it is left."""
    process.send_signal(number)
    started = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - started < SOON
    assert process.returncode == STATUS[number], err
    lines = [line for line in err.splitlines() if "%" not in line]
    assert len(lines) == 1, err
    assert lines[0].startswith(f"refbert: {out}: stopped before the first update; ")
    assert says in lines[0]
    assert not out.exists()


def start(*command):
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")


def pretrain(text, out, *more):
    return [sys.executable, "-m", "refbert", "pretrain", text / "x.txt", "--output", out, "--steps", 9, *more]


@pytest.mark.parametrize("number", STATUS)
@pytest.mark.parametrize("wait", [0.3, 4])
def test_while_a_vocabulary_is_learned(text, tmp_path, number, wait):
    """Words are counted first; the pieces are then joined by a library that listens to nothing for half a minute."""
    process = start(*pretrain(text, tmp_path / "out", "--vocab-size", 30_000))
    until(process, "refbert: learning a vocabulary")
    time.sleep(wait)
    stopped(process, number, tmp_path / "out", "nothing of it is kept; start again with the same command")


@pytest.mark.parametrize("number", STATUS)
def test_while_text_is_tokenized(text, tmp_path, number):
    process = start(*pretrain(text, tmp_path / "out", "--tokenizer", "small-english"))
    until(process, "refbert: tokenizing the text")
    time.sleep(0.3)
    stopped(process, number, tmp_path / "out", "nothing of it is kept")


def test_in_several_processes(text, tmp_path):
    """As a terminal does it: every process gets the signal; one of them speaks."""
    pytest.importorskip("torch.distributed", reason="several processes need PyTorch")
    out = tmp_path / "out"
    first, second = launch(pretrain(text, out, "--vocab-size", 30_000))
    until(first, "refbert: learning a vocabulary")
    second.send_signal(signal.SIGINT)
    stopped(first, signal.SIGINT, out, "nothing of it is kept")
    _, err = second.communicate(timeout=60)
    assert second.returncode == 130
    assert err in ("", "refbert: interrupted\n")  # the line where it was still starting


@pytest.mark.parametrize("number", STATUS)
def test_while_labelled_texts_are_read(text, tmp_path, number):
    code = """
import sys
from refbert.cli import main
from refbert.training import finetuning

real = finetuning.features

def features(*arguments):
    print("now", file=sys.stderr, flush=True)
    return [real(*arguments) for _ in range(99)]

finetuning.features = features
main(sys.argv[1:])
"""
    out = tmp_path / "out"
    process = start(sys.executable, "-c", code, "finetune", "--task", "classify", "--model", "small-english", "--train",
                    text / "x.csv", "--output", out)  # fmt: skip
    until(process, "now")
    time.sleep(0.3)
    stopped(process, number, out, "nothing was written")
