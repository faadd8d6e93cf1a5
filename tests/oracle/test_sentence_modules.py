"""sentence-transformers on the same directory: every module that refbert follows gives that library's vectors."""

from __future__ import annotations

import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import refbert
from refbert import checkpoint
from refbert.errors import CheckpointError, InputError
from refbert.tasks.fill_mask import embed

TEXTS = [
    "A cat sat on the mat.",
    "whales",
    ("In the beginning", "God created the heaven."),
    "President Smith spoke " * 9,
]
H, S = 384, 24
TRANSFORMER, POOLING = "sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling"
DENSE, NORMALIZE = "sentence_transformers.models.Dense", "sentence_transformers.models.Normalize"


def put(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


class Directory:
    """A sentence-transformers directory around the model that comes with refbert."""

    def __init__(self, root, *, below="", transformer=None, model=None, type=TRANSFORMER):
        self.root, self.listed = root, [(type, below)]
        shutil.copytree(checkpoint.resolve("small-english"), root / below, dirs_exist_ok=True)
        put(
            root / below / "sentence_bert_config.json",
            {"max_seq_length": S, "do_lower_case": False} | (transformer or {}),
        )
        if model is not None:
            put(root / "config_sentence_transformers.json", model)

    def add(self, type, **settings):
        place = f"{len(self.listed)}_{type.rsplit('.', 1)[-1]}"
        self.listed.append((type, place))
        put(self.root / place / "config.json", settings)
        put(self.root / "modules.json", [
            {"idx": i, "name": str(i), "path": path, "type": kind} for i, (kind, path) in enumerate(self.listed)
        ])  # fmt: skip
        return self

    def pool(self, **settings):
        return self.add(POOLING, word_embedding_dimension=H, **settings)

    def dense(self, n_in, n_out, *, seed=0, residual=False, binary=False, bias=True, **settings):
        settings |= {"in_features": n_in, "out_features": n_out, "bias": bias}
        self.add(DENSE, **settings, **({"use_residual": True} if residual else {}))
        draw = np.random.default_rng(seed)
        weights = {
            "linear.weight": draw.normal(0, n_in**-0.5, (n_out, n_in)),
            "linear.bias": draw.normal(0, 0.1, n_out),
        }
        if not bias:
            del weights["linear.bias"]
        if residual and n_in != n_out:
            weights["residual.weight"] = draw.normal(0, n_in**-0.5, (n_out, n_in))
        weights = {name: x.astype(np.float32) for name, x in weights.items()}
        place = self.root / self.listed[-1][1]
        if binary:
            torch.save({name: torch.from_numpy(x) for name, x in weights.items()}, place / "pytorch_model.bin")
        else:
            save_file(weights, place / "model.safetensors")
        return self


def theirs(root, texts=TEXTS, **how):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, not ours
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(root), device="cpu", model_kwargs={"dtype": torch.float32})
        return model.encode(texts, show_progress_bar=False, **how)


def quietly(call, *args, **how):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", refbert.RefbertWarning)
        return call(*args, **how)


def assert_same(root, texts=TEXTS, *, backend="numpy", **how):
    ours, expected = (
        quietly(refbert.load(root, backend=backend).encode, texts, batch_size=2, **how),
        theirs(root, texts),
    )
    assert ours.shape == expected.shape
    # The project's promise for vectors of length 1 computed in float32 on both sides, for vectors of any length.
    assert np.abs(ours - expected).max() <= 1e-5 * max(1, np.linalg.norm(expected, axis=1).max())


MODES = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("backend", ["numpy", "reference"])
def test_each_pooling(tmp_path, mode, backend):
    flags = {f"pooling_mode_{one}": one == mode for one in MODES}
    assert_same(Directory(tmp_path).pool(**flags).root, backend=backend)


def test_several_poolings_are_joined_in_their_order_not_the_files(tmp_path):
    flags = {f"pooling_mode_{mode}": True for mode in reversed(MODES)}
    assert_same(Directory(tmp_path).pool(**flags).add(NORMALIZE).root)
    assert refbert.load(tmp_path).encode("a").shape == (1, 6 * H)


@pytest.mark.parametrize("mode", ["max", ["max", "cls"]])
def test_todays_name_for_a_pooling(tmp_path, mode):
    directory = Directory(tmp_path, type="sentence_transformers.base.modules.transformer.Transformer")
    todays = "sentence_transformers.sentence_transformer.modules.pooling.Pooling"
    directory.add(todays, embedding_dimension=H, pooling_mode=mode, include_prompt=True)
    assert_same(directory.add("sentence_transformers.base.modules.normalize.Normalize").root)


def test_no_pooling_named_is_the_mean(tmp_path):
    assert_same(Directory(tmp_path).pool(pooling_mode_mean_tokens=False).root)


@pytest.mark.parametrize("below", ["", "0_Transformer"])
def test_what_theirs_saves_itself(tmp_path, below):
    assert_same(Directory(tmp_path / "made", below=below).pool(pooling_mode_cls_token=True).root)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import SentenceTransformer

        SentenceTransformer(str(tmp_path / "made"), device="cpu").save(str(tmp_path / "saved"))
    assert_same(tmp_path / "saved")


class TestDense:
    @pytest.mark.parametrize("binary", [False, True])
    @pytest.mark.parametrize(
        "activation", ["linear.Identity", *(f"activation.{n}" for n in ("Tanh", "ReLU", "GELU", "Sigmoid"))]
    )
    def test_activations(self, tmp_path, activation, binary):
        directory = Directory(tmp_path).pool(pooling_mode_mean_tokens=True)
        directory.dense(H, 40, activation_function=f"torch.nn.modules.{activation}", binary=binary)
        assert_same(directory.add(NORMALIZE).root)

    def test_one_behind_the_other_on_two_poolings(self, tmp_path):
        directory = Directory(tmp_path).pool(pooling_mode_mean_tokens=True, pooling_mode_max_tokens=True)
        directory.add(NORMALIZE).dense(2 * H, 64).dense(
            64, 8, bias=False, activation_function="torch.nn.modules.linear.Identity"
        )
        assert_same(directory.root)

    @pytest.mark.parametrize("size", [H, 32])
    def test_residual(self, tmp_path, size):
        assert_same(Directory(tmp_path).pool().dense(H, size, residual=True).root)

    def test_a_dropout_does_nothing(self, tmp_path):
        directory = Directory(tmp_path).pool().add("sentence_transformers.models.Dropout", dropout=0.5)
        assert_same(directory.dense(H, 16).root)


class TestTexts:
    def test_max_seq_length_cuts_and_says_so(self, tmp_path):
        Directory(tmp_path).pool()
        with pytest.warns(refbert.RefbertWarning, match=f"cut to {S} tokens"):
            refbert.load(tmp_path).encode(TEXTS)
        with pytest.raises(InputError, match=f"the limit is {S}"):
            refbert.load(tmp_path).encode(TEXTS, truncate=False)
        whole = refbert.load(tmp_path).encode(TEXTS, max_length=128)
        assert np.abs(whole - theirs(tmp_path)).max() > 1e-3

    def test_the_tokenizers_own_limit_where_no_other_is_stated(self, tmp_path):
        Directory(tmp_path, transformer={"max_seq_length": None}).pool()
        file = tmp_path / "tokenizer_config.json"
        put(file, json.loads(file.read_text()) | {"model_max_length": 9})
        assert_same(tmp_path)

    def test_the_end_that_is_cut(self, tmp_path):
        Directory(tmp_path).pool()
        file = tmp_path / "tokenizer_config.json"
        put(file, json.loads(file.read_text()) | {"truncation_side": "left"})
        assert_same(tmp_path, ["A cat sat. " + "President Smith spoke " * 9])

    def test_padding_at_the_beginning_would_make_a_vector_depend_on_its_batch(self, tmp_path):
        Directory(tmp_path).pool()
        file = tmp_path / "tokenizer_config.json"
        put(file, json.loads(file.read_text()) | {"padding_side": "left"})
        alone = np.concatenate([theirs(tmp_path, [text]) for text in TEXTS])
        assert np.abs(quietly(refbert.load(tmp_path).encode, TEXTS) - alone).max() <= 1e-5 * np.linalg.norm(alone)

    @pytest.mark.parametrize("cased", [False, True])
    def test_do_lower_case(self, tmp_path, cased):
        Directory(tmp_path, transformer={"do_lower_case": True}).pool()
        if cased:
            for name in ("tokenizer.json", "tokenizer_config.json"):
                file = tmp_path / name
                file.write_text(file.read_text().replace('"lowercase": true', '"lowercase": false')
                                .replace('"do_lower_case": true', '"do_lower_case": false'))  # fmt: skip
        assert_same(tmp_path, ["WHALES and Émigrés", "Ünïcode [MASK]"])
        refbert.load(tmp_path).save(tmp_path / "copy")
        assert_same(tmp_path / "copy", ["WHALES and Émigrés", "Ünïcode [MASK]"])


ASKING = {"prompts": {"query": "The question is this: ", "passage": None}, "default_prompt_name": "query"}


class TestPrompts:
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("include", [True, False])
    def test_the_default_prompt(self, tmp_path, include, mode):
        flags = {"pooling_mode_mean_tokens": False, f"pooling_mode_{mode}": True}
        assert_same(Directory(tmp_path, model=ASKING).pool(**flags, include_prompt=include).root)

    def test_another_and_none(self, tmp_path):
        Directory(tmp_path, model=ASKING).pool(include_prompt=False)
        model = refbert.load(tmp_path)
        for ours, name in ((model.embedder.prompts["query"], "query"), ("", "passage")):
            expected = theirs(tmp_path, prompt_name=name)
            assert np.abs(quietly(model.encode, TEXTS, prompt=ours) - expected).max() <= 1e-4
        assert quietly(embed, model, TEXTS)[0].tokens[1:3] == ("the", "question")

    def test_what_is_no_text_is_refused_as_without_one(self, tmp_path):
        Directory(tmp_path, model=ASKING).pool()
        for wrong in ([None], [3], [()], [(3, "a")]):
            with pytest.raises(InputError, match="text 1"):
                refbert.load(tmp_path).encode(wrong)

    def test_dimensions(self, tmp_path):
        assert_same(Directory(tmp_path, model={"truncate_dim": 10}).pool().add(NORMALIZE).root)


def test_what_is_given_wins(tmp_path):
    Directory(tmp_path).pool(pooling_mode_cls_token=True).dense(H, 16).add(NORMALIZE)
    model = refbert.load(tmp_path)
    plain = quietly(model.encode, TEXTS, normalize=False)
    assert np.abs(np.linalg.norm(plain, axis=1) - 1).min() > 1e-3
    assert np.abs(quietly(model.encode, TEXTS, normalize=True) - theirs(tmp_path)).max() <= 1e-5
    other = Directory(tmp_path / "max").pool(pooling_mode_max_tokens=True).dense(H, 16).add(NORMALIZE)
    assert np.abs(quietly(model.encode, TEXTS, pooling="max") - theirs(other.root)).max() <= 1e-5
    with pytest.raises(InputError, match=r"Dense module takes vectors of 384 numbers, the pooling makes 768"):
        model.encode("a", pooling=("max", "cls"))


def test_a_saved_copy_makes_the_same_vectors(tmp_path):
    directory = Directory(tmp_path / "a", below="0_Transformer", model=ASKING | {"truncate_dim": 5})
    directory.pool(pooling_mode_cls_token=True, pooling_mode_lasttoken=True, include_prompt=False)
    directory.dense(2 * H, 16, activation_function="torch.nn.modules.activation.ReLU", residual=True).add(NORMALIZE)
    refbert.load(directory.root).save(tmp_path / "b")
    assert_same(tmp_path / "b")
    assert np.abs(theirs(tmp_path / "b") - theirs(directory.root)).max() <= 1e-5


class TestRefused:
    @pytest.mark.parametrize("name", ["CNN", "LSTM", "WeightedLayerPooling", "LayerNorm", "BoW", "LogitScore"])
    def test_a_module_by_its_name(self, tmp_path, name):
        Directory(tmp_path).pool().add(f"sentence_transformers.models.{name}")
        model = refbert.load(tmp_path)
        assert "masked_lm" in model.heads  # of which the modules say nothing
        with pytest.raises(CheckpointError, match=f'"{name}" is a module'):
            model.encode("a")
        with pytest.warns(refbert.RefbertWarning, match=f'"{name}" is a module'):
            model.save(tmp_path / "copy")

    @pytest.mark.parametrize("name", ["WordEmbeddings", "Router", "StaticEmbedding", "CLIPModel"])
    def test_what_is_not_built_on_a_transformer(self, tmp_path, name):
        Directory(tmp_path, type=f"sentence_transformers.models.{name}").pool()
        with pytest.raises(CheckpointError, match=f'begins with "{name}"'):
            refbert.load(tmp_path)

    def test_someone_elses_class(self, tmp_path):
        Directory(tmp_path).pool().add("custom_st.Normalize")
        with pytest.raises(CheckpointError, match=r'"custom_st.Normalize" is a module'):
            refbert.load(tmp_path).encode("a")

    @pytest.mark.parametrize(
        ("build", "message"),
        [
            (lambda d: d.add(NORMALIZE), '"Normalize" follows the Transformer'),
            (lambda d: d.pool(pooling_mode="median"), "pooling_mode"),
            (lambda d: d.pool(pooling_mode_median_tokens=True), "pooling_mode_median_tokens"),
            (lambda d: d.pool().add(DENSE, in_features=H, out_features=3), "without weights"),
            (lambda d: d.pool().dense(H, 3, activation_function="torch.nn.modules.activation.Mish"), "Mish"),
            (lambda d: d.pool().dense(H, 3, activation_function="mine.Tanh"), "mine.Tanh"),
            (lambda d: d.pool().dense(H, 3, module_input_name="token_embeddings"), "module_input_name"),
            (lambda d: d.pool().add(NORMALIZE, module_input_name="token_embeddings"), "module_input_name"),
            (lambda d: d.pool().dense(100, 3), "takes vectors of 100 numbers, the pooling makes 384"),
        ],
    )  # fmt: skip
    def test_what_makes_no_sense(self, tmp_path, build, message):
        build(Directory(tmp_path))
        with pytest.raises((CheckpointError, InputError), match=message):
            refbert.load(tmp_path).encode("a")

    @pytest.mark.parametrize(
        ("transformer", "model", "message"),
        [
            ({"transformer_task": "fill-mask"}, None, "transformer_task"),
            ({"config_args": {"num_hidden_layers": 1}}, None, "config_args"),
            ({"max_seq_length": "256"}, None, "max_seq_length"),
            (None, {"model_type": "CrossEncoder"}, "CrossEncoder"),
            (None, {"default_prompt_name": "q"}, "default_prompt_name 'q'"),
            (None, {"default_prompt_name": {"a": 1}}, "default_prompt_name {'a': 1}"),
            (None, {"default_prompt_name": ["query"]}, "default_prompt_name"),
            (None, {"prompts": ["q"]}, "prompts must be texts by name"),
            (None, {"truncate_dim": True}, "truncate_dim must be a whole number"),
        ],
    )
    def test_settings(self, tmp_path, transformer, model, message):
        Directory(tmp_path, transformer=transformer, model=model).pool()
        with pytest.raises(CheckpointError, match=message):
            refbert.load(tmp_path).encode("a")

    @pytest.mark.parametrize(
        "listed", [{}, [], ["x"], [{"type": TRANSFORMER}], [{"type": TRANSFORMER, "path": "../x"}]]
    )
    def test_a_list_of_modules_that_is_none(self, tmp_path, listed):
        put(tmp_path / "modules.json", listed)
        with pytest.raises(CheckpointError, match=r"modules\.json"):
            refbert.load(tmp_path)
