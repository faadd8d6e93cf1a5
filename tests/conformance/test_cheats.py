"""Who cheats gains nothing: expected values, seeds and comparisons are in another process."""

from __future__ import annotations

from pathlib import Path

import pytest

from refbert_conformance.process.supervisor import Limits, Supervisor

HERE = Path(__file__).parent
ACCURACY, UNCHANGED, FORGETS = "forward/relu/accuracy", "contract/relu/inputs unchanged", "contract/relu/calls forget"


@pytest.mark.parametrize(
    ("name", "id", "says"),
    [
        ("SearchesTheHeap", ACCURACY, "must be exact"),
        ("WalksFrames", ACCURACY, "must be exact"),
        ("PatchesAll", ACCURACY, "must be exact"),
        ("Zeros", ACCURACY, "must be exact"),
        ("NotANumber", ACCURACY, "must be exact"),
        ("ItsInput", ACCURACY, "must be exact"),
        ("IntoItsInput", UNCHANGED, "relu wrote into "),
        ("ByAddress", FORGETS, "after calls whose arguments are gone"),
        ("FromATable", ACCURACY, "must be exact"),
    ],
)
def test_it_fails(name, id, says, monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    job = {
        "given": f"cheats:{name}", "dtype": None, "device": None, "effort": "quick", "seed": 0, "model": None,
        "scripts": "x", "explain": False,
    }  # fmt: skip
    with Supervisor(job, Limits()) as supervisor:
        row = supervisor.judge(id)
        other = supervisor.judge("forward/tanh/accuracy")
    assert row.outcome == "failed"
    assert says in row.message, row.message
    assert other.outcome == "passed" or name == "PatchesAll"
