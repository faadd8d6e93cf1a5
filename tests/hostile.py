"""Limits around code that reads hostile files: memory, time, one printable line, nothing written elsewhere."""

from __future__ import annotations

import contextlib
import resource
import signal
from pathlib import Path

import pytest

from refbert.errors import RefbertError


@contextlib.contextmanager
def bounded(*, megabytes=512, seconds=20):
    """No more memory than that beyond what the process has, and no more of the processor's time; both show as errors in
    the block."""

    def ring(*_):
        raise TimeoutError(f"more than {seconds} s")

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    previous = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (megabytes << 20), limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)


def assert_one_line(error):
    said = str(error)
    assert said.isprintable(), said
    assert 0 < len(said) < 500, said
    # Memory that ran out, or time, is no refusal.
    cause = error
    while cause is not None:
        assert not isinstance(cause, MemoryError | TimeoutError), repr(cause)
        cause = cause.__cause__ or cause.__context__


def refused(kind: type[RefbertError], match: str, call, *arguments, **limits):
    """Assert that the call is refused within the limits, by one line of that kind that matches."""
    with bounded(**limits), pytest.raises(kind, match=match) as caught:
        call(*arguments)
    assert_one_line(caught.value)
