"""What every page is made with: every text escaped, nothing from outside, one way to show a number."""

from __future__ import annotations

import math
import re
from pathlib import Path

import jinja2
import pytest

from refbert.pages import Axis, LogAxis, fill, filling, number
from refbert.pages.numbers import percent

ROOT = Path(__file__).parent.parent
FOLDERS = ("refbert", "backends", "conformance", "audit", "inspection", "benchmarks", "docs", "website")
HOSTILE = "</style><script>alert(1)</script>\"'&\x00\x1b\u202e\ud800"


def sources(*kinds):
    return [file for folder in FOLDERS for kind in kinds for file in (ROOT / folder).rglob(f"*.{kind}")]


@pytest.fixture
def filled(monkeypatch):
    """A page from a template's text."""

    def fill_in(text, **values):
        template = "{% extends 'base.html' %}{% block title %}t{% endblock %}{% block body %}" + text + "{% endblock %}"
        filling._environment.cache_clear()
        monkeypatch.setattr(jinja2, "PackageLoader", with_one(template))
        return fill("a package", "one.html", **values)

    def with_one(text):
        real = jinja2.PackageLoader
        return lambda package: jinja2.DictLoader({"one.html": text}) if package == "a package" else real(package)

    yield fill_in
    filling._environment.cache_clear()


def test_every_value_is_escaped(filled):
    text = filled('<p title="{{ x }}">{{ x }}</p>{% set y %}{{ x }}{% endset %}{{ y ~ x }}', x=HOSTILE)
    text.encode()
    assert "<script" not in text
    assert text.count("</style>") == 1
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39;&amp;") == 4
    assert not re.search("[\x00\x1b\u202e\ud800]", text)
    assert text.count("\N{REPLACEMENT CHARACTER}" * 4) == 4


def test_none_is_nothing_and_a_name_that_is_not_there_an_error(filled):
    assert "<p></p>" in filled("<p>{{ x }}</p>", x=None)
    with pytest.raises(jinja2.UndefinedError, match="'y' is undefined"):
        filled("{{ y }}")


def test_nobody_escapes_by_hand_or_leaves_it_out():
    by_hand = re.compile(
        r"^import html|^from html import|html\.escape|saxutils|</?(body|div|span|td|tr|p|h[1-6])\b[^>]*>",
        re.MULTILINE,
    )
    for file in sources("py"):
        text = file.read_text(encoding="utf-8")
        assert not by_hand.search(text), file
        assert "Markup" not in text or file.name == "filling.py", file
        assert "jinja2" not in text or file.name == "filling.py", file
    for file in sources("html"):
        assert not re.search(r"\|\s*safe\b|autoescape|Markup", file.read_text(encoding="utf-8")), file


def test_every_page_extends_the_one_base_and_refers_to_nothing_outside():
    for file in [f for f in sources("html", "css", "js") if f.parent.name == "templates"]:
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(|<img|\bsrc=", text), file
        assert file.name == "base.html" or not re.search("<html|<head>|<!doctype", text), file


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"), (0, "0"), (0.43, "0.43"), (170.4, "170"), (12500.4, "12,500"), (1.2e-5, "1.2e-5"), (3e12, "3e12"),
        (math.inf, "∞"), ("-inf", "-∞"), ("nan", "NaN"), (-0.25, "-0.25"),
    ],
)  # fmt: skip
def test_numbers(value, shown):
    assert number(value) == shown


def test_a_share_is_never_rounded_up_to_all():
    assert percent(0.99967) == "99.9 %"


def test_axes():
    axis = Axis.around([2, 4, 3], 100, 0)
    assert [axis.at(x) for x in (2, 3, 4, 9, -math.inf, math.nan)] == [100, 50, 0, 0, 100, 0]
    assert axis.ticks == [(2, 100), (3, 50), (4, 0)]
    assert Axis.around([5, 5], 0, 10).at(5) == 5
    assert Axis.around([2, math.nan, math.inf, 4], 100, 0) == axis
    assert Axis.around([math.nan], 0, 10).at(math.nan) == 10
    log = LogAxis.around([0.02, 30, 0, math.inf], 0, 40)
    assert [log.at(x) for x in (0.01, 1, 100, 0, -1, 1e9, math.inf, math.nan)] == [0, 20, 40, 0, 0, 40, 40, 40]
    assert log.ticks == [(-2, 0), (-1, 10), (0, 20), (1, 30), (2, 40)]
    assert len(LogAxis(-300, 300, 0, 1).ticks) == 7
    assert LogAxis.around([2e303, 1.7e308], 0, 6).ticks[-1] == (309, 6)
    assert LogAxis.around([0], 0, 1).ticks == [(-1, 0), (0, 1)]
