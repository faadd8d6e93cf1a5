"""Looking inside a pass: every tensor under its name, a page to look at it, and two passes side by side.

>>> found = trace(refbert.load("small-english"), "The cat sat on the [MASK].")  # doctest: +SKIP
>>> found.run.tensors()["bert.encoder.layer.0.attention.self.query"].shape  # doctest: +SKIP
"""

from __future__ import annotations

from refbert_inspection.tracing.passes import Pass, run_pass
from refbert_inspection.tracing.recording import Call, Recording, Tensor
from refbert_inspection.tracing.trace import Trace, trace

__all__ = ["Call", "Pass", "Recording", "Tensor", "Trace", "run_pass", "trace"]
