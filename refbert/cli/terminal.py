"""Write to the terminal: in UTF-8, no control characters, and an error of its own where it takes no more.

While `terminal` is entered, everything that is printed goes through here. What is shown was written by others
(vocabularies, labels, texts, plugins), and a terminal obeys what is written to it; so control characters and those
that turn the direction of text appear as ``\\u001b``. In JSON that is the same character: it stays exact. Colours and
bars are `console`'s, which cleans what they show in the same way.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from refbert.errors import RefbertError

if TYPE_CHECKING:
    from rich.console import Console

# C0 but for tab and line feed, DEL and C1; marks, embeddings, overrides and isolates of direction; two line ends that
# some programs know.
_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class OutputError(RefbertError):
    """Standard output that takes nothing more: closed, or on a full disk."""


class ReaderGone(Exception):
    """Whoever read the output wants no more, as with ``| head``."""


def visible(text: str) -> str:
    """Escape everything that steers a terminal as ``\\uXXXX``."""
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


@contextlib.contextmanager
def terminal() -> Iterator[None]:
    """Standard output and error as they should be; raises `OutputError` where there is no standard output."""
    _occupy_descriptors()
    before = sys.stdout, sys.stderr
    if before[1] is None:  # print would take standard output instead
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (for as long as the process lives)
    sys.stderr = _Stream(sys.stderr, "standard error")
    sys.stdout = _Stream(before[0], "standard output")
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def drop(*streams: Any) -> None:
    """Discard what is still to be written there, so that the interpreter does not try again when it ends."""
    for stream in streams:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def console(*, stderr: bool = False, **options: Any) -> Console:
    """Return a console of rich's on standard output or error; control characters in what it shows are escaped."""
    from rich.console import Console
    from rich.segment import Segment

    class Clean(Console):
        def render(self, *arguments: Any, **options: Any) -> Iterable[Segment]:
            for segment in super().render(*arguments, **options):
                yield segment if segment.control else Segment(visible(segment.text), segment.style)

    stream: Any = sys.stderr if stderr else sys.stdout
    options["file"] = stream.styled() if isinstance(stream, _Stream) else stream
    return Clean(**options)


class _Stream:
    """A text stream of which only `write` and `flush` differ."""

    def __init__(self, inner: Any, name: str, *, clean: bool = True) -> None:
        self._inner = inner
        self._name = name
        self._clean = clean
        if hasattr(inner, "reconfigure"):
            # A surrogate can only be half of a pair: \udc80 in JSON as well.
            inner.reconfigure(encoding="utf-8", errors="backslashreplace")

    def write(self, text: str) -> int:
        with self._failing():
            self._inner.write(visible(text) if self._clean else text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with self._failing():
            self._inner.flush()

    def styled(self) -> _Stream:
        """The same for text that has been cleaned and coloured."""
        return _Stream(self._inner, self._name, clean=False)

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        if self._inner is None:
            raise OutputError(f"{self._name} is closed; send it somewhere (> FILE, > /dev/null)")
        try:
            yield
        except BrokenPipeError:
            raise ReaderGone from None
        except OSError as error:
            if self._name == "standard output":  # what goes to the other is not what was asked for
                raise OutputError(f"{self._name} cannot be written ({error.strerror})") from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _occupy_descriptors() -> None:
    """A file that is opened must not become the standard stream that is closed."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
