"""Write a checkpoint that Hugging Face transformers, and refbert, load to the same outputs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from refbert.backend import Host
from refbert.checkpoint import quantized
from refbert.checkpoint.safetensors_file import write_safetensors
from refbert.config import BertConfig
from refbert.config.heads import HEADS, PRETRAINING
from refbert.config.parameters import shapes
from refbert.errors import CheckpointError
from refbert.files.json import write_json
from refbert.files.writing import writing


def write(
    directory: Path,
    tensors: Mapping[str, Host],
    config: BertConfig,
    *,
    heads: Collection[str],
    pooler: bool,
    int8: bool = False,
    overwrite: bool = False,
) -> None:
    """Write ``model.safetensors`` and ``config.json``; the directory is made if need be.

    ``tensors``: exactly the names and shapes of ``parameters.shapes(config, heads, pooler=pooler)``; their
    dtypes are kept, but with ``int8`` matrices become int8 rows with scales (`refbert.checkpoint.quantized`), which
    transformers reads with compressed-tensors installed. ``config.hidden_act`` must be Hugging Face's word for the
    activation. Each file appears whole or not at all.

    Heads that no single Hugging Face class has are loaded by one class each; the exception is question answering next
    to a classifier of other than 2 labels, because transformers takes the sizes of both from the number of labels.

    Raises `CheckpointError` if the tensors are not those, if the directory holds either file already (unless
    ``overwrite``), or if it cannot be written; `ConfigError` for heads that do not go together.
    """
    directory = Path(directory)
    expected = shapes(config, heads, pooler=pooler)
    if set(expected) != set(tensors):
        differing = sorted(set(expected) ^ set(tensors))
        raise CheckpointError(f"{directory}: not written, tensors missing or too many: {', '.join(differing)}")
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise CheckpointError(
                f"{directory}: not written, {name} has shape {list(tensors[name].shape)}, not {list(shape)}"
            )
    described = config.replace(architectures=architectures(heads))
    if "question_answering" in heads and not {"sequence_classification", "token_classification"} & set(heads):
        # transformers gives BertForQuestionAnswering one output per label, and the outputs are start and end.
        described = described.replace(num_labels=2, id2label={})
    with writing(directory, CheckpointError):
        directory.mkdir(parents=True, exist_ok=True)
        for name in ("model.safetensors", "config.json"):
            if (directory / name).exists() and not overwrite:
                raise CheckpointError(f"{directory / name}: exists already; choose another directory or overwrite it")
        ordered = {name: tensors[name] for name in expected}
        stored = quantized.quantize(ordered) if int8 else ordered
        write_safetensors(directory / "model.safetensors", stored)
        stated = described.to_dict() | ({"quantization_config": quantized.CONFIG} if int8 else {})
        write_json(directory / "config.json", stated, CheckpointError)


def architectures(heads: Collection[str]) -> tuple[str, ...]:
    """Return Hugging Face's class for a set of heads; where no single class has them all, one class for each head."""
    if not heads:
        return ("BertModel",)
    if set(heads) == set(PRETRAINING):
        return ("BertForPreTraining",)
    return tuple(head.architecture for name, head in HEADS.items() if name in heads)
