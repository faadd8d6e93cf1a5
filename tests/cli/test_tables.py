"""Tables at any width: no figure is cut, names stay apart, and lines end where the terminal does."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text

from refbert.cli.tables import Table, print_table, say, shortened

PARTS = (
    "attention.self.query", "attention.output.dense", "attention.output.LayerNorm", "output.dense", "output.LayerNorm",
)  # fmt: skip
NAMES = [f"bert.encoder.layer.{i}.{part}" for i in (0, 1, 11) for part in PARTS]


def shown(table, width, monkeypatch, capsys):
    """Lines on a terminal of that width; None: in a pipe."""
    if width is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", str(width))
    print_table(table)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert width is None or max(map(cell_len, lines)) <= width, lines
    return lines


def tensors(names):
    table = Table("numpy (float32) against reference (float64)")
    table.add_column("tensor", "name")
    for heading in ("distance", "allowed", "ρ", "numpy: op by itself"):
        table.add_column(heading, "figure")
    table.add_column("1e-17 to 10", "aside")
    for k, name in enumerate(names):
        table.add_row(name, f"{k}.35e-08", f"{k}.63e-04", f"0.0{k}812", f"{k}.123", "▇" * 18)
    return table


@pytest.mark.parametrize("width", [200, 120, 100, 80, 60, 50, 40, 30, 20, None])
def test_no_figure_is_cut_and_no_two_names_become_one(width, monkeypatch, capsys):
    lines = shown(tensors(NAMES), width, monkeypatch, capsys)
    text = "\n".join(lines)
    for k in range(len(NAMES)):
        for figure in (f"{k}.35e-08", f"{k}.63e-04", f"0.0{k}812", f"{k}.123"):
            assert len(re.findall(rf"(?<![\d.]){re.escape(figure)}(?!\d)", text)) == 1, figure
    assert not re.search(r"\d…|…$", text, re.MULTILINE)
    if width is None or width >= 80:
        rows = [line.split()[0] for line in lines if "e-08" in line]
        assert len(set(rows)) == len(NAMES)
        for row, name in zip(rows, NAMES, strict=True):
            parts = re.split(r"…|\.\.", row)
            assert all(part in name for part in parts)
            assert name.endswith(parts[-1])
    else:
        whole, shortened = "".join(lines), re.findall(r"…([\w.]+)", text)  # where a record stands on several lines
        found = [[name] if name in whole else [s for s in shortened if name.endswith(f".{s}")] for name in NAMES]
        assert all(len(one) == 1 for one in found)
        assert len({one for (one,) in found}) == len(NAMES)


def test_names_shorten_before_bars_go_and_figures_stay(monkeypatch, capsys):
    at = {w: "\n".join(shown(tensors(NAMES), w, monkeypatch, capsys)) for w in (200, 100, 80, 48)}
    assert NAMES[2] in at[200]
    assert "▇" in at[200]
    assert "…layer.0.attention.output.LayerNorm" in at[100]
    assert "▇" in at[100]
    assert "▇" not in at[80]
    assert "0.00812" in at[80]
    assert NAMES[2] in at[48]  # a record has room for the whole name
    assert "distance 0.35e-08" in at[48]


@pytest.mark.parametrize("width", [80, 40, 24])
def test_a_column_without_anything_goes_before_figures_do(width, monkeypatch, capsys):
    table = Table()
    for heading in ("level", "passed", "failed", "unsupported", "unavailable", "waived", "examples", "seconds"):
        table.add_column(heading, "id" if heading == "level" else "figure")
    table.add_row("forward", "61", "·", "·", "·", "·", "12,345", "10.5")
    table.add_row("backward", "48", "·", "2", "·", "·", "23,456", "20.7")
    text = "\n".join(shown(table, width, monkeypatch, capsys))
    assert ("waived" in text) == (width == 80)
    for word in ("61", "12,345", "10.5", "unsupported", "2"):
        assert re.search(rf"(?<!\S){re.escape(word)}(?!\S)", text)


def test_asides_go_before_columns_without_anything(monkeypatch, capsys):
    table = Table()
    for heading, kind in (("level", "id"), ("failed", "figure"), ("where", "aside")):
        table.add_column(heading, kind)
    table.add_row("forward", "·", "a long way off")
    at = {width: shown(table, width, monkeypatch, capsys)[0] for width in (40, 20, 10)}
    assert "failed" in at[40]
    assert "where" in at[40]
    assert "failed" in at[20]
    assert "where" not in at[20]
    assert at[10] == "level"


def test_names_that_would_become_one_are_not_shortened(monkeypatch, capsys):
    table = Table()
    table.add_column("tensor", "name")
    table.add_column("rms", "figure")
    names = [f"bert.{middle}.some_rather_long_part.weight" for middle in ("first", "second")]
    for name in names:
        table.add_row(name, "1.234")
    lines = shown(table, 40, monkeypatch, capsys)
    assert [line for line in lines if line in names] == names  # records


@pytest.mark.parametrize("width", [100, 40, 12, None])
def test_what_others_say_is_shown_as_it_is_and_whole(width, monkeypatch, capsys):
    said = 'pip install "x[gpu]", see [/docs] :key: 今日は晴れです'
    table = Table("[red] title :cat:")
    for heading in ("backend", "note"):
        table.add_column(heading, "id" if heading == "backend" else "text")
    table.add_row("[blue]", said)
    table.add_row(Text("numpy", "green"), "")
    text = "".join("".join(shown(table, width, monkeypatch, capsys)).split()).replace("─", "")
    for whole in ("[blue]", "numpy", "[red]title:cat:"):
        assert whole in text
    if width is None or width > 40:
        assert "".join(said.split()) in text


def test_no_width_at_all_is_a_pipes(monkeypatch, capsys):
    """COLUMNS=0, as some build servers have it."""
    piped = shown(tensors(NAMES), None, monkeypatch, capsys)
    monkeypatch.setenv("COLUMNS", "0")
    print_table(tensors(NAMES))
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == piped


def test_a_pipe_shortens_nothing(monkeypatch, capsys):
    table = Table()
    table.add_column("tensor", "name")
    table.add_column("note")
    table.add_row("bert." * 50 + "end", "words " * 60)
    lines = shown(table, None, monkeypatch, capsys)
    assert "bert." * 50 + "end" in lines[2]
    assert " ".join(lines[2:]).count("words") == 60


@given(st.lists(st.text("ab0", min_size=1, max_size=12), min_size=1, max_size=6), st.integers(2, 40))
def test_a_shortened_name_fits_and_keeps_its_end(parts, width):
    name = ".".join(parts)
    short = shortened(name, width)
    assert len(short) <= width
    assert name.endswith(re.split(r"…|\.\.", short)[-1])
    assert (short == name) == (len(name) <= width)


@pytest.mark.parametrize(
    ("width", "short"),
    [
        (60, "bert.encoder.layer.0.attention.self.query"),
        (40, "…encoder.layer.0.attention.self.query"),
        (34, "…layer.0.attention.self.query"),
        (28, "…0.attention.self.query"),
        (20, "…0..self.query"),
    ],
)
def test_the_number_of_a_layer_is_the_last_to_go(width, short):
    assert shortened("bert.encoder.layer.0.attention.self.query", width) == short


def test_a_gradient_stays_one():
    assert shortened("gradient of bert.encoder.layer.3.output.LayerNorm", 34) == "gradient of …3.output.LayerNorm"
    assert shortened("gradient of bert.embeddings.word_embeddings.weight", 30) == "gradient of …embeddings.weight"


def test_a_line_is_folded_between_words_and_a_path_never(monkeypatch, capsys):
    line = "first tensor beyond its tolerance: bert.encoder.layer.0.attention.output.LayerNorm, ρ = 81.2"
    monkeypatch.setenv("COLUMNS", "40")
    say(line)
    folded = capsys.readouterr().out.splitlines()
    assert "bert.encoder.layer.0.attention.output.LayerNorm," in [one.strip() for one in folded]
    assert " ".join(" ".join(folded).split()) == line
    monkeypatch.delenv("COLUMNS")
    say(line)
    assert capsys.readouterr().out == line + "\n"


def test_a_row_has_a_cell_for_every_column():
    table = Table()
    table.add_column("one")
    with pytest.raises(ValueError, match="2 cells for 1 columns"):
        table.add_row("a", "b")
