"""Every operation and block explained: equation, gradient, shapes, code, place in BERT, and an example in numbers.

One source: the docstrings of refbert.ops and refbert.spec, and their code. What a page says besides is computed when it
is asked for: where a block is called by running BERT, the example's numbers by running the op.

>>> from refbert_inspection import explain
>>> print(explain.terminal("tanh", width=80))  # doctest: +SKIP
>>> print(explain.markdown("tanh"))  # doctest: +SKIP
"""

from refbert_inspection.explain.catalogue import Entry, entries, find
from refbert_inspection.explain.pages import as_data, markdown
from refbert_inspection.explain.terminal import terminal

__all__ = ["Entry", "as_data", "entries", "find", "markdown", "terminal"]
