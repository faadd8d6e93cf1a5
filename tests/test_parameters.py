"""Parameters: exact counts against the closed forms and Hugging Face's models, and how fresh weights are drawn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from refbert.config import BertConfig
from refbert.config.heads import HEADS, POOLED_HEADS
from refbert.config.parameters import count, initialize, shapes
from refbert.config.presets import preset
from refbert.config.profiles import GOOGLE, HF
from refbert.errors import ConfigError

BASE, LARGE = preset("bert-base-uncased"), preset("bert-large-uncased")
PRETRAINING = ("masked_lm", "next_sentence")

# Heads -> (has a pooler, Hugging Face's class).
CLASSES = {
    (): (True, transformers.BertModel),
    PRETRAINING: (True, transformers.BertForPreTraining),
    ("masked_lm",): (False, transformers.BertForMaskedLM),
    ("next_sentence",): (True, transformers.BertForNextSentencePrediction),
    ("sequence_classification",): (True, transformers.BertForSequenceClassification),
    ("token_classification",): (False, transformers.BertForTokenClassification),
    ("question_answering",): (False, transformers.BertForQuestionAnswering),
    ("multiple_choice",): (True, transformers.BertForMultipleChoice),
}

configs = st.builds(
    lambda A, D, L, **sizes: BertConfig(hidden_size=A * D, num_attention_heads=A, num_hidden_layers=L, **sizes),
    A=st.integers(1, 4),
    D=st.integers(1, 9),
    L=st.integers(0, 4),
    vocab_size=st.integers(1, 99),
    intermediate_size=st.integers(1, 50),
    max_position_embeddings=st.integers(1, 40),
    type_vocab_size=st.integers(1, 17),
    num_labels=st.integers(1, 9),
)


def hugging_face(config, heads):
    """Hugging Face's model of that configuration, on a device that holds no numbers."""
    fields = {name: value for name, value in config.to_dict().items() if name not in ("id2label", "label2id")}
    labels = 2 if "question_answering" in heads else config.num_labels
    with torch.device("meta"):
        return CLASSES[heads][1](transformers.BertConfig(**fields, num_labels=labels))


class TestCount:
    @pytest.mark.parametrize(
        ("config", "encoder", "with_pooler", "pretraining"),
        [
            (BASE, 108_891_648, 109_482_240, 110_106_428),
            (LARGE, 334_092_288, 335_141_888, 336_226_108),
            (BASE.replace(vocab_size=30000), 108_490_752, 109_081_344, 109_705_010),
            (LARGE.replace(vocab_size=30000), 333_557_760, 334_607_360, 335_691_058),
            (preset("bert-base-chinese"), 101_677_056, 102_267_648, 102_882_442),
        ],
        ids=["base", "large", "base, the paper's V", "large, the paper's V", "chinese"],
    )
    def test_published_sizes(self, config, encoder, with_pooler, pretraining):
        assert count(config, pooler=False) == encoder
        assert count(config) == with_pooler
        assert count(config, PRETRAINING) == pretraining

    def test_single_heads_of_base(self):
        assert count(BASE, ("masked_lm",), pooler=False) == 109_514_298
        assert count(BASE, ("question_answering",), pooler=False) == 108_893_186
        assert count(BASE, ("sequence_classification",)) == 109_483_778

    @pytest.mark.parametrize(("config", "layer"), [(BASE, 7_087_872), (LARGE, 12_596_224)])
    def test_one_layer(self, config, layer):
        fewer = config.replace(num_hidden_layers=config.num_hidden_layers - 1)
        assert count(config) - count(fewer) == layer

    @given(config=configs)
    def test_closed_form(self, config):
        H, F, V = config.hidden_size, config.intermediate_size, config.vocab_size
        embeddings = (V + config.max_position_embeddings + config.type_vocab_size) * H + 2 * H
        layer = 4 * H * H + 2 * H * F + 9 * H + F  # 12 H² + 13 H for F = 4 H
        assert count(config, pooler=False) == embeddings + config.num_hidden_layers * layer
        added = {
            "masked_lm": H * H + 3 * H + V,
            "next_sentence": 2 * H + 2,
            "sequence_classification": config.num_labels * (H + 1),
            "token_classification": config.num_labels * (H + 1),
            "question_answering": 2 * (H + 1),
            "multiple_choice": H + 1,
        }
        assert set(added) == set(HEADS)
        for head, more in added.items():
            assert count(config, (head,)) - count(config) == more
        assert count(config) - count(config, pooler=False) == H * H + H

    @pytest.mark.parametrize("heads", CLASSES, ids="+".join)
    def test_hugging_faces_names_and_shapes(self, heads):
        # Every size differs from every other, so that no transposed or swapped shape goes unseen.
        config = BertConfig(
            vocab_size=37, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20,
            max_position_embeddings=17, type_vocab_size=3, num_labels=5,
        )  # fmt: skip
        pooler, _ = CLASSES[heads]
        ours = shapes(config, heads, pooler=pooler)
        model = hugging_face(config, heads)
        prefix = "" if heads else "bert."  # BertModel alone has no prefix
        theirs = {prefix + name: tuple(p.shape) for name, p in model.named_parameters()}
        # Tied to the word embeddings and to cls.predictions.bias, so no parameters of their own.
        assert ours == {name: shape for name, shape in theirs.items() if "predictions.decoder" not in name}
        assert count(config, heads, pooler=pooler) == sum(p.numel() for p in model.parameters())

    def test_nothing_is_allocated(self):
        assert count(BASE.replace(vocab_size=2**31 - 1)) == count(BASE) + (2**31 - 1 - 30522) * 768


class TestHeads:
    def test_unknown(self):
        with pytest.raises(ConfigError, match=r'unknown head "mlm" \(known: masked_lm, '):
            shapes(BASE, ("mlm",))

    @pytest.mark.parametrize("head", HEADS)
    def test_pooled_heads_need_the_pooler(self, head):
        if head in POOLED_HEADS:
            with pytest.raises(ConfigError, match=f"{head} needs the pooler"):
                shapes(BASE, (head,), pooler=False)
        else:
            assert not any("pooler" in name for name in shapes(BASE, (head,), pooler=False))

    @pytest.mark.parametrize(
        "heads",
        list(itertools.combinations(("sequence_classification", "token_classification", "multiple_choice"), 2)),
    )
    def test_one_classifier(self, heads):
        with pytest.raises(ConfigError, match="one `classifier`"):
            shapes(BASE, heads)


class TestInitialize:
    CONFIG = BertConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, pad_token_id=3
    )
    SHAPES = shapes(CONFIG, PRETRAINING)
    WORDS = "bert.embeddings.word_embeddings.weight"

    def drawn(self, profile, dtype=np.float64, seed=5, config=CONFIG):
        return initialize(self.SHAPES, config, seed=seed, profile=profile, dtype=dtype)

    def matrices(self, profile):
        """All drawn numbers in units of initializer_range, without the padding row."""
        out = self.drawn(profile)
        chosen = [np.delete(a, 3, axis=0) if n == self.WORDS else a for n, a in out.items() if a.ndim == 2]
        return np.concatenate([a.ravel() for a in chosen]) / self.CONFIG.initializer_range

    @pytest.mark.parametrize("profile", [GOOGLE, HF], ids=lambda p: p.name)
    def test_names_shapes_dtype_biases_and_gains(self, profile):
        for dtype in (np.float32, np.float64):
            out = self.drawn(profile, dtype)
            assert {name: a.shape for name, a in out.items()} == self.SHAPES
            assert {a.dtype for a in out.values()} == {np.dtype(dtype)}
            for name, a in out.items():
                if name.endswith("bias"):
                    assert not a.any(), name
                elif "LayerNorm" in name:
                    assert (a == 1).all(), name
                else:
                    assert a.any(), name

    # The seed is fixed, so these tests are the same on every run; a right implementation fails one seed in a million.
    def test_hugging_face_draws_a_normal(self):
        z = self.matrices(HF)
        assert stats.kstest(z, "norm").pvalue > 1e-6
        assert np.abs(z).max() > 3

    def test_google_cuts_it_at_two_deviations(self):
        z = self.matrices(GOOGLE)
        assert np.abs(z).max() <= 2 * (1 + np.finfo(float).eps)  # one multiplication and one division
        assert stats.kstest(z, stats.truncnorm(-2, 2).cdf).pvalue > 1e-6
        assert stats.kstest(z, "norm").pvalue < 1e-6
        # The deviation of the cut normal is 0.8796: 0.01759 for 0.02. Its standard error is below 0.88/sqrt(N).
        assert abs(z.std() - 0.01759 / 0.02) < 5 * 0.88 / np.sqrt(z.size)

    def test_the_padding_row(self):
        assert not self.drawn(HF)[self.WORDS][3].any()
        assert (self.drawn(HF)[self.WORDS] != 0).any(axis=1).sum() == 299
        assert self.drawn(GOOGLE)[self.WORDS][3].all()

    def test_the_range_scales(self):
        once, twice = self.drawn(HF), self.drawn(HF, config=self.CONFIG.replace(initializer_range=0.04))
        for name in (self.WORDS, "bert.pooler.dense.weight"):
            assert np.array_equal(2 * once[name], twice[name])

    def test_the_seed_decides_and_nothing_else(self):
        first, again, other = self.drawn(HF), self.drawn(HF), self.drawn(HF, seed=6)
        assert all(np.array_equal(first[name], again[name]) for name in first)
        assert not np.array_equal(first[self.WORDS], other[self.WORDS])

    def test_a_tensor_does_not_depend_on_the_others(self):
        name = "cls.predictions.transform.dense.weight"
        alone = initialize({name: self.SHAPES[name]}, self.CONFIG, seed=5, profile=HF, dtype=np.float64)
        assert np.array_equal(alone[name], self.drawn(HF)[name])

    def test_no_two_tensors_are_alike(self):
        same_shape = [a for n, a in self.drawn(HF).items() if a.shape == (32, 32)]
        assert len(same_shape) == 6
        assert not any(np.array_equal(a, b) for a, b in itertools.combinations(same_shape, 2))
