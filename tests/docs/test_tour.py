"""The tour shows what its code prints and draws, and its Chinese translation has the same code and equations."""

from __future__ import annotations

import codeop
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


def _pasted(code):
    """Line by line into a prompt of Python 3.11, where an empty line ends a compound statement, and nothing else does.

    Raises SyntaxError as the prompt would; the end of the block is an empty line.
    """
    compiled, statement = codeop.CommandCompiler(), ""
    for line in [*code.rstrip("\n").split("\n"), ""]:
        statement += line + "\n"
        # Two ends of line are an empty line to codeop. One is left out, so that a statement of one line can end.
        if compiled(statement[:-1]) is not None:
            statement = ""
    if statement.strip():
        raise SyntaxError(f"the prompt waits for more: {statement}")


@pytest.mark.parametrize("name", PAGES)
def test_the_blocks_can_be_pasted_into_a_prompt(name):
    for block in runner.FENCED.findall((TOUR / name).read_text(encoding="utf-8")):
        if block.startswith("```python\n"):
            _pasted(block.removeprefix("```python\n").removesuffix("```"))


@pytest.mark.parametrize(
    ("code", "fits"),
    [
        ("x = 1\ny = 2\n", True),
        ("for i in a:\n    f(i)\n\ng()\n", True),
        ("for i in a:\n    f(i)\n", True),
        ("if a:\n    f()\nelse:\n    g()\n\n\nh()\n", True),
        ("x = (\n    1,\n\n    2,\n)\ny = 3\n", True),  # in brackets a statement goes on
        ('text = """a\n\nb"""\ny = 3\n', True),
        ("@f\ndef g():\n    # why\n    return 1\n\ng()\n", True),
        ("for i in a:\n    f(i)\ng()\n", False),  # nothing has ended the loop
        ("def f():\n    a = 1\n\n    return a\n", False),  # the empty line ends f
        ("class A:\n    def f(self):\n        pass\n\n    def g(self):\n        pass\n", False),
        ("if a:\n    f()\n\nelse:\n    g()\n", False),
    ],
)
def test_what_can_be_pasted_is_told_from_what_cannot(code, fits):
    if fits:
        _pasted(code)
    else:
        with pytest.raises(SyntaxError):
            _pasted(code)


HOW_TO = ROOT / "docs" / "how-to"


def test_the_commands_that_are_shown_exist():
    from refbert.cli import commands

    for page in (*HOW_TO.glob("*.md"), *TOUR.glob("*.md")):
        for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            for line in block.replace("\\\n", " ").split("\n"):
                words = line.split(" #")[0].split()
                if not words or words[0] != "refbert":
                    continue
                options = {name for p in commands()[words[1]].params for name in (*p.opts, *p.secondary_opts)}
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


def _heat_map(value):
    sys.path.insert(0, str(TOUR))
    try:
        import drawing
    finally:
        sys.path.remove(str(TOUR))
    return drawing.heat_map("weights", [[1.0, value]], rows=["a"], columns=["a", "b"])


@pytest.mark.parametrize("value", [0.001, 0.2, 0.4, 0.7, 0.945, 0.999])
def test_another_machines_last_digits_draw_the_same_figure(value):
    drawn = _heat_map(value)
    for other in (value - 4e-3, value + 4e-3):  # less than a unit of the last digit that is shown
        assert runner.same(drawn, _heat_map(other))
    assert not runner.same(drawn, _heat_map(abs(value - 0.03)))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nothing"], "nothing: no page has that in its name"),
        (["index", "nothing"], "nothing: no page has that in its name"),
        (["--wirte"], "--wirte: the only option is --write"),
    ],
)
def test_what_the_runner_cannot_do_is_one_line_and_status_2(capsys, arguments, says):
    assert runner.main(arguments) == 2
    assert capsys.readouterr() == ("", f"run.py: {says}\n")
