"""Reading labelled files: what they hold, and one line with file and line number for each mistake."""

from __future__ import annotations

import json

import pytest

from refbert.data.conll import read_conll
from refbert.data.labelled import check_labels, label_set, read
from refbert.data.squad import read_squad
from refbert.data.tables import Columns, read_choices, read_labelled, read_table
from refbert.errors import InputError


def written(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


class TestTables:
    def test_csv_with_quotes_commas_and_new_lines(self, tmp_path):
        path = written(tmp_path, "x.csv", '\ufefftext,label\r\n"a ""b"", c\nd",yes\r\n\r\nplain,no\r\n')
        first, second = read_labelled(path, Columns())
        assert (first.text, first.label, first.line) == ('a "b", c\nd', "yes", 3)
        assert (second.text, second.line) == ("plain", 5)

    def test_tsv_takes_quotes_as_they_are(self, tmp_path):
        (row,) = read_labelled(written(tmp_path, "x.tsv", 'text\tlabel\n"hi\t0\n'), Columns())
        assert row.text == '"hi'

    def test_jsonl_pairs_and_labels_that_are_numbers(self, tmp_path):
        path = written(tmp_path, "x.jsonl", '{"a": "one", "b": "two", "y": 1}\n\n{"a": "x", "b": "y", "y": true}\n')
        first, second = read_labelled(path, Columns(text="a", pair="b", label="y"))
        assert (first.text, first.label) == (("one", "two"), "1")
        assert (second.label, second.line) == ("true", 3)

    def test_numbers(self, tmp_path):
        (row,) = read_labelled(written(tmp_path, "x.csv", "text,label\na,2.5\n"), Columns(), numbers=True)
        assert row.label == 2.5

    @pytest.mark.parametrize(
        ("name", "content", "says"),
        [
            ("x.csv", "", "x.csv: empty"),
            ("x.csv", "text,label\n", "no rows"),
            ("x.csv", "text,label\na,b,c\n", "line 2: 3 fields, the header has 2"),
            ("x.csv", 'text,label\na,b\n"open,c\n', "line 3: not CSV"),
            ("x.csv", "text,text\na,b\n", 'two columns are called "text"'),
            (
                "x.csv",
                "sentence,label\na,b\n",
                'no column "text" (there are: sentence, label); name it with --text-column',
            ),
            ("x.csv", "text,y\na,b\n", "--label-column"),
            ("x.csv", "text,label\na,b\n  ,c\n", 'line 3: "text" is empty'),
            ("x.csv", "text,label\na,\n", "line 2: no label"),
            ("x.csv", b"text,label\na,b\n\xff,c\n", "line 3: not UTF-8"),
            ("x.jsonl", '{"text": "a", "label": "b"}\n{"text"\n', "line 2: not JSON"),
            ("x.jsonl", "[1]\n", "line 1: a JSON object"),
            ("x.jsonl", '{"text": 3, "label": "b"}\n', "must be a text, not 3"),
            ("x.dat", "text,label\na,b\n", "--format"),
        ],
    )
    def test_mistakes(self, tmp_path, name, content, says):
        with pytest.raises(InputError) as caught:
            read_labelled(written(tmp_path, name, content), Columns())
        assert says in str(caught.value)
        assert name in str(caught.value)

    @pytest.mark.parametrize("value", ["x", "nan", "inf", ""])
    def test_labels_that_are_no_numbers(self, tmp_path, value):
        path = written(tmp_path, "x.csv", f"text,label\na,1\nb,{value}\n")
        with pytest.raises(InputError, match="line 3.*not a number"):
            read_labelled(path, Columns(), numbers=True)

    def test_a_missing_file(self, tmp_path):
        with pytest.raises(InputError, match="no such file"):
            read_table(tmp_path / "x.csv")


class TestChoices:
    def test_a_list_and_columns_are_the_same(self, tmp_path):
        listed = written(tmp_path, "x.jsonl", json.dumps({"text": "t", "choices": ["a", "b"], "label": 1}))
        columns = written(tmp_path, "x.csv", "text,one,two,label\nt,a,b,1\n")
        (first,) = read_choices(listed, Columns())
        (second,) = read_choices(columns, Columns(choices=("one", "two")))
        assert (first.text, first.choices, first.label) == (second.text, second.choices, second.label)

    @pytest.mark.parametrize(
        ("row", "says"),
        [
            ({"text": "t", "choices": ["a"], "label": 0}, "two or more"),
            ({"text": "t", "choices": "ab", "label": 0}, "a list of texts"),
            ({"text": "t", "choices": ["a", "b"], "label": 2}, "from 0 to 1"),
            ({"text": "t", "choices": ["a", "b"], "label": True}, "from 0 to 1"),
            ({"text": "t", "choices": ["a", "b", "c"], "label": 2}, "the first row has 2"),
        ],
    )
    def test_mistakes(self, tmp_path, row, says):
        good = {"text": "t", "choices": ["a", "b"], "label": 1}
        path = written(tmp_path, "x.jsonl", f"{json.dumps(good)}\n{json.dumps(row)}\n")
        with pytest.raises(InputError, match=f"line 2.*{says}"):
            read_choices(path, Columns())


class TestConll:
    def test_sentences(self, tmp_path):
        path = written(tmp_path, "x.conll", "-DOCSTART- -X- O\n\n#a NN B-X\nb NN O\n\n\nc\tO\n")
        first, second = read_conll(path)
        assert (first.words, first.tags, first.line) == (("#a", "b"), ("B-X", "O"), 3)
        assert (second.words, second.tags, second.line) == (("c",), ("O",), 7)

    @pytest.mark.parametrize("line", ["alone", "\tO", "word\t", "\tNN\tO", "a\t\t"])
    def test_a_malformed_line(self, tmp_path, line):
        with pytest.raises(InputError, match="line 2: a word and a tag"):
            read_conll(written(tmp_path, "x.conll", f"a O\n{line}\n"))


def squad_file(tmp_path, item, context="a cat sat"):
    content = {"data": [{"paragraphs": [{"context": context, "qas": [item]}]}]}
    return written(tmp_path, "x.json", json.dumps(content))


class TestSquad:
    def test_version_1(self, tmp_path):
        item = {"id": "1", "question": "who?", "answers": [{"text": "cat", "answer_start": 2}]}
        found = read_squad(squad_file(tmp_path, item))
        assert not found.unanswerable
        assert found.items[0].answers == (("cat", 2),)

    def test_version_2(self, tmp_path):
        item = {"id": "1", "question": "who?", "answers": [{"text": "cat", "answer_start": 2}], "is_impossible": True}
        found = read_squad(squad_file(tmp_path, item))
        assert found.unanswerable
        assert found.items[0].answers == ()

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"answers": [{"text": "cat", "answer_start": 3}]}, 'question "1".*not at character 3'),
            ({"answers": [{"text": "cat", "answer_start": -7}]}, "not at character -7"),
            ({"answers": []}, "no answer"),
            ({"question": " "}, "question is empty"),
            ({"answers": [{"text": "cat"}]}, "there is no 'answer_start'"),
            ({"answers": 3}, "not SQuAD's format"),
        ],
    )
    def test_mistakes(self, tmp_path, change, says):
        item = {"id": "1", "question": "who?", "answers": [{"text": "cat", "answer_start": 2}]} | change
        with pytest.raises(InputError, match=says):
            read_squad(squad_file(tmp_path, item))

    def test_damaged(self, tmp_path):
        with pytest.raises(InputError, match="line 2: not JSON"):
            read_squad(written(tmp_path, "x.json", '{"data":\n['))


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
        path = written(tmp_path, "x.conll", "a O\nb B-Q\n")
        with pytest.raises(InputError, match='line 2: the label "B-Q"'):
            check_labels("tag", read("tag", path, Columns()), ("O", "B-X"))
