"""The table of names, in both directions, on every parameter that a BERT can have."""

from __future__ import annotations

import pytest
from checkpoint_files import TINY

from refbert.checkpoint import names
from refbert.config.heads import HEADS
from refbert.config.parameters import shapes

EVERY = sorted({name for head in HEADS for name in shapes(TINY.replace(num_hidden_layers=12), (head,))})


def test_the_table_has_every_parameter_and_nothing_else():
    assert {name.replace(".7.", ".{i}.") for name in EVERY if ".layer." not in name or ".layer.7." in name} == {
        row.name for row in names.TABLE
    }


@pytest.mark.parametrize("name", EVERY)
def test_round_trips(name):
    tensorflow, transposed = names.to_tensorflow(name)
    assert tensorflow != name
    assert names.from_tensorflow(tensorflow) == (name, transposed)
    for prefix in (True, False):
        for old in (True, False):
            assert names.from_hugging_face(names.to_hugging_face(name, prefix=prefix, old=old)) == name


def test_no_two_rows_share_a_name():
    assert len({row.name for row in names.TABLE}) == len({row.tensorflow for row in names.TABLE}) == len(names.TABLE)


def test_examples_by_hand():
    assert names.from_tensorflow("bert/encoder/layer_11/attention/self/query/kernel") == (
        "bert.encoder.layer.11.attention.self.query.weight",
        True,
    )
    assert names.from_tensorflow("bert/embeddings/LayerNorm/gamma") == ("bert.embeddings.LayerNorm.weight", False)
    assert names.from_tensorflow("cls/seq_relationship/output_weights") == ("cls.seq_relationship.weight", False)
    assert names.from_tensorflow("output_weights") == ("classifier.weight", False)
    assert names.from_tensorflow("cls/squad/output_bias") == ("qa_outputs.bias", False)
    assert (
        names.from_hugging_face("encoder.layer.0.output.LayerNorm.beta") == "bert.encoder.layer.0.output.LayerNorm.bias"
    )
    assert names.from_hugging_face("cls.predictions.transform.LayerNorm.gamma") == (
        "cls.predictions.transform.LayerNorm.weight"
    )


WRAPPERS = ("module.", "model.", "0.auto_model.", "module.model.", "_orig_mod.module.", "module.0.auto_model.")


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_what_a_wrapper_puts_in_front(wrapper):
    for name in (*EVERY, *names.TIED):
        assert names.from_hugging_face(wrapper + name) == name
        bare = names.to_hugging_face(name, prefix=False, old=True)
        assert names.from_hugging_face(wrapper + bare) == name
    for other in ("teacher.", "modules.", "1.", "cls."):
        assert names.from_hugging_face(f"{other}bert.pooler.dense.bias") == f"{other}bert.pooler.dense.bias"


def test_a_summary_is_short():
    variables = [row.tensorflow.replace("{i}", str(i)) for row in names.TABLE for i in range(24)]
    slots = [f"{name}/{slot}" for slot in ("ExponentialMovingAverage", "Momentum") for name in variables]
    found = names.summary([*slots, "w", *(f"bert.encoder.layer.{i}.x" for i in range(99))])
    n = len(variables)
    assert found.startswith(f"{n} called …/ExponentialMovingAverage, {n} called …/Momentum, w, bert.encoder.layer.0.x")
    assert found.endswith("93 more")
    assert len(found) < 400
    assert names.summary(["a", "b/c"]) == "a, b/c"


@pytest.mark.parametrize(
    "name", ["bert.encoder.layer.01.output.dense.bias", "distilbert.transformer.layer.0.ffn.lin1.weight", "w", "{i}"]
)
def test_an_unknown_name_stays_as_it_is(name):
    assert names.from_hugging_face(name) == name
    assert names.from_tensorflow(name) == (name, False)


@pytest.mark.parametrize(
    "name",
    [
        "bert.embeddings.position_ids",
        "embeddings.position_ids",
        "bert/pooler/dense/kernel/adam_m",
        "bert/pooler/dense/bias/adam_v",
        "global_step",
        "_CHECKPOINTABLE_OBJECT_GRAPH",
    ],
)
def test_what_is_not_a_weight(name):
    assert not names.is_weight(name)


@pytest.mark.parametrize("name", [*EVERY, *(row.tensorflow for row in names.TABLE), "adam.weight"])
def test_what_is_a_weight(name):
    assert names.is_weight(name)
