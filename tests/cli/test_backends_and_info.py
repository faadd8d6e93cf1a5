"""`refbert backends` and `refbert info`."""

from __future__ import annotations

import json

import pytest
from small_checkpoint import write_small_checkpoint
from test_run import MINILM, fails, refbert_cli

from refbert.cli import commands, main
from refbert.errors import BackendUnavailable


def test_backends_json():
    done = refbert_cli("backends", "--json")
    assert done.returncode == 0, done.stderr
    found = {one["name"]: one for one in map(json.loads, done.stdout.splitlines())}
    assert list(found)[:4] == ["reference", "numpy", "torch", "cupy"]
    for one in found.values():
        assert set(one) == {
            "name", "available", "contract", "contract_said", "library", "device", "dtypes", "missing", "reason",
        }  # fmt: skip
        assert one["available"] or one["reason"]
    for name in ("reference", "numpy", "torch"):
        assert found[name]["available"], found[name]["reason"]
        assert found[name]["missing"] == []
        assert (found[name]["contract"], found[name]["contract_said"]) == (1, True)
    assert found["reference"]["dtypes"][0] == "float64"
    assert found["numpy"]["dtypes"][0] == "float32"


def test_backends_table_says_why_not():
    done = refbert_cli("backends", "--device", "cuda:99")
    assert done.returncode == 0
    assert "no CUDA device" in " ".join(done.stdout.split())


def test_backends_table_shows_what_others_say_as_it_is(monkeypatch, capsys):
    def create(name, **_):
        raise BackendUnavailable(f'backend "{name}" is unavailable: pip install "x[gpu]", see [/docs] :key:')

    monkeypatch.setattr("refbert.backend.registry.create", create)
    monkeypatch.setattr("refbert.backend.registry.names", lambda: ("numpy", "[red]"))
    with pytest.raises(SystemExit):
        main(["backends"])
    rows = [line.split("no", 1) for line in capsys.readouterr().out.splitlines() if "gpu" in line]
    assert [(name.strip(), note.strip()) for name, note in rows] == [
        (name, 'pip install "x[gpu]", see [/docs] :key:') for name in ("numpy", "[red]")
    ]


def test_info_shows_a_name_as_it_is(tmp_path):
    directory = write_small_checkpoint(tmp_path / "small [v2]")
    done = refbert_cli("info", directory.name, cwd=tmp_path)
    assert "small [v2]" in done.stdout, done.stderr


def test_info_of_a_real_checkpoint():
    done = refbert_cli("info", MINILM, "--json")
    assert done.returncode == 0, done.stderr
    out = json.loads(done.stdout)
    assert out["parameters"]["total"] == 22_713_216
    assert sum(out["parameters"]["groups"].values()) == 22_713_216
    assert out["config"]["hidden_size"] == 384


def test_info_of_a_preset_needs_no_files():
    done = refbert_cli("info", "bert-base-uncased", "--json", env={"HF_HUB_OFFLINE": "1"})
    assert json.loads(done.stdout)["parameters"]["total"] == 109_482_240


def test_info_table(tmp_path):
    done = refbert_cli("info", write_small_checkpoint(tmp_path))
    assert done.returncode == 0
    for word in ("encoder", "masked_lm", "FLOP", "memory"):
        assert word in done.stdout


def test_info_of_nothing(tmp_path):
    fails(refbert_cli("info", tmp_path / "nowhere"), "nowhere")
    (tmp_path / "config.json").write_text("not json")
    fails(refbert_cli("info", tmp_path), "config.json")


def test_every_option_says_what_it_is_for():
    silent = [
        f"{name} {option.opts[0]}" for name, command in commands().items() for option in command.params
        if option.param_type_name == "option" and not option.help
    ]  # fmt: skip
    assert len(commands()) > 10
    assert silent == []


def test_without_a_command_it_is_the_help():
    done = refbert_cli()
    assert done.returncode == 0
    assert done.stdout == refbert_cli("--help").stdout
    assert done.stderr == ""


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["run", "--help"], ["info", "-h"]])
def test_help(arguments):
    done = refbert_cli(*arguments)
    assert done.returncode == 0
    assert done.stdout


def test_one_that_lacks_an_attribute_does_not_hide_the_others(tmp_path, monkeypatch, capsys):
    lines = "    dtype = 'float32'\n    def __init__(self, dtype=None, device=None): pass\n"
    held = "    def asarray(self, x): return x\n    def to_numpy(self, x): return x\n"
    (tmp_path / "nameless_backend.py").write_text(f"class Nameless:\n{lines}{held}", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("refbert.backend.registry._installed", lambda: {"nameless": "nameless_backend:Nameless"})
    with pytest.raises(SystemExit) as exit:
        main(["backends", "--json"])
    rows = {row["name"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert exit.value.code == 0
    assert rows["numpy"]["available"]
    assert (rows["nameless"]["library"], rows["nameless"]["missing"][0]) == ("", "add")
