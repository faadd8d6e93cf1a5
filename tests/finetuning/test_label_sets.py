"""Which labels there are to learn, in which order, and several of them for one text."""

from __future__ import annotations

import pytest
from labelled_files import written

from refbert.data.labelled import check_labels, label_set, read
from refbert.data.tables import Columns
from refbert.errors import InputError


class TestLabelSets:
    def test_numbers_by_value_names_by_alphabet_o_first(self, tmp_path):
        path = written(tmp_path, "x.csv", "text,label\na,10\nb,9\n")
        assert label_set("classify", read("classify", path, Columns())) == ("9", "10")
        path = written(tmp_path, "y.csv", "text,label\na,z\nb,a\n")
        assert label_set("classify", read("classify", path, Columns())) == ("a", "z")
        path = written(tmp_path, "x.conll", "a B-X\nb O\n")
        assert label_set("tag", read("tag", path, Columns())) == ("O", "B-X")

    def test_one_class_only(self, tmp_path):
        path = written(tmp_path, "x.csv", "text,label\na,z\nb,z\n")
        with pytest.raises(InputError, match='one label only \\("z"\\)'):
            label_set("classify", read("classify", path, Columns()))

    def test_a_label_that_is_not_in_the_set(self, tmp_path):
        path = written(tmp_path, "x.csv", "text,label\na,z\nb,q\n")
        with pytest.raises(InputError, match='line 3: the label "q" is not in the set \\(a, z\\)'):
            check_labels("classify", read("classify", path, Columns()), ("a", "z"))

    def test_two_labels_of_one_name(self, tmp_path):
        (tmp_path / "x.csv").write_text("text,label\nq,a\n")
        with pytest.raises(InputError, match="two labels of the model are called 'a'"):
            check_labels("classify", read("classify", tmp_path / "x.csv", Columns()), ("a", "b", "a"))
        path = written(tmp_path, "x.conll", "a O\nb B-Q\n")
        with pytest.raises(InputError, match='line 2: the label "B-Q"'):
            check_labels("tag", read("tag", path, Columns()), ("O", "B-X"))


class TestSeveralLabels:
    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("x.jsonl", '{"text": "p", "label": ["b", "a", "b"]}\n{"text":"q","label":[]}\n{"text":"r","label":"a"}\n'),
            ("x.csv", 'text,label\np,"b, a,b"\nq,\nr,a\n'),
            ("x.csv", 'text,label\np,"[""b"", ""a""]"\nq,[]\nr,a\n'),
            ("x.tsv", "text\tlabel\np\tb,a\nq\t\nr\ta\n"),
        ],
    )  # fmt: skip
    def test_as_each_format_has_them(self, tmp_path, name, content):
        (tmp_path / name).write_text(content)
        data = read("multi-label", tmp_path / name, Columns())
        assert [example.label for example in data.texts] == [("b", "a"), (), ("a",)]
        assert label_set("multi-label", data) == ("a", "b")
        check_labels("multi-label", data, ("a", "b"))
        with pytest.raises(InputError, match='the label "b" is not in the set'):
            check_labels("multi-label", data, ("a",))

    @pytest.mark.parametrize(
        ("label", "message"),
        [("null", "no label"), ("[null]", "no label"), ('[["a"]]', "several values"), ('{"a": 1}', "several values"),
         ('["a", ""]', "no label"), ("NaN", "not a class")],
    )  # fmt: skip
    def test_what_is_none(self, tmp_path, label, message):
        (tmp_path / "x.jsonl").write_text(f'{{"text": "p", "label": {label}}}\n')
        with pytest.raises(InputError, match=f"line 1: .*{message}"):
            read("multi-label", tmp_path / "x.jsonl", Columns())

    def test_nothing_to_learn(self, tmp_path):
        (tmp_path / "x.jsonl").write_text('{"text": "p", "label": []}\n')
        with pytest.raises(InputError, match="no text has a label"):
            label_set("multi-label", read("multi-label", tmp_path / "x.jsonl", Columns()))
