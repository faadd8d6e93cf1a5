"""Level "contract": what refbert.backend promises beyond numbers.

Arrays go in and come out unharmed, whatever their layout; calls know nothing of each other; the same call gives the
same bits, in any thread; what makes no sense is refused by the error that refbert.ops raises.
"""

from refbert_conformance.engine.property import Property
from refbert_conformance.properties.contract import arrays, backend, calls, errors, layouts, threads
from refbert_conformance.tolerances.bounds import ARRAYS


def properties() -> list[Property]:
    """The whole backend first, then every op."""
    ops = [p for op in ARRAYS for module in (calls, layouts) for p in module.properties(op)]
    return [*backend.properties(), *arrays.properties(), *ops, *errors.properties(), *threads.properties()]


__all__ = ["properties"]
