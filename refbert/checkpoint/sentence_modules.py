"""sentence-transformers directories: which modules a model is made of, read as that library reads them, and written.

    modules.json                          the modules in order: their class and their directory
    config_sentence_transformers.json     the prompts, and the one that is put before every text
    DIR/sentence_bert_config.json         Transformer: the longest text, whether it is lower-cased first
    DIR/config.json                       Pooling, Dense, Normalize; a Dense has weights too

The Transformer's directory is the top one, or "0_Transformer" in the library's first releases. What refbert does not
compute is refused by its name, not left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from refbert.checkpoint.reading import read_file
from refbert.checkpoint.safetensors_file import write_safetensors
from refbert.embedder import DEFAULT, Dense, Embedder, Normalize
from refbert.errors import CheckpointError
from refbert.files.json import read_json, read_object, write_json
from refbert.files.reading import is_file, shown

MODULES = "modules.json"
# The library's file for the Transformer's own settings, under its older names too, in its order.
TRANSFORMER_SETTINGS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
MODEL_SETTINGS = "config_sentence_transformers.json"
MODULE_WEIGHTS = ("model.safetensors", "pytorch_model.bin")

# The settings of a Transformer with which it is a plain BERT; absent or empty is as good.
_PLAIN: Mapping[str, tuple[object, ...]] = {
    "transformer_task": ("feature-extraction",),
    "module_output_name": ("token_embeddings",),
    "modality_config": ({"text": {"method": "forward", "method_output_name": "last_hidden_state"}},),
}
_NO_MATTER = ("max_seq_length", "do_lower_case", "unpad_inputs")
_ALSO = frozenset({"torch_dtype", "dtype", "attn_implementation", "add_pooling_layer"})  # in model_args

# Old name of a pooling, in the order in which several are joined -> its name today.
_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_ACTIVATIONS = {
    "torch.nn.modules.linear.Identity": "identity",
    **{f"torch.nn.modules.activation.{name}": name.lower() for name in ("Tanh", "ReLU", "GELU", "Sigmoid")},
}


@dataclass(frozen=True)
class Module:
    """One entry of modules.json: the class's whole name, and the module's directory."""

    type: str
    directory: Path

    @property
    def name(self) -> str:
        """The class's name alone, or the whole one where it is not of the library itself."""
        return self.type.rsplit(".", 1)[-1] if self.type.startswith("sentence_transformers.") else self.type


@dataclass(frozen=True)
class Modules:
    """The modules of the model in ``root``, in order.

    There are none where there is no modules.json: then ``root`` is the checkpoint, and vectors are refbert's own.
    """

    root: Path
    listed: tuple[Module, ...]

    @property
    def transformer(self) -> Path:
        """Where configuration, weights and vocabulary are: ``root``, or the directory of the first module.

        Raises `CheckpointError` for a model that is not built on a Transformer.
        """
        if not self.listed:
            return self.root
        first = self.listed[0]
        if first.name not in ("Transformer", "BERT"):
            raise CheckpointError(
                f'{self.root / MODULES}: begins with "{first.name}"; refbert reads a Transformer only'
            )
        return first.directory

    def lower_cases(self) -> bool:
        """Whether texts are lower-cased before anything else; raises `CheckpointError` for what is no such setting."""
        if not self.listed:
            return False
        stated = _transformer_settings(self.transformer).get("do_lower_case")
        if not isinstance(stated, bool | None):
            raise CheckpointError(f"{self.transformer}: do_lower_case must be true or false, not {shown(stated)}")
        return bool(stated)

    def embedder(self) -> Embedder:
        """What the files say of a text's vector.

        Raises `CheckpointError`, by name, for a module or a setting that refbert does not compute.
        """
        if not self.listed:
            return DEFAULT
        file, directory = self.root / MODULES, self.transformer
        if len(self.listed) < 2 or self.listed[1].name != "Pooling":
            alone = len(self.listed) == 1
            what = "there is a Transformer alone" if alone else f'"{self.listed[1].name}" follows the Transformer'
            raise CheckpointError(f"{file}: {what}; refbert makes vectors of texts where a Pooling does")
        pooling, include_prompt = _read_pooling(self.listed[1].directory)
        later: list[Dense | Normalize] = []
        for module in self.listed[2:]:
            if module.name == "Dense":
                later.append(_read_dense(module.directory))
            elif module.name == "Normalize":
                _on_vectors(module.directory / "config.json", _optional(module.directory / "config.json"))
                later.append(Normalize())
            elif module.name != "Dropout":  # which does nothing outside of training
                known = "it computes Transformer, Pooling, Dense, Normalize"
                raise CheckpointError(f'{file}: "{module.name}" is a module that refbert does not compute ({known})')
        prompts, prompt, dimensions = _read_model_settings(self.root)
        return Embedder(
            pooling=pooling, modules=tuple(later), dimensions=dimensions, prompt=prompt, prompts=prompts,
            include_prompt=include_prompt, max_length=_longest(directory), truncate=True,
        )  # fmt: skip


def read_modules(root: Path) -> Modules:
    """Read modules.json; raises `CheckpointError` for what is no list of modules."""
    file = root / MODULES
    if not is_file(file, CheckpointError):
        return Modules(root, ())
    found = []
    listed = read_json(file, CheckpointError)
    if not isinstance(listed, list) or not listed:
        raise CheckpointError(f"{file}: a list of modules is expected, not {shown(listed)}")
    for entry in listed:
        kind, path = (entry.get("type"), entry.get("path")) if isinstance(entry, dict) else (None, None)
        if not isinstance(kind, str) or not isinstance(path, str):
            raise CheckpointError(f'{file}: a module needs "type" and "path", not {shown(entry)}')
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise CheckpointError(f"{file}: the path {shown(path)} leaves the directory")
        found.append(Module(kind, root / path))
    return Modules(root, tuple(found))


def _optional(file: Path) -> dict[str, Any]:
    return read_object(file, CheckpointError) if is_file(file, CheckpointError) else {}


def _transformer_settings(directory: Path) -> dict[str, Any]:
    return next((found for name in TRANSFORMER_SETTINGS if (found := _optional(directory / name))), {})


def _longest(directory: Path) -> int | None:
    """The longest text in tokens, where it is stated; raises `CheckpointError` if its Transformer is no plain BERT."""
    settings = _transformer_settings(directory)
    for name, value in settings.items():
        plain = name in _NO_MATTER or not value or value in _PLAIN.get(name, ())
        if name in ("model_args", "model_kwargs") and isinstance(value, dict):
            plain = _ALSO.issuperset(value)
        if not plain:
            raise CheckpointError(
                f"{directory}: its Transformer has {name} = {shown(value)}, which refbert does not do"
            )
    stated, name = settings.get("max_seq_length"), "max_seq_length"
    if stated is None:
        name = "model_max_length"
        stated = _optional(directory / "tokenizer_config.json").get(name)
    if stated is None:
        return None
    if isinstance(stated, float) and stated.is_integer():
        stated = int(stated)
    if not isinstance(stated, int) or isinstance(stated, bool) or stated < 3:
        raise CheckpointError(f"{directory}: {name} must be a whole number of at least 3, not {shown(stated)}")
    return stated


def _read_pooling(directory: Path) -> tuple[tuple[str, ...], bool]:
    file = directory / "config.json"
    settings = read_object(file, CheckpointError)
    names = settings.get("pooling_mode")
    if names is None:
        names = [name for old, name in _POOLINGS.items() if settings.get(old)] or ["mean"]
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not names or not all(name in _POOLINGS.values() for name in names):
        raise CheckpointError(f"{file}: pooling_mode {shown(names)} (known: {', '.join(_POOLINGS.values())})")
    unknown = [
        name for name in settings if name.startswith("pooling_mode_") and name not in _POOLINGS and settings[name]
    ]
    if unknown:
        raise CheckpointError(f"{file}: {unknown[0]} is a pooling that refbert does not compute")
    return tuple(names), settings.get("include_prompt", True) is not False


def _on_vectors(file: Path, settings: Mapping[str, Any]) -> None:
    for name in ("module_input_name", "module_output_name"):
        if settings.get(name) not in (None, "sentence_embedding"):
            raise CheckpointError(f"{file}: {name} is {shown(settings[name])}; refbert has modules for the vector only")


def _read_dense(directory: Path) -> Dense:
    file = directory / "config.json"
    settings = read_object(file, CheckpointError)
    _on_vectors(file, settings)
    named = settings.get("activation_function", "torch.nn.modules.activation.Tanh")
    activation = _ACTIVATIONS.get(named) if isinstance(named, str) else None
    if activation is None:
        known = ", ".join(name.rsplit(".", 1)[-1] for name in _ACTIVATIONS)
        raise CheckpointError(f"{file}: activation_function {shown(named)} is not computed (known: {known})")
    weights = next((p for name in MODULE_WEIGHTS if is_file(p := directory / name, CheckpointError)), None)
    if weights is None:
        raise CheckpointError(f"{directory}: a Dense without weights (looked for {', '.join(MODULE_WEIGHTS)})")
    tensors, _, _ = read_file(weights)
    sizes = (settings.get("out_features"), settings.get("in_features"))
    has_residual, square = settings.get("use_residual"), sizes[0] == sizes[1]
    expected: dict[str, tuple[object, ...]] = {"linear.weight": sizes}
    if settings.get("bias", True):
        expected["linear.bias"] = sizes[:1]
    if has_residual and not square:
        expected["residual.weight"] = sizes
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if found != expected:
        raise CheckpointError(f"{weights}: holds {shown(found)}, its config.json asks for {shown(expected)}")
    if not all(np.issubdtype(x.dtype, np.floating) and np.isfinite(x).all() for x in tensors.values()):
        raise CheckpointError(f"{weights}: its weights are not all finite numbers; they are of no use")
    residual = None
    if has_residual:
        residual = np.eye(len(tensors["linear.weight"]), dtype=np.float32) if square else tensors["residual.weight"]
    return Dense(tensors["linear.weight"], tensors.get("linear.bias"), activation, residual)


def _read_model_settings(root: Path) -> tuple[dict[str, str], str, int | None]:
    """The prompts by name, the default one, and how many numbers of a vector stay."""
    file = root / MODEL_SETTINGS
    settings = _optional(file)
    kind = settings.get("model_type", "SentenceTransformer")
    if kind != "SentenceTransformer":
        raise CheckpointError(
            f"{file}: model_type is {shown(kind)}; refbert makes vectors as a SentenceTransformer does"
        )
    prompts = settings.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(text, str | None) for text in prompts.values()):
        raise CheckpointError(f"{file}: prompts must be texts by name, not {shown(prompts)}")
    prompts = {"query": "", "document": ""} | {name: text or "" for name, text in prompts.items()}
    default = settings.get("default_prompt_name")
    if default is not None and (not isinstance(default, str) or default not in prompts):
        raise CheckpointError(
            f"{file}: default_prompt_name {shown(default)} is none of its prompts: {shown(list(prompts))}"
        )
    dimensions = settings.get("truncate_dim")
    if dimensions is not None and (type(dimensions) is not int or dimensions < 1):
        raise CheckpointError(f"{file}: truncate_dim must be a whole number of at least 1, not {shown(dimensions)}")
    return prompts, "" if default is None else prompts[default], dimensions


# Writing


def write_embedder(root: Path, embedder: Embedder, hidden_size: int) -> None:
    """Write the files from which sentence-transformers, and `Modules.embedder`, make the same vectors.

    The checkpoint itself is in the same directory. That texts are lower-cased is in its tokenizer.
    """
    flags = {old: name in embedder.pooling for old, name in _POOLINGS.items()}
    joined = tuple(name for old, name in _POOLINGS.items() if flags[old])
    settings: dict[str, dict[str, object]] = {
        "Pooling": {
            "word_embedding_dimension": hidden_size, "include_prompt": embedder.include_prompt,
            # Another order than that of the flags is known to the library's newest releases alone.
            **(flags if joined == embedder.pooling else {"pooling_mode": list(embedder.pooling)}),
        }
    }  # fmt: skip
    listed = [("Transformer", "")]
    for number, module in enumerate((None, *embedder.modules), start=1):
        kind = "Pooling" if module is None else type(module).__name__
        place = f"{number}_{kind}"
        listed.append((kind, place))
        (root / place).mkdir(exist_ok=True)
        if isinstance(module, Dense):
            settings[kind] = _write_dense(root / place / MODULE_WEIGHTS[0], module)
        write_json(root / place / "config.json", settings.get(kind, {}))
    write_json(root / TRANSFORMER_SETTINGS[0], {"max_seq_length": embedder.max_length, "do_lower_case": False})
    default = [name for name, text in embedder.prompts.items() if text == embedder.prompt] if embedder.prompt else []
    write_json(root / MODEL_SETTINGS, {
        "prompts": dict(embedder.prompts), "default_prompt_name": default[0] if default else None,
        "truncate_dim": embedder.dimensions,
    })  # fmt: skip
    types = [{"idx": i, "name": str(i), "path": place, "type": f"sentence_transformers.models.{kind}"}
             for i, (kind, place) in enumerate(listed)]  # fmt: skip
    write_json(root / MODULES, types)


def _write_dense(file: Path, dense: Dense) -> dict[str, object]:
    """Write its weights; its settings."""
    out_features, in_features = dense.weight.shape
    tensors = {"linear.weight": dense.weight}
    if dense.bias is not None:
        tensors["linear.bias"] = dense.bias
    if dense.residual is not None and out_features != in_features:
        tensors["residual.weight"] = dense.residual
    write_safetensors(file, tensors)
    activation = next(theirs for theirs, ours in _ACTIVATIONS.items() if ours == dense.activation)
    return {
        "in_features": in_features, "out_features": out_features, "bias": dense.bias is not None,
        "activation_function": activation, **({} if dense.residual is None else {"use_residual": True}),
    }  # fmt: skip
