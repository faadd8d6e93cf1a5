"""Proving or disproving a backend against refbert.ops. The derived error bounds are in `refbert_conformance.bounds`."""
