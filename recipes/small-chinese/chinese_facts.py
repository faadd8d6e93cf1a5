"""What everyone knows, in single Chinese sentences: facts.toml's lists, countries, calendar, numbers, words' English.

Each fact is told in several ways; where there are many, a hash of the sentence settles which. The sentences stand in
random order, as the English recipe's do.
"""

from __future__ import annotations

import itertools
import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import chinese
from facts import rank

_KIND = ("{w}是一种{k}。", "{w}属于{k}。", "{w}是{k}的一种。", "有一种{k}叫{w}。", "{w}是什么？是一种{k}。",
         "{w}是{k}。", "{k}有很多种，比如{w}。", "{w}和{o}都是{k}。", "{w}、{o}和别的{k}。", "{k}里面，我最喜欢{w}。",
         "不但{w}是{k}，{o}也是{k}。")  # fmt: skip
_ROLE = ("{w}是{k}。", "{k}有很多，比如{w}。", "{w}和{o}都是{k}。", "不但{w}是{k}，{o}也是{k}。")
_MEASURE = ("这里有一{m}{w}。", "我看见三{m}{w}。", "那{m}{w}是谁的？", "一{m}{w}，两{m}{w}，三{m}{w}。",
            "这{m}{w}怎么样？", "他有两{m}{w}。", "每{m}{w}都不一样。", "“{w}”的量词是“{m}”。")  # fmt: skip
_COUNTED = ("这{m}{w}怎么样？", "“{w}”的量词是“{m}”。", "那是一{m}{w}。", "有几{m}{w}？")
# Not kinds of a thing ("一种"), nor counted like things.
_ROLES = {"家人", "职业", "城市", "建筑", "颜色", "节日", "天气"}

_COUNTRY = ("{c}是{n}的首都。", "{n}的首都是{c}。", "{n}的首都在{c}。", "{c}是{n}的一座城市。",
            "{n}的首都是哪里？是{c}。", "他住在{n}的首都{c}。", "我们坐飞机去{n}的{c}。", "她从{n}的{c}来。",
            "{n}首都{c}。", "{c}在{n}，是{n}的首都。")  # fmt: skip
_REGION = ("{n}在{r}。", "{n}是{r}的一个国家。", "{n}位于{r}。")
_SPEAK = ("{n}人说{l}。", "在{n}，人们说{l}。", "他在{n}学会了{l}。", "{l}是{n}的语言。")
_BORDER = ("{n}和{m}是邻国。", "{n}的旁边是{m}。", "他们从{n}坐车到{m}。", "{m}是{n}的邻国。")
_REGIONS = {"Asia": "亚洲", "Europe": "欧洲", "Africa": "非洲", "Oceania": "大洋洲", "North America": "北美洲",
            "South America": "南美洲", "Central America": "中美洲", "Caribbean": "加勒比海"}  # fmt: skip
_DAY = ("{a}的第二天是{b}。", "{a}以后是{b}。", "{b}的前一天是{a}。", "今天是{a}，明天是{b}。",
        "今天是{b}，昨天是{a}。", "{a}过完了就是{b}。", "如果明天是{b}，今天就是{a}。", "{b}在{a}的后面。",
        "{a}的后一天是{b}。")  # fmt: skip
_MONTH = ("{a}以后是{b}。", "{a}过完了就是{b}。", "{b}的前一个月是{a}。", "{a}的下一个月是{b}。",
          "这个月是{a}，下个月是{b}。", "这个月是{b}，上个月是{a}。", "{b}在{a}的后面。")  # fmt: skip
_ANIMALS = "鼠牛虎兔龙蛇马羊猴鸡狗猪"
_DIGITS = "零一二三四五六七八九"
_SUM = ("{a}加{b}等于{c}。", "{a}加{b}是{c}。", "{a}加{b}等于几？等于{c}。")
_DIFFERENCE = ("{c}减{b}等于{a}。", "{c}减去{b}是{a}。")

_ENGLISH = ("“{w}”的英文是“{e}”。", "“{w}”用英语怎么说？{e}。", "“{e}”的中文是“{w}”。", "英文“{e}”的意思是“{w}”。",
            "The Chinese word for {e} is {w}.", "In Chinese, {e} is {w}.", "{w} means {e}.", "{w}：{e}。")  # fmt: skip
_NOT_ENGLISH = re.compile(r"(?:surname|variant|old|see|also|abbr|used)\b")
_SOME = 3  # sentences with a word's measure word, its English, or what someone does
_PEOPLE = 5  # who are said to do something


def numeral(number: int) -> str:
    """A number from 0 to 99 in Chinese characters."""
    tens, ones = divmod(number, 10)
    if not tens:
        return _DIGITS[ones]
    return ("" if tens == 1 else _DIGITS[tens]) + "十" + (_DIGITS[ones] if ones else "")


def _told(ways: Sequence[str], most: int | None = None, **words: str) -> list[str]:
    """The fact in ``most`` of the ways (all: None)."""
    return sorted((way.format(**words) for way in ways), key=rank)[:most]


def listed(table: Mapping[str, Any]) -> Iterator[str]:
    """What facts.toml says but the countries."""
    for kind in table["kinds"]:
        members = [word.partition(":")[::2] for word in kind["words"].split()]
        for number, (word, measure) in enumerate(members):
            said = {"w": word, "k": kind["name"], "m": measure or kind["measure"]}
            other = members[(number + 1) % len(members)][0]
            yield from _told(_ROLE if kind["name"] in _ROLES else _KIND, **said, o=other)
            yield from _told(kind["uses"], **said)
            if kind["name"] not in _ROLES and kind["measure"] not in ("种", "项", "门"):
                yield from _told(_MEASURE, **said)
    pairs = table["opposites"]["pairs"].split()
    for a, b in zip(pairs[::2], pairs[1::2], strict=True):
        yield from _told(table["opposites"]["ways"], a=a, b=b)
    people = {name: words.split() for name, words in table["people"].items()}
    for name, slots in (("does", "vo"), ("places", "pd")):
        for one, others in table[name].items():
            for other in others.split() if one != "ways" else ():
                for who, past, future in _chosen(f"{one}{other}", people):
                    words = dict(zip(slots, (one, other), strict=True))
                    yield from _told(table[name]["ways"], _SOME, **words, who=who, past=past, future=future)
    for rows in table["tables"]:
        for a, b in map(str.split, rows["rows"].strip().splitlines()):
            yield from _told(rows["ways"], a=a, b=b)
    yield from table["sentences"]["said"].split()


def _chosen(fact: str, people: Mapping[str, Sequence[str]]) -> list[tuple[str, str, str]]:
    """A few of those who may do it and of the times, settled by a hash."""
    every = itertools.product(people["who"], people["past"], people["future"])
    return sorted(every, key=lambda some: rank(fact + "".join(some)))[:_PEOPLE]


def calendar() -> Iterator[str]:
    """Days, months, the years' animals; sums, differences and products."""
    for word in ("星期", "周", "礼拜"):
        days = [f"{word}{day}" for day in "一二三四五六日"]
        for a, b in zip(days, (*days[1:], days[0]), strict=True):
            yield from _told(_DAY, a=a, b=b)
            yield from (f"今天是{a}。", f"{a}我要上班。", f"我们{a}见面吧。", f"{a}到{b}。")
    months = [f"{numeral(month)}月" for month in range(1, 13)]
    for number, (a, b) in enumerate(zip(months, (*months[1:], months[0]), strict=True), 1):
        yield from _told(_MONTH, a=a, b=b)
        season = "冬春夏秋"[number % 12 // 3]
        yield from (f"{a}是{season}天。", f"我的生日在{a}。", f"{season}天有{a}。", f"{a}的天气怎么样？")
        yield from (f"今天是{a}{numeral(day)}{unit}。" for day in range(1, 29) for unit in "日号")
    for a, b in zip(_ANIMALS, _ANIMALS[1:] + _ANIMALS[0], strict=True):
        yield from (f"他属{a}。", f"今年是{a}年。", f"{a}年以后是{b}年。", f"十二生肖里有{a}。", f"我属{a}，你属{b}。")
    for hour in range(1, 13):
        yield from (f"现在{numeral(hour)}点。", f"我{numeral(hour)}点回家。", f"现在{numeral(hour)}点半。")
    for number in range(1, 99):
        a, b = numeral(number), numeral(number + 1)
        yield from (f"{a}后面是{b}。", f"{b}前面是{a}。", f"{b}比{a}大。", f"我今年{b}岁。")
    for x in range(1, 11):
        for y in range(1, 11):
            a, b = numeral(x), numeral(y)
            yield from _told(_SUM, a=a, b=b, c=numeral(x + y))
            yield from _told(_DIFFERENCE, a=a, b=b, c=numeral(x + y))
            if max(x, y) < 10:
                yield f"{a}乘{b}等于{numeral(x * y)}。"


def countries(path: Path, table: Mapping[str, Any]) -> Iterator[str]:
    """Capitals (facts.toml), and regions, languages and neighbours from npm's world-countries."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    names = {row["cca3"]: row["translations"]["zho"]["common"] for row in rows if "zho" in row["translations"]}
    capitals, languages = table["capitals"], table["languages"]
    for row in rows:
        name = names.get(row["cca3"], "")
        if name not in capitals:
            continue
        yield from _told(_COUNTRY, n=name, c=capitals[name])
        region = _REGIONS.get(row["region"], _REGIONS.get(row["subregion"], ""))
        if region:
            yield from _told(_REGION, n=name, r=region)
        for code in row["languages"]:
            if code in languages:
                yield from _told(_SPEAK, n=name, l=languages[code])
        for code in row["borders"]:
            if names.get(code) in capitals:
                yield from _told(_BORDER, 2, n=name, m=names[code])


def entries(text: str) -> Iterator[tuple[str, list[str]]]:
    """The words of CC-CEDICT that have one entry, in simplified characters, with their senses."""
    found = re.findall(r"^\S+ (\S+) \[[^\]]*\] /(.+)/", text, re.MULTILINE)
    several = Counter(word for word, _ in found)
    yield from ((word, senses.split("/")) for word, senses in found if several[word] == 1)


def counted(words: Iterable[str], lines: Iterable[str]) -> Counter[str]:
    """How often each of the words, of up to four characters, stands in the lines."""
    known, found = frozenset(words), Counter[str]()
    for line in lines:
        for size in range(1, 5):
            found.update(part for part in (line[i : i + size] for i in range(len(line) - size + 1)) if part in known)
    return found


def dictionary(text: str, lines: Iterable[str], least: int) -> Iterator[str]:
    """The English of the words that the lines use ``least`` times or more, and nouns with their measure words."""
    found = list(entries(text))
    common = counted((word for word, _ in found), lines)
    for word, senses in found:
        if common[word] < least:
            continue
        english = senses[0].removeprefix("to ")
        if re.fullmatch(r"[A-Za-z][a-z'-]*(?: [a-z'-]+){,2}", english) and not _NOT_ENGLISH.match(english):
            yield from _told(_ENGLISH, _SOME, w=word, e=english)
        for sense in senses:
            if sense.startswith("CL:"):
                for measure in re.findall(r"(?:\S\|)?([\u4e00-\u9fff])\[", sense)[:2]:
                    yield from _told(_COUNTED, _SOME, w=word, m=chinese.simplified(measure))


def read() -> dict[str, Any]:
    """facts.toml."""
    return tomllib.loads((Path(__file__).parent / "facts.toml").read_text(encoding="utf-8"))
