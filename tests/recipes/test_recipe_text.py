"""The text of the small model: what is taken out, how a dictionary's entry reads, what is held out."""

from __future__ import annotations

from pathlib import Path

import cleaning
import corpus
import glosses
import pytest
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


def test_verses_become_chapters() -> None:
    lines = ["Ge1:1 In the beginning", "Ge1:2 and then", "", "1Sm2:1 Another book"]
    assert list(cleaning.bible_chapters(lines)) == [("Ge 1", "In the beginning and then"), ("1Sm 2", "Another book")]
    with pytest.raises(ValueError, match="not a verse"):
        list(cleaning.bible_chapters(["Genesis 1"]))


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
    return wordnet.with_adverbs(wordnet.read(tmp_path))


@pytest.mark.parametrize(
    ("key", "sentences"),
    [
        ("noun/00000020", ["A cat, or true cat, is a feline mammal having soft fur, as in a black cat.",
                           "A cat is a kind of animal.", "The cat was asleep."]),
        ("noun/00000030", ["A bullfrog is the largest North American frog."]),
        ("noun/00000050", ["Albert Einstein was a physicist born in Germany."]),
        ("noun/00000060", ["Walking is the act of going on foot."]),
        ("verb/00000100", ["To breathe or to respire is to draw air into, and expel out of, the lungs, to use lungs."]),
        ("adj/00000200", ["Young means not old, as in young people.", "The opposite of young is old."]),
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


def test_every_entry_is_told_once_beneath_what_it_is_a_kind_of(synsets: dict[wordnet.Key, wordnet.Synset]) -> None:
    documents = dict(wordnet.documents(synsets, lambda synset: [synset.words[0]]))
    told = [word for sentences in documents.values() for word in sentences]
    assert sorted(told) == sorted(synset.words[0] for synset in synsets.values())
    assert documents["noun/00000010"] == ["animal", "cat", "tabby", "bullfrog"]
    assert documents["adj/00000200"] == ["young", "boyish", "boyishly"]


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
    documents = [(str(number), [f"first of {number}", f"second of {number}"]) for number in range(50)]
    digests = corpus.write(tmp_path, {"sotu": documents, "bible": documents})
    train, heldout = ((tmp_path / name).read_text().strip().split("\n\n") for name in ("train.txt", "heldout.txt"))
    assert (len(train), len(heldout)) == (94, 6)
    assert sorted(train + heldout) == sorted(2 * ["\n".join(sentences) for _, sentences in documents])
    assert (tmp_path / "heldout-sotu.txt").read_text().strip().split("\n\n") == heldout[:3]
    assert set(digests) == {"train.txt", "heldout.txt", "heldout-sotu.txt", "heldout-bible.txt"}
    assert not list(tmp_path.glob(".*"))
