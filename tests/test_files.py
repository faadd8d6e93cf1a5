"""The one reader of files and JSON: whatever is wrong is one line of the error that the caller names."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refbert.errors import CheckpointError, InputError, RefbertError, RefbertWarning, TokenizerError
from refbert.files import json as json_files
from refbert.files import reading as files

USELESS = {
    "nested lists": b"[" * 100_000,
    "nested objects": b'{"a":' * 100_000,
    "5,000 digits": b"[" + b"7" * 5000 + b"]",
    "10^400": b"[1" + b"0" * 400 + b"]",
    "1e400": b"[1e400]",
    "-1e400": b"[-1e400]",
    "NaN": b"[NaN]",
    "Infinity": b"[-Infinity]",
    "duplicate keys": b'{"a": 1, "b": 2, "a": 3}',
    "duplicate keys, deep": b'[{"x": [{"a": 1, "a": 1}]}]',
    "half a surrogate pair": b'["\\ud83d"]',
    "half a surrogate pair as key": b'{"\\uDC00": 1}',
    "Latin-1": '["é"]'.encode("latin-1"),
    "UTF-16": '["a"]'.encode("utf-16"),
    "empty": b"",
    "cut short": b'{"a": ',
    "more behind it": b"{} {}",
    "zeros": bytes(100),
}


@pytest.mark.parametrize("name", USELESS)
def test_useless_json_is_one_line(tmp_path, name):
    path = tmp_path / "config.json"
    path.write_bytes(USELESS[name])
    with pytest.raises(CheckpointError, match=r"config\.json.*: not ") as caught:
        json_files.read_json(path, CheckpointError)
    assert_one_line(caught.value)


def assert_one_line(error):
    assert str(error).isprintable()
    assert len(str(error)) < 500
    assert not isinstance(error.__cause__, RecursionError)


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b'["\\ud83d\\ude00"]', ["😀"]),
        (b'["\\\\ud83d"]', ["\\ud83d"]),
        (b"[1000000000000000019884624838656, 1e-12, -0]", [1000000000000000019884624838656, 1e-12, 0]),
        (b" \r\n [true, false, null] \n", [True, False, None]),
    ],
)
def test_good_json(tmp_path, content, value):
    (tmp_path / "x.json").write_bytes(content)
    assert json_files.read_json(tmp_path / "x.json") == value


def test_at_every_depth_there_is_one_answer():
    """Reading and writing take different amounts of the stack."""
    for depth in range(100, 1200, 3):
        with pytest.raises(InputError, match=r"half a surrogate pair|nested too deep"):
            json_files.parse_json("[" * depth + '"\\ud83d"' + "]" * depth, "x")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**300), 10**300) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
)  # fmt: skip


@given(json_values, st.booleans())
def test_what_python_writes_is_read(value, ascii_only):
    assert json_files.parse_json(json.dumps(value, ensure_ascii=ascii_only), "here") == value


def test_rows_of_data_leave_what_nobody_uses_alone():
    row = json_files.parse_json(
        '{"score": NaN, "lang": "\\ud83d", "text": "a", "id": 1, "id": 2, "huge": ' + "9" * 5000 + ', "big": 1e999}',
        "x.jsonl, line 3",
        strict=False,
    )
    assert row["text"] == "a"
    assert row["id"] is json_files.TWICE
    assert row["huge"] == row["big"] == float("inf")


def test_the_place_of_a_mistake_is_named():
    with pytest.raises(InputError, match=r"^x: not JSON \(Expecting value, line 2, column 6\)$"):
        json_files.parse_json('{\n"a": ,}', "x")
    with pytest.raises(InputError, match=r"^x, line 2: not UTF-8 \(byte 3 of the file\)$"):
        json_files.parse_json(b'[\n"\xff"]', "x")


def test_an_object_is_expected(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(list(range(10**5))), encoding="utf-8")
    with pytest.raises(TokenizerError, match=r"x\.json: a JSON object is expected, not \[0, 1") as caught:
        json_files.read_object(tmp_path / "x.json", TokenizerError)
    assert_one_line(caught.value)


# Files


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing", "no such file"),
        ("folder", "a directory"),
        ("file/below", "Not a directory"),
        ("a" * 300, "name too long"),
        ("loop", "symbolic links"),
        ("nul\0byte", "no file can have this name"),
        ("half\ud800pair", "no file can have this name"),
        ("line\nbreak\x1b[31m", r"line break\\x1b\[31m: no such file"),
    ],
)
@pytest.mark.parametrize("read", [files.read_bytes, files.read_text, json_files.read_json])
def test_what_cannot_be_read_is_one_line(tmp_path, name, says, read):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(CheckpointError, match=says) as caught:
        read(tmp_path / name, CheckpointError)
    assert_one_line(caught.value)


@pytest.mark.parametrize("name", ["a" * 300, "loop", "nul\0byte", "half\ud800pair"])
@pytest.mark.parametrize("ask", [files.is_file, files.is_directory])
def test_what_cannot_be_known_is_not_absent(tmp_path, name, ask):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(CheckpointError) as caught:
        ask(tmp_path / name, CheckpointError)
    assert_one_line(caught.value)


def test_files_and_directories(tmp_path):
    (tmp_path / "file").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    kinds = {name: (files.is_file(tmp_path / name), files.is_directory(tmp_path / name))
             for name in ("file", "", "pipe", "missing", "file/below")}  # fmt: skip
    assert kinds == {"file": (True, False), "": (False, True), "pipe": (False, False), "missing": (False, False),
                     "file/below": (False, False)}  # fmt: skip


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="unavailable: no POSIX permissions")
def test_unreadable_files_and_directories(tmp_path):
    """In a process without root's rights, which read everything."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "config.json").write_text("{}")
    (tmp_path / "locked.json").write_text("{}")
    (tmp_path / "locked.json").chmod(0)
    secret.chmod(0)
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == os.getuid() and parent != secret:
            parent.chmod(parent.stat().st_mode | 0o711)
    code = (
        "import os, sys\n"
        "from refbert.files import reading as files, json as json_files; from refbert.errors import ConfigError\n"
        "if os.getuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "for ask, path in ((json_files.read_json, 'locked.json'), (files.is_file, 'secret/config.json')):\n"
        "    try: print(ask(sys.argv[1] + '/' + path, ConfigError))\n"
        "    except ConfigError as error: print(error)\n"
    )
    try:
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    finally:
        secret.chmod(0o700)
    assert done.stdout.count("cannot be read (Permission denied)") == 2, done.stdout


def test_no_more_is_read_than_the_limit(tmp_path):
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputError, match="sparse: more than 1,000 bytes"):
        files.read_bytes(tmp_path / "sparse", most=1000)


def test_what_may_never_end_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(InputError, match="a pipe or a device, where a file is expected"):
            files.read_bytes(path, most=1000)


def test_users_that_do_not_exist():
    with pytest.raises(CheckpointError, match="~nobody-of-this-name/x: there is no such user"):
        files.expanded("~nobody-of-this-name/x", CheckpointError)


# Messages


@given(st.text(), st.integers(1, 400))
def test_every_error_is_one_printable_line(text, times):
    for message in (RefbertError(text * times), RefbertWarning(text * times)):
        assert str(message).isprintable()
        assert len(str(message)) < 500


def test_a_long_message_keeps_its_ends():
    said = str(RefbertError(f"first {'x' * 10_000} last"))
    assert said.startswith("first ")
    assert said.endswith(" last")
    assert str(RefbertError("a plain message, 5 µs — ✓")) == "a plain message, 5 µs — ✓"
