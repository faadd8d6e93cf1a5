"""Collected by pytest through ``--pyargs refbert_conformance``; see `refbert_conformance.plugin`."""

from __future__ import annotations

import pytest

from refbert_conformance.properties import Property
from refbert_conformance.subject import Subject


def test_conforms(conformance_property: Property, conformance_subject: Subject, request: pytest.FixtureRequest) -> None:
    """The property holds."""
    from refbert_conformance.plugin import judge

    judge(conformance_property, conformance_subject, request.config)
