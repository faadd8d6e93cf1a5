"""A library that changes floating-point arithmetic for its whole process changes nothing of the reference."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from modes import DOWN, TO_ZERO, UP

from refbert_conformance.process.supervisor import Limits, Supervisor

HERE = Path(__file__).parent

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or not sys.platform.startswith("linux"),
    reason="unavailable: knows glibc's layout on x86-64 only",
)


def tried(name, id, tmp_path, monkeypatch):
    """(the property's row, the report's note)."""
    monkeypatch.syspath_prepend(str(HERE))
    job = {
        "given": f"modes:{name}", "dtype": None, "device": None, "effort": "quick", "seed": 0, "model": None,
        "scripts": str(tmp_path), "explain": True,
    }  # fmt: skip
    with Supervisor(job, Limits()) as supervisor:
        return supervisor.judge(id), supervisor.run.backend.get("note", "")


@pytest.mark.parametrize("name", ["AtMaking", "AtACall"])
def test_the_backend_is_judged_in_its_own_mode_and_the_reference_is_not(name, tmp_path, monkeypatch):
    row, note = tried(name, "forward/softmax/accuracy", tmp_path, monkeypatch)
    assert "sets flush-to-zero for its whole process" in note
    assert row.outcome == "failed", "the reference was flushed, too"
    assert "{'flush_to_zero': True}" in str(row.failure.hint)


@pytest.mark.parametrize("name", ["AtMakingDeclared", "AtACallDeclared"])
def test_who_declares_it_passes(name, tmp_path, monkeypatch):
    row, _ = tried(name, "forward/softmax/accuracy", tmp_path, monkeypatch)
    assert row.outcome == "passed", row.message


def test_a_pullback_is_the_backends_too(tmp_path, monkeypatch):
    row, note = tried("AtThePullback", "backward/softmax/accuracy", tmp_path, monkeypatch)
    assert "flush-to-zero" in note
    assert row.outcome == "failed"


def test_another_direction_of_rounding_is_noticed(tmp_path, monkeypatch):
    row, note = tried("Rounds", "forward/softmax/accuracy", tmp_path, monkeypatch)
    assert "another direction of rounding" in note
    assert row.examples


def changed_after(code, cwd=None):
    said = subprocess.run(
        [sys.executable, "-c", f"import ctypes\nfrom refbert.wire.host import changed\n{code}\nprint(changed())"],
        cwd=cwd, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return said.stdout.strip()


@pytest.mark.parametrize("direction", [UP, DOWN, TO_ZERO])
def test_every_direction_is_noticed(direction):
    assert changed_after("") == ""
    assert changed_after(f"ctypes.CDLL('libm.so.6').fesetround({direction})") == "another direction of rounding"


@pytest.mark.skipif(shutil.which("gcc") is None, reason="unavailable: gcc is not installed")
def test_a_library_of_gccs_is_seen_when_it_is_loaded(tmp_path):
    (tmp_path / "a.c").write_text("int answer(void) { return 42; }\n", encoding="utf-8")
    # -ffast-math links crtfastmath.o into shared libraries up to gcc 12; -mdaz-ftz does so since.
    done = subprocess.run(["gcc", "-ffast-math", "-shared", "-fPIC", "a.c", "-o", "a.so"], cwd=tmp_path, check=False)
    assert done.returncode == 0
    version = subprocess.run(["gcc", "-dumpversion"], capture_output=True, text=True, check=True).stdout
    due = "flush-to-zero" if int(version.split(".")[0]) < 13 else ""
    assert changed_after("ctypes.CDLL('./a.so')", cwd=tmp_path) == due
