"""Settings for every test."""

from __future__ import annotations

import os
import signal

# The matrices here are small: waiting for a second thread costs more than it does, many times over on a busy machine.
# Read when NumPy's and PyTorch's libraries are loaded, so it comes before every other import.
for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

# For pytest-timeout, where it is installed. Not in pyproject.toml: pytest refuses a setting that no plugin there knows,
# and refbert_conformance runs under pytest, from here too, with the extra [conformance] alone.
os.environ.setdefault("PYTEST_TIMEOUT", "300")

# readline, which pytest loads, exports the terminal's width to the workers of pytest-xdist; the tests write to pipes,
# which have none.
os.environ.pop("COLUMNS", None)

# What a shell starts in the background ignores Ctrl-C, and so would all that the tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from hypothesis import settings  # noqa: E402

# The same examples on every run: a change that breaks a test is the change under review, not yesterday's luck.
settings.register_profile("refbert", derandomize=True, deadline=None, database=None)
settings.load_profile("refbert")
