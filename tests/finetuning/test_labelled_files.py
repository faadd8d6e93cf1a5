"""Reading labelled files: what they hold, and one line with file and line number for each mistake."""

from __future__ import annotations

import json

import pytest
from labelled_files import written

from refbert.data.conll import read_conll
from refbert.data.labelled import read
from refbert.data.squad import read_squad
from refbert.data.tables import Columns, read_choices, read_labelled, read_table
from refbert.errors import InputError


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

    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    @pytest.mark.parametrize("inside", ["\u2028", "\u2029", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\x00"])
    def test_lines_end_at_line_feeds_alone(self, tmp_path, inside, end):
        text = f"one{inside}two"
        for name, lines in {
            "x.csv": ("text,label", f"{text},x", "b,y"), "x.tsv": ("text\tlabel", f"{text}\tx", "b\ty"),
            "x.jsonl": (json.dumps({"text": text, "label": "x"}, ensure_ascii=False), '{"text": "b", "label": "y"}'),
        }.items():  # fmt: skip
            first, second = read_labelled(written(tmp_path, name, end.join(lines) + end), Columns())
            assert (first.text, first.label, second.label) == (text, "x", "y")
            assert second.line == len(lines)

    def test_a_carriage_return_within_a_line(self, tmp_path):
        (row,) = read_labelled(written(tmp_path, "x.tsv", "text\tlabel\r\na\rb\tx\r\n"), Columns())
        assert row.text == "a\rb"
        (row,) = read_labelled(written(tmp_path, "x.csv", 'text,label\r\n"a\rb\r\nc",x\r\n'), Columns())
        assert (row.text, row.line) == ("a\rb\r\nc", 3)
        with pytest.raises(InputError, match="line 2: not CSV .a carriage return outside"):
            read_labelled(written(tmp_path, "x.csv", "text,label\na\rb,x\n"), Columns())

    @pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.jsonl"])
    def test_a_field_of_any_length(self, tmp_path, name):
        text = "word " * 60_000
        lines = {
            "x.csv": f"text,label\n{text},x\n", "x.tsv": f"text\tlabel\n{text}\tx\n",
            "x.jsonl": json.dumps({"text": text, "label": "x"}),
        }  # fmt: skip
        (row,) = read_labelled(written(tmp_path, name, lines[name]), Columns())
        assert row.text == text

    def test_columns_that_nobody_asks_for(self, tmp_path):
        columns = Columns(text="v2", label="v1")
        for name, content in (
            ("x.csv", "v1,v2,,,\nham,hello,,,\n"), ("x.csv", ",v1,v2,id,id\n0,ham,hello,7,8\n"),
            ("x.tsv", "v1\tv2\t\t\nham\thello\t\t\n"),
            ("x.jsonl", '{"v1": "ham", "v2": "hello", "": 1, "id": 1, "id": 2, "n": NaN, "m": 1e999, "l": [null]}\n'),
            ("x.jsonl", '{"v1": "ham", "v2": "hello", "n": ' + "9" * 5000 + ', "s": "\\ud800"}\n'),
        ):  # fmt: skip
            (row,) = read_labelled(written(tmp_path, name, content), columns)
            assert (row.text, row.label) == ("hello", "ham")

    @pytest.mark.parametrize(
        ("name", "content"),
        [("x.csv", "text,label,label\na,b,c\n"), ("x.jsonl", '{"text": "a", "label": "b", "label": "c"}\n')],
    )
    def test_a_column_that_is_asked_for_and_there_twice(self, tmp_path, name, content):
        with pytest.raises(InputError, match='two columns are called "label"'):
            read_labelled(written(tmp_path, name, content), Columns())

    NOT_LABELS = ("null", "NaN", '["x", "y"]', '["x"]', "[]", '{"x": 1}')

    @pytest.mark.parametrize("numbers", [False, True])
    @pytest.mark.parametrize("label", [*NOT_LABELS, "Infinity", "-Infinity", "1e999"])
    def test_what_is_no_label_in_json(self, tmp_path, label, numbers):
        path = written(tmp_path, "x.jsonl", f'{{"text": "a", "label": "1"}}\n{{"text": "b", "label": {label}}}\n')
        with pytest.raises(InputError, match="line 2: .*label"):
            read_labelled(path, Columns(), numbers=numbers)

    @pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.jsonl"])
    @pytest.mark.parametrize("label", [*NOT_LABELS, "nan", "NULL", "", "  ", "['x', 'y']", "('x', 'y')"])
    def test_what_is_no_label_as_text(self, tmp_path, name, label):
        quoted = label.replace('"', '""')
        lines = {
            "x.csv": f'text,label\na,"{quoted}"\n', "x.tsv": f"text\tlabel\na\t{label}\n",
            "x.jsonl": "\n" + json.dumps({"text": "a", "label": label}),
        }  # fmt: skip
        for numbers in (False, True):
            with pytest.raises(InputError, match="line 2: .*label"):
                read_labelled(written(tmp_path, name, lines[name]), Columns(), numbers=numbers)

    @pytest.mark.parametrize("label", ["[UNK]", "{x}", "None", "NA", "[draft, 2]", "(1)"])
    def test_names_that_only_look_odd(self, tmp_path, label):
        (row,) = read_labelled(written(tmp_path, "x.tsv", f"text\tlabel\na\t{label}\n"), Columns())
        assert row.label == label

    @pytest.mark.parametrize("name", ["text", "label"])
    def test_half_a_surrogate_pair(self, tmp_path, name):
        row = {"text": "a", "label": "b"} | {name: "x\udc80"}
        with pytest.raises(InputError, match=f"line 1: .*{name}.* half a surrogate"):
            read_labelled(written(tmp_path, "x.jsonl", json.dumps(row)), Columns())

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
        path = written(tmp_path, "x.conll", "-DOCSTART- -X- O\n\n#a NN B-X\nb NN O\n\n\nc\tNN\tO\n")
        first, second = read_conll(path)
        assert (first.words, first.tags, first.lines) == (("#a", "b"), ("B-X", "O"), (3, 4))
        assert (second.words, second.tags, second.lines) == (("c",), ("O",), (7,))

    @pytest.mark.parametrize("line", ["\tO", "word\t", "\tO\t"])
    def test_a_malformed_line(self, tmp_path, line):
        rest = "a\tb\tO" if line.count("\t") == 2 else "a O"
        with pytest.raises(InputError, match="line 2: a word and a tag"):
            read_conll(written(tmp_path, "x.conll", f"{rest}\n{line}\n"))

    def test_one_column(self, tmp_path):
        with pytest.raises(InputError, match="line 1: a word and a tag"):
            read_conll(written(tmp_path, "x.conll", "alone\n"))

    @pytest.mark.parametrize("line", ["alone", "a NN O", "\tNN\tO", "#tag", "# a comment here"])
    def test_unequal_columns(self, tmp_path, line):
        columns = len(line.split("\t" if "\t" in line else " "))
        with pytest.raises(InputError, match=f"line 3: {columns} columns, the lines before have 2"):
            read_conll(written(tmp_path, "x.conll", f"\na O\n{line}\n"))

    @pytest.mark.parametrize(
        ("content", "words", "tags"),
        [
            ("# id 5239\tdomain=train\njohn _ _ B-PER\nlives _ _ O\n", ("john", "lives"), ("B-PER", "O")),
            # as many columns as the lines have: told by the tag
            ("# id\njohn B-PER\nlives O\n", ("john", "lives"), ("B-PER", "O")),
            ("# sent_id = 3\njohn _ _ B-PER\n", ("john",), ("B-PER",)),
            ("#begin document (x); part 000\njohn a b c X\n\n#end document\n", ("john",), ("X",)),
            # words that begin so
            ("# O\n1 O\nman B-PER\n", ("#", "1", "man"), ("O", "O", "B-PER")),
            ("#\tO\n#cats\tB-HASH\nrule\tO\n", ("#", "#cats", "rule"), ("O", "B-HASH", "O")),
            ("a O\n# O\n", ("a", "#"), ("O", "O")),
        ],
    )
    def test_comments(self, tmp_path, content, words, tags):
        (found,) = read_conll(written(tmp_path, "x.conll", content))
        assert (found.words, found.tags) == (words, tags)

    CONLL_U = (
        "# newdoc\n# sent_id = 1\n# text = im Haus\n1-2\tim\t_\t_\t_\t_\t_\t_\t_\tSpaceAfter=No\n"
        "1\tin\tin\tADP\tAPPR\t_\t3\tcase\t_\t_\n2\tdem\tder\tDET\tART\tCase=Dat\t3\tdet\t_\t_\n"
        "# odd, but seen\n2.1\tleer\t_\tVERB\t_\t_\t_\t_\t_\t_\n3\tHaus\tHaus\tNOUN\tNN\t_\t0\troot\t_\t_\n"
        "\n1\t#\t#\tSYM\t$\t_\t0\troot\t_\tSpaceAfter=No\n"
    )

    def test_conll_u(self, tmp_path):
        first, second = read_conll(written(tmp_path, "x.conllu", self.CONLL_U))
        assert (first.words, first.tags, first.lines) == (("in", "dem", "Haus"), ("ADP", "DET", "NOUN"), (5, 6, 9))
        assert (second.words, second.tags) == (("#",), ("SYM",))

    def test_conll_u_with_tags_in_its_last_column(self, tmp_path):
        tags = iter(("B-X", "O", "O", "O", "B-Y"))
        lines = [
            line.rpartition("\t")[0] + "\t" + ("_" if "-" in line[:3] else next(tags)) if line[:1].isdigit() else line
            for line in self.CONLL_U.split("\n")
        ]
        first, _ = read_conll(written(tmp_path, "x.conllu", "\n".join(lines)))
        assert first.tags == ("B-X", "O", "O")

    def test_an_index_column_is_no_word(self, tmp_path):
        content = "#\thttp://de.wikipedia.org [2009]\n1\tAuch\tO\tO\n2\tRonaldo\tB-PER\tO\n\n1\tJa\tO\tO\n"
        first, second = read_conll(written(tmp_path, "x.tsv", content))
        assert (first.words, second.words) == (("Auch", "Ronaldo"), ("Ja",))
        (outer, _) = read("tag", tmp_path / "x.tsv", Columns(label="3")).sentences
        assert outer.tags == ("O", "B-PER")

    def test_numbers_that_do_not_count_are_words(self, tmp_path):
        first, second = read_conll(written(tmp_path, "x.conll", "1 CD O\n2 CD O\n\n1990 CD B-T\nAD NN O\n"))
        assert (first.words, second.words) == (("1", "2"), ("1990", "AD"))
        (found,) = read_conll(written(tmp_path, "x.conll", "1 O\n2 O\n"))
        assert found.words == ("1", "2")

    @pytest.mark.parametrize("second", ["3 Ja O\n", "1 Ja O\n", "0 Ja O\n"])
    def test_an_index_goes_on_or_begins_again(self, tmp_path, second):
        found = read_conll(written(tmp_path, "x.conll", f"1 Auch O\n2 Ronaldo B-PER\n\n{second}"))
        assert [sentence.words for sentence in found] == [("Auch", "Ronaldo"), ("Ja",)]

    @pytest.mark.parametrize("content", [
        "#begin document (x); part 000\nbc/x 0 0 In IN O\nbc/x 0 1 it PRP O\n\n#end document\n",  # CoNLL-2012
        "5001 a O\n5002 b O\n\n5003 c B-X\n",
        "1 a O\n3 b O\n",
        "s1 a O\ns1 b O\n\ns2 c O\n",
    ])  # fmt: skip
    def test_a_first_column_that_cannot_be_words(self, tmp_path, content):
        path = written(tmp_path, "x.conll", content)
        with pytest.raises(InputError, match=r"the first column \('.*', …\) holds no words.*--text-column"):
            read_conll(path)
        (first, *_) = read("tag", path, Columns(text="4" if "bc" in content else "2")).sentences
        assert first.words in (("In", "it"), ("a", "b"))

    @pytest.mark.parametrize("content", ["a O\rb B-X\r", "a O\nb\rc B-X\n"])
    def test_a_carriage_return_that_ends_no_line(self, tmp_path, content):
        with pytest.raises(InputError, match=r"line \d: a carriage return that ends no line"):
            read_conll(written(tmp_path, "x.conll", content))

    @pytest.mark.parametrize(
        "space", ["\u202f", "\u00a0", "\u2009", "\u3000", "\u2028", "\x0c", "\x0b", "\x85", "\x1c"]
    )
    def test_no_other_space_separates(self, tmp_path, space):
        first, second = read_conll(written(tmp_path, "x.conll", f"10{space}000 B-NUM\nans  O \r\n\r\n{space}\tO\n"))
        assert first.words == (f"10{space}000", "ans")
        assert first.tags == ("B-NUM", "O")
        assert second.words == (space,)

    def test_columns_that_are_not_there_or_have_no_number(self, tmp_path):
        path = written(tmp_path, "x.conll", "a O\n")
        with pytest.raises(InputError, match="no column 3 for the tags"):
            read("tag", path, Columns(label="3"))
        with pytest.raises(InputError, match='--label-column takes a number, from 1, not "ner"'):
            read("tag", path, Columns(label="ner"))


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
            ({"is_impossible": "false"}, "is_impossible must be true or false, not 'false'"),
            ({"is_impossible": None}, "is_impossible must be true or false, not None"),
        ],
    )
    def test_mistakes(self, tmp_path, change, says):
        item = {"id": "1", "question": "who?", "answers": [{"text": "cat", "answer_start": 2}]} | change
        with pytest.raises(InputError, match=says):
            read_squad(squad_file(tmp_path, item))

    @pytest.mark.parametrize(
        "answer", [{"text": "cat"}, {"text": "cat", "answer_start": 3}, {"text": "cat", "answer_start": None}]
    )
    def test_scoring_needs_no_positions(self, tmp_path, answer):
        path = squad_file(tmp_path, {"id": "1", "question": "who?", "answers": [answer]})
        (question,) = read("answer", path, Columns(), to_learn=False).questions
        assert question.answers == (("cat", None),)
        with pytest.raises(InputError):
            read("answer", path, Columns())

    def test_half_a_surrogate_pair(self, tmp_path):
        with pytest.raises(InputError, match='question "1": the question is not Unicode'):
            read_squad(squad_file(tmp_path, {"id": "1", "question": "who \ud800?", "answers": []}))

    def test_damaged(self, tmp_path):
        with pytest.raises(InputError, match="not JSON .*line 2"):
            read_squad(written(tmp_path, "x.json", '{"data":\n['))
