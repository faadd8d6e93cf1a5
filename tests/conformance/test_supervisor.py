"""What a backend may do to its process: one line, a verdict for the property, the run goes on, and nothing is left."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from refbert.errors import BackendUnavailable, RefbertWarning
from refbert_conformance.process import channel, supervisor
from refbert_conformance.process.records import Wrong
from refbert_conformance.process.supervisor import Limits, Supervisor

HERE = Path(__file__).parent
RELU, TANH = "forward/relu/accuracy", "forward/tanh/accuracy"
# A day, give or take: nobody else sleeps that long.
SLEEP = f"86401.{os.getpid()}"


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setenv("HOSTILE_SLEEP", SLEEP)
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
    "WritesWithoutEnd": "wrote where its results are sent, ",
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


def test_a_childs_memory_counts():
    relu, tanh = tried("HoardsInAChild", Limits(seconds=30, memory=700 << 20))
    assert "used more memory than the limit of 0.7 GiB" in relu.message
    assert tanh.outcome == "passed"


ODD = [
    "", "null", "3", '"x"', "[]", "{}", "{", '{"event": null}', '{"event": []}', '{"event": "dance"}',
    '{"event": "result"}', '{"event": "result", "id": 3}', '{"event": "try"}', '{"event": "try", "example": {}}',
    '{"event": "start", "id": "forward/relu/accuracy"}', '{"event": "over"}', '{"event": "over", "id": "x/y/z"}',
    '{"event": "detail", "id": "x/y/z", "message": "", "failure": {}}', '{"event": "ready"}',
    '{"event": "unavailable", "message": "no"}', '{"event": "ready", "backend": 3, "versions": [], "offers": {}}',
    '{"event": "result", "id": "forward/relu/accuracy", "outcome": "splendid"}', "[" * 100_000, "1" * 5000, "1e400",
    '{"event": NaN}', "\x1b[31m\x07", "\udcff\udcfe", '{"event": "try", "event": "try", "example": ""}',
]  # fmt: skip


@pytest.mark.parametrize("line", ODD, ids=lambda line: line[:30].encode("unicode_escape").decode() or "empty")
def test_an_odd_line_is_no_event_or_comes_out_of_turn(line):
    if '"x/y/z"' in line or '"no"' in line:
        assert channel.read(os.fsencode(line))["event"] in ("over", "detail", "unavailable")
        return
    with pytest.raises(Wrong) as error:
        channel.read(os.fsencode(line))
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 200


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


@pytest.mark.parametrize("line", [ODD[0], ODD[1], ODD[10], ODD[16], ODD[19], "\udcff\udcfe"])
def test_an_odd_line_where_results_are_sent(line, monkeypatch):
    monkeypatch.setenv("HOSTILE_LINE", line)
    relu, tanh = tried("Writes")
    assert relu.outcome == "failed"
    assert relu.message.startswith("the backend wrote where its results are sent, ")
    assert len(relu.message) < 400
    assert tanh.outcome == "passed"


@pytest.mark.parametrize("line", ['{"event": "try", "example": "x"}', '{"event": "note", "message": "x"}'])
def test_signs_of_life_without_end(line, monkeypatch):
    monkeypatch.setenv("HOSTILE_LINE", line)
    monkeypatch.setattr(supervisor, "_TELLS", 2000)
    relu, tanh = tried("TellsWithoutEnd")
    assert relu.outcome == "failed"
    assert "out of turn, as line 2,001 of one property" in relu.message
    assert tanh.outcome == "passed"


def test_text_that_steers_a_terminal_does_not_come_through(monkeypatch):
    monkeypatch.setenv("HOSTILE_LINE", '{"event": "try", "example": "\\u001b[31mred\\u202e"}')
    with Supervisor(job("Writes"), Limits(seconds=3)) as supervisor:
        supervisor.judge(RELU)
    monkeypatch.setenv("HOSTILE_LINE", "\x1b]0;owned\x07")
    relu, _ = tried("Writes")
    assert "\\x1b]0;owned\\x07" in relu.message


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
