"""Every worked notebook runs as a script, splits into cells, and has exercises before its solutions."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.py"))


def _convert():
    spec = importlib.util.spec_from_file_location("notebook_convert", FOLDER / "tools" / "convert.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


convert = _convert()


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_as_a_script(path, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path)], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONUTF8": "1"}, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_a_notebook(path):
    cells = convert.cells(path.read_text(encoding="utf-8"))
    assert cells[0][0] == "markdown"
    assert cells[0][1].startswith("# ")
    for kind, source in cells:
        assert source
        if kind == "code":
            ast.parse(source)  # a cell by itself, not a piece of a statement
        else:
            assert "# %%" not in source
    code = [source for kind, source in cells if kind == "code"]
    assert len(code) >= 5
    headings = [line for kind, source in cells if kind == "markdown" for line in source.split("\n")]
    assert headings.index("## Exercises") < headings.index("## Solutions")
    made = convert.notebook(path.read_text(encoding="utf-8"))
    assert json.loads(json.dumps(made))["nbformat"] == 4
    assert [cell["cell_type"] for cell in made["cells"]] == [kind for kind, _ in cells]


def test_the_list_is_whole():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        assert f"`{path.name}`" in text


def test_the_converter_writes_a_notebook_beside_each_file(tmp_path, capsys):
    (tmp_path / "a.py").write_text('"""A."""\n\n# %% [markdown]\n# # A\n\n# %%\nx = 1\n', encoding="utf-8")
    assert convert.main([str(tmp_path / "a.py")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'a.ipynb'}\n"
    made = json.loads((tmp_path / "a.ipynb").read_text(encoding="utf-8"))
    assert [cell["source"] for cell in made["cells"]] == ["# A", "x = 1"]


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ([], "name at least one FILE.py"),
        (["missing.py"], "missing.py: No such file or directory"),
        (["folder"], "folder: Is a directory"),
        (["latin.py"], "latin.py: not UTF-8 text"),
        (["empty.py"], "empty.py: no cell in it (a cell begins with # %%)"),
    ],
)
def test_what_the_converter_cannot_do_is_one_line_and_status_2(tmp_path, monkeypatch, capsys, names, says):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("latin.py").write_bytes(b"# %%\nx = 'caf\xe9'\n")
    Path("empty.py").touch()
    assert convert.main(names) == 2
    assert capsys.readouterr() == ("", f"convert.py: {says}\n")
    assert not list(Path().glob("*.ipynb"))
