"""Translate parameter names: one table, read in both directions.

refbert's names are those that Hugging Face writes today, always with the ``bert.`` prefix. A checkpoint may carry
others: Google's TensorFlow variables (google-research/bert, modeling.py and run_*.py), where the matrix of a dense
layer is stored [in, out] instead of [out, in]; or those of Hugging Face's first releases (``LayerNorm.gamma`` and
``.beta``), with the prefix or without it; and what wraps a model in training writes its own attributes' names in front.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple


class Row(NamedTuple):
    """One tensor: its name here, Google's name for it, and whether Google's is the transposed matrix."""

    name: str
    tensorflow: str
    transposed: bool = False


def _dense(name: str, tensorflow: str) -> tuple[Row, ...]:
    return Row(f"{name}.weight", f"{tensorflow}/kernel", True), Row(f"{name}.bias", f"{tensorflow}/bias")


def _layer_norm(name: str, tensorflow: str) -> tuple[Row, ...]:
    return Row(f"{name}.weight", f"{tensorflow}/gamma"), Row(f"{name}.bias", f"{tensorflow}/beta")


# {i} is the number of the layer, from 0.
TABLE: tuple[Row, ...] = (
    Row("bert.embeddings.word_embeddings.weight", "bert/embeddings/word_embeddings"),
    Row("bert.embeddings.position_embeddings.weight", "bert/embeddings/position_embeddings"),
    Row("bert.embeddings.token_type_embeddings.weight", "bert/embeddings/token_type_embeddings"),
    *_layer_norm("bert.embeddings.LayerNorm", "bert/embeddings/LayerNorm"),
    *_dense("bert.encoder.layer.{i}.attention.self.query", "bert/encoder/layer_{i}/attention/self/query"),
    *_dense("bert.encoder.layer.{i}.attention.self.key", "bert/encoder/layer_{i}/attention/self/key"),
    *_dense("bert.encoder.layer.{i}.attention.self.value", "bert/encoder/layer_{i}/attention/self/value"),
    *_dense("bert.encoder.layer.{i}.attention.output.dense", "bert/encoder/layer_{i}/attention/output/dense"),
    *_layer_norm("bert.encoder.layer.{i}.attention.output.LayerNorm",
                 "bert/encoder/layer_{i}/attention/output/LayerNorm"),
    *_dense("bert.encoder.layer.{i}.intermediate.dense", "bert/encoder/layer_{i}/intermediate/dense"),
    *_dense("bert.encoder.layer.{i}.output.dense", "bert/encoder/layer_{i}/output/dense"),
    *_layer_norm("bert.encoder.layer.{i}.output.LayerNorm", "bert/encoder/layer_{i}/output/LayerNorm"),
    *_dense("bert.pooler.dense", "bert/pooler/dense"),
    *_dense("cls.predictions.transform.dense", "cls/predictions/transform/dense"),
    *_layer_norm("cls.predictions.transform.LayerNorm", "cls/predictions/transform/LayerNorm"),
    Row("cls.predictions.bias", "cls/predictions/output_bias"),
    # The small heads are written out in Google's scripts with a [K, H] matrix, so they are not transposed.
    Row("cls.seq_relationship.weight", "cls/seq_relationship/output_weights"),
    Row("cls.seq_relationship.bias", "cls/seq_relationship/output_bias"),
    Row("classifier.weight", "output_weights"),
    Row("classifier.bias", "output_bias"),
    Row("qa_outputs.weight", "cls/squad/output_weights"),
    Row("qa_outputs.bias", "cls/squad/output_bias"),
)  # fmt: skip

# Hugging Face's second names for tensors that are in the table. The masked-LM decoder is tied to the word embeddings.
TIED = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}

# What data parallelism, torch.compile, Lightning, sentence-transformers and a class around a model put in front; the
# first three kinds also stand within a name, where a part of the model is wrapped.
_WRAPPERS = re.compile(r"\A(?:(?:model|base_model|backbone|0|auto_model|bert_model)\.)+")
_ANYWHERE = re.compile(
    r"(?<![^.])(?:module|_orig_mod|_forward_module|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
_WORDS = "embeddings.word_embeddings.weight"
# Models that have BERT's names and compute something else.
_OTHERS = ("roberta.", "camembert.", "electra.", "ernie.", "layoutlm.", "splinter.", "data2vec_text.", "lxmert.")

_LAYER = re.compile(r"(?<=[._])(0|[1-9]\d*)(?=[./])")
_BY_NAME = {row.name: row for row in TABLE}
_BY_TENSORFLOW = {row.tensorflow: row for row in TABLE}

# Entries that training leaves in a checkpoint and that are not weights: buffers, optimizer moments, counters.
_NOT_WEIGHTS = re.compile(
    r"(?:.*\.)?(?:position_ids|embeddings\.token_type_ids)"
    r"|(?:.*/)?(?:adam_m|adam_v|lamb_m|lamb_v|Adam|Adam_1|beta1_power|beta2_power|global_step)"
    r"|_CHECKPOINTABLE_OBJECT_GRAPH|save_counter/.*"
)


def is_weight(name: str) -> bool:
    """Whether an entry of that name can be a weight at all; buffers and optimizer state are not."""
    return _NOT_WEIGHTS.fullmatch(name) is None


def is_known(name: str) -> bool:
    """Whether the table has this name (one of refbert's own)."""
    return _split(name)[0] in _BY_NAME


def from_tensorflow(name: str) -> tuple[str, bool]:
    """Google's variable name -> refbert's name, and whether to transpose. Unknown names come back as they are."""
    pattern, layer = _split(name)
    row = _BY_TENSORFLOW.get(pattern)
    return (name, False) if row is None else (row.name.replace("{i}", layer), row.transposed)


def to_tensorflow(name: str) -> tuple[str, bool]:
    """refbert's name -> Google's variable name, and whether to transpose. Unknown names come back as they are."""
    pattern, layer = _split(name)
    row = _BY_NAME.get(pattern)
    return (name, False) if row is None else (row.tensorflow.replace("{i}", layer), row.transposed)


def fronts(names: Collection[str]) -> list[str]:
    """What stands in front of the names of each BERT in a checkpoint, "" where `from_hugging_face` knows it anyway.

    A class around a model writes its own attribute there, which may be called anything.
    """
    found = set()
    for name in names:
        if name.endswith(_WORDS):
            front = name.removesuffix(_WORDS).removesuffix("bert.")
            found.add("" if from_hugging_face(name) != name or front.endswith(_OTHERS) or front[-1:] != "." else front)
    return sorted(found)


def from_hugging_face(name: str, front: str = "") -> str:
    """Any of Hugging Face's names, old or new, in a wrapper or not -> refbert's. Unknown ones come back as they are.

    ``front``: one of `fronts`.
    """
    inner = _WRAPPERS.sub("", _ANYWHERE.sub("", name.removeprefix(front)))
    for candidate in (inner, f"bert.{inner}"):
        modern = candidate.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        if is_known(modern) or modern in TIED:
            return modern
    return name


def summary(names: Collection[str]) -> str:
    """Names in one short phrase: what an optimizer keeps for each variable is counted, as is all beyond eight."""
    slots: dict[str, int] = {}
    others = []
    for name in names:
        variable, _, slot = name.rpartition("/")
        if variable and from_tensorflow(variable)[0] != variable:
            slots[slot] = slots.get(slot, 0) + 1
        else:
            others.append(name)
    said = [f"{count:,} called …/{slot}" for slot, count in list(slots.items())[:8]]
    said += others if len(others) <= 8 else [*others[:7], f"{len(others) - 7:,} more"]
    return ", ".join(said)


def to_hugging_face(name: str, *, prefix: bool = True, old: bool = False) -> str:
    """refbert's name -> Hugging Face's: without the ``bert.`` prefix, and with ``gamma``/``beta``, where asked."""
    if old:
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    return name if prefix else name.removeprefix("bert.")


def _split(name: str) -> tuple[str, str]:
    """A name with its layer number taken out: ("bert.encoder.layer.{i}.…", "3")."""
    found = _LAYER.search(name)
    return (name, "") if found is None else (f"{name[: found.start()]}{{i}}{name[found.end() :]}", found[0])
