"""The scoreboard: complete, self-contained, escaped, and honest about what is new."""

from __future__ import annotations

import copy
import json
import math
import re
from collections import Counter
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from refbert.cli import main
from refbert.errors import InputError
from refbert_conformance.report import FORMAT
from refbert_conformance.scoreboard import page, read

VOID = frozenset({"meta", "link", "input", "br"})


def row(id, outcome="passed", rho=0.3, **more):
    level, op, _ = id.split("/")
    failure = {
        "case": "x = [1, 2]",
        "script": "conformance-failures/it.py",
        "worst": {
            "output": "y",
            "index": [0, 1],
            "got": 0.1,
            "expected": 0.25,
            "bound": 1e-8,
            "rho": 17.0,
            "ulps": "inf",
        },
        "looks_like": f"{op}: eps outside the root",
        "first_divergence": {"where": "encoder layer 0", "op": "layer_norm", "direction": "forward", "rho": 31.0},
        "growth": [{"where": f"layer {i}", "error": 10.0 ** (i - 8), "rho": None} for i in range(3)],
    }
    return {
        "id": id,
        "level": level,
        "op": op,
        "says": f"What {op} says.",
        "outcome": outcome,
        "waived": None,
        "examples": 6,
        "seconds": 0.1,
        "rho": rho,
        "ulps": {"0": 5, "1": 2, ">1024": 1},
        "unchecked": 0.0,
        "message": "" if outcome == "passed" else f"why {op} {outcome}",
        "failure": failure if outcome == "failed" else None,
    } | more


def report(rows=None, *, given="mine", dtype="float32", device="cpu", **more):
    rows = rows or [row("forward/tanh/accuracy"), row("models/inference/accuracy", "failed", 31.0)]
    counts = Counter("waived" if r["waived"] else r["outcome"] for r in rows)
    names = ("passed", "failed", "unsupported", "unavailable", "waived")
    return {
        "format": FORMAT,
        "created": "2026-01-02T03:04:05+00:00",
        "backend": {
            "given": given,
            "name": given,
            "library": f"Lib{given} 2.0",
            "dtype": dtype,
            "device": device,
            "arithmetic": {"u": 2.0**-24, "u_accumulation": 2.0**-24, "flush_to_zero": False},
        },
        "versions": {"refbert": "0.1.0", "numpy": "2.3"},
        "effort": "quick",
        "seed": 7,
        "only": None,
        "model": None,
        "seconds": 41.2,
        "verdict": "not conformant" if counts["failed"] else "conformant",
        "score": round(counts["passed"] / len(rows), 4),
        "counts": {name: counts[name] for name in names},
        "properties": rows,
    } | more


class Page(HTMLParser):
    """The page as a browser sees it: nesting checked, words by section, ids, links, attributes."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words, self.links, self.ids = [], [], {}, [], []
        self.section = ""
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes["href"]] if "href" in attributes else []
        if tag == "section":
            self.section = attributes["id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.section = "" if tag == "section" else self.section

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.setdefault(self.section, []).append(data)

    def text(self, section):
        return " ".join(" ".join(self.words.get(section, [])).split())

    def all(self, tag, class_=None):
        return [a for t, a in self.tags if t == tag and (class_ is None or class_ in a.get("class", "").split())]


def board(*reports, earlier=()):
    return Page(page(reports, earlier=earlier))


def cells(text, slug):
    """The words of every cell of one property's row."""
    inside = re.search(f'<tr id="{re.escape(slug)}".*?</tr>', text, re.S)[0]
    return [
        " ".join(re.sub(r"<title>.*?</title>|<[^>]*>", " ", c).split())
        for c in re.findall(r"<td.*?</td>", inside, re.S)
    ]


def test_nothing_is_fetched_and_nothing_runs():
    text = page([report(given="one"), report(given="two")], earlier=[report(given="one")])
    found = Page(text)
    names = {tag for tag, _ in found.tags}
    assert not names & {"script", "img", "iframe", "object", "embed", "base", "form"}
    assert all(link.startswith("#") or link == "data:," for link in found.links)
    assert not [a for _, attributes in found.tags for a in attributes if a.startswith("on") or a in ("src", "style")]
    assert "@import" not in text
    assert "url(" not in text
    assert "http:" not in text.replace("http-equiv", "")
    assert "https:" not in text
    (policy,) = [a["content"] for a in found.all("meta") if "http-equiv" in a]
    assert policy.startswith("default-src 'none'")


def test_the_same_reports_give_the_same_page():
    def once():
        return page([report(), report(dtype="float64")], earlier=[report(seconds=1.0)])

    assert once() == once()


def test_links_lead_somewhere_and_anchors_are_unique():
    rows = [row("forward/tanh/accuracy", "failed", 3.0), row("forward/tanh/Accuracy"), row("forward/tanh/a b")]
    found = board(report(rows), report([*rows, row("odd & new/x/y")]), earlier=[report(rows[:1])])
    assert len(set(found.ids)) == len(found.ids)
    for link in found.links:
        assert link == "data:," or unquote(link[1:]) in found.ids, link
    assert "forward/tanh/accuracy" in found.ids
    assert "forward/tanh/a-b" in found.ids


def test_a_card_says_all_about_its_run():
    words = board(report(model="dir/bert", only="tanh", seconds=125.0)).text("backends")
    for said in (
        "mine float32 cpu", "not conformant", "50.0 % 1 of 2", "1 passed", "1 failed", "library Libmine 2.0",
        "dtype float32", "device cpu", "u = 2 −24 , accumulation 2 −24", "effort quick", "seed 7", "time 2 min 5 s",
        "refbert 0.1.0", "numpy 2.3", "2026-01-02 03:04 UTC", "model dir/bert", "only tanh",
    ):  # fmt: skip
        assert said in words, said
    assert "flush to zero" not in words


def test_a_score_is_never_rounded_up_to_all():
    assert "99.9 % 1 of 2" in board(report(score=0.99967)).text("backends")
    assert "100.0 %" in board(report(score=1.0)).text("backends")


def test_a_backend_that_could_not_be_made():
    nothing = dict.fromkeys(("given", "name", "library", "dtype", "device", "arithmetic"))
    assert "unnamed backend" in board(report(backend=nothing)).text("backends")


def test_the_same_backend_twice_has_two_labels():
    words = board(report(), report(dtype="float64"), report()).text("backends")
    assert "mine float32 cpu #1" in words
    assert "mine float32 cpu #2" in words
    assert "mine float64 cpu #" not in words


def test_every_outcome_has_a_word_a_sign_and_a_colour():
    outcomes = ("passed", "failed", "unsupported", "unavailable")
    rows = [row(f"forward/{o}/accuracy", o) for o in outcomes]
    rows.append(row("forward/w/accuracy", "failed", waived="the library does so"))
    text = page([report(rows)])
    for state in (*outcomes, "waived"):
        assert f'<use href="#sign-{state}"></use></svg> {state}</span>' in text
        assert f'class="sign {state}"' in text
        assert f'<symbol id="sign-{state}"' in text
        assert f".{state} {{ color:" in text
    assert len({re.search(f'id="sign-{s}".*?d="(.*?)"', text)[1] for s in (*outcomes, "waived")}) == 5


def test_levels_count_outcomes_and_give_the_worst_rho():
    rows = [
        row("forward/a/accuracy", rho=0.25),
        row("forward/b/accuracy", "failed", 174.4),
        row("forward/c/accuracy", "failed", 2.0, waived="known"),
        row("forward/d/accuracy", "unsupported", None),
        row("contract/a/errors", rho=None),
        row("training/a/accuracy", "unavailable", None),
    ]
    words = board(report(rows)).text("levels")
    assert "forward 1 passed 1 failed 1 unsupported 1 waived worst ρ 174" in words
    assert "contract 1 passed all exact forward" in words
    assert words.endswith("training 1 unavailable")
    assert "not asked" in board(report(rows), report(rows[:1])).text("levels")
    rows = [row("forward/a/x", rho=0.5), row("forward/b/x", "failed", "nan"), row("forward/c/x", "failed", 9.0)]
    assert "worst ρ NaN" in board(report(rows)).text("levels")


def test_properties_are_grouped_by_level_then_op():
    first = [row("training/a/x"), row("forward/b/one"), row("forward/a/one")]
    second = [row("forward/b/two"), row("contract/z/x"), row("later/q/x")]
    ids = board(report(first), report(second, given="other")).ids
    order = ["contract/z/x", "forward/b/one", "forward/b/two", "forward/a/one", "training/a/x", "later/q/x"]
    assert [i for i in ids if i in order] == order


def test_a_cell_says_outcome_rho_examples_and_time():
    a = row("forward/tanh/accuracy", rho=0.4312, examples=60, seconds=0.314, unchecked=0.012)
    b = row("forward/tanh/accuracy", "unsupported", None, examples=0, ulps=None)
    text = page([report([a]), report([b], given="other"), report([row("forward/relu/kink")], given="third")])
    plot, mine, other, third = cells(text, "forward/tanh/accuracy")
    assert mine == "passed ρ 0.43 60 ex · 0.31 s · 1.2 % unchecked"
    assert other == "unsupported why tanh unsupported"
    assert third == "not asked"
    assert plot == ""


@pytest.mark.parametrize(
    ("rho", "x"),
    [(1e-4, 8), (0.01, 58.7), (1.0, 109.3), (100.0, 160), (0.0, 8), (1e-9, 8), (1e9, 160), ("inf", 160), ("nan", 160)],
)
def test_rho_lies_where_its_logarithm_says(rho, x):
    # Six decades over 168 pixels with a margin of 8 at both ends; marks are 10 wide.
    found = board(report([row("forward/tanh/accuracy", rho=rho)]))
    (mark,) = [a for a in found.all("use", "c0") if "x" in a]
    assert math.isclose(float(mark["x"]) + 5, x, abs_tol=0.05)
    assert "M109.3 0V" in found.all("path", "one")[0]["d"], "the line at ρ = 1"


def test_every_backend_has_its_own_lane_shape_and_colour():
    found = board(*(report([row("forward/tanh/accuracy")], given=f"b{i}") for i in range(10)))
    marks = [(a["href"], a["class"]) for a in found.all("use") if "x" in a]
    assert len(set(marks)) == 10
    assert len({a["y"] for a in found.all("use") if "x" in a}) == 10
    (label,) = [a["aria-label"] for a in found.all("svg", "plot")]
    assert "b9 float32 cpu: ρ = 0.3" in label


def test_ulps_are_bars_in_the_order_of_their_edges():
    found = board(report([row("forward/tanh/accuracy", ulps={">1024": 1, "16": 3, "0": 1000, "0.5": 20})]))
    (drawn,) = found.all("svg", "ulps")
    assert drawn["aria-label"] == "ULPs off: 0: 1000; 0.5: 20; 16: 3; >1024: 1"
    bars = [(int(x), float(h)) for x, h in re.findall(r"M(\d+) 16v-([\d.]+)h5", found.all("path", "bars")[0]["d"])]
    assert [x for x, _ in bars] == [0, 6, 36, 60], "the same edges in every picture"
    assert bars[0][1] == 15
    assert bars[0][1] > bars[1][1] > bars[2][1] > bars[3][1] > 0


def test_exact_properties_have_no_rho():
    text = page([report([row("forward/tanh/accuracy", rho=None, ulps=None)])])
    assert cells(text, "forward/tanh/accuracy") == ["exact", "passed 6 ex · 0.10 s"]


def test_a_failure_tells_all_that_is_known():
    words = board(report()).text("failures")
    for said in (
        "failed models/inference/accuracy mine float32 cpu why inference failed", "What inference says.",
        "Behaves like inference: eps outside the root .", "First to diverge: layer_norm (forward) in encoder layer 0",
        "ρ = 31.", "x = [1, 2]", "y[0, 1] 0.1 0.25 1e-8 17 ∞", "layer 0", "layer 2",
        "python conformance-failures/it.py",
    ):  # fmt: skip
        assert said in words, said


def test_growth_is_drawn_place_by_place():
    found = board(report())
    (chart,) = found.all("svg", "growth")
    assert "layer 0: 1e-8; layer 1: 1e-7; layer 2: 1e-6" in chart["aria-label"]
    xs, ys = zip(*((float(c["cx"]), float(c["cy"])) for c in found.all("circle")), strict=True)
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1]), "a log axis"
    assert xs[0] < xs[1]
    assert ys[0] < ys[1] < ys[2]
    odd = [{"where": "a", "error": v, "rho": r} for v, r in ((0.0, 0.0), ("inf", "inf"), ("nan", "nan"), (1.0, 2.0))]
    failed = row("models/x/accuracy", "failed", "nan")
    failed["failure"]["growth"] = odd
    label = board(report([failed])).all("svg", "growth")[0]["aria-label"]
    assert label == "ρ, place by place: a: 0; a: ∞; a: NaN; a: 2"


def test_many_failures_are_folded_and_waived_ones_come_last():
    few = [row("forward/a/x", "failed", waived="known"), row("forward/b/x", "failed")]
    found = board(report(few))
    assert found.text("failures").index("forward/b/x") < found.text("failures").index("forward/a/x")
    assert all("open" in a for a in found.all("details") if "id" in a)
    many = [row(f"forward/op{i}/x", "failed") for i in range(13)]
    assert not any("open" in a for a in board(report(many)).all("details"))
    assert "No property failed." in board(report([row("forward/a/x")])).text("failures")


def test_a_failure_that_no_worker_lived_to_explain():
    bare = {"case": None, "script": None, "worst": None, "looks_like": None, "first_divergence": None, "growth": []}
    rows = [row("forward/a/x", "failed", None, failure=bare), row("forward/b/x", "failed", None, failure=None)]
    words = board(report(rows)).text("failures")
    assert "why a failed" in words
    assert "why b failed" in words
    assert "None" not in words


def test_waivers_are_listed_with_their_reasons():
    found = board(report([row("forward/tanh/accuracy", "failed", 2.0, waived="the library adds in bfloat16")]))
    words = found.text("waivers")
    assert "forward/tanh/accuracy mine float32 cpu the library adds in bfloat16 why tanh failed" in words
    assert "Waived: the library adds in bfloat16" in found.text("failures")
    assert "failed" not in found.text("levels"), "neither passed nor failed"
    assert "0 failures" in found.text("")
    assert board(report()).text("waivers") == ""


HOSTILE = "</style><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\x00\x1b\u202e\ud800"


def test_text_of_third_parties_is_escaped_everywhere():
    def poisoned(value, key=""):
        if isinstance(value, dict):
            return {k: poisoned(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [poisoned(v, key) for v in value]
        if isinstance(value, str) and key not in ("format", "outcome", "rho", "ulps", "dtype", "device"):
            return value + HOSTILE
        return value

    good = report(
        [row("forward/tanh/accuracy", "failed"), row("models/x/y", "failed", waived="so")], only="x", model="m"
    )
    bad = poisoned(good) | {"only": HOSTILE, "model": HOSTILE}
    bad["backend"] |= {"dtype": HOSTILE, "device": HOSTILE, "arithmetic": {HOSTILE: HOSTILE, "list": [HOSTILE]}}
    bad["versions"][HOSTILE] = HOSTILE
    old = copy.deepcopy(bad)
    old["properties"][0] |= {"id": HOSTILE, "level": HOSTILE, "op": HOSTILE}
    text = page([bad, bad], earlier=[old, poisoned(report(given="alone"))])
    text.encode("utf-8")
    assert not re.search("[\x00\x1b\u202e]", text)
    found = Page(text)
    names = Counter(tag for tag, _ in found.tags)
    assert not {"script", "img"} & set(names)
    assert names["style"] == 1
    assert not [a for _, attributes in found.tags for a in attributes if a.startswith("on")]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<script" not in text


BEFORE = [
    row("forward/a/x", "passed", 0.1), row("forward/b/x", "failed", 9.0), row("forward/c/x", "passed", 0.1),
    row("forward/d/x", "passed", 0.1), row("forward/e/x", "passed", 0.1), row("forward/gone/x"),
]  # fmt: skip
AFTER = [
    row("forward/a/x", "failed", 0.1), row("forward/b/x", "passed", 0.9), row("forward/c/x", "passed", 0.21),
    row("forward/d/x", "passed", 0.2), row("forward/e/x", "unsupported", None), row("forward/new/x"),
]  # fmt: skip


def test_the_trend():
    words = board(report(AFTER, seconds=30.0), earlier=[report(BEFORE, seconds=20.0)]).text("trend")
    for said in (
        "1 newly failing 1 newly passing 1 other outcome 1 ρ more than doubled 1 added 1 gone",
        "newly failing forward/a/x passed failed", "newly passing forward/b/x failed passed",
        "other outcome forward/e/x passed unsupported", "ρ more than doubled forward/c/x 0.1 0.21",
        "added forward/new/x – passed", "gone forward/gone/x passed –", "20.0 s → 30.0 s (×1.5)",
        "score 83.3 % → 66.6 %", "Since 2026-01-02 03:04 UTC, with Libmine 2.0, refbert 0.1.0.",
    ):  # fmt: skip
        assert said in words, said
    assert "forward/d/x" not in words, "twice is not more than twice"
    assert board(report()).text("trend") == ""


def test_the_trend_looks_at_the_newest_report_of_the_same_backend_dtype_and_device():
    def old(day, **more):
        return report([row("forward/a/x", "failed")], created=f"2025-01-{day}T00:00:00+00:00", **more)

    now = report([row("forward/a/x")])
    new = report([row("forward/a/x")], created="2025-01-20T00:00:00+00:00", effort="default")
    words = board(now, earlier=[old("03"), new, old("11")]).text("trend")
    assert "Since 2025-01-20" in words
    assert "0 newly passing" in words
    assert "Other effort" in words
    days = [words.index(f"2025-01-{day} 00:00 UTC 1") if day == "20" else words.index(f"2025-01-{day}")
            for day in ("03", "11")]  # fmt: skip
    assert days == sorted(days), "all runs, in the order of time"
    for other in ({"dtype": "float64"}, {"device": "cuda:0"}, {"given": "other"}):
        words = board(now, earlier=[old("03", **other)]).text("trend")
        assert "No earlier report of this backend, dtype and device." in words
        assert "belong to none of these backends: " in words


def test_rho_that_becomes_infinite_has_grown():
    before, after = report([row("forward/a/x", rho=0.5)]), report([row("forward/a/x", "failed", "inf")])
    assert "ρ more than doubled forward/a/x 0.5 ∞" in board(after, earlier=[before]).text("trend")
    assert "1 ρ more" not in board(before, earlier=[after]).text("trend")


def test_tables_are_tables_for_everyone():
    found = board(report(AFTER), report(BEFORE, given="other"), earlier=[report(BEFORE)])
    assert found.all("th")
    assert all(a.get("scope") in ("row", "col") for a in found.all("th"))
    assert len(found.all("caption")) == len(found.all("table"))
    assert all(a.get("aria-label") or a.get("aria-hidden") == "true" for a in found.all("svg"))
    assert all(a.get("tabindex") == "0" and a["aria-label"] for a in found.all("div", "scroll"))
    assert [a["lang"] for a in found.all("html")] == ["en"]


def test_a_report_read_is_the_report_written(tmp_path):
    path = tmp_path / "r.json"
    path.write_text(json.dumps(report()), encoding="utf-8")
    assert read(path) == report()
    page([read(path)])


def test_an_old_report_is_read(tmp_path):
    old = report() | {"format": "refbert-conformance/1", "profile": "thorough"}
    del old["effort"]
    path = tmp_path / "r.json"
    path.write_text(json.dumps(old), encoding="utf-8")
    assert read(path)["effort"] == "thorough"
    page([read(path)])


def changed(*place, to):
    """The report with one value replaced; `...` as the last of place takes the key out."""
    data = report()
    *way, last = place
    inner = data
    for key in way:
        inner = inner[key]
    if to is ...:
        del inner[last]
    else:
        inner[last] = to
    return data


FAILED = ("properties", 1, "failure")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "not a report of refbert conform"),
        ({"a": 1}, "not a report of refbert conform"),
        (changed("format", to="refbert-conformance/9"), 'in format "refbert-conformance/9"'),
        (changed("counts", to=...), "the report lacks counts"),
        (changed("properties", 0, "says", to=...), "property 1 lacks says"),
        (changed("properties", to=[]), "no properties"),
        (changed("properties", to={}), '"properties" is not a list'),
        (changed("properties", 0, to=3), "property 1 is not an object"),
        (changed("properties", 0, "outcome", to="skipped"), '"outcome" is not an outcome'),
        (changed("properties", 0, "outcome", to=["passed"]), '"outcome" is not an outcome'),
        (changed("properties", 0, "rho", to="large"), '"rho" is not a real number'),
        (changed("properties", 0, "rho", to=True), '"rho" is not a real number'),
        (changed("properties", 0, "examples", to=-1), '"examples" is not a count'),
        (changed("properties", 0, "seconds", to=None), '"seconds" is not a number'),
        (changed("properties", 0, "seconds", to=10**400), "a number of 401 digits"),
        (changed("properties", 0, "ulps", to={"few": 1}), '"ulps"'),
        (changed("properties", 0, "ulps", to={"0": "many"}), '"ulps"'),
        (changed("properties", 1, "id", to="forward/tanh/accuracy"), 'property "forward/tanh/accuracy" comes twice'),
        (changed("score", to="all"), '"score" is not a number'),
        (changed("backend", to=None), '"backend" is not an object'),
        (changed("backend", "device", to=3), '"device" is not a text'),
        (changed("counts", "passed", to=2), "its counts are not those of its properties"),
        (changed(*FAILED, "worst", "index", to=3), '"index" is not a list'),
        (changed(*FAILED, "growth", 0, "where", to=...), "growth lacks where"),
        (changed(*FAILED, "first_divergence", to="here"), '"first_divergence" is not an object'),
    ],
)
def test_what_is_no_report(tmp_path, data, message):
    path = tmp_path / "r.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(InputError, match=re.escape(message)) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "refbert conform --json" in str(error.value), "what to do"
    assert "\n" not in str(error.value)


def places(value, way=()):
    """The way to every value inside."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        yield (*way, key)
        yield from places(inner, (*way, key))


def test_whatever_is_read_can_be_shown(tmp_path):
    path = tmp_path / "r.json"
    shown = 0
    for way in places(report()):
        for value in (None, True, -1, 1e300, math.inf, "x", "nan", [[]], {}, ...):
            path.write_text(json.dumps(changed(*way, to=value)), encoding="utf-8")
            try:
                data = read(path)
            except InputError:
                continue
            page([data], earlier=[data])
            shown += 1
    assert shown > 200


def test_what_cannot_be_read(tmp_path):
    for name, content in (
        ("text", b"hello"),
        ("bytes", b"\xff\xfe"),
        ("deep", b"[" * 100_000),
        ("half", b'{"format": '),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=r": not (usable JSON|JSON|UTF-8) .*write one with: refbert conform"):
            read(tmp_path / name)
    for path, says in ((tmp_path / "nowhere.json", "no such file"), (tmp_path, "a directory")):
        with pytest.raises(InputError, match=says):
            read(path)
    with pytest.raises(InputError, match="no report to show"):
        page([])


def command(*arguments):
    with pytest.raises(SystemExit) as done:
        main(["scoreboard", *map(str, arguments)])
    return done.value.code


def test_the_command(tmp_path, capsys):
    a, b, old, target = (tmp_path / name for name in ("a.json", "b.json", "old.json", "p.html"))
    for path, data in ((a, report()), (b, report(given="other")), (old, report(seconds=1.0))):
        path.write_text(json.dumps(data), encoding="utf-8")
    assert command(a, b, "--html", target, "--before", old) == 0
    assert target.read_text(encoding="utf-8") == page([report(), report(given="other")], earlier=[report(seconds=1.0)])
    assert [path.name for path in tmp_path.iterdir() if path.suffix not in (".json", ".html")] == []
    said = [
        ((a, "--html", tmp_path / "none" / "p.html"), "does not exist"),
        ((tmp_path / "c.json", "--html", target), "no such file"),
        ((a, "--html", a), "is one of the reports"),
        (("--html", target), "REPORT.json"),
    ]
    for arguments, message in said:
        assert command(*arguments) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1
    assert json.loads(a.read_text(encoding="utf-8")) == report()
