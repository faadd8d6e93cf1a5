"""What reaches the terminal, and what becomes of a command whose output or process ends early."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from small_checkpoint import write_small_checkpoint
from test_run import fails, refbert_cli

from refbert.cli import _problem, commands, main
from refbert.cli.terminal import visible

ROOT = Path(__file__).parents[2]
# Everything that steers: ESC sequences, C0, DEL, C1, direction.
HOSTILE = "\x1b]0;owned\x07\x1b[31m\x08\r\x7f\x9b2J\u202edog\u2066\u200f"
STEERING = re.compile(
    rb"[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\x8e\x8f\xa8-\xae]|\xe2\x81[\xa6-\xa9]|\xd8\x9c"
)

HOSTILE_BACKEND = f"""
import sys
from refbert.backend.reference import ReferenceBackend

class Odd(ReferenceBackend):
    name = "odd"
    library = {HOSTILE!r} + '"' * 3 + "\\nimport os" + chr(92)

class Failing:
    def __init__(self, dtype=None, device=None):
        raise RuntimeError({HOSTILE!r})

class Exiting:
    def __init__(self, dtype=None, device=None):
        sys.exit(0)
"""


def piped(*arguments, stdin=b"", env=None, cwd=None, **streams):
    """Bytes, as a terminal would get them."""
    return subprocess.run(
        [sys.executable, "-m", "refbert", *map(str, arguments)], input=stdin, env={**os.environ, **(env or {})},
        cwd=cwd, check=False, **({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams),
    )  # fmt: skip


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A model whose labels are hostile, in a directory with such a name, and a module of such backends."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "odd_backend.py").write_text(HOSTILE_BACKEND, encoding="utf-8")
    directory = folder / f"m{HOSTILE.replace('/', '')}"
    write_small_checkpoint(directory)
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    config["id2label"] = {"0": HOSTILE, "1": f"b{HOSTILE}"}
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    text = (
        (directory / "vocab.txt").read_text(encoding="utf-8").replace("\nsat\n", f"\n{HOSTILE.replace(chr(13), '')}\n")
    )
    (directory / "vocab.txt").write_text(text, encoding="utf-8")
    return directory


COMMANDS = {
    "table": ("run", "--model", "MODEL", f"the [MASK] {HOSTILE}"),
    "embed": ("run", "--model", "MODEL", "--task", "embed", f"the {HOSTILE}", "cat"),
    "error": ("run", "--model", "MODEL", "--task", HOSTILE, "the"),
    "model": ("run", "--model", f"no/{HOSTILE}", "the"),
    "backend": ("run", "--backend", HOSTILE, "the"),
    "fails": ("run", "--backend", "odd_backend:Failing", "the"),
    "exits": ("run", "--backend", "odd_backend:Exiting", "the"),
    "info": ("info", "MODEL"),
    "evaluate": ("evaluate", "--model", "MODEL", HOSTILE),
    "trace": ("trace", "--model", "MODEL", "--html", "page.html", f"the [MASK] {HOSTILE}"),
    "diff": ("diff", "--backend", "odd_backend:Odd", "--model", "MODEL", f"the {HOSTILE}"),
    "explain": ("explain", HOSTILE),
    "option": ("run", f"--{HOSTILE}"),
    "command": (HOSTILE,),
    "finetune": ("finetune", "--task", "classify", "--model", "MODEL", "--train", HOSTILE, "--output", "out"),
    "pretrain": ("pretrain", HOSTILE, "--steps", 1, "--output", "out"),
    "scoreboard": ("scoreboard", HOSTILE, "--html", "x.html"),
    "bench": ("bench", "--model", HOSTILE),
    "conform": ("conform", "--backend", HOSTILE, "--effort", "quick"),
    "odd": ("conform", "--backend", "odd_backend:Odd", "--effort", "quick", "--only", "*/add/*"),
    "audit": ("audit", HOSTILE),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_steers_the_terminal(hostile, tmp_path, name):
    arguments = [str(hostile) if a == "MODEL" else a for a in COMMANDS[name]]
    done = piped(*arguments, env={"PYTHONPATH": str(hostile.parent)}, cwd=tmp_path)
    for stream in (done.stdout, done.stderr):
        assert not STEERING.search(stream), stream
        assert b"Traceback" not in stream
    assert done.returncode in ((0, 1) if name in ("table", "embed", "info", "trace", "diff", "odd") else (2,)), done
    if name == "table":
        assert rb"\u001b]0;owned\u0007" in b"".join(done.stdout.split())


def test_on_a_terminal_only_the_commands_own_sequences_remain(hostile):
    """Colours and the cursor are ours; what others wrote is not obeyed."""
    parent, child = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "-m", "refbert", "run", "--model", str(hostile), f"the [MASK] {HOSTILE}"], stdout=child,
        stderr=child, stdin=subprocess.DEVNULL, env={**os.environ, "COLUMNS": "400", "TERM": "xterm"},
    )  # fmt: skip
    os.close(child)
    said = b""
    while True:
        try:
            said += os.read(parent, 65536)
        except OSError:
            break
    os.close(parent)
    assert done.wait() == 0
    assert rb"\u001b]0;owned\u0007" in said
    for sequence in re.findall(rb"\x1b.{4}", said):
        assert re.match(rb"\x1b\[[0-9;?]*[mKlhAG0-9]", sequence), sequence
    assert not re.search(rb"\x07|\x08|\xc2\x9b|\xe2\x80\xae", said)


def test_json_stays_exact(hostile):
    text = f"the {HOSTILE}\u2028\u00a0é日"
    done = piped("run", "--model", hostile, "--task", "embed", "--json", text)
    assert not STEERING.search(done.stdout)
    assert json.loads(done.stdout)["text"] == text
    assert done.stdout.count(b"\n") == 1


@pytest.mark.parametrize("text", ["plain", "tab\tand\nline", "é日\u200d\u200c", "\ud83d"])
def test_what_steers_nothing_stays(text):
    assert visible(text) == text


@pytest.mark.parametrize("encoding", ["cp1252", "ascii:strict"])
@pytest.mark.parametrize(
    "arguments", [("explain", "layer_norm"), ("run", "--json", "Ελλάδα"), ("run", "Ελλάδα"), ("--help",)]
)
def test_the_streams_are_utf8_whatever_the_locale(arguments, encoding):
    done = piped(*arguments, env={"PYTHONIOENCODING": encoding})
    assert (done.returncode, done.stdout) == (0, piped(*arguments).stdout)
    done.stdout.decode("utf-8")


def test_half_a_surrogate_pair_is_a_text_that_is_refused():
    done = piped("run", "--json", b"the \xff".decode("utf-8", "surrogateescape"))
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert b"not Unicode" in done.stderr


def test_there_is_one_way_to_the_terminal():
    """A console of rich's that is made elsewhere prints what others wrote as it is."""
    makers = [
        path.name
        for package in ("refbert", "conformance/refbert_conformance")
        for path in sorted((ROOT / package).rglob("*.py"))
        if re.search(r"\bConsole\((?!\)\.width)|Console as", path.read_text(encoding="utf-8"))
    ]
    assert makers == []


# Output that takes no more

SHORT = [
    ("--help",),
    ("backends", "--json"),
    ("info", "bert-base-uncased"),
    ("audit", "--list"),
    ("run", "--json", "cat"),
]


@pytest.mark.parametrize("arguments", SHORT, ids=" ".join)
def test_a_full_output(arguments):
    with open("/dev/full", "wb") as full:
        done = piped(*arguments, stdout=full)
    assert done.returncode == 2
    lines = [line for line in done.stderr.decode().splitlines() if "no --model named" not in line]
    assert lines == ["refbert: standard output cannot be written (No space left on device)"]


def test_a_closed_output():
    command = f'"{sys.executable}" -m refbert run --json "a cat" >&-'
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stderr.decode() == "refbert: standard output is closed; send it somewhere (> FILE, > /dev/null)\n"


def test_closed_errors_do_not_land_in_the_output():
    command = f'"{sys.executable}" -m refbert run --json "a cat" 2>&-'
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=False)
    assert done.returncode == 0
    assert [set(json.loads(line)) for line in done.stdout.splitlines()] == [{"text", "tokens", "embedding"}]


@pytest.mark.parametrize("arguments", SHORT, ids=" ".join)
def test_a_reader_that_has_gone(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = piped(*arguments, stdout=writing)
    finally:
        os.close(writing)
    assert done.returncode == 141
    assert [line for line in done.stderr.decode().splitlines() if "no --model named" not in line] == []


@pytest.mark.parametrize(
    ("arguments", "status"), [(("run", "a cat"), 141), (("run", "--model", "nowhere/at all", "a cat"), 2), (("no",), 2)]
)
def test_both_streams_have_gone(arguments, status):
    reading, writing = os.pipe()
    os.close(reading)
    assert piped(*arguments, stdout=writing, stderr=writing).returncode == status
    os.close(writing)


# Signals


def interrupted(arguments, number, *, until, cwd, stdin=subprocess.DEVNULL):
    """Start, wait for what stderr says (or three seconds), send the signal; (status, stderr)."""
    process = subprocess.Popen(
        [sys.executable, "-m", "refbert", *map(str, arguments)], cwd=cwd, stdin=stdin, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    said: list[bytes] = []
    reader = threading.Thread(target=lambda: said.extend(iter(process.stderr.readline, b"")))
    reader.start()
    end = time.monotonic() + (3 if until == "never" else 60)
    while time.monotonic() < end and process.poll() is None and until.encode() not in b"".join(said):
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(number)
    try:
        process.wait(30)
    finally:
        process.kill()
        reader.join()
        process.stderr.close()
    return process.returncode, b"".join(said).decode()


@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
class TestSignals:
    def test_while_a_run_is_prepared(self, tmp_path, number, status, word):
        with open(tmp_path / "x.txt", "w", encoding="utf-8") as file:
            for i in range(400_000):
                file.write(f"word{i % 977} and another{i % 3331} of them{i}\n")
        arguments = ("pretrain", "x.txt", "--steps", 10, "--output", "out")
        got, said = interrupted(arguments, number, until="vocabulary", cwd=tmp_path)
        assert got == status
        assert said.splitlines()[-1].startswith("refbert: out: stopped before the first update")
        assert "Traceback" not in said
        assert not (tmp_path / "out").exists()

    def test_while_texts_are_awaited(self, tmp_path, number, status, word):
        reading, writing = os.pipe()
        got, said = interrupted(("run", "--json"), number, until="never", cwd=tmp_path, stdin=reading)
        os.close(writing)
        assert (got, said.splitlines()[-1]) == (status, f"refbert: {word}")

    def test_while_claims_are_checked(self, tmp_path, number, status, word):
        got, said = interrupted(("audit",), number, until="never", cwd=tmp_path)
        assert (got, said) == (status, f"refbert: {word}\n")


# Errors of the system, by kind


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (PermissionError(13, "Permission denied", "a/b"), "a/b: Permission denied"),
        (OSError(36, "File name too long", "x" * 300), "File name too long"),
        (ValueError("embedded null byte"), "NUL"),
        (RuntimeError("Could not determine home directory."), "~"),
        (RuntimeError("Symlink loop from 'a/b'"), "circle: 'a/b'"),
        (RecursionError("maximum recursion depth exceeded"), "nested too deep"),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"), "not Unicode"),
        (ValueError("a mistake of ours"), None),
    ],
)
def test_errors_by_kind(error, says):
    found = _problem(error)
    assert found is None if says is None else says in found


@pytest.fixture(scope="module")
def odd_paths(tmp_path_factory):
    """Paths that no file can be read from, by what is wrong with them."""
    folder = tmp_path_factory.mktemp("paths")
    (folder / "directory").mkdir()
    (folder / "dangling").symlink_to(folder / "nothing")
    (folder / "loop").symlink_to(folder / "loop")
    os.mkfifo(folder / "pipe")
    return {
        "home": "~nobody-of-that-name/x", "long": folder / ("x" * 300),
        "directory": folder / "directory", "dangling": folder / "dangling",
        "loop": folder / "loop", "pipe": folder / "pipe", "empty": "",
        "surrogate": "x\udcff",
    }  # fmt: skip


@pytest.mark.parametrize("what", ["home", "long", "directory", "dangling", "loop", "pipe", "empty", "surrogate"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--model", "PATH", "a cat"), ("info", "PATH"), ("evaluate", "--model", "PATH", "x.csv"),
        ("evaluate", "--model", "MODEL", "--task", "classify", "--format", "csv", "PATH"),
        ("evaluate", "--model", "MODEL", "--task", "tag", "PATH"),
        ("evaluate", "--model", "MODEL", "--task", "answer", "PATH"),
        ("finetune", "--task", "classify", "--model", "PATH", "--train", "x.csv", "--output", "out"),
        ("finetune", "--task", "tag", "--model", "MODEL", "--train", "PATH", "--output", "out"),
        ("pretrain", "PATH", "--steps", "1", "--output", "out"),
        ("pretrain", "x.csv", "--steps", "1", "--output", "out", "--size", "PATH"),
        ("pretrain", "x.csv", "--steps", "1", "--output", "out", "--tokenizer", "PATH"),
        ("pretrain", "x.csv", "--steps", "1", "--output", "out", "--from", "PATH"),
        ("trace", "--model", "PATH", "--html", "page.html", "a cat"), ("diff", "--model", "PATH"),
        ("bench", "--model", "PATH", "--rounds", "1"), ("audit", "--model", "PATH", "bert.params.large"),
        ("scoreboard", "PATH", "--html", "page.html"), ("conform", "--waivers", "PATH", "--only", "*/add/*"),
        ("conform", "--model", "PATH", "--only", "*/add/*"),
    ],
    ids=lambda a: " ".join(part[:10] for part in a),
)  # fmt: skip
def test_what_cannot_be_read_is_one_line(tmp_path, monkeypatch, capfd, odd_paths, small, arguments, what):
    (tmp_path / "x.csv").write_text("text,label\nthe cat,a\na dog,b\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    given = [str({"PATH": odd_paths[what], "MODEL": small}.get(a, a)) for a in arguments]
    with pytest.raises(SystemExit) as exit, limited(60):
        main(given)
    out, err = capfd.readouterr()
    assert (exit.value.code, out) == (2, ""), (out, err)
    assert "Traceback" not in err
    said = [line for line in err.splitlines() if "warning" not in line and not line.endswith("8192 pieces")]
    assert len(said) == 1, err
    assert not (tmp_path / "out").exists()


class limited:
    """Whoever waits for a pipe that nobody writes to waits forever."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __enter__(self):
        def late(*_):
            raise AssertionError("it waits")

        self.before = signal.signal(signal.SIGALRM, late)
        signal.alarm(self.seconds)

    def __exit__(self, *_):
        signal.alarm(0)
        signal.signal(signal.SIGALRM, self.before)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_small_checkpoint(tmp_path_factory.mktemp("small"))


@pytest.mark.parametrize("what", ["home", "long", "directory", "pipe", "loop"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("trace", "--model", "MODEL", "--html", "PATH", "a cat"),
        ("trace", "--model", "MODEL", "--html", "x.html", "--save", "PATH", "a cat"),
        ("run", "--model", "MODEL", "--save", "PATH", "a cat"), ("diff", "--html", "PATH"),
        ("audit", "bert.params.large", "--html", "PATH"), ("conform", "--only", "*/add/*", "--json", "PATH"),
        ("conform", "--only", "*/add/*", "--html", "PATH"),
        ("evaluate", "--model", "MODEL", "--predictions", "PATH", "x.csv"),
    ],
    ids=lambda a: " ".join(part[:10] for part in a),
)  # fmt: skip
def test_what_cannot_be_written_is_one_line(tmp_path, monkeypatch, capfd, odd_paths, small, arguments, what):
    monkeypatch.chdir(tmp_path)
    given = [str({"PATH": odd_paths[what], "MODEL": small}.get(a, a)) for a in arguments]
    with pytest.raises(SystemExit) as exit, limited(60):
        main(given)
    out, err = capfd.readouterr()
    assert (exit.value.code, out) == (2, ""), (out, err)
    assert len([line for line in err.splitlines() if not line.startswith("refbert: warning")]) == 1, err
    assert odd_paths["pipe"].is_fifo()


# Backends that are none

NO_BACKENDS = """
class Nameless:
    dtype, device, library, dtypes = "float32", "cpu", "none", ("float32",)
    def __init__(self, dtype=None, device=None): pass
    def asarray(self, x): return x
    def to_numpy(self, x): return x

def Function(dtype=None, device=None): return Nameless()

class Asked:
    def __init__(self, dtype=None, device=None): pass
    @property
    def dtype(self): raise RuntimeError("not today")

class Dtypes(Nameless):
    dtypes = 5

class Lists(type):
    @property
    def dtypes(cls): raise KeyError("not today")

class Listed(metaclass=Lists): pass

class Wordless(Exception):
    def __str__(self): raise ValueError

class Unspeakable:
    def __init__(self, dtype=None, device=None): raise Wordless

def __getattr__(name): raise ValueError("no such thing here")
"""


@pytest.mark.parametrize(
    "name",
    ["os:system", "os:path", "os:environ", "builtins:dict", "builtins:print", "sys:exit", "collections:Counter", ":x",
     "x:", ":", "..a:b", "unittest.mock:Mock", "json:JSONDecodeError", "a:b:c", "NUMPY",
     *(f"none:{kind}" for kind in ("Nameless", "Function", "Asked", "Dtypes", "Listed", "Unspeakable", "absent"))],
)  # fmt: skip
@pytest.mark.parametrize("command", [("run", "a cat"), ("bench",), ("diff",), ("diff", "--against")])
def test_a_backend_that_is_none_is_one_line(tmp_path, monkeypatch, capsys, name, command):
    (tmp_path / "none.py").write_text(NO_BACKENDS, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SystemExit) as exit:
        main([*command, name] if "--against" in command else [command[0], "--backend", name, *command[1:]])
    sys.modules.pop("none", None)
    out, err = capsys.readouterr()
    assert (exit.value.code, out) == (2, "")
    (line,) = [line for line in err.splitlines() if "no --model named" not in line]
    assert f'backend "{name}"' in line or 'backend "Nameless" lacks the attribute name' in line


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--batch-size", "9" * 30, "a cat"), ("run", "--max-length", "9" * 5000, "a cat"),
        ("run", "--top-k", "9" * 30, "a [MASK]"), ("explain", "--width", "9" * 30, "softmax"),
        ("bench", "--batch-size", "9" * 30), ("bench", "--rounds", "1.5"), ("trace", "--mask", "x", "a cat"),
        ("conform", "--seed", "1e3"), ("evaluate", "--null-threshold", "[]", "x.csv"),
        ("pretrain", "x", "--output", "y", "--steps", "٣.٤"), ("finetune", "--output", "y", "--batch-size", "1,x"),
    ],
    ids=lambda a: " ".join(part[:10] for part in a),
)  # fmt: skip
def test_an_option_that_is_no_such_number_is_one_line(capsys, arguments):
    with pytest.raises(SystemExit) as exit:
        main(list(arguments))
    out, err = capsys.readouterr()
    assert (exit.value.code, out) == (2, "")
    assert len([line for line in err.splitlines() if "no --model named" not in line]) == 1, err


# Help


@pytest.mark.parametrize("width", [40, 80, 200])
def test_help_is_in_groups_and_nothing_is_cut(monkeypatch, capsys, width):
    monkeypatch.setenv("COLUMNS", str(width))
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    assert "..." not in out.replace("[ARGS]...", "")
    words = " ".join(out.split())
    for name, command in commands().items():
        assert f"{name} {' '.join(command.help.split(chr(10) + chr(10))[0].split())}" in words
    titles = ("Options", "Use a model", "Train one", "Look inside", "Judge a backend", "Check what is said of BERT")
    assert all(f"\n{title}:\n" in out for title in titles)


def test_help_of_every_command_is_printed(capsys):
    for name in commands():
        with pytest.raises(SystemExit) as exit:
            main([name, "--help"])
        assert exit.value.code == 0
        assert "Usage" in capsys.readouterr().out


def test_fails_is_what_it_says():
    fails(refbert_cli("run", "--nothing"), "--nothing")
