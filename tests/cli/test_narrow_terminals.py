"""Every command's tables on a terminal of 80, 60 and 40 columns: all figures of the wide one, whole."""

from __future__ import annotations

import importlib
import json
import re
from collections import Counter

import pytest
from rich.cells import cell_len
from small_checkpoint import write_small_checkpoint
from terminals import on_a_terminal

import refbert
from refbert.backend.reference import ReferenceBackend
from refbert.cli import main
from refbert.cli.tables import say

NARROW = (80, 60, 40)
TEXT = "the cat [MASK] on a mat."
# "0.61", "1.35e-08", "1,024", "1×9×12", "12.3%": a word that is nothing but a figure.
FIGURE = re.compile(r"[-+]?\d[\d.,×]*(e[-+]\d+)?%?")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_small_checkpoint(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory, small):
    """A classifier of three labels, and a file to evaluate it on."""
    folder = tmp_path_factory.mktemp("classifier")
    loaded = refbert.load(small, backend="reference")
    labels = {0: "not at all", 1: "somewhat", 2: "very much so"}
    config = loaded.config.replace(num_labels=3, id2label=labels)
    refbert.from_config(config, heads=("sequence_classification",), backend=ReferenceBackend("float32")).save(folder)
    loaded.tokenizer.save(folder)
    (folder / "test.csv").write_text("text,label\nthe cat,somewhat\na dog,not at all\n", encoding="utf-8")
    return folder


COMMANDS = {
    "diff": ("diff",),
    "diff of gradients": ("diff", "--backward", "--all"),
    "diff of two": ("diff", "--against", "torch"),
    "diff that parts": ("diff", "--profile", "google", "--against-profile", "hf"),
    "trace": ("trace", "--model", "SMALL", "--html", "FOLDER/t.html", TEXT),
    "trace of gradients": ("trace", "--model", "SMALL", "--backward", "--html", "FOLDER/t.html", TEXT),
    "info": ("info", "SMALL"),
    "info of a preset": ("info", "bert-large-uncased-whole-word-masking"),
    "backends": ("backends",),
    "audit": ("audit", "bert.params."),
    "audit's list": ("audit", "--list", "bert.params."),
    "audit of one": ("audit", "bert.params.large"),
    "conform's list": ("conform", "--list"),
    "explain's list": ("explain",),
    "run on a mask": ("run", "--model", "SMALL", TEXT, "a dog"),
    "vectors": ("run", "--model", "SMALL", "--task", "embed", *("the cat sat" + " a dog" * i for i in range(4))),
    "labels": ("run", "--model", "CLASSIFIER", "the cat sat on a mat", "a dog"),
    "evaluate": ("evaluate", "--model", "CLASSIFIER", "CLASSIFIER/test.csv"),
}  # fmt: skip


def figures(lines):
    words = (word.strip("(),;:") for line in lines for word in line.split())
    return Counter(word for word in words if FIGURE.fullmatch(word))


def fits(lines, width):
    """Whether every line does, but for a single word that is longer than the terminal, which is not broken."""
    return all(cell_len(line) <= width or len(line.split()) == 1 for line in lines)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_figure_is_lost(command, small, classifier, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("REFBERT_MODEL", raising=False)
    places = {"SMALL": str(small), "CLASSIFIER": str(classifier), "FOLDER": str(tmp_path)}

    def shown(width):
        monkeypatch.setenv("COLUMNS", str(width))
        arguments = COMMANDS[command]
        for name, path in places.items():
            arguments = [argument.replace(name, path) for argument in arguments]
        with pytest.raises(SystemExit):
            main(arguments)
        text = re.sub(r"claims in [\d.]+ s|distance, 1e-17 to 10", "", capsys.readouterr().out)  # times; the bars
        return [line.rstrip() for line in text.split("\n")]

    wide = shown(300)
    found = figures(wide)
    assert sum(found.values()) >= 2
    for width in NARROW:
        lines = shown(width)
        # One claim is shown with its code, whose lines stay whole.
        assert command == "audit of one" or fits(lines, width), [line for line in lines if cell_len(line) > width]
        lost = found - figures(lines)
        assert not lost, (width, lost)
        if command != "vectors":  # which say that a vector has more numbers than four
            assert not [line for line in lines if line.endswith("…")]


def test_words_of_wide_characters_are_folded_where_they_end(monkeypatch, capsys):
    line = "[MASK] (token 3): " + ", ".join(f"漢字漢字 {i}.5%" for i in range(20))
    for width in range(40, 121):
        monkeypatch.setenv("COLUMNS", str(width))
        say(line)
        lines = capsys.readouterr().out.splitlines()
        assert fits(lines, width)
        assert " ".join(" ".join(lines).split()) == line
        # No line ends before it must.
        firsts = [below.split()[0] for below in lines[1:]]
        assert not [a for a, word in zip(lines, firsts, strict=False) if cell_len(f"{a} {word}") <= width]


def test_names_of_records_are_shortened_and_stay_apart(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    with pytest.raises(SystemExit):
        main(["trace", "--model", str(small), "--html", str(tmp_path / "t.html"), TEXT])
    lines = capsys.readouterr().out.splitlines()
    for name in ("…encoder.layer.0.attention.self.query", "…layer.1.attention.self.probabilities"):
        assert lines.count(name) == 1, lines


def test_the_test_can_fail():
    assert figures(["rms  1.2…", "shape 1×9×12"]) == {"1×9×12": 1}
    assert figures(["ρ = 0.061, distance 1.35e-08"]) == {"0.061": 1, "1.35e-08": 1}
    assert not fits(["two words"], 5)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """What `refbert conform` found of some of numpy's properties."""
    file = tmp_path_factory.mktemp("report") / "report.json"
    with pytest.raises(SystemExit):
        main(["conform", "--effort", "quick", "--only", "*/gelu/*", "--json", str(file)])
    return file.read_text(encoding="utf-8")


@pytest.mark.parametrize("failed", [False, True])
def test_conform_loses_no_figure(failed, report, monkeypatch, capsys):
    module = importlib.import_module("refbert_conformance.commands.conform")
    found = json.loads(report)
    if failed:  # every outcome, so that every column has something
        outcomes = ("failed", "unsupported", "unavailable")
        for outcome, row in zip(outcomes, found["properties"], strict=False):
            row |= {"outcome": outcome, "message": "y[0] is 2, should be 3, ρ = 81.2"}
        found["verdict"] = "not conformant"

    def shown(width):
        monkeypatch.setenv("COLUMNS", str(width))
        module.publish([found], None, None)
        return [line.rstrip() for line in capsys.readouterr().out.splitlines()]

    wide = figures(shown(300))
    assert sum(wide.values()) > 8
    for width in NARROW:
        lines = shown(width)
        assert fits(lines, width)
        assert not wide - figures(lines), width
        assert not [line for line in lines if line.endswith("…")]
        assert any(line.startswith(found["verdict"]) for line in lines)


def test_bench_loses_no_figure(monkeypatch, capsys):
    module = importlib.import_module("refbert.cli.bench")
    facts = {
        "backend": "numpy", "library": "NumPy 2.4.6, OpenBLAS 0.3.31.188.0", "dtype": "float32", "device": "cpu",
        "model": "bert-large-uncased", "weights": "random", "parameters": 335_141_888, "work": "step", "batch_size": 32,
        "length": 512, "seconds": {"median": 12.3456, "quartiles": [11.9876, 13.4567]}, "tokens_per_second": 1327.5,
        "gflop_per_second": 2345.6, "limit_gflop_per_second": 3456.7, "fraction_of_limit": 0.68,
        "peak_memory": {"process": 12_345_678_901, "device": None},
    }  # fmt: skip

    def shown(width):
        monkeypatch.setenv("COLUMNS", str(width))
        module._print(facts)
        return capsys.readouterr().out.splitlines()

    wide = figures(shown(300))
    assert "12345.6" in wide
    for width in NARROW:
        assert not wide - figures(shown(width))


@pytest.mark.parametrize("width", [120, 80, 60, 40])
def test_diff_on_a_real_terminal_says_its_verdict_first_and_all_numbers(width, tmp_path):
    done = on_a_terminal(width, "diff", cwd=tmp_path)
    assert done.returncode == 0, done.errors
    assert done.lines[0].startswith("within the bounds: 54 tensors")
    assert fits(done.lines, width)
    data = json.loads(on_a_terminal(width, "diff", "--json", cwd=tmp_path).words())
    row = next(row for row in data["tensors"] if row["name"] == "bert.encoder.layer.1.output.LayerNorm")
    at = next(i for i, line in enumerate(done.lines) if "1.output.LayerNorm" in line)
    here = " ".join(done.lines[at : at + 5]).split()
    for figure in (row["distance"], row["allowed"], row["rho"], row["own"][0]):
        assert f"{figure:.3g}" in here


@pytest.mark.parametrize("width", [80, 40])
def test_trace_on_a_real_terminal_says_first_what_the_mask_is(width, small, tmp_path):
    done = on_a_terminal(width, "trace", "--model", small, TEXT, cwd=tmp_path)
    assert done.returncode == 0, done.errors
    model = refbert.load(small)
    (filled,) = refbert.tasks.fill_mask.fill_mask(model, [TEXT])
    said = done.words()
    best = ", ".join(f"{p.token} {100 * p.score:.3g}%" for p in filled.masks[0].predictions)
    assert said.startswith(f"[MASK] (token 3): {best} ")
    assert fits(done.lines, width)


@pytest.mark.parametrize("width", [80, 40])
def test_conform_on_a_real_terminal(width, tmp_path):
    file = tmp_path / "report.json"
    done = on_a_terminal(
        width, "conform", "--effort", "quick", "--only", "forward/gelu/*", "--json", file, cwd=tmp_path
    )
    assert done.returncode == 0, done.errors
    found = json.loads(file.read_text(encoding="utf-8"))
    assert fits(done.lines, width)
    assert f"conformant: {found['counts']['passed']} of {len(found['properties'])} properties" in done.words()
    here = figures(done.lines)
    worst = max(row["rho"] for row in found["properties"] if row["rho"] is not None)
    for figure in (str(sum(row["examples"] for row in found["properties"])), f"{worst:.2g}"):
        assert here[figure], figure


def test_diff_says_what_it_does_while_it_does_it(tmp_path):
    errors = on_a_terminal(80, "diff", "--backward", cwd=tmp_path).errors.splitlines()
    assert errors[0] == "refbert: numpy (float32): forward and backward, 3 layers, 3 × 9 tokens …"
    assert "refbert: numpy (float32): ops by themselves …" in errors
