"""Costs in closed form, against published arithmetic and PyTorch's own counter."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from refbert.config import BertConfig, flops
from refbert.config.parameters import count
from refbert.config.presets import preset
from refbert.errors import ConfigError

BASE, LARGE = preset("bert-base-uncased"), preset("bert-large-uncased")
PRETRAINING = ("masked_lm", "next_sentence")

# Head -> Hugging Face's class, whether it has a pooler, and what it takes.
CLASSES = {
    (): (transformers.BertModel, True),
    PRETRAINING: (transformers.BertForPreTraining, True),
    ("masked_lm",): (transformers.BertForMaskedLM, False),
    ("next_sentence",): (transformers.BertForNextSentencePrediction, True),
    ("sequence_classification",): (transformers.BertForSequenceClassification, True),
    ("token_classification",): (transformers.BertForTokenClassification, False),
    ("question_answering",): (transformers.BertForQuestionAnswering, False),
}


class TestPublished:
    @pytest.mark.parametrize(
        ("config", "S", "per_token"),
        [
            (BASE, 128, 174_587_904),
            (BASE, 512, 188_743_680),
            (LARGE, 128, 616_562_688),
            (LARGE, 512, 654_311_424),
        ],
    )
    def test_encoder_per_token(self, config, S, per_token):
        assert flops.encoder_flops_per_token(config, S) == per_token
        L, H = config.num_hidden_layers, config.hidden_size
        assert per_token == L * (24 * H * H + 4 * S * H)

    @pytest.mark.parametrize(("S", "model", "pretraining"), [
        (128, 22_348_431_360, 28_500_298_752),
        (512, 96_637_943_808, 121_245_404_160),
    ])  # fmt: skip
    def test_base_per_sequence(self, S, model, pretraining):
        assert flops.forward_flops(BASE, S) == model
        assert flops.forward_flops(BASE, S, PRETRAINING) == pretraining

    @pytest.mark.parametrize(
        ("S", "P", "step", "gathered", "everywhere"),
        [(128, 20, 69_928_989_696, "4.1%", "21.6%"), (512, 77, 301_016_033_280, "3.7%", "20.3%")],
    )
    def test_a_training_step_with_gathered_positions(self, S, P, step, gathered, everywhere):
        assert flops.training_flops(BASE, S, PRETRAINING, masked_positions=P) == step

        def share(positions):
            whole = flops.forward_flops(BASE, S, PRETRAINING, masked_positions=positions)
            return f"{1 - flops.forward_flops(BASE, S, ('next_sentence',)) / whole:.1%}"

        assert (share(P), share(None)) == (gathered, everywhere)

    def test_training_state(self):
        assert round(flops.training_bytes(BASE, PRETRAINING) / 1e9, 2) == 1.76
        assert round(flops.training_bytes(LARGE, PRETRAINING) / 1e9, 2) == 5.38


# Every size differs from every other and F is not 4H, so that no term can stand in for another.
SMALL = BertConfig(
    vocab_size=37, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20,
    max_position_embeddings=64, num_labels=5,
)  # fmt: skip


def measured(config, heads, S, *, backward=False):
    """PyTorch's count of the matrix products of one sequence through Hugging Face's model."""
    fields = {name: value for name, value in config.to_dict().items() if name not in ("id2label", "label2id")}
    labels = 2 if "question_answering" in heads else config.num_labels
    theirs = transformers.BertConfig(**fields, num_labels=labels, attn_implementation="eager")
    model = CLASSES[heads][0](theirs).eval()
    with FlopCounterMode(display=False) as counter:
        out = model(input_ids=torch.ones((1, S), dtype=torch.long))
        if backward:
            sum(value.sum() for value in out.values()).backward()
    return counter.get_total_flops()


class TestAgreesWithPyTorch:
    @pytest.mark.parametrize("S", [1, 7, 64])
    @pytest.mark.parametrize("heads", CLASSES, ids="+".join)
    def test_forward(self, heads, S):
        assert flops.forward_flops(SMALL, S, heads, pooler=CLASSES[heads][1]) == measured(SMALL, heads, S)

    @pytest.mark.parametrize("heads", [PRETRAINING, ("question_answering",)], ids="+".join)
    def test_training(self, heads):
        expected = measured(SMALL, heads, 7, backward=True)
        assert flops.training_flops(SMALL, 7, heads, pooler=CLASSES[heads][1]) == expected

    def test_multiple_choice_costs_one_number_per_sequence(self):
        assert flops.forward_flops(SMALL, 7, ("multiple_choice",)) - flops.forward_flops(SMALL, 7) == 2 * 12


class TestMemory:
    @pytest.mark.parametrize(("dtype", "size"), [("float64", 8), ("float32", 4), ("float16", 2), ("bfloat16", 2)])
    def test_weights(self, dtype, size):
        assert flops.weights_bytes(BASE, dtype=dtype) == 109_482_240 * size
        assert flops.weights_bytes(BASE, pooler=False, dtype=dtype) == 108_891_648 * size
        assert torch.empty(0, dtype=getattr(torch, dtype)).element_size() == size

    def test_training_state_is_four_copies(self):
        assert flops.training_bytes(SMALL, PRETRAINING) == 4 * 4 * count(SMALL, PRETRAINING)

    @pytest.mark.parametrize("S", [1, 128, 512])
    def test_activations(self, S):
        # About 16H + 2AS numbers per token and layer.
        assert flops.activation_bytes(BASE, S) == 4 * 12 * S * (16 * 768 + 2 * 12 * S)
        assert 2 * flops.activation_bytes(BASE, S, dtype="float16") == flops.activation_bytes(BASE, S)


class TestGroups:
    def test_base(self):
        assert flops.parameter_groups(BASE, PRETRAINING) == {
            "embeddings": 23_837_184,
            "encoder": 12 * 7_087_872,
            "pooler": 590_592,
            "masked_lm": 622_650,
            "next_sentence": 1_538,
        }

    @pytest.mark.parametrize("heads", [*CLASSES, ("multiple_choice",)], ids="+".join)
    def test_they_add_up(self, heads):
        pooler = CLASSES.get(heads, (None, True))[1]
        groups = flops.parameter_groups(SMALL, heads, pooler=pooler)
        assert sum(groups.values()) == count(SMALL, heads, pooler=pooler)
        assert list(groups) == ["embeddings", "encoder", *(["pooler"] if pooler else []), *heads]

    def test_an_unknown_head(self):
        with pytest.raises(ConfigError, match='unknown head "mlm"'):
            flops.parameter_groups(SMALL, ("mlm",))
