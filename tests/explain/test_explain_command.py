"""`refbert explain` as a user calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from refbert.cli import cli
from refbert_inspection import explain
from refbert_inspection.explain import worked_examples

NAMES = [e.name for e in explain.entries()]


def refbert_explain(*arguments, **env):
    return subprocess.run(
        [sys.executable, "-m", "refbert", "explain", *arguments], stdin=subprocess.DEVNULL, capture_output=True,
        text=True, encoding="utf-8", env={**os.environ, **env}, check=False,
    )  # fmt: skip


def test_the_list():
    done = refbert_explain()
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == NAMES


def test_a_page_in_a_pipe():
    done = refbert_explain("layer-norm", COLUMNS="90")
    assert done.returncode == 0, done.stderr
    assert "\x1b[" not in done.stdout
    assert done.stdout == explain.terminal("layer_norm", width=90)


def test_width():
    assert refbert_explain("relu", "--width", "72").stdout == explain.terminal("relu", width=72)


def test_json():
    done = refbert_explain("gelu", "--json")
    assert json.loads(done.stdout) == explain.as_data("gelu")
    listed = json.loads(refbert_explain("--json").stdout)
    assert [one["name"] for one in listed] == NAMES
    assert set(listed[0]) == {"name", "kind", "summary"}


def test_markdown():
    assert refbert_explain("--markdown", "add").stdout == explain.markdown("add")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["layernrm"], "layer_norm"),
        (["qqqq"], "lists all"),
        (["--markdown"], "needs the name"),
        (["gelu", "--json", "--markdown"], "exclude"),
        (["gelu", "--width", "10"], "60"),
        (["gelu", "relu"], "relu"),
    ],
)
def test_bad_usage_is_one_line(arguments, says):
    done = refbert_explain(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("refbert: ")
    assert says in line


def test_a_gradient_that_does_not_agree_is_a_failed_check(monkeypatch):
    monkeypatch.setattr(worked_examples, "_ROUNDINGS", -1)
    done = CliRunner().invoke(cli, ["explain", "gelu"], standalone_mode=False)
    assert "DO NOT AGREE" in done.output
    assert done.return_value == 1
