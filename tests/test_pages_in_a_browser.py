"""The pages without scripts of their own, in a browser and without a network, at a desk's and a telephone's width."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest
from chromium import WIDTHS, Browser, needs_chromium

from refbert.cli import main
from refbert.training.page import render

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

from speed import page as speed_page
from speed import report, scaling
from speed.cases import all_cases

pytestmark = [pytest.mark.slow, needs_chromium]


def command(*arguments):
    with pytest.raises(SystemExit) as done:
        main([*map(str, arguments)])
    return done.value.code


def diff(folder):
    assert command("diff", "--backend", "numpy", "--backward", "--html", folder / "page.html") == 0


def conformance(folder):
    assert command(
        "conform", "--backend", "numpy", "--effort", "quick", "--only", "*gelu*", "--html", folder / "page.html",
        "--json", folder / "report.json",
    ) == 0  # fmt: skip


def scoreboard(folder):
    """Two backends, one of them with failures."""
    conformance(folder)
    found = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    found["backend"]["name"] = found["backend"]["given"] = "another_package.module:Backend"
    for row in found["properties"][::2]:
        row |= {"outcome": "failed", "rho": 12.5, "message": "the worst entry is 12.5 bounds from the reference"}
    found["counts"] |= Counter(row["outcome"] for row in found["properties"])
    found["verdict"] = "not conformant"
    (folder / "other.json").write_text(json.dumps(found), encoding="utf-8")
    assert command("scoreboard", folder / "report.json", folder / "other.json", "--html", folder / "page.html") == 0


def audit(folder):
    assert command("audit", "bert.params.", "bert.input.", "--html", folder / "page.html") == 0


def run(folder):
    line = {"loss": 2.0, "loss_masked_lm": 1.5, "loss_next_sentence": 0.5, "learning_rate": 1e-4, "gradient_norm": 1.0,
            "tokens": 1000, "seconds": 0.1}  # fmt: skip
    text = "".join(json.dumps({"step": i} | line | {"loss": 2 + 1 / (i + 1)}) + "\n" for i in range(20))
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
    settings = {"short_sequence_probability": 0.1, "files": ["/a/long/name/of/a/folder/with/the/text/in/it/corpus.txt"]}
    (folder / "page.html").write_text(
        render(folder / "metrics.jsonl", title="run", settings=settings), encoding="utf-8"
    )


def benchmark(what):
    def write(folder):
        cases = scaling.cases(2) if what == "scaling" else all_cases()
        found = []
        for case in cases:
            contenders = {c.name: {"values": [0.01, 0.02, 0.03], "cpu_seconds": [0.01], "differs": 0.0, "bound": 1e-6}
                          for c in case.contenders}  # fmt: skip
            found.append({"name": case.name, "group": case.group, "kind": case.kind, "work": dict(case.work),
                          "quantity": "seconds", "load": {"others": 0.0, "others after": 0.0},
                          "contenders": contenders})  # fmt: skip
        machine = dict.fromkeys(("cpu", "python", "numpy_library"), "x") | {"cores": 2, "threads": 2}
        machine |= {"gpus": [], "versions": {}}
        rows = [] if what == "scaling" else report.rows(cases, {case["name"]: case for case in found}, gpu=False)
        roof = {"flops_per_second": 1e11, "bytes_per_second": 1e10}
        results = {"schema": 1, "date": "2000-01-01", "what": what, "quick": False, "rounds": 3, "machine": machine,
                   "cases": found, "rows": rows, "roof": roof}  # fmt: skip
        (folder / "page.html").write_text(speed_page.html(results), encoding="utf-8")

    return write


PAGES = {
    "diff": diff, "conformance": conformance, "scoreboard": scoreboard, "audit": audit, "run": run,
    "benchmark": benchmark("speed"), "scaling": benchmark("scaling"),
}  # fmt: skip
OPENED = "document.querySelectorAll('details').forEach((e) => { e.open = true; })"
# Of letters in a chart, as they are drawn: an SVG that shrinks with the window shrinks them, too.
SMALLEST = """Math.min(...[...document.querySelectorAll("svg text")].filter((e) => e.getClientRects().length)
  .map((e) => parseFloat(getComputedStyle(e).fontSize) * e.getScreenCTM().a))"""


@pytest.fixture(scope="module", params=PAGES)
def written(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    PAGES[request.param](folder)
    return request.param, folder / "page.html"


@pytest.mark.parametrize("width", WIDTHS)
def test_a_page(written, tmp_path, width):
    name, file = written
    with Browser(tmp_path / "profile") as browser:
        browser.open(file.as_uri(), width)
        browser.evaluate(OPENED)
        assert browser.too_wide() == []
        assert browser.complaints == []
        assert browser.requests == [file.as_uri()]
        if name in ("diff", "run", "benchmark", "scaling"):
            assert browser.evaluate(SMALLEST) > 8
        if name == "audit":
            browser.click("label[for=show-deviates]")
            shown = "[...document.querySelectorAll('.claim')].filter((e) => e.getClientRects().length)"
            assert set(browser.evaluate(f"{shown}.map((e) => e.className)")) == {"claim deviates"}
            assert browser.too_wide() == []
        if name in ("conformance", "scoreboard"):
            rows = "[...document.querySelectorAll('.of-properties tbody tr')].filter((e) => e.getClientRects().length)"
            assert browser.evaluate(f"{rows}.length") > 5
            # Also a telephone shows names and the first backend's outcomes, without scrolling.
            box = "document.querySelector('.of-properties tbody {}').getBoundingClientRect()"
            assert browser.evaluate(box.format("td.cell") + ".right") <= width
            assert browser.evaluate(box.format("th") + ".width") > 120
            browser.click("#show-failed")
            kinds = set(browser.evaluate(f"{rows}.map((e) => e.className)"))
            assert kinds == ({"bad"} if name == "scoreboard" else set())
