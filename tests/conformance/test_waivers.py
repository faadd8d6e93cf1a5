"""Waivers: a dtype, an effort, a condition of the case; strict in each."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from test_conform import HERE, conform, waivers

from refbert import ops
from refbert.backend.reference import ReferenceBackend
from refbert.errors import InputError
from refbert_conformance.cases.model_cases import ModelRecipe, Repeated
from refbert_conformance.cases.operations import recipe
from refbert_conformance.engine.conditions import Condition, facts


class Corner(ReferenceBackend):
    """Wrong in rows longer than 20, and nowhere else."""

    name = "corner"

    def tanh(self, x):
        y, back = ops.tanh(x)
        return (y + np.asarray(x.shape[-1:] > (20,), x.dtype)).astype(x.dtype), back


class TwoCorners(Corner):
    """And in rows of one."""

    def tanh(self, x):
        y, back = super().tanh(x)
        return (y + np.asarray(x.shape[-1:] == (1,), x.dtype)).astype(x.dtype), back


ID = "forward/tanh/accuracy"


def judged(name, text, *arguments, cwd, only=ID):
    report, path = cwd / "r.json", waivers(cwd, f'[[waiver]]\nproperty = "{ID}"\nreason = "long rows"\n{text}\n')
    done = conform(
        "--backend", f"test_waivers:{name}", "--only", only, "--effort", "quick", "--json", report, "--waivers", path,
        *arguments, cwd=cwd,
    )  # fmt: skip
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    rows = json.loads(report.read_text(encoding="utf-8"))["properties"] if report.exists() else []
    return done, next((row for row in rows if row["id"] == ID), None)


def test_a_corner_is_waived_and_the_rest_is_not(tmp_path):
    done, row = judged("Corner", 'when = "H > 20"', cwd=tmp_path, only="forward/tanh/[ao]*")
    assert done.returncode == 0, done.stdout
    assert row["waived"] == "long rows (where H > 20)"
    assert row["examples"] > 6
    _, row = judged("TwoCorners", 'when = "H > 20"', cwd=tmp_path)
    assert row["outcome"] == "failed"
    assert row["waived"] is None
    assert "'H': 1" in row["failure"]["case"] or "shape" not in row["failure"]["case"]


def test_a_corner_that_passes_is_not_waived(tmp_path):
    done, row = judged("Corner", 'when = "H <= 20"', cwd=tmp_path)
    assert done.returncode == 1
    assert row["waived"] is None
    done, row = judged("Corner", 'when = "H > 20"', "--backend", "reference", cwd=tmp_path)
    assert done.returncode == 1
    assert row["message"] == "waived where H > 20, but it passes there: take the waiver out (long rows)"
    assert row["failure"] is None, "nothing of the backend's failed"
    assert "reproduce:" not in done.stdout


def test_a_condition_on_what_no_case_has(tmp_path):
    done, row = judged("Corner", 'when = "length > 20"', "--backend", "reference", cwd=tmp_path)
    assert done.returncode == 1
    assert row["message"].startswith("waived where length > 20, but no case here has length; they have ")
    assert "H" in row["message"]


def test_a_corner_that_is_not_tried_is_nobodys_fault(tmp_path):
    done, row = judged("Corner", 'when = "H > 1000000000"', "--backend", "reference", cwd=tmp_path)
    assert done.returncode == 0
    assert row["outcome"] == "passed"


@pytest.mark.parametrize(("effort", "waived"), [("quick", "long rows"), ("thorough", None)])
def test_an_effort(effort, waived, tmp_path):
    done, row = judged("Corner", f'effort = "{effort}"', cwd=tmp_path)
    assert row["outcome"] == "failed"
    assert row["waived"] == waived
    assert done.returncode == 1, "nothing passed"


def test_a_dtype_and_a_condition(tmp_path):
    _, row = judged("Corner", 'dtype = "float32"\nwhen = "H > 20"', "--dtype", "float64", cwd=tmp_path)
    assert row["waived"] is None
    _, row = judged("Corner", 'dtype = "float64"\nwhen = "H > 20"', "--dtype", "float64", cwd=tmp_path)
    assert row["waived"] == "long rows (where H > 20)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('effort = "much"', "effort is one of quick, default, thorough"), ("when = 3", "when is not a text"),
        ('when = "import os"', "is no condition"), ('when = ""', "is no condition"),
        ("dtype = 3", "dtype is not a text"),
    ],
)  # fmt: skip
def test_what_is_no_waiver(text, message, tmp_path):
    done, _ = judged("Corner", text, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_condition_under_pytest(tmp_path):
    path = waivers(tmp_path, f'[[waiver]]\nproperty = "{ID}"\nreason = "long rows"\nwhen = "H > 20"\n')
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "refbert_conformance.plugin",
        "--pyargs",
        "refbert_conformance",
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    done = subprocess.run(
        [*command, "--refbert-backend", "test_waivers:Corner", "--refbert-only", "forward/tanh/[ao]*",
         "--refbert-effort", "quick", "--refbert-waivers", path],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 xfailed" in done.stdout


def test_a_backend_that_dies_does_not_take_pytest_with_it(tmp_path):
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "refbert_conformance.plugin", "--pyargs"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    for name, said in (("subjects:Crashes", "1 failed, 1 passed"), ("subjects:Hangs", "1 passed, 1 skipped")):
        done = subprocess.run(
            [*command, "refbert_conformance", "--refbert-backend", name, "--refbert-effort", "quick",
             "--refbert-only", "forward/[rt]*/accuracy", "--refbert-timeout", "1",
             "-k", "relu or tanh"],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert said in done.stdout, done.stdout + done.stderr
    assert "inconclusive: the backend gave no answer in" in done.stdout


RECIPE = recipe("attention", {"B": 2, "S": 600, "A": 3, "D": 4}, ("normal",) * 4, 7, {"mask": "ragged", "rate": 0.1,
                "mask_value": -float("inf"), "kept": "rate"})  # fmt: skip


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("S > 512", True), ("S > 600", False), ("S >= 600 and B == 2", True), ("S > 600 or mask == 'ragged'", True),
        ("not S > 512", False), ("mask in ('holes', 'ragged')", True), ("A * D == 12", True), ("S % 16 == 8", True),
        ("100 < S < 1000", True), ("mask_value == -inf", True), ("'normal' in regimes", True), ("mask > 3", False),
        ("S % 0 == 1", False), ("op == 'attention'", True), ("nothing > 3", False), ("rate", True),
        ("S // 7 - 85", False),
        ("True", True), ("-S < 0", True), ("mask not in ['all']", True), ("mask * 3 == 'x'", False),
    ],
)  # fmt: skip
def test_conditions(text, holds):
    assert Condition(text).holds(facts(RECIPE)) is holds


def test_what_an_example_is_made_of():
    assert facts(ModelRecipe(3, S=70))["S"] == 70
    assert facts(Repeated(ModelRecipe(3, S=70), 5)) == facts(ModelRecipe(3, S=70)) | {"copies": 5}
    assert facts(None) == facts((1, 2)) == {}


@pytest.mark.parametrize(
    "text",
    ["", "S >", "f(S)", "S.x > 1", "S[0]", "S ** 9 > 1", "lambda: 1", "[x for x in S]", "S if S else B", "S := 3",
     "S; B", "__import__('os')", "'a' 'b' @ S", "S << 9", "{}", "S > 1j", "None", "S is 3", "(" * 200,
     "S > 1" + " " * 400,
     "\x00", "f'{S}'"],
)  # fmt: skip
def test_what_is_no_condition(text):
    with pytest.raises(InputError, match="is no condition of a case"):
        Condition(text)
