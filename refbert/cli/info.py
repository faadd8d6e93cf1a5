"""``refbert info``: what a checkpoint (or a preset) is, before any of it is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from refbert.cli import options
from refbert.cli.output import print_json
from refbert.cli.tables import Table, print_table
from refbert.config import BertConfig, flops
from refbert.config.presets import preset_of
from refbert.errors import CheckpointError, InputError

if TYPE_CHECKING:
    from refbert.checkpoint.sentence_modules import Modules

LENGTHS = (128, 512)


@click.command()
@click.argument("model")
@options.json_option("tables")
def info(model: str, as_json: bool) -> None:
    """Show MODEL's configuration, parameters by group, FLOPs per token and memory.

    MODEL is a checkpoint's directory, a hub name, or a preset such as bert-large-cased (which needs no files).
    """
    facts = describe(model)
    if as_json:
        print_json(facts)
    else:
        _print(facts)


def describe(model: str) -> dict[str, Any]:
    """Everything that the command shows, as plain data."""
    known = preset_of(model)
    if known is not None:
        return _facts(model, known, (), True, "preset")
    from refbert import checkpoint

    modules = checkpoint.read_modules(checkpoint.locate(model))
    directory = modules.transformer
    config = BertConfig.from_directory(directory)
    stored = checkpoint.read(directory)
    heads, pooler = checkpoint.heads_in(stored.tensors, config)
    return _facts(model, config, heads, pooler, stored.format) | {"vectors": _vectors(modules, config)}


def _vectors(modules: Modules, config: BertConfig) -> dict[str, Any]:
    """How vectors of texts are made, or why not."""
    try:
        how = modules.embedder()
        size = how.size(config.hidden_size)
    except (CheckpointError, InputError) as error:
        return {"refused": str(error)}
    return {
        "pooling": list(how.pooling),
        "modules": [str(module) for module in how.modules],
        "size": size,
        "longest": min(how.max_length or config.max_position_embeddings, config.max_position_embeddings),
        "longer": "cut" if how.truncate else "refused",
        "prompt": how.prompt,
        "prompts": dict(how.prompts),
        "include_prompt": how.include_prompt,
    }


def _facts(model: str, config: BertConfig, heads: tuple[str, ...], pooler: bool, kind: str) -> dict[str, Any]:
    groups = flops.parameter_groups(config, heads, pooler=pooler)
    lengths = [S for S in LENGTHS if config.max_position_embeddings >= S] or [config.max_position_embeddings]
    return {
        "model": model,
        "format": kind,
        "heads": list(heads),
        "config": config.to_dict(),
        "parameters": {"total": sum(groups.values()), "groups": groups},
        "flops": [
            {
                "sequence_length": S,
                "per_token": flops.encoder_flops_per_token(config, S),
                "per_sequence": flops.forward_flops(config, S, heads, pooler=pooler),
            }
            for S in lengths
        ],
        "memory": {
            "weights": {d: flops.weights_bytes(config, heads, pooler=pooler, dtype=d) for d in ("float32", "float16")},
            "training_state": flops.training_bytes(config, heads, pooler=pooler),
            "activations": {str(S): flops.activation_bytes(config, S) for S in lengths},
        },
    }


def _print(facts: dict[str, Any]) -> None:
    table = Table(None, ("configuration", "id"), "", rows=[("model", facts["model"]), ("format", facts["format"])])
    table.add_row("heads", ", ".join(facts["heads"]) or "none")
    vectors = facts.get("vectors", {})
    if "refused" in vectors:
        table.add_row("vectors", f"refused: {vectors['refused']}")
    elif vectors:
        steps = [" + ".join(vectors["pooling"]), *vectors["modules"], f"[{vectors['size']}]"]
        table.add_row("vectors", " → ".join(steps))
        table.add_row("texts for vectors", f"{vectors['longest']} tokens, longer ones are {vectors['longer']}")
        if vectors["prompt"]:
            pooled = "" if vectors["include_prompt"] else ", not pooled"
            table.add_row("prompt", f"{vectors['prompt']!r}{pooled}")
    for name, value in facts["config"].items():
        if name not in ("id2label", "label2id", "architectures"):
            table.add_row(name, str(value))
    print_table(table)

    groups = facts["parameters"]["groups"].items()
    table = Table(None, ("parameters", "id"), ("", "figure"), rows=[(group, f"{n:,}") for group, n in groups])
    table.add_row("total", f"{facts['parameters']['total']:,}", style="bold")
    print_table(table)

    print_table(Table(None, ("forward FLOPs", "id"), ("per token", "figure"), ("per sequence", "figure"), rows=[
        (f"S = {row['sequence_length']}", f"{row['per_token']:,}", f"{row['per_sequence']:,}") for row in facts["flops"]
    ]))  # fmt: skip

    memory = facts["memory"]
    activations = "activations kept for a backward, one sequence of {}, about"
    print_table(Table(None, "memory", ("", "figure"), rows=[
        *((f"weights, {dtype}", _bytes(size)) for dtype, size in memory["weights"].items()),
        ("training: weights, gradients, moments, float32", _bytes(memory["training_state"])),
        *((activations.format(S), _bytes(size)) for S, size in memory["activations"].items()),
    ]))  # fmt: skip


def _bytes(n: int) -> str:
    return f"{n / 1e9:.2f} GB" if n >= 1e9 else f"{n / 1e6:.1f} MB"
