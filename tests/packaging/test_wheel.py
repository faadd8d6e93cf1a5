"""What a user installs: the wheel's top-level names, its entry points, and the types marker."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "--wheel-dir", out, ROOT],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


@pytest.mark.slow
def test_top_level_names_collide_with_nobody(wheel):
    top = {name.split("/")[0] for name in wheel.namelist()}
    top = {name for name in top if not name.endswith(".dist-info")}
    # `backends` and `conformance` would collide with other projects' wheels; `tests` belongs in no wheel.
    assert top == {
        "refbert", "refbert_numpy", "refbert_torch", "refbert_cupy", "refbert_array_api", "refbert_conformance",
        "refbert_audit", "refbert_inspection",
    }  # fmt: skip


@pytest.mark.slow
def test_entry_points_and_types(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    text = wheel.read(name).decode()
    assert "refbert = refbert.cli:main" in text
    assert "refbert/py.typed" in wheel.namelist()
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())


@pytest.mark.slow
def test_the_models_are_in_it_and_it_is_small(wheel):
    names = set(wheel.namelist())
    for model in ("small-english", "small-chinese"):
        assert f"refbert/models/{model}/model.safetensors" in names
    assert sum(one.compress_size for one in wheel.infolist()) < 25_000_000


@pytest.mark.slow
def test_what_pages_are_made_of(wheel):
    """Templates, styles and scripts are no Python, and come along."""
    (folders,) = re.findall(r"^packages = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL | re.MULTILINE)
    packages = [ROOT / folder for folder in re.findall(r'"(.+?)"', folders)]
    files = {
        file.relative_to(package.parent).as_posix()
        for package in packages
        for kind in ("html", "css", "js")
        for file in package.rglob(f"*.{kind}")
    }
    assert "refbert/pages/templates/base.html" in files
    assert files <= set(wheel.namelist())
