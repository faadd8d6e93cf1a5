"""A library that changes floating-point arithmetic for the whole process changes nothing of the reference."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys

import numpy as np
import pytest

from refbert import ops
from refbert.backend.reference import ReferenceBackend
from refbert_conformance.engine import processor, runner
from refbert_conformance.engine.subject import Subject
from refbert_conformance.failures.diagnosis import explain
from refbert_conformance.process.records import Diagnosis
from refbert_conformance.properties.table import selected


def set_flush_to_zero():
    """As crtfastmath.o does it."""
    found = processor.mode()
    words = ctypes.cast(found, ctypes.POINTER(ctypes.c_uint32))
    words[7] |= 0x8040  # glibc's fenv_t on x86-64: MXCSR behind seven words of the x87
    processor.set_mode(found)


def round_upwards():
    library = ctypes.CDLL("libm.so.6")
    assert library.fesetround(0x800) == 0


@pytest.fixture(autouse=True)
def _clean():
    import platform

    if platform.machine() != "x86_64" or not sys.platform.startswith("linux"):
        pytest.skip("unavailable: knows glibc's layout on x86-64 only")
    assert processor.changed() == ""
    yield
    assert processor.changed() == "", "it was not put back"
    processor.set_mode(processor.CLEAN)


class Base(ReferenceBackend):
    dtypes = ("float32",)


class AtMaking(Base):
    def __init__(self, dtype=None, device=None):
        set_flush_to_zero()
        super().__init__("float32", device)


class AtACall(Base):
    def softmax(self, x):
        set_flush_to_zero()
        return ops.softmax(x)


class AtThePullback(Base):
    def softmax(self, x):
        y, back = ops.softmax(x)

        def pullback(dy):
            set_flush_to_zero()
            return back(dy)

        return y, pullback


class Rounds(Base):
    def softmax(self, x):
        round_upwards()
        return ops.softmax(x)


def tried(make, id):
    (property,) = selected([id])
    subject = Subject(make.__name__, make)
    with np.errstate(all="ignore"):
        return subject, runner.run(property, subject, effort="quick")


@pytest.mark.parametrize("make", [AtMaking, AtACall])
def test_the_backend_is_judged_in_its_own_mode_and_the_reference_is_not(make, tmp_path):
    subject, result = tried(make, "forward/softmax/accuracy")
    assert subject.mode == "flush-to-zero"
    assert result.outcome == "failed", "the reference was flushed, too"
    job = {"given": "x:Y", "device": None, "model": None, "scripts": str(tmp_path)}
    assert "{'flush_to_zero': True}" in str(explain(result, subject, job, Diagnosis())[1].hint)


@pytest.mark.parametrize("make", [AtMaking, AtACall])
def test_who_declares_it_passes(make):
    class Declares(make):
        arithmetic = {"flush_to_zero": True}  # noqa: RUF012

    _, result = tried(Declares, "forward/softmax/accuracy")
    assert result.outcome == "passed", result.message


def test_a_pullback_is_the_backends_too():
    subject, result = tried(AtThePullback, "backward/softmax/accuracy")
    assert subject.mode == "flush-to-zero"
    assert result.outcome == "failed"


def test_another_direction_of_rounding_is_noticed():
    subject, result = tried(Rounds, "forward/softmax/accuracy")
    assert subject.mode == "another direction of rounding"
    assert result.examples


@pytest.mark.parametrize("direction", [0x400, 0x800, 0xC00])
def test_every_direction_is_noticed(direction):
    assert ctypes.CDLL("libm.so.6").fesetround(direction) == 0
    changed = processor.changed()
    processor.set_mode(processor.CLEAN)
    assert changed == "another direction of rounding"


@pytest.mark.skipif(shutil.which("gcc") is None, reason="unavailable: gcc is not installed")
def test_a_library_of_gccs_is_seen_when_it_is_loaded(tmp_path):
    (tmp_path / "a.c").write_text("int answer(void) { return 42; }\n", encoding="utf-8")
    # -ffast-math links crtfastmath.o into shared libraries up to gcc 12; -mdaz-ftz does so since.
    done = subprocess.run(["gcc", "-ffast-math", "-shared", "-fPIC", "a.c", "-o", "a.so"], cwd=tmp_path, check=False)
    assert done.returncode == 0
    code = (
        "import ctypes\nfrom refbert_conformance.engine import processor\nctypes.CDLL('./a.so')\n"
        "print(processor.changed())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    version = subprocess.run(["gcc", "-dumpversion"], capture_output=True, text=True, check=True).stdout
    assert done.stdout.strip() == ("flush-to-zero" if int(version.split(".")[0]) < 13 else "")
