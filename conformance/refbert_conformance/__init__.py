"""Proving or disproving a backend against refbert.ops: ``refbert conform``, docs/conformance.md.

docs/architecture.md lists what stands where; `refbert_conformance.properties.table` all that must hold.
"""
