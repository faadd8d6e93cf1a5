"""The tour shows what its code prints and draws, and its Chinese translation has the same code and equations."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOUR, TRANSLATION = ROOT / "docs" / "tour", ROOT / "docs" / "zh" / "tour"
EQUATION = re.compile(r"\$\$.*?\$\$", re.DOTALL)


def _runner():
    spec = importlib.util.spec_from_file_location("tour_runner", TOUR / "run.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


runner = _runner()
PAGES = [page.name for page in runner.pages()]


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_a_page_shows_what_its_code_does(name):
    page = TOUR / name
    lacking = runner.missing(page)
    if lacking is not None:
        pytest.skip(f"unavailable: this machine lacks {lacking}")
    differences = runner.check(page)
    assert not differences, "\n".join(map(str, differences)) + "\npython docs/tour/run.py --write brings it up to date"


def test_every_chapter_is_in_the_index_in_order():
    for folder in (TOUR, TRANSLATION):
        listed = re.findall(r"^\| \d+ \| \[[^\]]+\]\(([^)]+)\)", (folder / "index.md").read_text("utf-8"), re.MULTILINE)
        assert listed == [name for name in PAGES if name != "index.md"]


@pytest.mark.parametrize("name", PAGES)
def test_the_translation_has_the_same_blocks_and_equations(name):
    english, chinese = ((folder / name).read_text(encoding="utf-8") for folder in (TOUR, TRANSLATION))
    assert runner.FENCED.findall(chinese) == runner.FENCED.findall(english)
    assert [" ".join(e.split()) for e in EQUATION.findall(chinese)] == [
        " ".join(e.split()) for e in EQUATION.findall(english)
    ]
    for pattern in (r"^#+ ", r"^- ", r"<!-- needs: \S+ -->", r"!\["):  # headings, points, requirements, figures
        counts = [len(re.findall(pattern, text, re.MULTILINE)) for text in (chinese, english)]
        assert counts[0] == counts[1], pattern
    prose = runner.FENCED.sub("", chinese)
    assert len(re.findall(r"[\u4e00-\u9fff]", prose)) > 100


@pytest.mark.parametrize("folder", [TOUR, TRANSLATION, ROOT / "docs" / "how-to"], ids=lambda folder: folder.parent.name)
def test_every_link_leads_somewhere(folder):
    for page in folder.glob("*.md"):
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", runner.FENCED.sub("", page.read_text(encoding="utf-8"))):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("folder", [TOUR, TRANSLATION], ids=["en", "zh"])
def test_no_formula_is_broken_by_the_end_of_a_line(folder):
    for page in folder.glob("*.md"):
        prose = EQUATION.sub("", re.sub(r"`[^`\n]*`", "", runner.FENCED.sub("", page.read_text(encoding="utf-8"))))
        assert [line for line in prose.split("\n") if line.count("$") % 2] == [], page.name


HOW_TO = ROOT / "docs" / "how-to"


def test_the_commands_that_are_shown_exist():
    from refbert.cli import cli

    for page in (*HOW_TO.glob("*.md"), *TOUR.glob("*.md")):
        for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            for line in block.replace("\\\n", " ").split("\n"):
                words = line.split(" #")[0].split()
                if not words or words[0] != "refbert":
                    continue
                options = {name for p in cli.commands[words[1]].params for name in (*p.opts, *p.secondary_opts)}
                used = {word for word in words[2:] if word.startswith("--")}
                assert used <= options, f"{page.name}: {line}"


def test_the_code_of_the_how_to_pages_runs():
    for page in HOW_TO.glob("*.md"):
        for code in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            exec(compile(code, str(page), "exec"), {})


def _check(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    return runner.check(page)


OUTPUT = "```python\nprint({value})\n```\n\n<!-- output -->\n```text\n{shown}\n```\n"


@pytest.mark.parametrize(
    ("value", "shown", "differs"),
    [
        ("0.5001", "0.5002", False),  # one unit of the last digit: rounding
        ("0.5001", "0.5004", True),
        ("7", "8", True),  # whole numbers are exact
        ("'8 tokens'", "5 tokens", True),
        ("'1.5e-04'", "1.6e-04", False),
        ("'1.5e-04'", "1.5e-05", True),
    ],
)
def test_the_runner_sees_a_wrong_output(tmp_path, value, shown, differs):
    assert bool(_check(tmp_path, OUTPUT.format(value=value, shown=shown))) == differs


def test_the_runner_sees_what_is_printed_and_not_shown(tmp_path):
    assert _check(tmp_path, "```python\nprint(1)\n```\n")
    assert _check(tmp_path, "```python\nprint(1)\n```\n\n```python\nx = 1\n```\n")


def test_the_runner_sees_another_figure(tmp_path):
    draws = '```python\nimport drawing\n\ndrawing.save("gelu.svg", "<svg/>")\n```\n\n![x](figures/gelu.svg)\n'
    assert [d.where for d in _check(tmp_path, draws)] == ["figures/gelu.svg"]
    assert [d.where for d in _check(tmp_path, "![x](figures/gelu.svg)\n")] == ["figures"]
