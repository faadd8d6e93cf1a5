"""Collected by pytest through ``--pyargs refbert_conformance``; see `refbert_conformance.plugin`."""

from __future__ import annotations

from refbert_conformance.engine.property import Property
from refbert_conformance.process.supervisor import Supervisor


def test_conforms(conformance_property: Property, conformance_supervisor: Supervisor) -> None:
    """The property holds."""
    from refbert_conformance.plugin import judge

    judge(conformance_property, conformance_supervisor)
