"""Configurations: Hugging Face's and Google's files are read, everything else is refused by name."""

from __future__ import annotations

import json

import pytest
import transformers

from refbert.config import BertConfig
from refbert.errors import ConfigError

SMALL = {"vocab_size": 40, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20}

# bert_config.json of uncased_L-12_H-768_A-12, and of chinese_L-12_H-768_A-12 with its fields for a pooler never built.
GOOGLE_UNCASED = {
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "type_vocab_size": 2,
    "vocab_size": 30522,
}
GOOGLE_CHINESE = GOOGLE_UNCASED | {
    "directionality": "bidi",
    "pooler_fc_size": 768,
    "pooler_num_attention_heads": 12,
    "pooler_num_fc_layers": 3,
    "pooler_size_per_head": 128,
    "pooler_type": "first_token_transform",
    "vocab_size": 21128,
}


def write(directory, content, name="config.json"):
    text = content if isinstance(content, str) else json.dumps(content)
    (directory / name).write_text(text, encoding="utf-8")
    return directory


class TestRead:
    def test_google(self, tmp_path):
        assert BertConfig.from_directory(write(tmp_path, GOOGLE_UNCASED, "bert_config.json")) == BertConfig()
        write(tmp_path, GOOGLE_CHINESE, "bert_config.json")
        assert BertConfig.from_directory(tmp_path) == BertConfig(vocab_size=21128)

    def test_hugging_face(self, tmp_path):
        transformers.BertConfig().save_pretrained(tmp_path)
        assert BertConfig.from_directory(tmp_path) == BertConfig()

    def test_every_field_of_hugging_face(self, tmp_path):
        fields = {
            **SMALL,
            "hidden_act": "gelu_new",
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.25,
            "max_position_embeddings": 17,
            "type_vocab_size": 3,
            "initializer_range": 0.5,
            "layer_norm_eps": 1e-5,
            "pad_token_id": 7,
            "classifier_dropout": 0.3,
        }
        labels = {0: "no", 1: "yes", 2: "perhaps"}
        theirs = transformers.BertConfig(
            **fields,
            id2label=labels,
            problem_type="single_label_classification",
            architectures=["BertForSequenceClassification"],
        )
        theirs.save_pretrained(tmp_path)
        expected = BertConfig(
            **fields,
            num_labels=3,
            id2label=labels,
            problem_type="single_label_classification",
            architectures=("BertForSequenceClassification",),
        )
        assert BertConfig.from_directory(tmp_path) == expected

    @pytest.mark.parametrize("labels", [{}, {"id2label": None}, {"num_labels": 5}])
    def test_number_of_labels(self, labels):
        expected = transformers.BertConfig.from_dict(SMALL | labels).num_labels
        assert BertConfig.from_dict(SMALL | labels).num_labels == expected == labels.get("num_labels", 2)

    def test_config_json_comes_first(self, tmp_path):
        write(tmp_path, SMALL | {"vocab_size": 41})
        write(tmp_path, SMALL, "bert_config.json")
        assert BertConfig.from_directory(tmp_path).vocab_size == 41

    def test_what_is_absent_has_each_librarys_value(self, tmp_path):
        four = {name: SMALL[name] for name in SMALL if name != "intermediate_size"}
        theirs = transformers.BertConfig.from_dict(four)
        ours = BertConfig.from_directory(write(tmp_path, four))
        assert (ours.intermediate_size, ours.type_vocab_size) == (theirs.intermediate_size, theirs.type_vocab_size)
        assert (ours.intermediate_size, ours.type_vocab_size) == (3072, 2)
        # modeling.py's BertConfig: intermediate_size=3072, type_vocab_size=16.
        google = BertConfig.from_file(write(tmp_path, four, "bert_config.json") / "bert_config.json")
        assert google == ours.replace(type_vocab_size=16)

    def test_null_is_absent(self):
        silent = {"classifier_dropout": None, "position_embedding_type": None, "layer_norm_eps": None, "id2label": None}
        assert BertConfig.from_dict(SMALL | silent) == BertConfig(**SMALL)

    @pytest.mark.parametrize(("stored", "read"), [(None, "linear"), ("", ""), ("relu", "relu")])
    def test_no_activation(self, stored, read):
        assert BertConfig.from_dict(SMALL | {"hidden_act": stored}).hidden_act == read

    def test_other_fields_are_ignored(self):
        assert BertConfig.from_dict(SMALL | {"transformers_version": "4", "use_cache": True}) == BertConfig(**SMALL)


class TestRefused:
    @pytest.mark.parametrize("content", ["", "{", "{'a': 1}", '{"vocab_size": 3,}', "\ufeff", "weights", "[" * 100_000])
    def test_not_json(self, tmp_path, content):
        with pytest.raises(ConfigError, match=r"config\.json: not (usable )?JSON"):
            BertConfig.from_directory(write(tmp_path, content))

    def test_not_text(self, tmp_path):
        (tmp_path / "config.json").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ConfigError, match=r"config\.json, line 1: not UTF-8"):
            BertConfig.from_directory(tmp_path)

    @pytest.mark.parametrize("content", ["[1, 2]", "3", "null", '"bert"'])
    def test_not_an_object(self, tmp_path, content):
        with pytest.raises(ConfigError, match="a JSON object is expected"):
            BertConfig.from_directory(write(tmp_path, content))

    def test_no_file(self, tmp_path):
        with pytest.raises(ConfigError, match=r"no config\.json and no bert_config\.json"):
            BertConfig.from_directory(tmp_path)
        with pytest.raises(ConfigError, match="no such file"):
            BertConfig.from_file(tmp_path / "config.json")
        with pytest.raises(ConfigError, match="a directory, where a file is expected"):
            BertConfig.from_file(tmp_path)

    @pytest.mark.parametrize(
        "other", ["RobertaConfig", "DistilBertConfig", "GPT2Config", "AlbertConfig", "ElectraConfig"]
    )
    def test_another_architecture(self, tmp_path, other):
        theirs = getattr(transformers, other)()
        theirs.save_pretrained(tmp_path)
        with pytest.raises(ConfigError, match=f'model_type is "{theirs.model_type}", refbert implements "bert" only'):
            BertConfig.from_directory(tmp_path)

    @pytest.mark.parametrize("name", ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"])
    def test_a_missing_size(self, name):
        for source in ({k: v for k, v in SMALL.items() if k != name}, SMALL | {name: None}):
            with pytest.raises(ConfigError, match=f'bert.json: not a BERT configuration, it has no "{name}"'):
                BertConfig.from_dict(source, where="bert.json")

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("position_embedding_type", "relative_key"),
            ("is_decoder", True),
            ("add_cross_attention", True),
            ("tie_word_embeddings", False),
        ],
    )
    def test_what_computes_something_else(self, name, value):
        with pytest.raises(ConfigError, match=f"{name}={value!r} is not BERT as published"):
            BertConfig.from_dict(SMALL | {name: value})

    @pytest.mark.parametrize(
        ("name", "values"),
        [
            *((name, (0, -1, 2.0, "2", True, [2], 1 << 31, 10**400)) for name in SMALL if name != "num_hidden_layers"),
            ("num_hidden_layers", (-1, 1.5, "2", False, 10_001, 10**7, -(10**5000))),
            ("max_position_embeddings", (0,)),
            ("type_vocab_size", (0,)),
            ("num_labels", (0, 10**9)),
            ("hidden_act", (["gelu"], 3, {})),
            ("problem_type", (["regression"], 3, True)),
            ("pad_token_id", (-1, 40, 0.0, "0")),
            ("hidden_dropout_prob", (-0.1, 1, 1.5, float("nan"), "0.1", True)),
            ("attention_probs_dropout_prob", (-0.1, 1, float("nan"))),
            ("classifier_dropout", (-0.1, 1, "0.1")),
            ("layer_norm_eps", (0, -1e-12, float("nan"), float("inf"), "1e-12", 10**400, 10**5000)),
            ("initializer_range", (0, -0.02, float("inf"))),
            ("architectures", ("BertModel", 5, [5], [None])),
            (
                "id2label",
                (
                    {"zero": "a"},
                    {"-1": "a"},
                    {"0": None},
                    {"0": ["a"]},
                    {"0": "half \ud83d"},
                    ["a"],
                    "a",
                    {float("inf"): "a"},
                    {"7" * 5000: "a"},
                ),
            ),
        ],
    )
    def test_values(self, name, values):
        for value in values:
            with pytest.raises(ConfigError, match=f"here: {name}") as caught:
                BertConfig.from_dict(SMALL | {name: value}, where="here")
            assert str(caught.value).isprintable()
            assert len(str(caught.value)) < 500

    def test_heads_that_do_not_divide_the_hidden_size(self):
        with pytest.raises(ConfigError, match="hidden_size 12 is not a multiple of num_attention_heads 5"):
            BertConfig(**SMALL | {"num_attention_heads": 5})
        with pytest.raises(ConfigError, match="not a multiple"):
            BertConfig(**SMALL).replace(hidden_size=13)

    def test_no_layers_is_legal(self):
        assert BertConfig(**SMALL | {"num_hidden_layers": 0}).num_hidden_layers == 0


class TestWritten:
    CONFIG = BertConfig(
        **SMALL,
        num_labels=2,
        id2label={0: "O", 1: "B-person"},
        classifier_dropout=0.2,
        architectures=("BertForTokenClassification",),
        pad_token_id=3,
    )

    @pytest.mark.parametrize("config", [CONFIG, BertConfig(**SMALL), BertConfig(**SMALL, num_labels=4)])
    def test_read_again(self, tmp_path, config):
        again = BertConfig.from_directory(write(tmp_path, config.to_dict()))
        # Labels without names get Hugging Face's.
        names = config.id2label or {i: f"LABEL_{i}" for i in range(config.num_labels)}
        assert again == config.replace(id2label=names)

    def test_very_many_classes_are_counted(self, tmp_path):
        config = BertConfig(**SMALL, num_labels=100_000)
        assert len(str(config.to_dict())) < 2000
        assert BertConfig.from_directory(write(tmp_path, config.to_dict())) == config
        assert transformers.AutoConfig.from_pretrained(tmp_path).num_labels == 100_000

    def test_transformers_reads_it(self, tmp_path):
        theirs = transformers.AutoConfig.from_pretrained(write(tmp_path, self.CONFIG.to_dict()))
        assert isinstance(theirs, transformers.BertConfig)
        for name in (*SMALL, "hidden_act", "layer_norm_eps", "pad_token_id", "classifier_dropout", "id2label"):
            assert getattr(theirs, name) == getattr(self.CONFIG, name), name
        assert theirs.label2id == {"O": 0, "B-person": 1}


def test_head_size():
    assert BertConfig().head_size == 64
    assert BertConfig(**SMALL).head_size == 4
