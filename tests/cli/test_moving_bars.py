"""Bars on a terminal: what moves there keeps its figures, however narrow it is."""

from __future__ import annotations

import re
import sys

import pytest
from terminals import STYLES, of_a_process

TRAINING = """
from refbert.cli.progress import TrainingProgress
from refbert.training.metrics import Update
shown = TrainingProgress(12000, 0)
for step in range(10000, 10003):
    shown.add(Update(**{**dict.fromkeys(Update.__dataclass_fields__, 0.0), "step": step, "loss": 2.3456,
                        "learning_rate": 1e-4, "tokens": 4096, "seconds": 0.123}))
shown.close()
"""
COUNTING = """
from refbert.cli.output import progress
with progress("fill-mask", 12345) as advance:
    for _ in range(3):
        advance(4000)
"""


def drawn(width, script):
    """Every state that the bar was drawn in, each with one space between its words."""
    out = of_a_process(width, [sys.executable, "-c", script])
    return [" ".join(state.split()) for state in re.split(r"\r|\x1b\[1A", STYLES.sub("", out))]


@pytest.mark.parametrize("width", [130, 80, 60, 40])
def test_training(width):
    last = "".join(drawn(width, TRAINING)[-3:]) if width < 80 else drawn(width, TRAINING)[-1]
    for part in ("step 10,003/12,000", "loss 2.3456", "1.00e-04", "33,301", "4:06"):
        assert part.replace(" ", "") in last.replace(" ", ""), (part, last)
    assert "…" not in last
    assert ("━" in last) == (width > 120)


@pytest.mark.parametrize("width", [80, 60, 40])
def test_counting(width):
    states = drawn(width, COUNTING)
    assert any("12000/12345 fill-mask" in state for state in states), states
    assert "…" not in "".join(states)
