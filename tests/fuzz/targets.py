"""What is fuzzed: for each kind of file a strategy of its contents, and the call that reads them."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from checkpoint_files import TINY, entry, message, number, table, weights, write_bundle
from hypothesis import strategies as st
from mutations import INTERESTING, mutated, mutated_json, pickles
from safetensors.numpy import save_file
from small_checkpoint import VOCABULARY, write_small_checkpoint

import refbert
from refbert.checkpoint import names, read, write
from refbert.data.conll import read_conll
from refbert.data.corpus import read_sentences
from refbert.data.squad import read_squad
from refbert.data.tables import Columns, read_choices, read_labelled
from refbert.errors import RefbertError
from refbert.text.tokenization import Tokenizer
from refbert.wire import connection
from refbert.wire.connection import Connection, RemoteError
from refbert.wire.frames import MAGIC, Stream
from refbert.wire.remote import RemoteBackend

Files = Mapping[str, bytes]


class Example(dict[str, bytes]):
    """Files by name, shown by their lengths and beginnings."""

    def __repr__(self) -> str:
        return str({name: (len(data), data[:300]) for name, data in self.items()})


@dataclass(frozen=True)
class Target:
    """good: files that are read. files: name -> contents, for an empty directory. read: what is done with it."""

    good: Files
    files: st.SearchStrategy[Files]
    read: Callable[[Path], object]


def written(make: Callable[[Path], object]) -> dict[str, bytes]:
    """The files that ``make`` writes into a directory."""
    with tempfile.TemporaryDirectory() as directory:
        make(Path(directory))
        return {str(f.relative_to(directory)): f.read_bytes() for f in Path(directory).rglob("*") if f.is_file()}


@cache
def model_files() -> dict[str, bytes]:
    heads = ("masked_lm", "next_sentence")
    return written(lambda directory: write(directory, weights(), TINY, heads=heads, pooler=True))


def load_and_call(directory: Path) -> object:
    model = refbert.load(directory)
    return model(refbert.Batch(input_ids=[[1, 2, 3]])).last_hidden_state


def one_of(files: Files, change: Callable[[bytes], st.SearchStrategy[bytes]]) -> st.SearchStrategy[Files]:
    """One of the files changed, the others as they are."""
    return st.sampled_from(sorted(files)).flatmap(
        lambda name: change(files[name]).map(lambda new: {**files, name: new})
    )


# Checkpoints


def _safetensors() -> Target:
    files = model_files()
    whole = files["model.safetensors"]
    length = struct.unpack("<Q", whole[:8])[0]
    header, data = json.loads(whole[8 : 8 + length]), whole[8 + length :]
    with_header = mutated_json(header).map(lambda new: struct.pack("<Q", len(new)) + new + data)
    config = files["config.json"]
    changed = (with_header | mutated(whole)).map(lambda new: {"config.json": config, "model.safetensors": new})
    return Target(files, changed, load_and_call)


@cache
def _torch_files() -> tuple[bytes, bytes]:
    """A state dict as torch.save writes it, in both layouts."""
    import torch

    out = []
    for zipped in (True, False):
        buffer = io.BytesIO()
        torch.save({name: torch.from_numpy(x) for name, x in weights().items()}, buffer,
                   _use_new_zipfile_serialization=zipped)  # fmt: skip
        out.append(buffer.getvalue())
    return out[0], out[1]


def _pytorch() -> Target:
    zipped, legacy = _torch_files()
    with zipfile.ZipFile(io.BytesIO(zipped)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in parts if name.endswith("/data.pkl"))
    machine = pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {}}, 2)
    before = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + machine
    start = len(before) if legacy.startswith(before) else legacy.index(b"\x80\x02", 40)

    def archive_of(payload: bytes) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as new:
            for one, data in {**parts, name: payload}.items():
                new.writestr(one, data)
        return buffer.getvalue()

    small = pickles(parts[name])
    content = (
        small.map(archive_of) | small.map(lambda payload: legacy[:start] + payload + legacy[-200:])
        | mutated(zipped) | mutated(legacy) | _archives()
    )  # fmt: skip
    return Target({"pytorch_model.bin": zipped}, content.map(lambda data: {"pytorch_model.bin": data}), read)


@st.composite
def _archives(draw: st.DrawFn) -> bytes:
    """A zip with a directory whose numbers are anything."""
    payload = pickle.dumps({}, 2)
    entries, body, lines = draw(st.integers(1, 4)), b"", b""
    for i in range(entries):
        name = b"archive/data.pkl" if i == 0 else b"archive/data/%d" % (i - 1)
        size = draw(st.sampled_from([len(payload), *(n % 2**32 for n in INTERESTING)])) if i else len(payload)
        method, flags = draw(st.sampled_from([(0, 0), (0, 0), (8, 0), (0, 1), (99, 0)]))
        fields = struct.pack("<HHHHHIIIHH", 20, flags, method, 0, 0x21, zlib.crc32(payload), size, size, len(name), 0)
        at = draw(st.sampled_from([len(body), len(body), 0, 2**31])) if i else 0
        lines += b"PK\x01\x02" + struct.pack("<H", 20) + fields + struct.pack("<HHHII", 0, 0, 0, 0, at) + name
        body += b"PK\x03\x04" + fields + name + payload
    count = draw(st.sampled_from([entries, entries, 2**16 - 1]))
    return body + lines + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, count, count, len(lines), len(body), 0)


def _tensorflow() -> Target:
    def make(directory: Path) -> None:
        tensors = {}
        for name, x in weights().items():
            google, transposed = names.to_tensorflow(name)
            tensors[google] = np.ascontiguousarray(x.T) if transposed else x
        write_bundle(directory / "bert_model.ckpt", tensors)

    files = written(make)
    return Target(files, one_of(files, mutated) | _tables(), read)


@st.composite
def _tables(draw: st.DrawFn) -> Files:
    """An index whose checksums are right and whose entries are anything."""
    data = bytes(256)
    numbers = st.sampled_from([n % 2**63 for n in INTERESTING]) | st.integers(0, 64)
    items = {b"": draw(st.just(number(1, 1) + message(3, number(1, 1))) | st.binary(max_size=12))}
    for _ in range(draw(st.integers(0, 20))):
        name = draw(st.sampled_from([b"bert/pooler/dense/kernel", b"output_bias", b"x" * 500]) | st.binary(max_size=9))
        shape = draw(st.lists(numbers, max_size=5))
        value = entry(
            draw(st.integers(0, 30)), shape, draw(st.integers(0, 2)), draw(numbers), data[: draw(st.integers(0, 256))]
        )
        items[name] = draw(mutated(value, 2)) if draw(st.booleans()) else value
    index = table(items, per_block=draw(st.sampled_from([1, 3, 100])), kind=draw(st.sampled_from([0, 0, 0, 1])))
    return {"bert_model.ckpt.index": index, "bert_model.ckpt.data-00000-of-00001": data}


def _sharded() -> Target:
    files = model_files()
    where = dict.fromkeys(weights(), "model-00001-of-00001.safetensors")
    index = {"metadata": {"total_size": 1}, "weight_map": where}
    rest = {"config.json": files["config.json"], "model-00001-of-00001.safetensors": files["model.safetensors"]}
    name = "model.safetensors.index.json"
    good = {**rest, name: json.dumps(index).encode()}
    return Target(good, mutated_json(index).map(lambda new: {**rest, name: new}), load_and_call)


def _configuration() -> Target:
    files = model_files()
    config = json.loads(files["config.json"])
    more = {"problem_type": None, "num_labels": 3, "classifier_dropout": None, "is_decoder": False}
    rest = {"model.safetensors": files["model.safetensors"]}
    return Target(files, mutated_json(config | more).map(lambda new: {**rest, "config.json": new}), load_and_call)


# Tokenizers


def _tokenizer() -> Target:
    words = Tokenizer.from_vocabulary(VOCABULARY)
    files = written(words.save)
    settings = json.loads(files["tokenizer_config.json"])
    parts = {
        "tokenizer.json": json.loads(files["tokenizer.json"]),
        "tokenizer_config.json": settings | {"do_lower_case": True, "strip_accents": None, "model_max_length": 512},
        "special_tokens_map.json": {"unk_token": "[UNK]", "mask_token": {"content": "[MASK]", "lstrip": True}},
        "added_tokens.json": {"[E1]": len(VOCABULARY)},
    }
    changed = st.sampled_from(sorted(parts)).flatmap(
        lambda name: mutated_json(parts[name]).map(lambda new: {**files, name: new})
    )
    # Without tokenizer.json, the vocabulary and the settings decide.
    plain = {name: data for name, data in files.items() if name != "tokenizer.json"}
    bare = one_of(plain, mutated) | mutated_json(parts["tokenizer_config.json"]).map(
        lambda new: {**plain, "tokenizer_config.json": new}
    )

    def use(directory: Path) -> None:
        tokenizer = Tokenizer.from_directory(directory)
        batch = tokenizer.batch(
            ["the cats sat on a mat.", ("a dog [MASK]", "aaaaaaaaaaaa")], max_length=400, truncate=True
        )
        tokenizer.decode(batch.input_ids[0].tolist())
        tokenizer.save(directory)

    return Target(files, changed | bare, use)


def _sentence_transformers() -> Target:
    """modules.json and what it leads to."""

    def make(directory: Path) -> None:
        write_small_checkpoint(directory)
        kind = "sentence_transformers.models."
        parts = {
            "modules.json": [{"idx": i, "name": str(i), "path": path, "type": kind + name} for i, (path, name) in
                             enumerate((("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense"),
                                        ("3_Normalize", "Normalize")))],
            "sentence_bert_config.json": {"max_seq_length": 12, "do_lower_case": True},
            "config_sentence_transformers.json": {"prompts": {"query": "the "}, "default_prompt_name": "query"},
            "1_Pooling/config.json": {"word_embedding_dimension": 12, "pooling_mode_mean_tokens": True,
                                      "pooling_mode_cls_token": False, "include_prompt": True},
            "2_Dense/config.json": {"in_features": 12, "out_features": 5, "bias": True,
                                    "activation_function": "torch.nn.modules.activation.Tanh"},
        }  # fmt: skip
        for name, value in parts.items():
            (directory / name).parent.mkdir(exist_ok=True)
            (directory / name).write_text(json.dumps(value))
        dense = {"linear.weight": np.ones((5, 12), np.float32), "linear.bias": np.zeros(5, np.float32)}
        save_file(dense, directory / "2_Dense" / "model.safetensors")

    files = written(make)
    settings = {name: data for name, data in files.items() if name.endswith(".json") and name != "config.json"}
    changed = st.sampled_from(sorted(settings)).flatmap(
        lambda name: mutated_json(json.loads(files[name])).map(lambda new: {**files, name: new})
    )

    def use(directory: Path) -> None:
        refbert.load(directory).encode(["the cats sat", "a dog"])

    return Target(files, changed, use)


# Data


_ROWS = [
    {"text": "a cat", "label": "x", "pair": "b", "choices": ["a", "b"]},
    {"text": "dog", "label": 1, "choices": ["c", "d"]},
]
_CSV = b'text,label,n\n"a, ""cat""\nsat",x,1\ndog,y,\n'
_CONLL = b"# id 1\tdomain=train\n1\tJohn\t_\tB-PER\n2\tlives\t_\tO\n\n-DOCSTART- -X- O O\n\nEU NNP B-NP B-ORG\n"
_SQUAD = {"version": "v2.0", "data": [{"title": "t", "paragraphs": [{"context": "he lives in new york .", "qas": [
    {"id": "1", "question": "where ?", "is_impossible": False, "answers": [{"text": "new york", "answer_start": 12}]},
    {"id": "2", "question": "who ?", "is_impossible": True, "answers": []},
]}]}]}  # fmt: skip


def _data() -> Target:
    lines = st.lists(st.sampled_from(_ROWS).flatmap(mutated_json), min_size=1, max_size=4).map(b"\n".join)
    files = (
        mutated(_CSV).map(lambda new: {"x.csv": new})
        | mutated(_CSV.replace(b",", b"\t")).map(lambda new: {"x.tsv": new})
        | lines.map(lambda new: {"x.jsonl": new})
        | mutated(_CONLL).map(lambda new: {"x.conll": new})
        | mutated_json(_SQUAD).map(lambda new: {"x.json": new})
        | mutated(b"A cat.\n\nA dog.\n").map(lambda new: {"x.txt": new})
    )

    def use(directory: Path) -> None:
        (path,) = directory.iterdir()
        if path.suffix == ".conll":
            read_conll(path)
        elif path.suffix == ".json":
            read_squad(path)
        elif path.suffix == ".txt":
            list(read_sentences([path]))
        else:
            refused: list[RefbertError] = []
            for call in (read_labelled, read_choices, partial(read_labelled, numbers=True)):
                try:
                    call(path, Columns())
                except RefbertError as error:
                    refused.append(error)
            if len(refused) == 3:
                raise refused[0]

    return Target({"x.csv": _CSV}, files, use)


def _arrow() -> Target:
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = pa.table({"text": ["a cat", None, "a dog sat"], "n": [1, 2, 3]})
    lists = pa.table({"sentences": [["a cat", "a dog"], [], None]})
    whole = []
    for one in (data, lists):
        buffer = io.BytesIO()
        with pa.ipc.new_file(buffer, one.schema) as writer:
            writer.write_table(one)
        stream = io.BytesIO()
        with pa.ipc.new_stream(stream, one.schema) as writer:
            writer.write_table(one)
        parquet = io.BytesIO()
        pq.write_table(one, parquet)
        whole += [buffer.getvalue(), stream.getvalue(), parquet.getvalue()]
    files = st.sampled_from(whole).flatmap(mutated).map(lambda new: {"x.parquet": new})
    return Target({"x.parquet": whole[0]}, files,
                  lambda directory: list(read_sentences([directory / "x.parquet"], "parquet")))  # fmt: skip


# The wire protocol: what a backend in another process answers


_OPEN = {"wire": 1, "contract": 1, "name": "x", "library": "l", "device": "cpu", "dtypes": ["float32"],
         "dtype": "float32", "offers": ["asarray", "to_numpy", "add"], "extensions": ["mirror"]}  # fmt: skip
_TENSOR = {"dtype": "float32", "shape": [2]}
# What answers the requests of `_asked`, one after the other.
_ANSWERS: list[Any] = [
    {"id": 1, "ok": _OPEN}, {"id": 2, "ok": {"instance": 1}},
    {"id": 3, "ok": {"result": {"array": 1, "shape": [2]}}},
    {"id": 4, "ok": {"result": [{"array": 2, "shape": [2]}, {"pullback": 3}]}},
    {"id": 5, "ok": {"result": {"tensor": 0}, "kept": 4}, "tensors": [_TENSOR]},
    {"id": 6, "error": {"kind": "out of range", "message": "no"}},
]  # fmt: skip


def _wire() -> Target:
    def framed(header: bytes, payload: bytes) -> bytes:
        return struct.pack("<8sQQ", MAGIC, len(header), len(payload)) + header + payload

    def payload(answer: Any) -> bytes:
        return np.float32([1, 2]).tobytes() if "tensors" in answer else b""

    good = [framed(json.dumps(one).encode(), payload(one)) for one in _ANSWERS]
    odd = st.tuples(st.integers(0, len(good) - 1), st.sampled_from(_ANSWERS)).flatmap(
        lambda at: mutated_json(at[1]).map(
            lambda header: [*good[: at[0]], framed(header, payload(at[1])), *good[at[0] + 1 :]]
        )
    )
    content = odd.map(b"".join) | mutated(b"".join(good))
    return Target({"wire": b"".join(good)}, content.map(lambda new: {"wire": new}), _asked)


def _asked(directory: Path) -> None:
    def broken(kind: str, why: str) -> NoReturn:
        assert why.isprintable(), why
        raise RefbertError(why)

    connection._places = lambda: (str(directory / "nowhere"),)  # no memory is shared with a file
    with open(directory / "wire", "rb") as answers, open(os.devnull, "wb") as requests:
        backend = RemoteBackend(Connection(Stream(answers.fileno(), requests.fileno()), broken))
        x = backend.asarray(np.zeros(2, np.float32))
        if not hasattr(backend, "add"):
            return
        y, _ = backend.add(x, x)
        backend.to_numpy(y)
        try:
            backend.add(x, y)
        except (IndexError, ValueError, NotImplementedError, RemoteError):
            return


MAKERS: Mapping[str, Callable[[], Target]] = {
    "safetensors": _safetensors,
    "pytorch": _pytorch,
    "tensorflow": _tensorflow,
    "sharded": _sharded,
    "configuration": _configuration,
    "tokenizer": _tokenizer,
    "sentence-transformers": _sentence_transformers,
    "data": _data,
    "arrow": _arrow,
    "wire": _wire,
}
