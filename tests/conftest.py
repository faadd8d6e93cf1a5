"""Settings for every test."""

from __future__ import annotations

from hypothesis import settings

# The same examples on every run: a change that breaks a test is the change under review, not yesterday's luck.
settings.register_profile("refbert", derandomize=True, deadline=None, database=None)
settings.load_profile("refbert")
