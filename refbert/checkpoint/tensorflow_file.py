"""TensorFlow 1 checkpoints, as Google published BERT: bert_model.ckpt.index and bert_model.ckpt.data-00000-of-00001.

A "tensor bundle" (tensorflow/core/util/tensor_bundle). The index is a LevelDB table (github.com/google/leveldb,
doc/table_format.md): blocks of sorted keys that share prefixes, each block followed by its compression type and its
masked CRC-32C, and a footer that points to the block that lists the blocks. The key "" holds a BundleHeaderProto, any
other key is a variable's name and holds a BundleEntryProto: dtype, shape, shard, offset, size, CRC-32C. The data files
are the tensors' bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from refbert.backend import Host
from refbert.checkpoint.budget import NAMES, PARTS, Budget, OverBudget, check_shape
from refbert.checkpoint.crc32c import crc32c, masked
from refbert.checkpoint.mapped import map_file
from refbert.checkpoint.names import is_weight
from refbert.checkpoint.safetensors_file import widen_bfloat16
from refbert.errors import CheckpointError
from refbert.files.reading import SETTINGS, is_file, read_bytes, read_text

_FOOTER = 48  # two block handles padded to 40 bytes, and the magic number
_MAGIC = 0xDB4775248B80FB57
_TRAILER = 5  # after every block: one byte of compression type, four of checksum

# tensorflow/core/framework/types.proto. A string tensor (TF 2's object graph) has no fixed size and is never a weight.
_STRING = 7
_BFLOAT16 = 14
_DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 4: "<u1", 5: "<i2", 6: "<i1", 9: "<i8", 10: "?", _BFLOAT16: "<u2", 19: "<f2"}

# The wire types of protocol buffers.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

Message = dict[int, list[int | bytes]]


class _Damaged(Exception):
    """Bytes that do not decode; becomes a `CheckpointError` with the file's name."""


def data_files(index: Path) -> tuple[Path, ...]:
    """The data files that belong to an index, whether or not they exist; raises `CheckpointError` if it is damaged."""
    return _data_files(index, _entries(index)[0])


def read_tensorflow(index: Path) -> dict[str, Host]:
    """Every tensor of the checkpoint under Google's names and in Google's layout, as views of the mapped data files.

    All checksums are verified, the index's and the tensors'. Entries that are not weights and cannot be read (strings)
    come back as empty arrays. Raises `CheckpointError` for damage, and for what BERT checkpoints do not have:
    compressed blocks, big-endian data, partitioned variables, other dtypes.
    """
    shards, entries = _entries(index)
    files = _data_files(index, shards)
    for file in files:
        if not is_file(file, CheckpointError):
            raise CheckpointError(f"{file}: missing; the index names it, so it belongs next to it")
    mapped = [map_file(file) for file in files]
    budget = Budget(sum(data.size for data in mapped), times=PARTS)
    try:
        return {name: _tensor(name, entry, index, files, mapped, budget) for name, entry in entries.items()}
    except OverBudget as error:
        raise CheckpointError(f"{index}: {error}") from None


def _data_files(index: Path, shards: int) -> tuple[Path, ...]:
    return tuple(index.with_suffix(f".data-{i:05d}-of-{shards:05d}") for i in range(shards))


def _entries(index: Path) -> tuple[int, dict[str, Message]]:
    """The number of data files, and name -> decoded BundleEntryProto."""
    table = read_bytes(index, CheckpointError, most=SETTINGS)
    try:
        items: dict[str, Message] = {}
        for key, value in _table(table):
            if items.setdefault(key.decode(), message := _message(value)) is not message:
                raise _Damaged("two entries have one name")
        if "" not in items:
            raise _Damaged("it has no header")
        header = items.pop("")
        shards = _int(header, 1, default=1)
        if not 0 < shards < 100000:
            raise _Damaged(f"{shards} data files are impossible")
        if _int(header, 2):
            raise CheckpointError(f"{index}: written on a big-endian machine, which refbert does not read")
        return shards, items
    except (_Damaged, OverBudget, UnicodeDecodeError) as error:
        raise CheckpointError(f"{index}: damaged, or not a TensorFlow checkpoint index ({error})") from None
    except _Compressed:
        raise CheckpointError(f"{index}: has compressed blocks, which TensorFlow's saver does not write") from None


def _tensor(
    name: str, entry: Message, index: Path, files: tuple[Path, ...], mapped: list[Host], budget: Budget
) -> Host:
    try:
        dtype, shard = _int(entry, 1), _int(entry, 3)
        offset, size, checksum = _int(entry, 4), _int(entry, 5), _int(entry, 6)
        shape = _shape(entry)
    except _Damaged as error:
        raise CheckpointError(f"{index}: damaged at {name} ({error})") from None
    if 7 in entry:
        raise CheckpointError(f"{index}: {name} is a partitioned variable; save the checkpoint without partitioner")
    if dtype == _STRING and not is_weight(name):
        return np.empty(0, np.uint8)
    if dtype not in _DTYPES:
        raise CheckpointError(f"{index}: {name} has TensorFlow's dtype number {dtype}, which refbert does not read")
    check_shape(name, shape)
    if shard >= len(files) or size != math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize:
        raise CheckpointError(f"{index}: damaged at {name} (shape {list(shape)}, {size} bytes, data file {shard})")
    if offset + size > mapped[shard].size:
        raise CheckpointError(
            f"{files[shard]}: cut short: {mapped[shard].size} bytes, and {name} ends at {offset + size}"
        )
    budget.spend(size, name)
    data = mapped[shard][offset : offset + size]
    if masked(crc32c(data)) != checksum:
        raise CheckpointError(f"{files[shard]}: damaged: the checksum of {name} is wrong, download it again")
    array = data.view(_DTYPES[dtype]).reshape(shape)
    if dtype == _BFLOAT16:
        return widen_bfloat16(array)
    # Tensors lie back to back, so one behind an odd-sized neighbour is misaligned.
    return array if array.flags.aligned else array.copy()


def _shape(entry: Message) -> tuple[int, ...]:
    """TensorShapeProto: field 2 is a list of dimensions, whose field 1 is the size (absent for 0)."""
    shape = _message(_bytes(entry.get(2, [b""])[-1]))
    # -1, an unknown size, is a huge number here, and no tensor's.
    return tuple(_int(_message(_bytes(dim)), 1) for dim in shape.get(2, []))


# The table


class _Compressed(Exception):
    pass


def _table(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Every key and value. Checks that the blocks cover the file, so that no byte of it goes unverified."""
    if len(table) < _FOOTER:
        raise _Damaged("too short")
    footer = table[-_FOOTER:]
    if int.from_bytes(footer[40:], "little") != _MAGIC:
        raise _Damaged("no table at its end; is it cut short?")
    metaindex, at = _handle(footer, 0)
    index, at = _handle(footer, at)
    if any(footer[at:40]):
        raise _Damaged("footer")
    names = Budget(len(table), times=NAMES)
    list(_block(table, metaindex, names))  # TensorFlow writes no filters; only the checksum matters
    handles = [_handle(value, 0)[0] for _, value in _block(table, index, names)]
    end = 0
    for offset, size in (*handles, metaindex, index):
        if offset != end:
            raise _Damaged(f"a block starts at byte {offset}, not {end}")
        end = offset + size + _TRAILER
    if end != len(table) - _FOOTER:
        raise _Damaged("bytes that belong to no block")
    for handle in handles:
        yield from _block(table, handle, names)


def _block(table: bytes, handle: tuple[int, int], names: Budget) -> Iterator[tuple[bytes, bytes]]:
    offset, size = handle
    end = offset + size
    if size < 4 or end + _TRAILER > len(table) - _FOOTER:
        raise _Damaged(f"a block at bytes {offset} to {end} is impossible")
    stored = int.from_bytes(table[end + 1 : end + _TRAILER], "little")
    if masked(crc32c(table[offset : end + 1])) != stored:
        raise _Damaged(f"the checksum of the block at byte {offset} is wrong")
    if table[end] != 0:
        raise _Compressed
    block = table[offset:end]
    # The restart points, an array at the block's end, only serve to search; a reader of everything skips them.
    limit = size - 4 - 4 * int.from_bytes(block[-4:], "little")
    if limit < 0:
        raise _Damaged(f"the restart points of the block at byte {offset}")
    at, key = 0, b""
    while at < limit:
        shared, at = _varint(block, at)
        unshared, at = _varint(block, at)
        length, at = _varint(block, at)
        if shared > len(key) or at + unshared + length > limit:
            raise _Damaged(f"an entry of the block at byte {offset}")
        names.spend(shared + unshared, "the length of its names")
        key = key[:shared] + block[at : at + unshared]
        at += unshared
        yield key, block[at : at + length]
        at += length


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return (offset, size), at


# Protocol buffers, as much of them as the three messages need


def _message(data: bytes) -> Message:
    """Field number -> its values in order: an int for a number, bytes for a string or a message."""
    out: Message = {}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        value: int | bytes
        if tag & 7 == _VARINT:
            value, at = _varint(data, at)
        else:
            if tag & 7 == _BYTES:
                length, at = _varint(data, at)
            elif tag & 7 in (_FIXED32, _FIXED64):
                length = 4 if tag & 7 == _FIXED32 else 8
            else:
                raise _Damaged(f"wire type {tag & 7}")
            if at + length > len(data):
                raise _Damaged("a message is cut short")
            value = data[at : at + length]
            if tag & 7 != _BYTES:
                value = int.from_bytes(value, "little")
            at += length
        out.setdefault(tag >> 3, []).append(value)
    return out


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number in 7-bit groups, lowest first, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            # Written as short as possible; otherwise one flipped bit in the unchecked footer could go unseen.
            if shift and data[at - 1] == 0:
                break
            return value, at
    raise _Damaged("a number does not end")


def _int(message: Message, field: int, *, default: int = 0) -> int:
    value = message.get(field, [default])[-1]
    if not isinstance(value, int):
        raise _Damaged(f"field {field} is not a number")
    return value


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise _Damaged("a number where a message is expected")
    return value


def state_file_choice(directory: Path) -> str | None:
    """The prefix that TensorFlow's ``checkpoint`` file names as the latest, or None."""
    try:
        text = read_text(directory / "checkpoint", CheckpointError, most=SETTINGS)
    except CheckpointError:
        return None
    found = re.search(r'^model_checkpoint_path: "([^"]+)"', text, re.MULTILINE)
    return None if found is None else Path(found[1]).name
