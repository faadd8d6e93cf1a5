"""The scoreboard: complete, self-contained, escaped, and honest about what is new."""

from __future__ import annotations

import copy
import json
from html.parser import HTMLParser

import pytest

from refbert.cli import main
from refbert.errors import InputError
from refbert_conformance.report import FORMAT
from refbert_conformance.scoreboard import page, read


def row(id, outcome="passed", rho=0.3, **more):
    level, op, _ = id.split("/")
    failure = {
        "case": "x = <1>",
        "script": "s.py",
        "worst": None,
        "looks_like": "op: <b>bug</b>",
        "first_divergence": {"where": "pooler", "op": "tanh", "direction": "forward", "rho": 9.0},
        "growth": [{"where": "embeddings", "error": 1e-7, "rho": None}],
    }
    found = {
        "id": id,
        "level": level,
        "op": op,
        "says": f"says {op}",
        "outcome": outcome,
        "waived": None,
        "examples": 6,
        "seconds": 0.1,
        "rho": rho,
        "ulps": {"0": 5, "1": 2, ">1024": 1},
        "unjudged": 0.0,
        "message": "<script>alert(1)</script>",
        "failure": failure if outcome == "failed" else None,
    }
    return found | more


def report(given="mine", rows=None, **more):
    rows = rows or [row("forward/tanh/accuracy"), row("models/inference/accuracy", "failed", 31.0)]
    counts = {"passed": 1, "failed": 1, "unsupported": 0, "unavailable": 0, "waived": 0}
    return {
        "format": FORMAT,
        "created": "2026-01-01T00:00:00+00:00",
        "profile": "quick",
        "seed": 0,
        "only": None,
        "model": None,
        "backend": {
            "given": given,
            "library": "Lib <2>",
            "dtype": "float32",
            "device": "cpu",
            "arithmetic": {"u": 6e-8},
        },
        "versions": {"numpy": "2"},
        "seconds": 3.0,
        "verdict": "not conformant",
        "score": 0.5,
        "counts": counts,
        "properties": rows,
    } | more


class Tags(HTMLParser):
    VOID = frozenset({"meta", "br", "line", "circle", "rect"})

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.outside = [], [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        self.outside += [value for name, value in attributes if name in ("src", "href") and not value.startswith("#")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(text):
    tags = Tags()
    tags.feed(text)
    assert not tags.open
    return tags


def test_the_page_is_whole_and_needs_no_network():
    text = page([report("one"), report("two")])
    tags = parsed(text)
    assert tags.outside == []
    assert "script" not in tags.seen
    assert "b" not in tags.seen, "names of third parties are escaped"
    assert "@import" not in text
    assert "url(" not in text
    for said in (
        "one float32 cpu",
        "two float32 cpu",
        "✗ failed",
        "✓ passed",
        "ρ = 31",
        "tanh",
        "pooler",
        "python s.py",
        "Lib &lt;2&gt;",
    ):
        assert said in text, said
    assert page([report("one")]) == page([report("one")])


def test_the_same_backend_twice_has_two_names():
    text = page([report(), report()])
    assert "mine float32 cpu (2)" in text


def test_a_waiver_is_neither_passed_nor_failed():
    text = page([report(rows=[row("forward/tanh/accuracy", "failed", 2.0, waived="the library does so")])])
    assert "≈ waived" in text
    assert "the library does so" in text
    assert "✗ failed</span> forward" not in text


def test_the_trend():
    before = report(
        rows=[row("forward/tanh/accuracy", "failed", 2.0), row("forward/relu/accuracy"), row("forward/add/accuracy")]
    )
    after = report(
        rows=[row("forward/tanh/accuracy"), row("forward/relu/accuracy", rho=0.7), row("forward/gelu/accuracy")]
    )
    text = page([after], earlier=[before])
    assert "forward/tanh/accuracy: failed → passed" in text
    assert "forward/relu/accuracy: ρ 0.3 → 0.7" in text
    assert "forward/gelu/accuracy: new" in text
    assert "forward/add/accuracy: gone" in text
    assert "no earlier report" in page([after], earlier=[report("other")])


def test_infinite_and_missing_rho():
    text = page([report(rows=[row("forward/tanh/accuracy", rho="inf"), row("forward/relu/accuracy", rho=None)])])
    parsed(text)
    assert "exact" in text


def test_what_is_no_report(tmp_path):
    good = report()
    for name, content, message in [
        ("text", "hello", "not JSON"),
        ("other", json.dumps({"a": 1}), "not a report"),
        ("list", "[]", "not a report"),
        ("lacks", json.dumps({k: v for k, v in copy.deepcopy(good).items() if k != "counts"}), "lacks counts"),
    ]:
        path = tmp_path / name
        path.write_text(content, encoding="utf-8")
        with pytest.raises(InputError, match=message):
            read(path)
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no report"):
        page([])


def test_the_command(tmp_path, capsys):
    (tmp_path / "a.json").write_text(json.dumps(report()), encoding="utf-8")
    with pytest.raises(SystemExit) as done:
        main(["scoreboard", str(tmp_path / "a.json"), "--html", str(tmp_path / "p.html")])
    assert done.value.code == 0
    assert "mine float32 cpu" in (tmp_path / "p.html").read_text(encoding="utf-8")
    with pytest.raises(SystemExit) as done:
        main(["scoreboard", str(tmp_path / "a.json"), "--html", str(tmp_path / "none" / "p.html")])
    assert done.value.code == 2
    assert "cannot be written" in capsys.readouterr().err
