"""onnxruntime on the fully fused graph of speed.onnx_bert."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from speed import onnx_bert
from speed.cases import Missing
from speed.inputs import batch_of
from speed.worker import Prepared


def prepare(work: Mapping[str, Any], options: Mapping[str, Any]) -> Prepared:
    session = _session(work["checkpoint"], options["threads"])
    batch, _ = batch_of(work)
    inputs = {name: getattr(batch, name).astype(np.int32) for name in ("input_ids", "token_type_ids", "attention_mask")}
    return Prepared(lambda: session.run(None, inputs)[0], lambda hidden: {"hidden": hidden})


@lru_cache(maxsize=1)
def _session(checkpoint: str, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise Missing('onnxruntime is not installed: pip install -e ".[bench]"') from error
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.onnx"
        onnx_bert.write(checkpoint, path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Its threads wait actively while it works, as by default, and stop when it is done: the next contender's turn.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
