"""CRC-32C against published values and against the bit-by-bit definition."""

from __future__ import annotations

import numpy as np
import pytest

from refbert.checkpoint.crc32c import crc32c, masked


def by_definition(data: bytes) -> int:
    """Polynomial division, one bit at a time: no tables, no lanes."""
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        # RFC 3720 appendix B.4, as numbers (the text lists the bytes as sent)
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
        (bytes.fromhex("01c00000000000000000000000000000140000000000040000000014000000182800000000000000"
                       "0200000000000000"), 0xD9963A56),
    ],
)  # fmt: skip
def test_published_values(data, expected):
    assert crc32c(data) == expected


# Around every place where the lengths are treated differently: the short path, lanes doubling, whole and partial rows.
LENGTHS = [*range(300), *(n + d for n in (1 << 12, 1 << 16, 1 << 17, 3 << 16) for d in range(-5, 6))]


def test_every_length_agrees_with_the_definition():
    data = np.random.default_rng(0).integers(0, 256, max(LENGTHS), dtype=np.uint8)
    for n in LENGTHS:
        assert crc32c(data[:n]) == by_definition(data[:n].tobytes()), n


def test_an_unaligned_view_is_the_same_bytes():
    data = np.random.default_rng(1).integers(0, 256, 70_001, dtype=np.uint8)
    assert crc32c(data[1:]) == crc32c(data[1:].tobytes()) == by_definition(data[1:].tobytes())


def test_mask():
    # LevelDB, util/crc32c_test.cc: masking changes the value, and twice is not the identity. The value is by hand:
    # rotate right by 15, add 0xa282ead8.
    assert masked(0) == 0xA282EAD8
    assert masked(0xE3069283) == (0x2507C60D + 0xA282EAD8) % 2**32
