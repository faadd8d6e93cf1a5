"""The options of training are the settings: every field has one, with its default, and only what is given counts."""

from __future__ import annotations

import dataclasses

import pytest

from refbert.cli.finetune import finetune
from refbert.cli.options import given_settings
from refbert.cli.pretrain import pretrain
from refbert.training.finetuning_settings import Settings as Fine
from refbert.training.pretraining_settings import Settings as Pre

COMMANDS = [(pretrain, Pre, {"output", "resume"}), (finetune, Fine, {"output", "resume", "paper_grid"})]


@pytest.mark.parametrize(("command", "settings", "others"), COMMANDS)
def test_every_setting_has_an_option_with_its_default(command, settings, others):
    options = {parameter.name: parameter for parameter in command.params}
    fields = {field.name: field for field in dataclasses.fields(settings)}
    assert set(options) - others == set(fields)
    stated = {
        name: field.default for name, field in fields.items()
        if field.default not in (None, dataclasses.MISSING) and not isinstance(field.default, tuple)
    }  # fmt: skip
    assert len(stated) > 10
    assert {name: options[name].default for name in stated} == stated


@pytest.mark.parametrize(("command", "settings", "others"), COMMANDS)
def test_what_is_not_given_is_left_to_the_settings(command, settings, others, monkeypatch):
    monkeypatch.delenv("REFBERT_MODEL", raising=False)
    with command.make_context(command.name, ["--output", "x"]) as context:
        assert given_settings(settings, context.params) == {}
    with command.make_context(command.name, ["--output", "x", "--seed", "0"]) as context:
        assert given_settings(settings, context.params) == {"seed": 0}, "given, although it is the default"


def test_several_values_and_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    arguments = [
        "--learning-rate", "5e-5,3e-5", "--learning-rate", "2e-5", "--choice-columns", "a,b", "--model", "model",
        "--train", "x.csv", "--dropout", "0.2", "--no-gradient-checkpointing",
    ]  # fmt: skip
    with finetune.make_context("finetune", ["--output", "x", *arguments]) as context:
        assert given_settings(Fine, context.params) == {
            "learning_rates": (5e-5, 3e-5, 2e-5), "choice_columns": ("a", "b"), "model": str(tmp_path / "model"),
            "train": str(tmp_path / "x.csv"), "dropout": 0.2, "gradient_checkpointing": False,
        }  # fmt: skip
    with pretrain.make_context(
        "pretrain", ["-", "a.txt", "--output", "x", "--dev", "b,c.txt", "--from", "m"]
    ) as context:
        assert given_settings(Pre, context.params) == {
            "files": ("-", str(tmp_path / "a.txt")), "dev": (str(tmp_path / "b,c.txt"),), "start_from": "m",
        }  # fmt: skip
