"""The audit as a whole: what is registered, and that running shows what is on record."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from refbert.errors import InputError
from refbert_audit import Missing, Value, all_claims, counts, registry, run, select
from refbert_audit.claims import bert_model
from refbert_audit.documentation import BEGIN, END, table
from refbert_audit.findings import VERDICTS, decide
from refbert_audit.formatting import show
from refbert_audit.outcomes import FORMAT, as_data, by_kind
from refbert_audit.pages import page
from refbert_audit.sources import DOCUMENTS, KINDS, links
from refbert_inspection import hugging_face

ROOT = Path(__file__).parent.parent.parent
CLAIMS = all_claims()


class TestRegister:
    def test_how_many(self):
        assert len(CLAIMS) >= 200
        for document in DOCUMENTS:
            assert sum(c.id.startswith(f"{document}.") for c in CLAIMS) >= 5, document

    @pytest.mark.parametrize("one", CLAIMS, ids=lambda c: c.id)
    def test_each_has_its_source(self, one):
        assert re.fullmatch(r"[a-z0-9]+(\.[a-z0-9-]+)+", one.id)
        assert one.where
        assert one.says.endswith(".")
        assert one.about.endswith((".", ")"))
        assert one.expects in VERDICTS
        assert one.code.lstrip().startswith("def ")
        assert (ROOT / one.file).is_file()

    def test_the_sources_are_links(self):
        """All but the article's, which is not published, and what is derived."""
        for one in CLAIMS:
            assert "".join(text for text, _ in one.links) == one.where
            urls = [url for _, url in one.links if url]
            assert all(re.fullmatch(r"https://(arxiv\.org/abs|github\.com)/[\w./-]+(#L\d+)?", url) for url in urls)
            assert bool(urls) is not (one.kind == "article" or one.where.startswith("(")), one.id

    @pytest.mark.parametrize(("id", "where", "expected"), [
        ("bert.x", "§3 fn 3", [("§3 fn 3", "arxiv.org/abs/1810.04805v2")]),
        ("google.x", "modeling.py, gelu", [("modeling.py", "/modeling.py#L264"), (", gelu", "")]),
        ("google.x", "run_pretraining.py, optimization.py",
         [("run_pretraining.py", "/run_pretraining.py"), (", ", ""), ("optimization.py", "/optimization.py")]),
        ("hf.x", "optimization.py, get", [("optimization.py", "v5.24.0/src/transformers/optimization.py"),
                                          (", get", "")]),
        ("bert.x", "README of the release", [("README", "/README.md"), (" of the release", "")]),
        ("costs.x", "(derived)", [("(derived)", "")]), ("article.x", "input", [("input", "")]),
    ])  # fmt: skip
    def test_links(self, id, where, expected):
        found = links(id, where)
        assert [text for text, _ in found] == [text for text, _ in expected]
        for (_, url), (_, end) in zip(found, expected, strict=True):
            assert bool(url) is bool(end)
            assert url.endswith(end)

    def test_what_no_document_says_outright_is_marked(self):
        marked = {c.id for c in CLAIMS if c.inferred}
        assert {c.id for c in CLAIMS if c.kind == "derived"} <= marked
        assert all(c.inferred for c in CLAIMS if "(implied)" in c.where or c.says.startswith("As in "))
        assert {"bert.params.tied", "bert.params.layer", "google.tokenizer.sigma"} <= marked
        assert "bert.params.large" not in marked

    def test_the_article_is_counted_apart(self):
        assert [c.kind for c in CLAIMS].count("article") == sum(c.id.startswith("article.") for c in CLAIMS)
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        (said,) = re.findall(r"(\d+) claims", readme)
        assert int(said) == sum(c.kind != "article" and c.expects != "needs weights/data" for c in CLAIMS)

    def test_no_two_say_the_same(self):
        said = [(c.where, c.says) for c in CLAIMS]
        assert len(set(said)) == len(said)

    def test_no_check_only_compares_what_is_written_in_it(self):
        """Every Value's measured argument depends on something that was computed: it is not a literal."""
        files = sorted((ROOT / "audit" / "refbert_audit" / "claims").glob("*.py"))
        assert len(files) > 10
        for file in files:
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Value":
                    computed = [n for n in ast.walk(node.args[1]) if isinstance(n, ast.Name | ast.Call)]
                    assert computed, f"{file.name}:{node.lineno}"

    def test_a_statement_is_read(self):
        text = "# A\n\nbert.x  needs weights/data*  §3 fn 3, A.2\n    Something\n    is so.\n"
        text += "bert.y  deviates  §1\n    No.\n    paper: x\n    google: y: z\n"
        who = {"Devlin et al.": "x", "Google": "y: z"}
        assert registry.read(text) == [
            registry.Statement("bert.x", "§3 fn 3, A.2", "Something is so.", "needs weights/data", True, {}),
            registry.Statement("bert.y", "§1", "No.", "deviates", False, who),
        ]

    @pytest.mark.parametrize(("text", "says"), [
        ("nobody.says  agrees  §1\n    Something.", "its first word must be one of"),
        ("bert.x  perhaps  §1\n    Something.", "no verdict 'perhaps'"),
        ("bert.x  agrees  §1", "with a statement below"), ("bert.x  agrees\n    Something.", "with a statement below"),
    ])  # fmt: skip
    def test_what_is_no_statement_is_refused(self, text, says):
        with pytest.raises(ValueError, match=says):
            registry.read(text)

    @staticmethod
    def _module(source):
        made = ModuleType("planted")
        exec(source, vars(made))
        return made

    def test_a_check_alone_or_without_a_word_is_refused(self, monkeypatch):
        with pytest.raises(ValueError, match="bert_x: a check needs a docstring"):
            registry.checks([self._module("def bert_x(): pass")])
        exec("def bert_x():\n    'A check.'", planted := {"__name__": bert_model.__name__})
        monkeypatch.setattr(bert_model, "bert_x", planted["bert_x"], raising=False)
        with pytest.raises(ValueError, match=r"not one statement and one check each: bert_x"):
            registry._claims.__wrapped__()
        monkeypatch.delattr(bert_model, "bert_x")
        monkeypatch.delattr(bert_model, "bert_params_large")
        with pytest.raises(ValueError, match=r"not one statement and one check each: bert_params_large"):
            registry._claims.__wrapped__()

    def test_two_checks_of_one_name_are_refused(self):
        one = self._module("def bert_x():\n    'A check.'")
        assert registry.checks([one]) == {"bert_x": one.bert_x}
        with pytest.raises(ValueError, match="two checks bert_x"):
            registry.checks([one, self._module("def bert_x():\n    'Another check.'")])

    def test_groups(self):
        assert [c.id for c in select(["bert.params.large"])] == ["bert.params.large"]
        assert {c.id for c in select(["bert.params."])} == {c.id for c in select(["bert.params"])}
        assert all(c.id.startswith(("bert.params.", "article.")) for c in select(["bert.params", "article"]))
        assert select([]) == CLAIMS

    @pytest.mark.parametrize(("name", "near"), [
        ("bert.params.larg", "near it: bert.params.large"), ("bert.masking.80-10", "bert.masking.80-10-10"),
        ("bert.par", "no claim or group"), ("zebra", "groups: bert."),
    ])  # fmt: skip
    def test_unknown_names(self, name, near):
        with pytest.raises(InputError, match=f'no claim or group "{re.escape(name)}"') as error:
            select([name])
        assert near in str(error.value)


class TestFindings:
    def test_verdicts(self):
        right, other = Value("a", 1, 1), Value("b", 2, 2, claimed=3)
        for recorded in ("agrees", "needs weights/data"):
            assert decide(recorded, [right]).verdict == "agrees"
            assert decide(recorded, [Value("c", 1, 2)]).verdict == "wrong"
            assert decide(recorded, [right, other]).verdict == "wrong"
        for recorded in ("deviates", "wrong"):
            assert decide(recorded, [right, other]).verdict == recorded
            assert decide(recorded, [right, Value("e", 3, 2, claimed=3)]).verdict == "agrees"
            assert decide(recorded, [Value("f", 9, 8), Value("g", 3, 2, claimed=3)]).verdict == "agrees"

    def test_what_is_missing_is_undecided(self):
        def check():
            raise Missing("weights")

        one = dataclasses.replace(CLAIMS[0], check=check)
        (outcome,) = run([one])
        assert (outcome.verdict, outcome.finding.missing, outcome.ok) == ("needs weights/data", "weights", False)

    def test_nothing_measured_decides_nothing(self):
        for recorded in VERDICTS:
            with pytest.raises(ValueError, match="without a value"):
                decide(recorded, [])
        for recorded in ("deviates", "wrong"):
            with pytest.raises(ValueError, match="without a value that the document claims"):
                decide(recorded, [Value("a", 1, 1)])

    @pytest.mark.parametrize(("measured", "expected", "within", "holds"), [
        (1.0, 1.0 + 1e-9, 1e-8, True), (1.0, 1.1, 1e-8, False), ([1, 2], (1, 2), 0, True),
        ([1, 2], [1, 2, 3], 9, False), (float("nan"), float("nan"), 0, True), (float("nan"), 1.0, 9, False),
        (True, 1, 0, False), (False, True, 1, False),
        ("a", "a", 0, True), ([1.0, [2.0]], [1.1, [2.1]], 0.2, True), (1, "1", 9, False),
        (float("inf"), float("inf"), 0, True), (float("inf"), 1.0, 1e9, False),
    ])  # fmt: skip
    def test_values(self, measured, expected, within, holds):
        assert Value("x", measured, expected, within=within).holds is holds

    @pytest.mark.parametrize(("x", "text"), [
        (109482240, "109,482,240"), (True, "yes"), (4.73e-4, "0.000473"), (float("nan"), "nan"), ([1, "a"], "[1, a]"),
        (2.0, "2"), (float("inf"), "inf"),
    ])  # fmt: skip
    def test_shown(self, x, text):
        assert show(x) == text


class TestWholeRun:
    def test_every_verdict_is_the_one_on_record(self, whole):
        outcomes, _ = whole
        changed = {o.claim.id: (o.verdict, o.claim.expects, o.error) for o in outcomes if not o.ok}
        assert not changed
        assert [o.claim for o in outcomes] == CLAIMS

    def test_each_verdict_occurs(self, whole):
        found = counts(whole[0])
        assert found["not as recorded"] == 0
        assert "error" not in found
        assert min(found[verdict] for verdict in VERDICTS) >= 10
        assert sum(found[v] for v in VERDICTS) == len(CLAIMS)

    def test_it_takes_less_than_a_minute(self, whole):
        """Of processor time, which does not depend on what else runs here; importing PyTorch is half of it."""
        assert whole[1] < 60

    def test_deviations_say_who_does_what(self, whole):
        for outcome in whole[0]:
            assert bool(outcome.claim.who) is (outcome.verdict == "deviates"), outcome.claim.id

    def test_what_is_missing_is_named(self, whole):
        for outcome in whole[0]:
            if outcome.verdict == "needs weights/data":
                assert len(outcome.finding.missing) > 10

    def test_hugging_face_claims_say_who_was_run(self, whole):
        assert not hugging_face.missing()
        parties = {v.by for o in whole[0] if o.claim.id.startswith("hf.") and o.finding for v in o.finding.values}
        assert hugging_face.release() in parties
        assert all(p == hugging_face.release() or p.startswith("refbert") for p in parties)

    def test_the_same_run_gives_the_same_json(self, whole):
        first = json.dumps(as_data(whole[0]), ensure_ascii=False, allow_nan=False)
        some = [c for c in CLAIMS if c.id.startswith(("bert.masking", "bert.nsp", "google.instances"))]
        again = {c["id"]: c for c in as_data(run(some))["claims"]}
        for one in json.loads(first)["claims"]:
            if one["id"] in again:
                assert json.loads(json.dumps(again[one["id"]])) == one


@pytest.mark.parametrize("missing", [("transformers",), ("torch",), ("transformers", "torch")])
def test_without_transformers_nothing_stands_in_for_it(monkeypatch, missing):
    """What is about Hugging Face's code is unavailable: neither agreement nor a failure."""
    monkeypatch.setattr(hugging_face, "find_spec", lambda name: None if name in missing else find_spec(name))
    outcomes = run(select(["hf"]))
    apart = [o for o in outcomes if o.verdict != "unavailable"]
    assert [(o.claim.id, o.verdict) for o in apart] == [("hf.integration", "needs weights/data")]
    for one in outcomes:
        if one not in apart:
            assert (one.ok, one.changed, one.finding) == (False, False, None)
            assert one.lacking == f"{' and '.join(missing)} (pip install {' '.join(missing)})"
    numbers = counts(outcomes)
    assert (numbers["unavailable"], numbers["agrees"], numbers["not as recorded"]) == (len(outcomes) - 1, 0, 0)
    data = as_data(outcomes)
    assert data["hugging_face"] == "not installed"
    assert {c["as_recorded"] for c in data["claims"] if c["verdict"] == "unavailable"} == {None}
    assert missing[0] in data["claims"][0]["missing"]
    assert f"{len(outcomes) - 1} unavailable: needs {missing[0]}" in page(outcomes)


def test_a_library_that_cannot_be_imported_is_unavailable_too(monkeypatch):
    def broken(name):
        raise ImportError("libfoo.so: no such file")

    monkeypatch.setattr(hugging_face.importlib, "import_module", broken)
    (outcome,) = run(select(["hf.gelu"]))
    assert outcome.verdict == "unavailable"
    assert outcome.lacking == "torch, which is installed but cannot be imported (libfoo.so: no such file)"


def test_an_exception_is_that_claims_outcome(monkeypatch):
    from refbert_audit.claims import bert_model

    def broken(*_, **__):
        raise RuntimeError("no such\nthing")

    monkeypatch.setattr(bert_model, "count", broken)
    (outcome,) = run(select(["bert.params.large"]))
    assert (outcome.verdict, outcome.ok, outcome.error) == ("error", False, "RuntimeError: no such thing")


class TestJson:
    def test_schema(self, whole):
        data = as_data(whole[0])
        assert set(data) == {"format", "refbert", "hugging_face", "model", "counts", "counts_by_kind", "claims"}
        assert data["format"] == FORMAT
        assert set(data["counts"]) == {*VERDICTS, "not as recorded"}
        assert list(data["counts_by_kind"]) == list(KINDS)
        for verdict, n in data["counts"].items():
            assert n == sum(some[verdict] for some in data["counts_by_kind"].values())
        for one in data["claims"]:
            assert set(one) == {
                "id", "document", "kind", "where", "links", "inferred", "says", "about", "recorded", "verdict",
                "as_recorded", "values", "who", "missing", "error", "file", "code",
            }  # fmt: skip
            assert one["as_recorded"] is True
            for v in one["values"]:
                assert set(v) == {"name", "measured", "expected", "claimed", "within", "by", "holds"}
                assert isinstance(v["within"], float)

    def test_it_is_json_without_nan(self, whole):
        text = json.dumps(as_data(whole[0]), allow_nan=False)
        assert len(json.loads(text)["claims"]) == len(CLAIMS)


class _Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen, self.ids, self.references, self.links = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        named = [value for name, value in attrs if name in ("href", "src", "srcset", "action", "data")]
        (self.links if tag == "a" else self.references).extend(named)


class TestPage:
    def test_nothing_is_fetched(self, whole):
        text = page(whole[0])
        tags = _Tags()
        tags.feed(text)
        assert tags.references == ["data:,"]  # the empty icon
        assert set(tags.links) == {url for c in CLAIMS for _, url in c.links if url} | {
            d.url for d in DOCUMENTS.values() if d.url
        }
        assert not {"script", "img", "iframe", "object", "embed", "video", "audio"}.intersection(tags.seen)
        style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
        assert "url(" not in style
        assert "@import" not in style
        assert "default-src 'none'" in text

    def test_every_claim_is_there_once_with_its_code(self, whole):
        text = page(whole[0])
        tags = _Tags()
        tags.feed(text)
        assert [i for i in tags.ids if "." in i] == [c.id for c in CLAIMS]
        assert len(set(tags.ids)) == len(tags.ids)
        assert text.count("<pre>") == len(CLAIMS)

    def test_it_says_what_is_inferred_and_counts_by_kind(self, whole):
        text = page(whole[0])
        assert f"{len(CLAIMS)} statements about BERT, {len(CLAIMS) - 12} of them decided by running." in text
        assert text.count(" (inferred)</p>") == sum(c.inferred for c in CLAIMS)
        for kind, numbers in by_kind(whole[0]).items():
            assert f"<dt>{KINDS[kind]}</dt><dd>".replace("'", "&#39;") in text
            assert f"{numbers['agrees']} agrees" in text

    def test_text_is_escaped(self, whole, monkeypatch):
        outcomes = run(select(["bert.masking.rate"]))
        object.__setattr__(outcomes[0], "error", "<script>alert(1)</script>")
        assert "<script>" not in page(outcomes)
        assert "&lt;script&gt;" in page(outcomes)


def test_the_documentation_lists_exactly_the_claims():
    text = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
    between = text.partition(BEGIN)[2].partition(END)[0]
    assert re.findall(r"^\| `([^`]+)` \|", between, re.MULTILINE) == [c.id for c in CLAIMS]
    assert between.strip() == table(CLAIMS), "refbert audit --write-docs docs/audit.md"
