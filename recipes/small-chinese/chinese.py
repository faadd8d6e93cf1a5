"""Chinese text to sentences: simplified characters, Chinese punctuation, one sentence a line.

OpenCC makes traditional characters simplified. A sentence ends at 。！？ and the quotation marks behind them.
"""

from __future__ import annotations

import functools
import re
from typing import Any

# What exceeds the model's length is thrown away in packing.
LONGEST = 60  # characters
_HAN = "\u4e00-\u9fff"
_WIDE = f"{_HAN}\u3001-\u303f\uff01-\uff65“”‘’…—"
_PLAIN = str.maketrans("「」『』﹁﹂\u3000\xa0・‧─", "“”‘’“”  ··—", "\u200b\u2060")
_PUNCTUATION = {",": "，", "?": "？", "!": "！", ";": "；", ":": "：", ".": "。"}
_BREAK = re.compile(r"(?<=[。！？])(?![。！？”’）》])|(?<=[。！？…][”’）》])(?![。！？”’）》，、；：—])")
_OPEN, _CLOSE = "“‘（《", "”’）》"
# Not to be among what a model can propose.
_COARSE = re.compile(
    "妈的|他妈|操你|我操|卧槽|屌|婊|鸡巴|强奸|傻逼|狗屎|荡妇|妓|淫|支那|黑鬼|色情|裸体|嫖|做爱|阴茎|阴道|乳房"
)


@functools.cache
def _converter(kind: str) -> Any:
    from opencc import OpenCC

    return OpenCC(kind)


def simplified(text: str, kind: str = "t2s") -> str:
    """The text in simplified characters; "tw2sp": of Taiwan, and its words for things changed too."""
    return str(_converter(kind).convert(text))


def plain(text: str) -> str:
    """Chinese punctuation behind Chinese characters, curly quotes, no spaces among Chinese characters."""
    text = " ".join(text.translate(_PLAIN).split())
    text = re.sub(r'"([^"]*)"', r"“\1”", text)
    text = re.sub(rf"(?<=[{_HAN}”])\s*([,?!;:]|\.(?![\w.]))", lambda found: _PUNCTUATION[found[1]], text)
    text = re.sub(r"\.{3,}|。{2,}|…+", "……", text)
    return re.sub(rf"(?<=[{_WIDE}])\s+(?=[{_WIDE}])", "", text)


def is_prose(sentence: str) -> bool:
    """Whether it is a sentence worth learning from: whole, Chinese for the most part, nothing coarse in it."""
    letters = sum(character.isalnum() for character in sentence)
    chinese = sum("\u4e00" <= character <= "\u9fff" for character in sentence)
    whole = sentence[-1:] in "。！？…”’）》" and not _COARSE.search(sentence)
    return 1 < chinese >= 0.5 * letters and whole and not re.search(r"[|<>{}$_\\^~\[\]@#%*=█【】\ufffd]", sentence)


def balanced(sentence: str) -> str:
    """Without the quotation marks at its ends whose other half is in another sentence."""
    for opening, closing in zip(_OPEN, _CLOSE, strict=True):
        if sentence.startswith(opening) and closing not in sentence:
            sentence = sentence[1:]
        if sentence.endswith(closing) and opening not in sentence:
            sentence = sentence[:-1]
    return sentence


def cut(sentence: str) -> list[str]:
    """The sentence, or parts of at most `LONGEST` characters where it has places to cut; nothing is lost."""
    if len(sentence) <= LONGEST:
        return [sentence]
    parts: list[str] = []
    for piece in re.split(r"(?<=[；：，])", sentence):
        if parts and len(parts[-1]) + len(piece) <= LONGEST:
            parts[-1] += piece
        else:
            parts.append(piece)
    return [part for part in parts if part]


def sentences(text: str) -> list[str]:
    """Plain text, in simplified characters, to the sentences that are prose."""
    found = (balanced(sentence.strip()) for sentence in _BREAK.split(plain(text)))
    return [part for sentence in found if is_prose(sentence) for part in cut(sentence)]
