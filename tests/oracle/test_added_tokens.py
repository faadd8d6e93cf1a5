"""Tokens stated outside of the vocabulary: transformers' BertTokenizer on the same directory."""

from __future__ import annotations

import json
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, BertTokenizer

import refbert
from refbert.errors import TokenizerError
from refbert.text.tokenization import Tokenizer

VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "cat",
    "##s",
    "e",
    "##1",
    "[",
    "]",
    "e1",
    "x",
    "[unused1]",
]
V = len(VOCABULARY)
TEXTS = ["[E1] a cats[E1]s e1", "a [e1] [E2]x", "x [E2] [E1] [MASK] cat", "cat [unused1]a [MASK]cats", "xe1a [CLS]"]
CONFIG = {"model_type": "bert", "vocab_size": V + 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}


def token(content, **flags):
    return {"content": content, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False} | flags


def directory(path, *, fast=False, vocabulary=VOCABULARY, **files):
    """A directory with these JSON files, and a tokenizer.json if ``fast``: of the vocabulary and the added tokens."""
    path.mkdir(exist_ok=True)
    (path / "vocab.txt").write_text("".join(f"{piece}\n" for piece in vocabulary), encoding="utf-8")
    if fast:
        BertTokenizer(dict(zip(vocabulary, range(len(vocabulary)), strict=True))).backend_tokenizer.save(
            str(path / "tokenizer.json")
        )
    for name, content in ({"config": CONFIG} | files).items():
        (path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return path


def assert_same(path, texts=TEXTS):
    theirs = BertTokenizer.from_pretrained(str(path))
    ours = Tokenizer.from_directory(path)
    for text in texts:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", refbert.RefbertWarning)  # of nothing but unknown words
            (found,) = ours.encode([text], max_length=99)
        assert list(found.input_ids) == theirs(text)["input_ids"], text
    return ours


STATED = {
    "added_tokens.json": {"added_tokens": {"[E1]": V, "[E2]": V + 1}},
    "by id, not by place": {"added_tokens": {"[E2]": V + 1, "[E1]": V}},
    "special by the map": {"added_tokens": {"[E1]": V}, "special_tokens_map": {"additional_special_tokens": ["[E1]"]}},
    "special by the config": {"added_tokens": {"[E1]": V}, "tokenizer_config": {"additional_special_tokens": ["[E1]"]}},
    "added_tokens_decoder": {
        "tokenizer_config": {"added_tokens_decoder": {str(V): token("[E1]"), str(V + 1): token("[E2]")}},
    },
    "the decoder alone counts": {
        "tokenizer_config": {"added_tokens_decoder": {str(V): token("[E1]", special=True)}},
        "added_tokens": {"[E2]": V},
        "special_tokens_map": {"additional_special_tokens": ["[E2]"], "cls_token": "x"},
    },
    "additional_special_tokens": {"tokenizer_config": {"additional_special_tokens": ["[E1]", "[E2]"]}},
    "extra_special_tokens": {"tokenizer_config": {"extra_special_tokens": ["[E2]", "[E1]"]}},
    "extra wins over additional": {
        "tokenizer_config": {"extra_special_tokens": ["[E1]"], "additional_special_tokens": ["[E2]"]}
    },
    "extra by names": {"tokenizer_config": {"extra_special_tokens": {"one_token": "[E1]", "two_token": "[E2]"}}},
    "named": {"tokenizer_config": {"image_token": "[E1]", "eos_token": "[E2]"}},
    "named with flags": {"tokenizer_config": {"mask_token": {"__type": "AddedToken"} | token("[MASK]", lstrip=True)}},
    "the map wins": {"tokenizer_config": {"mask_token": "[MASK]"}, "special_tokens_map": {"mask_token": "x"}},
    "the map's flags": {"special_tokens_map": {"mask_token": token("[MASK]", lstrip=True, rstrip=True)}},
    "lists in both": {
        "tokenizer_config": {"extra_special_tokens": ["[E2]"]},
        "special_tokens_map": {"extra_special_tokens": ["[E1]", "[E2]"]},
    },
    "the config's list wins": {
        "tokenizer_config": {"additional_special_tokens": ["[E2]"]},
        "special_tokens_map": {"additional_special_tokens": ["[E1]"]},
    },
    "of the vocabulary": {"tokenizer_config": {"additional_special_tokens": ["[unused1]", "cat"]}},
    "[MASK] is an added token": {
        "vocabulary": [piece for piece in VOCABULARY if piece != "[MASK]"],
        "added_tokens": {"[MASK]": V - 1, "[E1]": V},
    },
    "without [MASK] in the vocabulary": {
        "vocabulary": [piece for piece in VOCABULARY if piece != "[MASK]"],
        "tokenizer_config": {"additional_special_tokens": ["[E1]"]},
    },
}  # fmt: skip


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("files", STATED.values(), ids=STATED)
def test_each_file(tmp_path, files, fast):
    assert_same(directory(tmp_path, fast=fast, **files))


FLAGS = st.fixed_dictionaries(
    {flag: st.booleans() for flag in ("lstrip", "rstrip", "normalized", "single_word", "special")}
)


PIECES = ("[E1]", "[e1]", "[E2]", "ab", "AB", "a", "cat", "s", "[MASK]", " ", "  ", "x")


@given(
    flags=st.lists(FLAGS, min_size=3, max_size=3), cased=st.booleans(), fast=st.booleans(),
    text=st.lists(st.sampled_from(PIECES), max_size=9),
)  # fmt: skip
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_flags(tmp_path, flags, cased, fast, text):
    tokens = [token(content, **one) for content, one in zip(("[E1]", "[E2]", "AB"), flags, strict=True)]
    decoder = {str(V + i): one for i, one in enumerate(tokens)}
    path = directory(
        tmp_path, fast=fast, tokenizer_config={"added_tokens_decoder": decoder, "do_lower_case": not cased}
    )
    ours = assert_same(path, ["a " + "".join(text)])
    (path / "copy").mkdir(exist_ok=True)
    ours.save(path / "copy")
    assert_same(path / "copy", ["a " + "".join(text)])
    for name in ("tokenizer.json", "vocab.txt"):  # a copy that has lost one of them is the same yet
        (path / "copy" / name).rename(path / name)
        assert_same(path / "copy", ["a " + "".join(text)])
        (path / name).rename(path / "copy" / name)


def test_what_theirs_saves(tmp_path):
    directory(tmp_path, **STATED["special by the map"])
    theirs = BertTokenizer.from_pretrained(str(tmp_path))
    theirs.add_tokens(["[E2]"])
    theirs.save_pretrained(str(tmp_path / "saved"))
    ours = Tokenizer.from_directory(tmp_path / "saved")
    assert list(ours.encode(["[E2] cat [E1]"], max_length=9)[0].input_ids) == theirs("[E2] cat [E1]")["input_ids"]


class TestIds:
    @pytest.mark.parametrize(
        "files",
        [
            {"added_tokens": {"[E1]": V + 5}},
            {"added_tokens": {"[E1]": V, "[E2]": V + 2}},
            {"added_tokens": {"[E1]": 3}},
            {"tokenizer_config": {"added_tokens_decoder": {str(V + 1): token("[E1]")}}},
            {"tokenizer_config": {"added_tokens_decoder": {str(10**8): token("[E1]")}}},
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("fast", [False, True])
    def test_a_gap_is_refused(self, tmp_path, files, fast):
        with pytest.raises(TokenizerError, match=r"the next free id is 1\d: ids must follow"):
            Tokenizer.from_directory(directory(tmp_path, fast=fast, **files))

    def test_an_id_that_a_repeated_line_makes_someone_elses(self, tmp_path):
        path = directory(tmp_path, vocabulary=["a", *VOCABULARY], added_tokens={"[E1]": V + 1})
        with pytest.warns(refbert.RefbertWarning), pytest.raises(TokenizerError, match="the next free id is 16"):
            Tokenizer.from_directory(path)

    def test_the_vocabularys_id_counts(self, tmp_path):
        path = directory(tmp_path, tokenizer_config={"added_tokens_decoder": {"7": token("[MASK]", special=True)}})
        with pytest.warns(
            refbert.RefbertWarning, match=r"'\[MASK\]' is stated with the id 7; the vocabulary has it as 4"
        ):
            ours = Tokenizer.from_directory(path)
        assert (
            list(ours.encode(["a [MASK]"], max_length=9)[0].input_ids)
            == BertTokenizer.from_pretrained(str(path))("a [MASK]")["input_ids"]
        )

    def test_beyond_the_embeddings(self, tmp_path):
        config = refbert.BertConfig.from_dict(CONFIG | {"vocab_size": V})
        path = directory(tmp_path, added_tokens={"[E1]": V})
        with pytest.raises(TokenizerError, match=f"has {V + 1} entries, the model {V} embeddings"):
            Tokenizer.from_directory(path, config=config)

    @pytest.mark.parametrize(
        ("files", "message"),
        [
            ({"added_tokens": {"[E1]": "many"}}, "id must be a whole number"),
            ({"added_tokens": ["[E1]"]}, "added_tokens"),
            ({"tokenizer_config": {"added_tokens_decoder": ["[E1]"]}}, "must be a JSON object"),
            ({"tokenizer_config": {"added_tokens_decoder": {"x": token("[E1]")}}}, "id must be a whole number"),
            ({"tokenizer_config": {"added_tokens_decoder": {"15": "[E1]"}}}, "must be a token with its content"),
            (
                {"tokenizer_config": {"added_tokens_decoder": {"15": token("[E1]", lstrip="no")}}},
                "must be true or false",
            ),
            ({"tokenizer_config": {"extra_special_tokens": "[E1]"}}, "must be a list of tokens"),
        ],
    )
    def test_what_is_no_token(self, tmp_path, files, message):
        with pytest.raises(TokenizerError, match=message):
            Tokenizer.from_directory(directory(tmp_path, **files))


class TestClasses:
    @pytest.mark.parametrize(
        "name", ["BertJapaneseTokenizer", "AlbertTokenizer", "RobertaTokenizerFast", "MyTokenizer"]
    )
    @pytest.mark.parametrize("file", ["tokenizer_config", "config"])
    @pytest.mark.parametrize("fast", [False, True])
    def test_another_than_wordpiece_is_refused_by_name(self, tmp_path, name, file, fast):
        files = {"tokenizer_config": {"word_tokenizer_type": "mecab"}}
        files[file] = (CONFIG if file == "config" else files[file]) | {"tokenizer_class": name}
        with pytest.raises(TokenizerError, match=f"{file}.json: tokenizer_class is '{name}'"):
            Tokenizer.from_directory(directory(tmp_path, fast=fast, **files))

    @pytest.mark.parametrize(
        "name", ["BertTokenizer", "BertTokenizerFast", "DistilBertTokenizerFast", "ElectraTokenizer"]
    )
    def test_berts_own_under_another_name(self, tmp_path, name):
        path = directory(
            tmp_path, tokenizer_config={"tokenizer_class": name}, config=CONFIG | {"tokenizer_class": "No"}
        )
        ours, theirs = Tokenizer.from_directory(path), AutoTokenizer.from_pretrained(str(path))
        assert list(ours.encode(["a cats"], max_length=9)[0].input_ids) == theirs("a cats")["input_ids"]

    def test_another_models(self, tmp_path):
        with pytest.raises(TokenizerError, match="config.json: model_type is 'albert'"):
            Tokenizer.from_directory(directory(tmp_path, config={"model_type": "albert"}))

    @pytest.mark.parametrize(
        "config", [{"model_type": ["bert"]}, {"tokenizer_class": {"a": 1}}, {"tokenizer_class": 3}]
    )
    def test_what_is_no_name(self, tmp_path, config):
        with pytest.raises(TokenizerError, match="refbert reads WordPiece alone"):
            Tokenizer.from_directory(directory(tmp_path, config=config))

    @pytest.mark.parametrize("setting", [{"word_tokenizer_type": "mecab"}, {"subword_tokenizer_type": "character"}])
    def test_a_japanese_one_without_its_class(self, tmp_path, setting):
        with pytest.raises(TokenizerError, match="refbert reads WordPiece alone"):
            Tokenizer.from_directory(directory(tmp_path, tokenizer_config=setting))

    @pytest.mark.parametrize("kind", ["BPE", "Unigram", "WordLevel"])
    def test_another_model_in_the_file(self, tmp_path, kind):
        import tokenizers
        from tokenizers import models

        made = {
            "BPE": lambda: models.BPE({"a": 0}, []), "WordLevel": lambda: models.WordLevel({"a": 0}, unk_token="a"),
            "Unigram": lambda: models.Unigram([("a", 0.0)], 0, False),
        }[kind]()  # fmt: skip
        tokenizers.Tokenizer(made).save(str(tmp_path / "tokenizer.json"))
        with pytest.raises(TokenizerError, match=f"its model is {kind}; refbert reads WordPiece alone"):
            Tokenizer.from_directory(tmp_path)
