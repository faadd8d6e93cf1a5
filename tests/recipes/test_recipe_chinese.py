"""The text of the small Chinese model: what a sentence is, how formats are read, what the facts say."""

from __future__ import annotations

import json
import struct
import tomllib
from pathlib import Path

import chinese
import chinese_corpus
import chinese_facts
import chinese_readers
import corpus
import everyday
import pytest

RECIPE = Path(chinese_corpus.__file__).parent


@pytest.fixture
def _as_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCC is needed for the text alone."""
    monkeypatch.setattr(chinese, "simplified", lambda text, kind="": text)


def test_the_committed_list_asks_for_single_characters() -> None:
    sentences = everyday.read_sentences(RECIPE / "everyday.tsv")
    assert len({sentence.text for sentence in sentences}) == len(sentences) == 40
    assert all(len(answer) == 1 for sentence in sentences for answer in sentence.answers)
    assert "我喜欢吃[MASK]果。" in {sentence.text for sentence in sentences}


def test_nothing_of_the_list_is_in_the_text_in_other_marks(tmp_path: Path) -> None:
    asked = corpus.everyday_sentences(RECIPE / "everyday.tsv")
    documents = [(str(n), [f"第{n}句。", "我喜欢吃苹果！", "我喜欢吃香蕉。"]) for n in range(9)]
    corpus.write(tmp_path, {"facts": documents}, {"facts": 1}, asked)
    written = "".join(path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.txt"))
    assert "苹果" not in written
    assert written.count("香蕉") == 1


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("他说：「你好！」她笑了。", ["他说：“你好！”", "她笑了。"]),
        ("“走吧。”“去哪儿？”他问。", ["“走吧。”", "“去哪儿？”", "他问。"]),
        ("你 好 吗?我很好,谢谢.", ["你好吗？", "我很好，谢谢。"]),
        ("昨天我在家里用 Python 3.11 写 程序。", ["昨天我在家里用 Python 3.11 写程序。"]),
        ("他想了想......走了。", ["他想了想……走了。"]),
        ("标题 没有句号", []),
        ("See the README for more 吧。", []),
        ("“没有关上的引号。", ["没有关上的引号。"]),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    assert chinese.sentences(text) == sentences


def test_a_long_sentence_is_cut_and_nothing_is_lost() -> None:
    sentence = "我们走了很远的路，" * 20 + "到了。"
    parts = chinese.cut(sentence)
    assert len(parts) > 1
    assert all(len(part) <= chinese.LONGEST for part in parts)
    assert "".join(parts) == sentence


def _mo(messages: dict[str, str]) -> bytes:
    """A gettext catalogue, as gettext(1) lays it out."""
    strings = [text.encode() for table in (list(messages), list(messages.values())) for text in table]
    count, at, places = len(messages), 28 + 16 * len(messages), b""
    for string in strings:
        places += struct.pack("<2I", len(string), at)
        at += len(string) + 1
    return struct.pack("<7I", 0x950412DE, 0, count, 28, 28 + 8 * count, 0, 0) + places + b"\0".join(strings) + b"\0"


@pytest.mark.usefixtures("_as_they_stand")
def test_messages_of_a_catalogue(tmp_path: Path) -> None:
    messages = {
        "A cup. It is red.": "一个杯子。它是<color_red>红色</color>的。",
        "%s is here.": "%s在这里。",
        "one\0many": "一个。",
        "Good.": "这很好。",
        "A gun.": "一把枪。",
    }
    for locale in ("zh_CN", "zh_TW"):
        folder = tmp_path / "usr/share/locale" / locale / "LC_MESSAGES"
        folder.mkdir(parents=True)
        (folder / "cataclysm-dda.mo").write_bytes(_mo(messages))
    assert len(list(chinese_readers.catalogue(_mo(messages)))) == 4
    assert list(chinese_readers.cataclysm(tmp_path)) == [
        ("zh_CN/0", ["一个杯子。", "它是红色的。"]),
        ("zh_TW/0", ["一个杯子。", "它是红色的。"]),
        ("list-0", ["这很好。"]),
    ]
    with pytest.raises(ValueError, match="not a gettext catalogue"):
        list(chinese_readers.catalogue(bytes(28)))


@pytest.mark.usefixtures("_as_they_stand")
def test_a_translation_follows_its_sentence(tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    rows = ["1\t我很好。\t2\tI'm fine.", "1\t我很好。\t3\tI am fine.", "4\t我没事。\t2\tI'm fine.", "5\tOK\t6\tOK."]
    rows.append("7\t我走了。\t8\tplaceholder-8")
    (tmp_path / "assets/tatoeba.tsv").write_text("\ufeff" + "\n".join(rows), encoding="utf-8")
    assert list(chinese_readers.tatoeba(tmp_path)) == [("list-0", ["我很好。", "I'm fine."])]


@pytest.mark.usefixtures("_as_they_stand")
def test_paragraphs_however_deep_and_verses_without_marks(tmp_path: Path) -> None:
    books = {
        "mengxue/a.json": {"content": [{"chapter": "一", "paragraphs": ["弟子规 圣人训", "天地玄黄"]}]},
        "mengxue/wenzimengqiu.json": {"paragraphs": ["不要这个。"]},
        "sishuwujing/b.json": [{"paragraphs": ["大学之道，在明明德。（注）"]}],
        "lunyu/lunyu.json": [],
        "songci/宋词三百首.json": [],
    }
    for name, content in books.items():
        (tmp_path / "dist" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "dist" / name).write_text(json.dumps(content), encoding="utf-8")
    assert list(chinese_readers.classics(tmp_path)) == [
        ("a/0", ["弟子规，圣人训。", "天地玄黄。"]),
        ("b/0", ["大学之道，在明明德。"]),
    ]


def test_every_list_of_facts_is_told() -> None:
    table = chinese_facts.read()
    told = set(chinese_facts.listed(table))
    assert {"猫属于动物。", "这里有一条狗。", "“小”的反义词是“大”。", "我们用眼睛看。", "四川的省会是成都。"} <= told
    assert not [sentence for sentence in told if any(mark in sentence for mark in "{} :")]
    for kind in table["kinds"]:
        for word in kind["words"].split():
            assert any(word.partition(":")[0] in sentence and kind["name"] in sentence for sentence in told)


def test_the_calendar_goes_round_and_sums_are_right() -> None:
    told = set(chinese_facts.calendar())
    assert {"星期二在星期一的后面。", "星期一在星期日的后面。", "十二月以后是一月。", "猪年以后是鼠年。"} <= told
    assert {"三加五等于八。", "八减去五是三。", "九乘九等于八十一。", "一月是冬天。", "七月是夏天。"} <= told
    assert [chinese_facts.numeral(number) for number in (0, 10, 12, 20, 99)] == ["零", "十", "十二", "二十", "九十九"]


def test_countries_come_from_the_tables(tmp_path: Path) -> None:
    row = {"cca3": "FRA", "translations": {"zho": {"common": "法国"}}, "region": "Europe",
           "subregion": "Western Europe", "languages": {"fra": "French"}, "borders": ["DEU", "AND"]}  # fmt: skip
    other = row | {"cca3": "DEU", "translations": {"zho": {"common": "德国"}}, "borders": []}
    (tmp_path / "countries.json").write_text(json.dumps([row, other]), encoding="utf-8")
    table = {"capitals": {"法国": "巴黎", "德国": "柏林"}, "languages": {"fra": "法语"}}
    told = set(chinese_facts.countries(tmp_path / "countries.json", table))
    assert {"法国的首都是巴黎。", "在法国，人们说法语。", "法国在欧洲。"} <= told
    assert any("德国" in sentence and "法国" in sentence for sentence in told)
    assert not any("巴黎" in sentence and "德国" in sentence for sentence in told)


@pytest.mark.usefixtures("_as_they_stand")
def test_common_words_of_the_dictionary() -> None:
    text = (
        "# CC-CEDICT\n蘋果 苹果 [ping2 guo3] /apple/CL:個|个[ge4],顆|颗[ke1]/\n"
        "跑 跑 [pao3] /to run/\n行 行 [hang2] /row/\n行 行 [xing2] /to walk/\n王 王 [Wang2] /surname Wang/\n"
    )
    lines = ["苹果，苹果。", "跑，行，王。"]
    assert chinese_facts.counted(["苹果", "果", "跑"], lines) == {"苹果": 2, "果": 2, "跑": 1}
    told = list(chinese_facts.dictionary(text, lines, 1))
    assert sum("apple" in sentence for sentence in told) == 3
    assert sum("run" in sentence for sentence in told) == 3
    assert sum("颗苹果" in sentence or "“颗”" in sentence for sentence in told) == 3
    assert not any("行" in sentence or "王" in sentence for sentence in told)
    assert all("苹果" in sentence for sentence in chinese_facts.dictionary(text, lines, 2))


def test_the_table_has_a_reader_a_licence_and_a_weight_for_each() -> None:
    table = tomllib.loads((RECIPE / "sources.toml").read_text(encoding="utf-8"))
    assert set(table) == {*chinese_corpus.READERS, "dictionary", "facts", "encyclopedia", "english-facts"}
    assert all(row["licence"] and row["weight"] > 0 for row in table.values())
    assert all(len(row["sha256"]) == 64 for row in table.values() if "package" in row)
