"""Vocabularies small enough to write here, and texts that exercise every stage of the tokenizer."""

from __future__ import annotations

import json

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

TEXTS = [
    "Paris is the capital of France.",
    " \tHeLLo!how  \n Are yoU?  ",
    "naïve café, Ünïcödé — “quotes” and 12,345.67 €",
    "re\u0301sume\u0301 and résumé",  # decomposed and composed
    "我喜欢吃苹果",
    "BERT在2018年10月发布，共12层。",
    "日本語とカタカナ 한국어",
    "emoji 👍🏽 and 👩‍👩‍👧 joined",
    "con\x00trol\x07s, soft\u00adhyphen, no\u200bspace, no\u00a0break, \ufffdreplaced",
    "line\u2028separator",
    "x" * 100,
    "x" * 101,
    "a-b_c/d\\e`f^g$h~i|j",
    "[MASK] and [SEP] spelled out, mid[MASK]word, [mask] in lower case, [CLS",
    "İstanbul ŒUVRE Straße ǅ ﬁ",
    "Привет, мир! Ещё ёлка",
    "مرحبا שָׁלוֹם हिन्दी ไทย",
    "1.5e-10 http://example.org/?q=a&b",
    "##ing # # #hash",
]


def characters(*, cased):
    """A vocabulary of every character of `TEXTS`, at a word's start and inside it, and a few longer pieces."""
    found = {c for text in TEXTS for c in text if c.isprintable() and not c.isspace()}
    kept = sorted(found if cased else {c for c in found if c == c.lower()})
    words = ["the", "capital", "hel", "##lo", "caf", "##é", "##e", "苹果", "##果", *(["Paris"] if cased else ["paris"])]
    return list(dict.fromkeys([*SPECIAL, *kept, *(f"##{c}" for c in kept), *words]))


UNCASED = characters(cased=False)
CASED = characters(cased=True)
# As Google's Chinese vocabulary: single characters, lower case but for <S> and <T>, and U+2028, a line separator.
CHINESE = [
    *SPECIAL,
    "<S>",
    "<T>",
    "\u2028",
    *"我喜欢吃苹果在年月发布共层，。abcdefg0123456789",
    "##0",
    "##1",
    "##8",
    "bert",
]


def write_vocabulary(directory, vocabulary, **files):
    """``vocab.txt`` in ``directory``, and each of ``files`` as a JSON file of that name."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "vocab.txt").write_text("".join(f"{piece}\n" for piece in vocabulary), encoding="utf-8")
    for name, content in files.items():
        (directory / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return directory
