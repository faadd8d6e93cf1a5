"""From measurements to rows, table and page: everything but the measuring."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import run as command
from speed import docs, inputs, page, report, scaling
from speed.cases import GROUPS, Case, Contender, Target, all_cases, select
from speed.measuring import agreement_bound, distance

from refbert.config import flops

OURS, A, B = (Contender(name, "refbert") for name in ("ours", "a", "b"))
CASE = Case("some-case", "forward", {"kind": "forward", "model": "bert-tiny", "B": 1, "S": 8}, (OURS, A, B))
TARGET = Target("work", "peer", "ours", ("a", "b"), 0.8, "≤ 0.80")
QUIET = {"others": 0.0, "others after": 0.1}


def measured(quantity="seconds", load=None, **contenders):
    return {
        "name": CASE.name, "group": "forward", "kind": "timed", "quantity": quantity, "work": dict(CASE.work),
        "load": load or QUIET, "contenders": contenders,
    }  # fmt: skip


def same(values, **more):
    return {"values": values, "cpu_seconds": values, "differs": 1e-7, "bound": 1e-6} | more


def results(cases, **more):
    machine = {
        "cpu": "a CPU",
        "cores": 2,
        "threads": 2,
        "gpus": [],
        "python": "3",
        "numpy_library": "x",
        "versions": {},
    }
    measured_cases = {case["name"]: case for case in cases}
    every = [*all_cases(), replace(CASE, targets=(TARGET,))]
    return {
        "schema": 1, "date": "2000-01-01", "what": "speed", "quick": False, "rounds": 3, "machine": machine,
        "cases": cases, "rows": report.rows(every, measured_cases, gpu=False),
        "roof": {"flops_per_second": 1e11, "bytes_per_second": 1e10},
    } | more  # fmt: skip


def test_cases_hang_together():
    cases = all_cases()
    assert len({case.name for case in cases}) == len(cases)
    assert {case.group for case in cases} == set(GROUPS)
    for case in cases:
        names = [contender.name for contender in case.contenders]
        assert len(set(names)) == len(names), case.name
        assert case.targets, case.name
        for target in case.targets:
            assert target.ours == names[0], case.name  # the others are compared with it
            assert set(target.peers) <= set(names[1:]), case.name


def test_every_row_of_the_issue_has_its_target():
    most = {(case.name, target.against[:12]): target.most for case in all_cases() for target in case.targets}
    assert [most[f"forward-{shape}", "Hugging Face"] for shape in ("8x128", "32x128", "8x512")] == [0.80, 0.75, 0.78]
    assert [most[f"forward-{shape}", "Hugging Face"] for shape in ("1x16", "1x128", "1x512")] == [0.75, 0.85, 0.92]
    assert {value for (name, against), value in most.items() if against.startswith("its own bare")} == {1.07}
    assert [name for name, against in most if against.startswith("onnxruntime,")] == ["forward-8x128", "forward-32x128"]
    assert 1 / most["packed-22", "Hugging Face"] == pytest.approx(5.5)
    assert 1 / most["encode-1000", "sentence-tra"] == pytest.approx(1.9)


def test_selection():
    cases = all_cases()
    assert [case.name for case in select(cases, ["packed"])] == ["packed-56", "packed-22"]
    assert [case.name for case in select(cases, ["forward-1x1"])] == ["forward-1x16", "forward-1x128"]
    assert select(cases, []) == cases
    assert [case.name for case in select(scaling.cases(1), ["scale-step-L-1"])] == ["scale-step-L-1"]  # not L-12
    with pytest.raises(ValueError, match="no row"):
        select(cases, ["forward", "nonsense"])


def test_the_faster_peer_counts():
    row = report.row_of(CASE, TARGET, measured(ours={"values": [1, 2, 3]}, a=same([4, 4, 5]), b=same([2, 8, 2.5])))
    assert row.peer == "b"
    assert row.ratio == pytest.approx(2 / 2.5)
    assert row.by_round == pytest.approx(0.5)
    assert row.met is True


def test_no_ratio_for_what_computes_something_else():
    for differs in (2e-6, float("inf"), float("nan")):
        found = measured(ours={"values": [1.0]}, a=same([2.0]), b=same([3.0], differs=differs))
        row = report.row_of(CASE, TARGET, found)
        assert row.ratio is None
        assert row.met is None
        assert "different things" in row.why
        assert command.wrong(found)


def test_what_is_missing_is_said():
    found = measured(ours={"values": [1.0]}, a={"missing": "no library"}, b=same([3.0]))
    row = report.row_of(CASE, TARGET, found)
    assert row.peer == "b"
    assert "no library" in row.why
    row = report.row_of(CASE, TARGET, measured(ours={"failed": "ValueError: x"}, a=same([1.0])))
    assert row.ratio is None
    assert "failed (ValueError: x)" in row.why
    (row,) = report.rows([replace(CASE, targets=(TARGET,))], {})
    assert row["why"] == "not in this run"
    assert not command.wrong(found)


def test_a_busy_machine_decides_no_time_but_memory():
    contenders = {"ours": {"values": [1.0], "cpu_seconds": [1.0]}, "a": same([4.0])}
    load = {"others": 0.0, "others after": 1.5}
    row = vars(report.row_of(CASE, TARGET, measured(load=load, **contenders)))
    assert report.verdict(row) == "undecided: busy machine"
    row = vars(report.row_of(CASE, TARGET, measured("bytes", load=load, **contenders)))
    assert report.verdict(row) == "met"


def test_figures_in_the_targets_words():
    def show(most, asked, values, peers=("a",)):
        target = Target("work", "peer", "ours", peers, most, asked)
        return report.shown(vars(report.row_of(CASE, target, measured(ours={"values": values}, a=same([10.0])))))

    assert show(0.8, "≤ 0.80", [7.5]) == "0.75"
    assert show(1 / 2.3, "≥ 2.3× faster", [4.0]) == "2.50×"
    assert show(1 / 45, "≤ 1/45", [0.25]) == "1/40.0"
    assert show(75e6, "≤ 75 MB", [84e6], ()) == "84 MB"


def test_distance_sees_every_array_and_every_difference():
    x = {"a": np.ones((2, 3), np.float32), "b": np.arange(4.0)}
    assert distance(x, {name: array.copy() for name, array in x.items()}) == 0
    assert distance(x, x | {"b": np.arange(4.0) * 1.001}) == pytest.approx(1e-3)
    for other in ({"a": x["a"]}, x | {"b": np.arange(5.0)}, x | {"b": np.full(4, np.nan)}):
        assert distance(x, other) == float("inf")


def test_the_bound_tells_rounding_from_another_function():
    work = {"kind": "forward", "model": "bert-base-uncased", "B": 8, "S": 128}
    assert 8e-7 < agreement_bound(work) < 2e-4 / 10  # what is seen; the tanh GELU
    assert agreement_bound(work | {"dtype": "bfloat16"}) == pytest.approx(2**16 * agreement_bound(work))


@pytest.mark.parametrize("fill", [0.56, 0.22])
def test_lengths_fill_what_they_should(fill):
    lengths = inputs.lengths(32, 128, fill)
    assert lengths.sum() == pytest.approx(fill * 32 * 128, abs=16)
    assert lengths.max() == 128
    assert lengths.min() >= 2
    batch, _ = inputs.batch_of({"model": "bert-tiny", "B": 32, "S": 128, "fill": fill})
    assert np.array_equal(batch.lengths, lengths)


def test_sentences_are_real_and_the_same_each_time(tmp_path):
    found = inputs.sentences(1000)
    assert found == inputs.sentences(1000)
    assert len(set(found)) == 1000
    assert all(sentence[0].isupper() and sentence[-1] in ".!?" and " " in sentence for sentence in found)
    file = tmp_path / "own.txt"
    file.write_text("One.\n\nTwo.\n")
    assert inputs.sentences(2, str(file)) == ["One.", "Two."]
    with pytest.raises(inputs.Missing):
        inputs.sentences(3, str(file))


def test_docs_change_only_between_the_markers(tmp_path):
    file = tmp_path / "page.md"
    file.write_text(f"before\n\n{docs.BEGIN}\nformer table\n{docs.END}\n\nafter\n")
    docs.write(file, results([measured(ours={"values": [1.0]}, a=same([2.0]))]))
    text = file.read_text()
    assert text.startswith("before\n\n")
    assert text.endswith("\n\nafter\n")
    assert "former table" not in text
    assert "| work | peer | **0.50**" in text
    assert "Nothing measured" not in text
    assert docs.table(results([])).startswith("Nothing measured yet.")
    assert "Not measured (not in this run): `forward-8x128`" in text
    missing = [line for line in text.splitlines() if "no NVIDIA GPU on this machine" in line]
    assert sum(line.count("`cuda-") for line in missing) == 8
    for wrong in ("no markers", f"{docs.END}{docs.BEGIN}", f"{docs.BEGIN}{docs.END}{docs.END}"):
        file.write_text(wrong)
        with pytest.raises(ValueError, match="needs one line"):
            docs.write(file, results([]))
        assert file.read_text() == wrong


def test_the_projects_own_page_has_the_markers():
    text = (command.RESULTS.parent.parent / "docs" / "performance.md").read_text(encoding="utf-8")
    assert text.count(docs.BEGIN) == text.count(docs.END) == 1


class Balanced(HTMLParser):
    """Fails on a tag that closes another; collects attributes and text."""

    def __init__(self):
        super().__init__()
        self.open, self.attributes = [], []

    def handle_starttag(self, tag, attributes):
        self.attributes += attributes
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def scaling_results():
    cases = []
    for case in scaling.cases(2):
        seconds = {
            scaling.OURS: 10.0,
            scaling.PEER: 12.0,
            scaling.PRODUCTS: 6.0,
            scaling.ATTENTION: 1.0,
            scaling.PYTHON: 0.5,
        }
        contenders = {name: same([value, value * 1.1]) for name, value in seconds.items()}
        cases.append(measured(**contenders) | {"name": case.name, "work": dict(case.work)})
    return results(cases, what="scaling", rows=[])


@pytest.mark.parametrize("make", [
    lambda: results([measured(ours={"values": [1.0, 1.2, 1.1]}, a=same([2.0, 2.1, 2.2]), b={"missing": "<none>"})]),
    lambda: results([]),
    scaling_results,
], ids=["rows", "nothing", "scaling"])  # fmt: skip
def test_the_page_stands_alone(make):
    text = page.html(make())
    parser = Balanced()
    parser.feed(text)
    assert parser.open == []
    assert {value for name, value in parser.attributes if name in ("src", "href", "srcset")} == {"data:,"}  # no icon
    for word in ("http:", "https:", "<script", "@import", "url("):
        assert word not in text
    assert "nan" not in text.lower().replace("nance", "")


def test_costs_add_up_and_operations_are_the_models():
    case = scaling_results()["cases"][0]
    cost = scaling.costs(case)
    assert sum(cost["seconds"].values()) == pytest.approx(cost["total"])
    assert sum(cost["operations"].values()) == report.operations(case["work"])
    # What of the model's operations grows with the square of S.
    config, S, B = inputs.config_of(case["work"]), case["work"]["S"], case["work"]["B"]
    per_token = flops.encoder_flops_per_token(config, S) - flops.encoder_flops_per_token(config, 0)
    assert cost["operations"][scaling.ATTENTION] == B * S * per_token
    del case["contenders"][scaling.PYTHON]
    assert scaling.costs(case) is None


def test_runs_of_two_machines_are_merged(tmp_path):
    first = results([measured(ours={"values": [1.0]}, a=same([2.0]))])
    second = results([measured(ours={"values": [1.0]}, a=same([4.0])) | {"name": "forward-1x16"}], date="2000-02-02")
    files = []
    for number, one in enumerate((first, second)):
        files.append(tmp_path / f"{number}.json")
        files[-1].write_text(json.dumps(one))
    page_file = tmp_path / "page.md"
    page_file.write_text(f"{docs.BEGIN}\n{docs.END}\n")
    before = [file.read_bytes() for file in files]
    assert (
        command.main(["--from", *map(str, files), "--write-docs", str(page_file), "--html", str(tmp_path / "x.html")])
        == 0
    )
    assert [file.read_bytes() for file in files] == before
    assert "2000-02-02" in page_file.read_text()
    assert "Rows: `some-case`." in page_file.read_text()


@pytest.mark.parametrize(
    "arguments", [["--only", "nonsense"], ["--rounds", "0"], ["--from", "nowhere.json"], ["--threads", "x"]]
)
def test_bad_usage(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(arguments)
    assert stopped.value.code == 2
    assert "Traceback" not in capsys.readouterr().err
