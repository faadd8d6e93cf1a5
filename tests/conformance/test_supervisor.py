"""What a backend may do to its process: one line, a verdict for the property, the run goes on, and nothing is left."""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from refbert.errors import BackendUnavailable, RefbertWarning
from refbert.wire.frames import MAGIC
from refbert_conformance.cases.large import SMALLER, fixed
from refbert_conformance.process.supervisor import Limits, Supervisor

HERE = Path(__file__).parent
RELU, TANH = "forward/relu/accuracy", "forward/tanh/accuracy"
# A day, give or take: nobody else sleeps that long.
SLEEP = f"86401.{os.getpid()}"


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setenv("HOSTILE_SLEEP", SLEEP)
    gc.collect()  # what another test has left closes its own
    before = descriptors()
    yield
    assert descriptors() == before, "descriptors are left open"


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def job(name, **more):
    return {
        "given": f"hostile:{name}", "dtype": None, "device": None, "effort": "quick", "seed": 0, "model": None,
        "scripts": "x", "explain": False, **more,
    }  # fmt: skip


def left():
    """What still runs of what the backend, or refbert for it, has started; zombies of ours too."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                said, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            zombie = int(parent) == os.getpid() and state == "Z"
            if zombie or SLEEP.encode() in said or f"HOSTILE_SLEEP={SLEEP}\0".encode() in environment:
                found.append(said)
    return found


def tried(name, limits=None, ids=(RELU, TANH)):
    with Supervisor(job(name), limits or Limits(seconds=3), needs={RELU: ("relu",)}) as supervisor:
        rows = [supervisor.judge(id) for id in ids]
    assert left() == []
    assert all(row.message.isprintable() for row in rows), rows
    return rows


DEATHS = {
    "KeepsPipes": "crashed the interpreter (SIGABRT)",
    "KeepsPipesForked": "crashed the interpreter (SIGABRT)",
    "DaemonizesAndKillsParent": "killed its parent process",
    "WritesWithoutEnd": "wrote where its results are sent: it sent what is no message",
    "Closes": "closed a file that is not its own",
    "ClosesAndOpens": "closed a file that is not its own",
    "Forks": "forked, and its child came back into the caller",
    "KillsParent": "killed its parent process",
    "StopsParent": "crashed the interpreter (SIGABRT)",
    "KillsGroup": "killed its parent process",
    "KillsItself": "crashed the interpreter (SIGKILL)",
    "RealTime": "crashed the interpreter (signal 39)",
    "Alarm": "crashed the interpreter (SIGALRM)",
    "ExitsWithNothing": "ended the interpreter with status 0",
    "ExitsWith255": "ended the interpreter with status 255",
    "PrintsBinary": "crashed the interpreter (SIGABRT)",
    "RaisesOddly": "raised Odd",
    "RaisesSurrogates": "raised ValueError: half a pair: ",
    "Exits": "raised SystemExit: good bye",
    "Spins": "hung: no answer within the limit of 3 seconds, all of them spent computing",
}


@pytest.mark.parametrize(("name", "says"), DEATHS.items())
def test_each_way_to_die_is_a_verdict_and_the_run_goes_on(name, says):
    relu, tanh = tried(name)
    assert relu.outcome == "failed"
    assert says in relu.message
    assert tanh.outcome == "passed", tanh.message


def test_what_has_more_to_compute_has_more_time(monkeypatch):
    large = fixed(SMALLER, "relu")[0]
    monkeypatch.setattr("refbert_conformance.process.supervisor._USUAL", large.operations / 4)
    relu, tanh = tried("Spins", Limits(seconds=0.5), ids=("forward/relu/real sizes", TANH))
    assert "no answer within the limit of 2 seconds" in relu.message
    assert tanh.outcome == "passed", tanh.message


@pytest.mark.parametrize("name", ["Sleeps", "StopsItself"])
def test_waiting_is_inconclusive(name):
    started = time.monotonic()
    relu, tanh = tried(name)
    assert relu.outcome == "inconclusive"
    assert re.search(r"gave no answer in \d+ seconds, of which it computed 0\.0", relu.message)
    assert "tried once more" in relu.message
    assert tanh.outcome == "passed"
    assert time.monotonic() - started > 6


def test_what_answers_when_it_is_tried_again_has_its_verdict(tmp_path, monkeypatch):
    monkeypatch.setenv("HOSTILE_ONCE", str(tmp_path / "once"))
    relu, _ = tried("SleepsOnce")
    assert relu.outcome == "passed"
    assert (tmp_path / "once").exists(), "it did not wait"


def test_an_operation_that_gives_no_answer_twice_is_not_asked_again():
    ids = [RELU, "backward/relu/accuracy", "forward/relu/not a number"]
    with Supervisor(job("Sleeps"), Limits(seconds=1), needs=dict.fromkeys(ids, ("relu",))) as supervisor:
        rows = [supervisor.judge(id) for id in ids]
    assert [row.outcome for row in rows] == ["inconclusive"] * 3
    assert rows[2].message.startswith("not tried: relu gave no answer in ")
    assert left() == []


@pytest.mark.parametrize("name", ["LeavesChildren", "Daemonizes"])
def test_what_is_left_behind_is_ended_and_named(name):
    with pytest.warns(RefbertWarning, match=r"the backend left 1 process running \(sleep\); it was ended"):
        relu, tanh = tried(name)
    assert relu.outcome == tanh.outcome == "passed"


def test_signals_to_its_parent_are_nobodys_business():
    assert [row.outcome for row in tried("SignalsParent")] == ["passed", "passed"]


def test_memory_counts_by_property():
    with pytest.warns(RefbertWarning, match=r"used more memory than the limit of 0\.5 GiB, with what it keeps"):
        relu, tanh = tried("Remembers", Limits(seconds=30, memory=500 << 20))
    assert (relu.outcome, tanh.outcome) == ("passed", "passed"), tanh.message
    relu, tanh = tried("Remembers", Limits(seconds=30, memory=250 << 20))
    for row in (relu, tanh):
        assert row.outcome == "failed"
        assert "used more memory than the limit of 0.2 GiB" in row.message


def test_a_childs_memory_counts():
    relu, tanh = tried("HoardsInAChild", Limits(seconds=30, memory=700 << 20))
    assert "used more memory than the limit of 0.7 GiB" in relu.message
    assert tanh.outcome == "passed"


COMPILES_NOTHING = """
import sys
from refbert_conformance.engine.divergence import Divergence, Place
from refbert_conformance.engine.measure import Worst
from refbert_conformance.process.records import Diagnosis, as_data, read

worst = Worst("y", (1,), 2.0, 1.0, 0.5, 2.0, 8.0)
known = Diagnosis(worst=worst, first_divergence=Divergence("pooler", "tanh", "forward", 2.0), growth=(Place("x", 0.1),))
data, compiled = as_data(known), []
sys.addaudithook(lambda event, _: event == "compile" and compiled.append(event))
assert read(Diagnosis, "it", data) == known
assert not compiled, compiled
"""


def test_reading_what_others_wrote_compiles_nothing():
    subprocess.run([sys.executable, "-c", COMPILES_NOTHING], check=True)


def frame(header, payload=b"", *, h=None, p=None):
    """A message as its text for `Writes`, with lengths of one's own."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    prefix = struct.pack("<8sQQ", MAGIC, len(text) if h is None else h, len(payload) if p is None else p)
    return os.fsdecode(prefix + text + payload)


ARRAY = {"ok": {"result": {"array": 1, "shape": [2]}}}
# What lies in the way of the next answer, and what is said of it.
ODD = {
    "nothing": ("", "it begins with b'"),
    "text": ("null", "it begins with b'"),
    "no text": ("\udcff\udcfe", "it begins with b'"),
    "no header": (frame(b""), "its header is not JSON"),
    "no object": (frame([]), "its header is not a JSON object"),
    "NaN": (frame(b'{"id": NaN}'), "its header is not JSON (NaN, which JSON does not have)"),
    "nested": (frame(b"[" * 100_000), "its header is not JSON"),
    "digits": (frame(b'{"id": ' + b"1" * 5000 + b"}"), "its header is not JSON"),
    "unasked": (frame({"id": 0, **ARRAY}), "it answers '0', where "),
    "no answer": (frame({"id": None}), "it answers 'None', where "),
    "long header": (frame({}, h=1 << 40), "are more than there can be"),
    "long payload": (frame({}, p=1 << 50), "are more than there can be"),
    "4 GiB of nothing": (frame({}, p=4 << 30), "its payload has 4,294,967,296 bytes, its tensors have 0"),
    "tensors": (frame({"tensors": 3}), '"tensors" is not a list'),
    "tensor": (frame({"tensors": [3]}), "a tensor is not described by an object"),
    "dtype": (frame({"tensors": [{"dtype": "float128", "shape": []}]}), "a tensor has the dtype 'float128'"),
    "shape": (frame({"tensors": [{"dtype": "int8", "shape": [-1]}]}), "a tensor has the shape [-1]"),
    "product": (
        frame({"tensors": [{"dtype": "int8", "shape": [1 << 39] * 3}]}),
        "its payload has 0 bytes, its tensors",
    ),
    "strides": (
        frame({"tensors": [{"dtype": "int8", "shape": [9], "strides": [1 << 40], "bytes": 8}]}, bytes(8)),
        "a tensor lies outside of its memory",
    ),
    "bool": (frame({"tensors": [{"dtype": "bool", "shape": [1]}]}, bytes([7] * 8)), "other bytes than 0 and 1"),
    "escapes": ("\x1b]0;owned\x07" * 9, "\\x1b]0;owne"),
}


@pytest.mark.parametrize(("line", "says"), ODD.values(), ids=list(ODD))
def test_an_odd_message_where_results_are_sent(line, says, monkeypatch):
    monkeypatch.setenv("HOSTILE_LINE", line.replace("\0", "\\0"))
    relu, tanh = tried("Writes")
    assert relu.outcome == "failed"
    assert relu.message.startswith("the backend wrote where its results are sent: ")
    assert says in relu.message
    assert len(relu.message) < 400
    assert tanh.outcome == "passed"


def test_a_message_that_stops_in_the_middle_is_told_from_waiting(monkeypatch):
    line = frame({"tensors": [{"dtype": "int8", "shape": [4 << 30]}]}, p=4 << 30)
    monkeypatch.setenv("HOSTILE_LINE", line.replace("\0", "\\0"))
    relu, tanh = tried("WritesAndSleeps", Limits(seconds=1))
    assert relu.outcome == "failed"
    assert re.search(r"stopped in the middle of a message, after [\d,]+ of 4,294,967,296 bytes", relu.message)
    assert tanh.outcome == "passed"


def test_a_supervisor_that_is_interrupted_leaves_nothing():
    def interrupt(kind, id):
        if kind == "try":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Supervisor(job("Sleeps"), Limits(seconds=3), interrupt) as supervisor:
        supervisor.judge(RELU)
    assert left() == []


def test_a_backend_that_cannot_be_made_leaves_nothing():
    with pytest.raises(BackendUnavailable, match='has no "Nothing"'), Supervisor(job("Nothing"), Limits()) as one:
        one.make()
    assert left() == []


@pytest.mark.parametrize(("number", "says"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_a_signal_in_the_middle_of_an_example_ends_the_command(number, says, tmp_path):
    """It is no exception of the backend's."""
    command = [sys.executable, "-m", "refbert", "conform", "--backend", "hostile:Sleeps", "--only", RELU]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]), "HOSTILE_SLEEP": SLEEP}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as conform:  # fmt: skip
        assert "forward" in conform.stderr.readline()
        time.sleep(2)
        conform.send_signal(number)
        out, error = conform.communicate(timeout=60)
    assert conform.returncode == 128 + number
    assert says in error
    assert "FAILED" not in out
    assert left() == []
