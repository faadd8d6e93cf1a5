"""Mutants: correct backends with exactly one thing wrong each, for `refbert conform --self-test`.

operations   one substitution in the source of refbert.ops: formulas, gradients, masks, losses, update rules
updates      what `update` does around a rule: scale, memory, state, errors
wiring       one substitution in the source of refbert.spec, behind `objective` and `encoder_layer`
packed       `packed_encoder_layer`: sequences end to end that are taken apart wrongly
sizes        what is right on small arrays only
narrow       sums of float16 in float16
conduct      what a backend does besides computing: buffers, state, dtypes, layouts, errors
masks        masks of other types and numbers than 0 and 1, misread
threads      what goes wrong in another thread, in two at once, or beside another instance
museum       published bugs of other libraries, with the threads that describe them

To add one, add a line to the table it belongs to; the old text must occur exactly once, and the self-test must kill it.
"""

from __future__ import annotations

from refbert_conformance.mutants.conduct import CONDUCT
from refbert_conformance.mutants.masks import MASKS
from refbert_conformance.mutants.museum import MUSEUM
from refbert_conformance.mutants.mutant import Correct, Mutant
from refbert_conformance.mutants.narrow import NARROW, CorrectHalf
from refbert_conformance.mutants.operations import OPERATIONS
from refbert_conformance.mutants.packed import PACKED
from refbert_conformance.mutants.sizes import SIZES
from refbert_conformance.mutants.threads import THREADS
from refbert_conformance.mutants.updates import UPDATING
from refbert_conformance.mutants.wiring import WIRING

MUTANTS: tuple[Mutant, ...] = (
    *OPERATIONS, *UPDATING, *WIRING, *CONDUCT, *PACKED, *SIZES, *MASKS, *THREADS, *NARROW,
    *(exhibit.mutant for exhibit in MUSEUM),
)  # fmt: skip

__all__ = ["MUSEUM", "MUTANTS", "Correct", "CorrectHalf", "Mutant"]
