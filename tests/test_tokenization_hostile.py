"""Tokenizers' files that would take forever, grow without end, or bring the library down: refused in one line."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import pytest
from hostile import assert_one_line, bounded, refused

from refbert.config import BertConfig
from refbert.errors import RefbertWarning, TokenizerError
from refbert.models import shipped
from refbert.text import tokenizer_file
from refbert.text.tokenization import Tokenizer
from refbert.text.vocabulary import read_vocabulary

FILE = json.loads((shipped("small-english") / "tokenizer.json").read_text(encoding="utf-8"))
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "a", "cat", "##s"]
FILE["model"]["vocab"] = {word: i for i, word in enumerate(WORDS)}
FILE["added_tokens"] = [token | {"id": WORDS.index(token["content"])} for token in FILE["added_tokens"]]
FILE["post_processor"] = {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}


def write(directory: Path, file, **settings) -> Path:
    (directory / "tokenizer.json").write_text(file if isinstance(file, str) else json.dumps(file))
    if settings:
        (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return directory


def regex(pattern, kind="Split", **more):
    return {"type": kind, "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False} | more


def doubled(times):
    double = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    return {"type": "Sequence", "normalizers": [double] * times}


def template(times, ids=(2,)):
    cls = {"SpecialToken": {"id": "[CLS]", "type_id": 0}}
    side = {name: {"Sequence": {"id": name, "type_id": 0}} for name in "AB"}
    special = {"[CLS]": {"id": "[CLS]", "ids": list(ids), "tokens": ["[CLS]"] * len(ids)}}
    return {"type": "TemplateProcessing", "single": [cls] * times + [side["A"]],
            "pair": [cls] * times + [side["A"], side["B"]], "special_tokens": special}  # fmt: skip


def test_the_file_as_it_is(tmp_path):
    tokenizer = Tokenizer.from_directory(write(tmp_path, FILE))
    assert tokenizer.encode(["the cats"], max_length=10)[0].tokens == ("[CLS]", "the", "cat", "##s", "[SEP]")


@pytest.mark.parametrize(
    "change",
    [
        *({"pre_tokenizer": regex(pattern)} for pattern in (
            "(a+)+$", "(a|a)*b", "(?:\\w|x)+y", "a*a*a*b", "(a*)(b*)(c*)d", "(a)\\1", "((a){9}){9}", "(?#[)(a+)+(?#])",
            "(?x) a # [\n (a+)+ # ]", "(?<n>a)\\k<n>", "\\g<0>a|b", "(?~a+)b", "(", "[",
            "a{1,3}+[bc]", "a{1,30}{1,30}[bc]", "a+{1,9}[bc]", "a*{2,}[bc]", "\\c[(a|aa)*b]", "\\C-[(a|aa)*b]",
            "[\\c](a|aa)*b]", "(a|a)" * 20 + "[bc]", "(?:a|(?:a|a))" * 12 + "[bc]", "a?" * 24 + "[bc]",
            "\\w*\\w*[xy]", "[\\s\\S]*[\\s\\S]{9999}", "a?a?a?a?a?a?\\w*[xy]", "(a*a*)[xy]", "\\w*x|a*b*c",
        )),
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "BertPreTokenizer"}, regex("(a+)+$")]}},
        {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
        {"pre_tokenizer": {"type": "Nothing"}},
        {"normalizer": regex("(a+)+$", "Replace", content="x")},
        {"normalizer": regex("^", "Replace", content="x" * 1000)},
        {"normalizer": doubled(40)},
        {"normalizer": {"type": "Replace", "pattern": {"String": ""}, "content": ""}},
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "CAAAAP////8AAAAA"}},
        {"decoder": regex("(a+)+$", "Replace", content="x")},
        {"decoder": {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10_000}},
        {"model": FILE["model"] | {"max_input_chars_per_word": 10**9}},
        {"model": FILE["model"] | {"max_input_chars_per_word": 10**30}},
        {"model": FILE["model"] | {"continuing_subword_prefix": "#" * 100_000}},
        {"model": FILE["model"] | {"unk_token": "<nope>"}},
        {"model": FILE["model"] | {"vocab": FILE["model"]["vocab"] | {"zzz": 10**10}}},
        {"model": FILE["model"] | {"vocab": FILE["model"]["vocab"] | {"zzz": -1}}},
        {"post_processor": template(100_000)},
        {"post_processor": template(1, [2] * 10_000)},
        {"added_tokens": [FILE["added_tokens"][0] | {"id": 10**10}]},
        {"added_tokens": "[MASK]"},
        {"version": "99.0"},
    ],
)  # fmt: skip
def test_pipelines_that_may_not_end(tmp_path, change, capfd):
    refused(TokenizerError, r"tokenizer\.json", Tokenizer.from_directory, write(tmp_path, FILE | change))


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"}]}},
        {"normalizer": {"type": "Replace", "pattern": {"String": "``"}, "content": '"'}},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}]}},
        {"pre_tokenizer": regex(r"'s|'t| ?\p{L}+| ?\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+")},
        {"pre_tokenizer": regex(r"(\[[^\]]+]|Br?|Cl?|N|O|S|\(|\)|\.|=|#|-|\+|\\|\/|>>?|\*|\$|\%[0-9]{2}|[0-9]| )")},
        {"pre_tokenizer": regex(r"(?i:(the|a)) ")},
        {"pre_tokenizer": regex(r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\s*[\r\n]|\s+(?!\S)|\s+")},
        {"pre_tokenizer": regex(r"\p{N}{1,3}?| ?[^\s\p{L}\p{N}]++[\r\n]*|\w{2,}")},
        {"padding": {"strategy": {"Fixed": 10**10}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
                     "pad_type_id": 0, "pad_token": "[PAD]"}},
        {"truncation": {"max_length": 1, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}},
        {"post_processor": template(2)},
    ],
)  # fmt: skip
def test_pipelines_that_end(tmp_path, change):
    tokenizer = Tokenizer.from_directory(write(tmp_path, FILE | change))
    with bounded(), warnings.catch_warnings():
        warnings.simplefilter("ignore", RefbertWarning)  # some of them leave no word that is known
        assert tokenizer.encode(["the cats sat"], max_length=30)[0].tokens


def test_ids_beyond_all_entries(tmp_path):
    """A list of so many places would be made of it; the library aborts the process where it writes one."""
    model = FILE["model"] | {"vocab": FILE["model"]["vocab"] | {"zzz": 10**8}}
    refused(TokenizerError, r'tokenizer\.json: "zzz" has the id 100,000,000 in a vocabulary of 10 entries',
            Tokenizer.from_directory, write(tmp_path, FILE | {"model": model}))  # fmt: skip
    refused(TokenizerError, '"zzz" has the id 100,000 in a vocabulary of 10', tokenizer_file.check_ids,
            FILE["model"]["vocab"] | {"zzz": 100_000})  # fmt: skip


@pytest.mark.parametrize("number", [100, 10**8, 2**32 - 1])
def test_ids_of_added_tokens_beyond_all_entries(tmp_path, number):
    """The library of today gives the token the next id, whatever the file says."""
    added = [*FILE["added_tokens"], FILE["added_tokens"][0] | {"id": number, "content": "zzz"}]
    try:
        tokenizer = Tokenizer.from_directory(write(tmp_path, FILE | {"added_tokens": added}))
    except TokenizerError as error:
        assert_one_line(error)
    else:
        assert tokenizer.vocab_size <= 101


def test_gaps_that_published_vocabularies_have(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join([*WORDS, *["again"] * 1000, "last"]), encoding="utf-8")
    with pytest.warns(RefbertWarning, match=r"lines 10 and 11 are both 'again'; the later one counts \(and 998 more"):
        assert Tokenizer.from_directory(tmp_path).vocab_size == len(WORDS) + 1001


class PanicException(BaseException):
    """As pyo3_runtime has it: no `Exception`."""


def test_a_panic_of_the_library_is_an_error(tmp_path, monkeypatch):
    tokenizer = Tokenizer.from_directory(write(tmp_path, FILE))

    class Panicking:
        def __getattr__(self, _):
            raise PanicException("retry-limit-in-match over\n  at lib.rs")

    monkeypatch.setattr(tokenizer, "library", Panicking())
    refused(TokenizerError, "gave up", lambda: tokenizer.encode(["the"], max_length=9))
    refused(TokenizerError, "gave up", lambda: tokenizer.decode([5]))


def test_what_is_no_panic_passes():
    with pytest.raises(KeyboardInterrupt), tokenizer_file.library_call("x"):
        raise KeyboardInterrupt


def test_a_panic_on_the_way(tmp_path, monkeypatch, capfd):
    """A pattern that backtracks, let through: the library's own panic."""
    monkeypatch.setattr(tokenizer_file, "_ends", lambda _: True)
    tokenizer = Tokenizer.from_directory(write(tmp_path, FILE | {"pre_tokenizer": regex("(a+)+$")}))
    refused(TokenizerError, "gave up.*retry-limit", lambda: tokenizer.encode(["a" * 50 + "!"], max_length=99))


# Settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("do_lower_case", "strip_accents", "tokenize_chinese_chars")
          for value in ("yes", 1, 0, "true", [], {}, 1.0)),
        ("do_lower_case", None),
        *((name, value) for name in ("unk_token", "mask_token", "cls_token")
          for value in (5, [], {}, {"content": None}, {"content": ["[UNK]"]}, True, "")),
        ("model_max_length", "512"), ("model_max_length", -1), ("model_max_length", 0), ("model_max_length", True),
        ("tokenizer_class", 5), ("tokenizer_class", ["BertTokenizer"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("vocabulary", ["vocab.txt", "tokenizer.json"])
def test_settings_of_the_wrong_type(tmp_path, name, value, vocabulary):
    write(tmp_path, FILE, **{name: value})
    if vocabulary == "vocab.txt":
        (tmp_path / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
        (tmp_path / "tokenizer.json").unlink()
    refused(TokenizerError, rf"tokenizer_config\.json: {name} must be", Tokenizer.from_directory, tmp_path)


def test_settings_in_code_are_checked_too():
    refused(TokenizerError, "settings: do_lower_case must be true or false, not 'yes'",
            lambda: Tokenizer.from_vocabulary(WORDS, settings={"do_lower_case": "yes"}))  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [{"strip_accents": None}, {"mask_token": None}, {"model_max_length": 1e30}, {"model_max_length": 10**30},
     {"unk_token": {"content": "[UNK]", "lstrip": False}}, {"tokenizer_class": None}],
)  # fmt: skip
def test_settings_as_they_are_published(tmp_path, settings):
    assert Tokenizer.from_directory(write(tmp_path, FILE, **settings)).unk_id == 1


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"])
@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b'{"a": ' * 100_000, b"", b"\xff\xfe[\x00", b"[1, 2]", b"3", b'{"a": 1, "a": 2}',
     b'{"unk_token": "\\ud800"}', b'{"model_max_length": 1e400}', b'{"model_max_length": NaN}',
     b'{"x": ' + b"7" * 5000 + b"}", bytes(1000)],
)  # fmt: skip
def test_files_that_are_something_else(tmp_path, file, content, capfd):
    if file != "tokenizer.json":
        (tmp_path / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    (tmp_path / file).write_bytes(content)
    refused(TokenizerError, ".", Tokenizer.from_directory, tmp_path)


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json", "vocab.txt"])
def test_directories_in_the_place_of_files(tmp_path, file):
    (tmp_path / file).mkdir()
    refused(TokenizerError, "no tokenizer.json and no vocab.txt", Tokenizer.from_directory, tmp_path)


def test_an_unknown_token_that_the_vocabulary_lacks(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"unk_token": "<nope>\x1b[31m"}))
    refused(
        TokenizerError,
        re.escape(r"vocab.txt: the vocabulary has no <nope>\x1b[31m"),
        Tokenizer.from_directory,
        tmp_path,
    )


def test_a_vocabulary_without_end(tmp_path):
    (tmp_path / "vocab.txt").symlink_to("/dev/zero")
    refused(TokenizerError, "no tokenizer.json and no vocab.txt", Tokenizer.from_directory, tmp_path)
    refused(TokenizerError, "a pipe or a device", read_vocabulary, Path("/dev/zero"))


def test_one_warning_for_a_vocabulary_of_one_word(tmp_path):
    (tmp_path / "vocab.txt").write_text("the\n" * 200_000, encoding="utf-8")
    with warnings.catch_warnings(record=True) as caught, bounded():
        warnings.simplefilter("always")
        assert len(read_vocabulary(tmp_path / "vocab.txt")) == 200_000
    assert len(caught) == 1
    assert_one_line(caught[0].message)


def test_more_entries_than_the_model_has(tmp_path):
    config = BertConfig(vocab_size=5, hidden_size=4, num_hidden_layers=1, num_attention_heads=1)
    refused(TokenizerError, "the vocabulary has 9 entries, the model 5 embeddings",
            lambda: Tokenizer.from_directory(write(tmp_path, FILE), config=config))  # fmt: skip
