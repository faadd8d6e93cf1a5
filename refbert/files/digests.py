"""Digests by which a later process knows that something is the same: BLAKE2b of 16 bytes, in hexadecimal."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def hasher() -> hashlib.blake2b:
    """Make what bytes are added to."""
    return hashlib.blake2b(digest_size=16)


def digest(texts: Iterable[str]) -> str:
    """Return the digest of texts, one after the other."""
    out = hasher()
    for text in texts:
        out.update(text.encode(errors="surrogatepass"))
    return out.hexdigest()


def digest_of_file(path: Path) -> str:
    """Return the digest of a file's bytes; raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, hasher).hexdigest()
