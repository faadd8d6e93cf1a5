"""What refbert warns of, and where it does not: a thread's silence is its own."""

from __future__ import annotations

import threading
import warnings

import pytest

from refbert.errors import RefbertWarning, quiet, warn


def test_a_thread_that_is_quiet_silences_no_other_and_leaves_no_filter():
    before, inside, done = list(warnings.filters), threading.Event(), threading.Event()

    def still():
        with quiet():
            inside.set()
            done.wait(30)
            warn("nobody hears this")

    other = threading.Thread(target=still)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        other.start()
        inside.wait(30)
        with quiet():
            done.set()
            other.join(30)  # it leaves first: filters, put back in this order, would stay as they were inside
            warn("nor this")
        warn("this is heard")
    assert [str(one.message) for one in heard] == ["this is heard"]
    assert list(warnings.filters) == before


def test_a_warning_is_the_callers():
    with pytest.warns(RefbertWarning, match="here") as heard:
        warn("here")
    assert heard[0].filename == __file__


def test_several_heads_begun_at_once_leave_the_filters_alone():
    from refbert.training.finetuning_settings import Settings
    from refbert.training.task_model import begin

    settings = Settings(task="classify", model="small-english", train="unread.jsonl")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        before = list(warnings.filters)
        everyone = [threading.Thread(target=begin, args=(settings, ["a", "b"]), kwargs={"seed": 0}) for _ in range(4)]
        for one in everyone:
            one.start()
        for one in everyone:
            one.join(60)
        assert list(warnings.filters) == before
