"""CRC-32C (Castagnoli), the checksum of TensorFlow's checkpoint files, in NumPy.

RFC 3720 appendix B.4 has the polynomial and test vectors. The register of a CRC is linear over GF(2) in the state and
in the message: taking in a little-endian 32-bit word w turns the state s into Z(s ^ w), where Z shifts 32 zero bits
in. A message of n words w_0 … w_{n-1} therefore leaves

    Z^n(s ^ w_0) ^ Z^{n-1}(w_1) ^ … ^ Z(w_{n-1})

which is a polynomial in Z, and Horner's rule may take K words at a time: with the words as rows of K,
``state = Z^K(state) ^ row`` for each row, K independent lanes in one NumPy expression; at the end lane k still has
Z^{K-k} to go. A linear map of 32 bits is two look-ups, in tables indexed by the state's lower and upper 16 bits.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

_POLYNOMIAL = 0x82F63B78  # 0x1EDC6F41 with its bits reversed: the CRC works on the lowest bit first
_MOST_LANES = 1 << 14  # 64 KiB of state, which stays in the cache

Words = npt.NDArray[np.uint32]


def crc32c(data: bytes | npt.NDArray[np.uint8]) -> int:
    """The CRC-32C of the bytes: 0xE3069283 for b"123456789"."""
    message = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data
    if message.size < 64:
        return _bytewise(message)
    lanes = min(_MOST_LANES, 1 << (message.size // 4).bit_length() - 1)  # a power of two, at most one row of words
    # Zeros in front of the message change nothing as long as the state is zero, so the first, partial row is padded
    # there; the initial state of all ones is the same as inverting the message's first four bytes.
    row_bytes = 4 * lanes
    partial = message.size % row_bytes or row_bytes
    if partial < 4:
        partial += row_bytes
    padded = np.zeros(-(-partial // row_bytes) * row_bytes, np.uint8)
    padded[-partial:] = message[:partial]
    padded[padded.size - partial :][:4] ^= 0xFF
    state = np.zeros(lanes, np.uint32)
    low, high = _tables(lanes)
    for rows in (padded, message[partial:]):
        for row in rows.view("<u4").reshape(-1, lanes):
            state = low[state & 0xFFFF] ^ high[state >> 16] ^ row
    while lanes > 1:
        lanes //= 2
        low, high = _tables(lanes)
        left, right = state[:lanes], state[lanes:]
        state = low[left & 0xFFFF] ^ high[left >> 16] ^ right
    low, high = _tables(1)
    return int(low[state[0] & 0xFFFF] ^ high[state[0] >> 16]) ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    """The form in which TensorFlow and LevelDB store a CRC, so that a CRC of data that holds CRCs stays sound."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _bytewise(message: npt.NDArray[Any]) -> int:
    state = 0xFFFFFFFF
    for byte in message.tolist():
        state = _shift(state ^ byte, 8)
    return state ^ 0xFFFFFFFF


def _shift(state: int, bits: int) -> int:
    """The register after ``bits`` zero bits."""
    for _ in range(bits):
        state = state >> 1 ^ (_POLYNOMIAL if state & 1 else 0)
    return state


@functools.cache
def _matrix(words: int) -> Words:
    """Z^words for a power of two, as the images of the 32 unit vectors."""
    if words == 1:
        return np.array([_shift(1 << bit, 32) for bit in range(32)], np.uint32)
    half = _matrix(words // 2)
    return _apply(half, half)


@functools.cache
def _tables(words: int) -> tuple[Words, Words]:
    """Z^words as two tables: of the state's lower 16 bits, and of its upper 16."""
    every = np.arange(1 << 16, dtype=np.uint32)
    matrix = _matrix(words)
    return _apply(matrix, every), _apply(matrix, every << np.uint32(16))


def _apply(matrix: Words, states: Words) -> Words:
    out = np.zeros_like(states)
    for bit in range(32):
        out ^= (states >> np.uint32(bit) & np.uint32(1)) * matrix[bit]
    return out
