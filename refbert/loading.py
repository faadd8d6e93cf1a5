"""From a checkpoint, or from sizes alone, to a Model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from refbert.backend import Backend, Host, host_dtype, registry
from refbert.config import BertConfig
from refbert.config.heads import POOLED_HEADS
from refbert.config.parameters import initialize, shapes
from refbert.config.profiles import Profile, get_profile
from refbert.errors import CheckpointError, InputError, warn
from refbert.model import LoadReport, Model


def load(
    name: str | Path,
    *,
    backend: str | Backend[Any] = "numpy",
    dtype: str | None = None,
    device: str | None = None,
    profile: str | Profile | None = None,
    heads: Sequence[str] | None = None,
    num_labels: int | None = None,
    seed: int = 0,
    revision: str | None = None,
) -> Model:
    """A model from a local directory or a hub name.

    A sentence-transformers directory is one too: `Model.encode` then makes its vectors.
    ``profile`` defaults to "google" for a TensorFlow checkpoint and to "hf" for the others. ``heads`` defaults to those
    that the checkpoint holds; naming others draws their parameters afresh (from ``seed``, with ``num_labels`` classes)
    and says so in a `RefbertWarning` and in ``model.report``, as it does for weights that have no place. Raises
    `CheckpointError`, `ConfigError`, or a `BackendError` for what cannot be loaded, and `InputError` for a dtype or
    device beside a backend that is made already.
    """
    from refbert import checkpoint
    from refbert.text.tokenization import Tokenizer

    if not isinstance(backend, str) and (dtype is not None or device is not None):
        raise InputError("dtype= and device= belong to a backend named by a string")
    made: Backend[Any] = registry.create(backend, dtype=dtype, device=device) if isinstance(backend, str) else backend
    modules = checkpoint.read_modules(checkpoint.locate(name, revision=revision))
    directory = modules.transformer  # of a sentence-transformers model a part
    config = BertConfig.from_directory(directory)
    stored = checkpoint.read(directory)
    found, has_pooler = checkpoint.heads_in(stored.tensors, config)
    wanted = found if heads is None else tuple(heads)
    config = _with_labels(config, stored.tensors, wanted, num_labels)
    chosen = get_profile(profile or ("google" if stored.format == "tensorflow" else "hf"))
    want_pooler = has_pooler or bool(POOLED_HEADS & set(wanted))
    expected = shapes(config, wanted, pooler=want_pooler)
    matched = checkpoint.match(stored, expected, untouched=True)
    body = [missing for missing in matched.missing if missing.startswith(("bert.embeddings.", "bert.encoder."))]
    if body:
        shown = ", ".join(body[:5]) + (f" and {len(body) - 5} more" if len(body) > 5 else "")
        raise CheckpointError(f"{stored.files[0]}: the encoder's {shown} missing; this is not a whole BERT checkpoint")
    drawn = {name: expected[name] for name in matched.missing}
    # With num_labels the classifier's size is the caller's wish, not the file's.
    unasked = {n: shape for n, shape in drawn.items() if num_labels is None or not n.startswith("classifier.")}
    checkpoint.check_drawn(unasked, stored.tensors)
    parameters = matched.parameters | initialize(drawn, config, seed=seed, profile=chosen)
    for what, names in (("drawn afresh, not in the checkpoint", matched.missing), ("not used", matched.unused)):
        if names:
            warn(f"{stored.files[0].name}: {what}: {checkpoint.summary(names)}", stacklevel=2)
    model = Model(
        config,
        {name: parameters[name] for name in expected},
        backend=made,
        profile=chosen,
        heads=wanted,
        tokenizer=lambda: Tokenizer.from_directory(
            directory, profile=chosen, config=config, lower_case_first=modules.lower_cases()
        ),
        embedder=modules.embedder,
        report=LoadReport(
            stored.files, stored.format, initialized=matched.missing, unused=matched.unused, ignored=stored.ignored
        ),
    )
    model.mapped_files = checkpoint.watch(stored.files, matched.parameters, model.parameters, made.to_numpy)
    return model


def from_config(
    config: BertConfig,
    *,
    heads: Sequence[str] = (),
    pooler: bool = True,
    seed: int = 0,
    backend: str | Backend[Any] = "numpy",
    dtype: str | None = None,
    device: str | None = None,
    profile: str | Profile = "hf",
) -> Model:
    """A fresh model with random weights (`refbert.config.parameters.initialize`) and no tokenizer."""
    made: Backend[Any] = registry.create(backend, dtype=dtype, device=device) if isinstance(backend, str) else backend
    chosen = get_profile(profile)
    drawn = initialize(
        shapes(config, heads, pooler=pooler), config, seed=seed, profile=chosen, dtype=host_dtype(made.dtype)
    )
    return Model(config, drawn, backend=made, profile=chosen, heads=heads)


def _with_labels(
    config: BertConfig, tensors: Mapping[str, Host], heads: Sequence[str], num_labels: int | None
) -> BertConfig:
    """The number of classes: what was asked, else what the classifier's weights say, else the configuration's."""
    if num_labels is not None:
        return config.replace(num_labels=num_labels, id2label={})
    classifier = tensors.get("classifier.weight")
    if classifier is not None and classifier.ndim == 2 and "multiple_choice" not in heads:
        stored = len(classifier)
        if stored != config.num_labels and stored != len(config.id2label):
            return config.replace(num_labels=stored, id2label={})
    return config
