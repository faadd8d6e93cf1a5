"""Proving or disproving a backend against refbert.ops: ``refbert conform``, docs/conformance.md.

Where tolerances come from: arithmetic, running_error, bounds, noise. What is tried: inputs, cases, corpus, updates,
models. The properties: contract, numerics, symmetries, blocks, packed, objective, training_steps, pretrained. The suite
on trial: mutants, selftest.
"""
