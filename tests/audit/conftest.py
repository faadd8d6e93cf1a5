"""One run of the whole audit for all tests that only look at it."""

from __future__ import annotations

import time

import pytest

from refbert_audit import all_claims, run


@pytest.fixture(scope="session")
def whole():
    """(outcomes of every claim, processor seconds that they took)."""
    started = time.process_time()
    outcomes = run(all_claims())
    return outcomes, time.process_time() - started
