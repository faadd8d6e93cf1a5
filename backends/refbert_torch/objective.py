"""A model's loss and gradients as one autograd graph, instead of one graph for every op.

The forward is refbert.spec's composition, run with ops whose results stay attached to the graph; the backward is
autograd's alone. Against op by op (L3 H256, 32 × 64, one core of a Zen 4) it takes 0.94 of the time in float32 and the
same in bfloat16. Autograd lets an activation go as soon as it has been used, so the peak of a step is lower too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Losses = tuple[Tensor, dict[str, Tensor], Any]


def no_pullback(dy: Tensor) -> tuple[Tensor, ...]:
    """What an op inside a larger graph has in place of a pullback."""
    raise RuntimeError("this op belongs to a larger graph, which has one pullback for all")


class LinearOfGelu(torch.autograd.Function):
    """y wᵀ + b for y = gelu(x), whose backward makes y again from x, which GELU's own backward keeps anyway.

    A layer's largest activation so lies in memory once instead of twice. Gradients of bert-base, 8 × 128, peak at 1.7
    GB with it and at 1.9 without (two threads; benchmarks/step_memory.py), in the same time.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, approximate: str, w: Tensor, b: Tensor) -> Tensor:
        """[..., I] -> [..., H]."""
        ctx.save_for_backward(x, w)
        ctx.approximate = approximate
        return functional.linear(y, w, b)

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        """Cotangents of y, w and b."""
        x, w = ctx.saved_tensors
        y = functional.gelu(x, approximate=ctx.approximate).reshape(-1, x.shape[-1])
        rows = dout.reshape(-1, dout.shape[-1])
        return dout @ w, None, None, rows.T @ y, rows.sum(dim=0)


def objective(
    compute: Callable[[Mapping[str, Tensor]], Losses], params: Mapping[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor], Callable[[Tensor], dict[str, Tensor]]]:
    """(loss [], losses by head, pullback to the gradients by full name of the parameters that the loss reaches)."""
    leaves = {name: p.detach().requires_grad_() for name, p in params.items()}

    def run() -> Losses:
        with torch.enable_grad():
            return compute(leaves)

    loss, terms, _ = run()
    graphs = [loss]

    def pullback(dloss: Tensor) -> dict[str, Tensor]:
        # The graph goes with its use, activation by activation; a second call, which is rare, makes it again.
        try:
            y = graphs.pop()
        except IndexError:
            y = run()[0]
        gradients = torch.autograd.grad(y, list(leaves.values()), dloss, allow_unused=True)
        return {name: g for name, g in zip(leaves, gradients, strict=True) if g is not None}

    return loss.detach(), {name: term.detach() for name, term in terms.items()}, pullback
