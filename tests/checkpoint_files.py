"""Small checkpoints for the tests, and a writer of TensorFlow's tensor bundle that shares no code with the reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from refbert.config import BertConfig
from refbert.config.parameters import initialize, shapes

GOLDEN = Path(__file__).parent / "data" / "google-golden"

TINY = BertConfig(
    vocab_size=23,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=12,
    max_position_embeddings=16,
    num_labels=3,
)


def weights(config=TINY, heads=("masked_lm", "next_sentence"), *, pooler=True, dtype=np.float32):
    """Random everywhere, biases and LayerNorm too, so that a tensor in the wrong place is noticed."""
    drawn = initialize(shapes(config, heads, pooler=pooler), config, seed=7)
    rng = np.random.default_rng(7)
    return {name: (x + 0.1 * rng.standard_normal(x.shape)).astype(dtype) for name, x in drawn.items()}


def assert_bitwise(found, expected):
    assert set(found) == set(expected)
    for name, x in expected.items():
        y = found[name]
        assert y.shape == x.shape, name
        assert y.dtype == x.dtype, name
        assert np.ascontiguousarray(y).tobytes() == np.ascontiguousarray(x).tobytes(), name


# TensorFlow's tensor bundle

_DTYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "bfloat16": 14, "float16": 19}


def _crc_table():
    out = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        out.append(byte)
    return out


_CRC = _crc_table()


def masked_crc(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def varint(n: int) -> bytes:
    out = b""
    while n >= 0x80:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def number(field: int, n: int) -> bytes:
    return varint(field << 3) + varint(n) if n else b""


def message(field: int, data: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(data)) + data


def fixed32(field: int, n: int) -> bytes:
    return varint(field << 3 | 5) + n.to_bytes(4, "little")


def entry(dtype: int, shape, shard: int, offset: int, data: bytes) -> bytes:
    dims = b"".join(message(2, number(1, n)) for n in shape)
    return (
        number(1, dtype)
        + message(2, dims)
        + number(3, shard)
        + number(4, offset)
        + number(5, len(data))
        + fixed32(6, masked_crc(data))
    )


def block(items, *, restart_every: int = 16, kind: int = 0) -> bytes:
    """A block with its trailer; keys share prefixes except at the restart points."""
    out, restarts, last = b"", [], b""
    for i, (key, value) in enumerate(items):
        shared = 0
        if i % restart_every == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(last), len(key)) and last[shared] == key[shared]:
                shared += 1
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    for n in [*(restarts or [0]), len(restarts or [0])]:
        out += n.to_bytes(4, "little")
    out += bytes([kind])
    return out + masked_crc(out).to_bytes(4, "little")


def table(items, *, per_block: int = 1000, restart_every: int = 16, kind: int = 0) -> bytes:
    items = sorted(items.items())
    out, handles = b"", []

    def put(data: bytes) -> bytes:
        nonlocal out
        handle = varint(len(out)) + varint(len(data) - 5)
        out += data
        return handle

    for start in range(0, len(items), per_block):
        part = items[start : start + per_block]
        handles.append((part[-1][0], put(block(part, restart_every=restart_every, kind=kind))))
    metaindex = put(block([]))
    index = put(block(handles, restart_every=1))
    return out + (metaindex + index).ljust(40, b"\0") + 0xDB4775248B80FB57.to_bytes(8, "little")


def write_bundle(prefix: Path, tensors, *, shards: int = 1, header: bytes | None = None, **layout) -> Path:
    """``tensors``: Google's name -> array, dealt out to the data files in turn. Returns the index."""
    data = [b""] * shards
    items = {b"": number(1, shards) + message(3, number(1, 1)) if header is None else header}
    for i, (name, array) in enumerate(sorted(tensors.items())):
        raw = np.ascontiguousarray(array).tobytes()
        shard = i % shards
        items[name.encode()] = entry(_DTYPES[str(array.dtype)], array.shape, shard, len(data[shard]), raw)
        data[shard] += raw
    for i, raw in enumerate(data):
        prefix.with_name(f"{prefix.name}.data-{i:05d}-of-{shards:05d}").write_bytes(raw)
    index = prefix.with_name(f"{prefix.name}.index")
    index.write_bytes(table(items, **layout))
    return index
