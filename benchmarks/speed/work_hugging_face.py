"""Hugging Face's BERT on PyTorch: eager or SDPA attention, as it comes or compiled."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from speed.cases import Missing
from speed.inputs import batch_of
from speed.work_refbert import SAMPLED
from speed.worker import Prepared


def prepare(work: Mapping[str, Any], options: Mapping[str, Any]) -> Prepared:
    try:
        import torch
        import transformers  # noqa: F401  # imported here to say what is missing
    except ImportError as error:
        raise Missing(f'{error.name} is not installed: pip install -e ".[bench]"') from error
    device = options.get("device", "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise Missing("PyTorch sees no CUDA device")
    torch.set_num_threads(options["threads"])
    torch.backends.cuda.matmul.allow_tf32 = bool(options.get("tf32"))
    dtype = getattr(torch, options.get("dtype", "float32"))
    model = _load(work["checkpoint"], options["attention"], dtype, device)
    batch, labels = batch_of(work)
    inputs = {
        name: torch.from_numpy(getattr(batch, name)).to(device)
        for name in ("input_ids", "token_type_ids", "attention_mask")
    }
    targets = {name: torch.from_numpy(x).to(device) for name, x in labels.items()}

    def wait(x: Any) -> Any:
        if device == "cuda":
            torch.cuda.synchronize()
        return x

    if work["kind"] == "step":
        loss = _labelled_only(model) if options.get("labelled_only") else lambda **given: model(**given).loss
        if options.get("compile"):
            loss = torch.compile(loss)

        def step() -> Any:
            model.zero_grad(set_to_none=True)
            value = loss(**inputs, **targets)
            value.backward()
            return wait(value.detach())

        def gradients(value: Any) -> dict[str, np.ndarray]:
            named = dict(model.named_parameters())
            out = {name: named[name].grad.float().cpu().numpy() for name in SAMPLED}
            return {"loss": np.array([float(value)])} | out

        return Prepared(step, gradients)

    body = torch.compile(model.bert) if options.get("compile") else model.bert

    def forward() -> Any:
        with torch.inference_mode():
            return wait(body(**inputs).last_hidden_state)

    def compare(hidden: Any) -> dict[str, np.ndarray]:
        out = hidden.float().cpu().numpy()
        return {"hidden": out[batch.attention_mask.astype(bool)] if work["kind"] == "packed" else out}

    return Prepared(forward, compare)


def _labelled_only(model: Any) -> Any:
    """The same loss, with only the labelled positions projected onto the vocabulary."""
    from torch.nn import functional

    def loss(*, labels: Any, next_sentence_label: Any, **inputs: Any) -> Any:
        out = model.bert(**inputs)
        labelled = labels != -100
        scores = model.cls.predictions(out.last_hidden_state[labelled])
        relation = model.cls.seq_relationship(out.pooler_output)
        return functional.cross_entropy(scores, labels[labelled]) + functional.cross_entropy(
            relation, next_sentence_label
        )

    return loss


@lru_cache(maxsize=1)
def _load(path: str, attention: str, dtype: Any, device: str) -> Any:
    import transformers

    model = transformers.BertForPreTraining.from_pretrained(path, attn_implementation=attention, dtype=dtype)
    return model.to(device).eval()  # eval: no dropout, in a step neither
