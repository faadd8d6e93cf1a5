"""BERT's encoder as an ONNX graph of onnxruntime's fused operators, from a checkpoint.

The graph is what onnxruntime's own transformer optimizer makes of an exported BERT, built directly so that it does not
hang on what an exporter writes this year: EmbedLayerNormalization, then for each layer Attention (queries, keys and
values in one product), SkipLayerNormalization, BiasGelu and plain MatMul. Inputs input_ids, token_type_ids,
attention_mask [B, S] of int32, padding on the right; output last_hidden_state [B, S, H].
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import refbert
from speed.cases import Missing

DOMAIN = "com.microsoft"


def write(checkpoint: str, path: Path) -> None:
    """Write the graph with its weights in one file; raises `Missing` without onnx."""
    try:
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        raise Missing('onnx is not installed: pip install -e ".[bench]"') from error
    model = refbert.load(checkpoint)
    c, weights = model.config, model.state_dict()
    nodes: list[Any] = []
    stored: dict[str, np.ndarray] = {}

    def keep(name: str, array: np.ndarray) -> str:
        stored[name] = np.ascontiguousarray(array, dtype=np.float32)
        return name

    def weight(name: str) -> str:
        return keep(name, weights[f"bert.{name}"])

    def node(op: str, inputs: list[str], outputs: list[str], domain: str = DOMAIN, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, outputs, domain=domain, name=f"{op}-{len(nodes)}", **attributes))
        return outputs[0]

    def product(x: str, name: str) -> str:
        return node("MatMul", [x, keep(f"{name}.weightT", weights[f"bert.{name}.weight"].T)], [f"{name}.product"], "")

    def add_and_norm(x: str, residual: str, name: str) -> str:
        inputs = [x, residual, weight(f"{name}.LayerNorm.weight"), weight(f"{name}.LayerNorm.bias")]
        inputs.append(weight(f"{name}.dense.bias"))
        return node("SkipLayerNormalization", inputs, [f"{name}.normed"], epsilon=c.layer_norm_eps)

    tables = [weight(f"embeddings.{kind}_embeddings.weight") for kind in ("word", "position", "token_type")]
    norm = [weight(f"embeddings.LayerNorm.{part}") for part in ("weight", "bias")]
    x = node(
        "EmbedLayerNormalization",
        ["input_ids", "token_type_ids", *tables, *norm, "attention_mask"],
        ["embedded", "mask_index"],
        epsilon=c.layer_norm_eps,
    )
    for layer in range(c.num_hidden_layers):
        name = f"encoder.layer.{layer}"
        parts = [f"bert.{name}.attention.self.{part}" for part in ("query", "key", "value")]
        qkv = keep(f"{name}.qkv.weight", np.concatenate([weights[f"{part}.weight"].T for part in parts], axis=1))
        bias = keep(f"{name}.qkv.bias", np.concatenate([weights[f"{part}.bias"] for part in parts]))
        inputs = [x, qkv, bias, "mask_index"]
        context = node("Attention", inputs, [f"{name}.context"], num_heads=c.num_attention_heads)
        x = add_and_norm(product(context, f"{name}.attention.output.dense"), x, f"{name}.attention.output")
        up = product(x, f"{name}.intermediate.dense")
        up = node("BiasGelu", [up, weight(f"{name}.intermediate.dense.bias")], [f"{name}.up"])
        x = add_and_norm(product(up, f"{name}.output.dense"), x, f"{name}.output")
    node("Identity", [x], ["last_hidden_state"], "")

    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT32, ["B", "S"])
        for name in ("input_ids", "token_type_ids", "attention_mask")
    ]
    output = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["B", "S", c.hidden_size])
    constants = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    graph = helper.make_graph(nodes, "bert", inputs, [output], constants)
    versions = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)]
    made = helper.make_model(graph, opset_imports=versions)
    made.ir_version = 8  # as old as opset 17: newer ones are refused by older runtimes
    onnx.save(made, str(path))
