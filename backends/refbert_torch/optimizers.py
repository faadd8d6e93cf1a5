"""The optimizer's step on tensors; refbert.ops has the equations."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor


def update(
    rule: str, p: Tensor, g: Tensor, m: Tensor, v: Tensor, *, scale: float, lr: float, beta1: float, beta2: float,
    eps: float, weight_decay: float, step: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """New (p, m, v) in the memory of g, m and v, but for LAMB's p."""
    if rule not in ("bert_adam", "adamw", "lamb"):
        raise NotImplementedError(f'there is no update "{rule}"')
    if step < 1 and rule != "bert_adam":
        raise ValueError(f"step counts from 1, got {step}")
    # Row-major, as a weight is when it comes from a checkpoint: products of another layout round otherwise.
    g = g.contiguous()
    if scale != 1:
        g.mul_(scale)
    torch.lerp(g, m, beta1, out=m)
    v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
    if rule == "bert_adam":
        torch.sqrt(v, out=g).add_(eps)
        torch.div(m, g, out=g).add_(p, alpha=weight_decay)
        return torch.sub(p, g, alpha=lr, out=g), m, v
    if rule == "adamw":
        # torch.optim's own function would need a copy of p, since it changes p itself: with it a step of bert-base,
        # 8 × 128, peaks 0.2 GB higher (benchmarks/step_memory.py).
        torch.sqrt(v, out=g).div_(math.sqrt(1 - beta2**step)).add_(eps)
        torch.div(m, g, out=g).mul_(-lr / (1 - beta1**step))
        return g.add_(p, alpha=1 - lr * weight_decay), m, v
    u = m.div(1 - beta1**step).div_(v.div(1 - beta2**step).sqrt_().add_(eps)).add_(p, alpha=weight_decay)
    p_norm, u_norm = torch.linalg.vector_norm(p), torch.linalg.vector_norm(u)
    ratio = torch.where((p_norm > 0) & (u_norm > 0), p_norm / u_norm, torch.ones_like(p_norm))
    return p - lr * ratio * u, m, v


def global_norm(gradients: Mapping[str, Tensor]) -> float:
    """The norm over all gradients: one wait for the device, no copy of them."""
    norms = [torch.linalg.vector_norm(g) for g in gradients.values()]
    return float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0
