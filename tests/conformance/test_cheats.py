"""Who cheats gains nothing: expected values, seeds and comparisons are in another process."""

from __future__ import annotations

from pathlib import Path

import pytest

from refbert_conformance.process.supervisor import Limits, Supervisor

HERE = Path(__file__).parent
ACCURACY, UNCHANGED = "forward/relu/accuracy", "contract/relu/inputs unchanged"
BY_ADDRESS = (
    "contract/relu/repeatable", "contract/relu/calls independent", "contract/relu/calls forget",
    "contract/relu/any layout", "contract/relu/shapes and dtypes", ACCURACY, "backward/relu/accuracy",
)  # fmt: skip


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


def test_who_remembers_addresses_is_found_by_one_property_or_another(monkeypatch):
    """Which addresses come again is the allocator's choice."""
    monkeypatch.syspath_prepend(str(HERE))
    job = {
        "given": "cheats:ByAddress", "dtype": None, "device": None, "effort": "quick", "seed": 0, "model": None,
        "scripts": "x", "explain": False,
    }  # fmt: skip
    with Supervisor(job, Limits()) as supervisor:
        outcomes = {id: supervisor.judge(id).outcome for id in BY_ADDRESS}
    assert "failed" in outcomes.values(), outcomes
