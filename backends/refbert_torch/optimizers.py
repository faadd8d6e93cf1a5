"""The parameter updates and clipping on tensors; refbert.ops has the equations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

Tensor = torch.Tensor


class Optimizers:
    """What `refbert.backend.Optimizers` asks for."""

    def bert_adam(
        self, p: Tensor, g: Tensor, m: Tensor, v: Tensor, *, lr: float, beta1: float, beta2: float, eps: float,
        weight_decay: float,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Google's BERT Adam."""
        return _bert_adam(
            p, g.clone(), m.clone(), v.clone(), lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay
        )

    def adamw(
        self, p: Tensor, g: Tensor, m: Tensor, v: Tensor, *, lr: float, beta1: float, beta2: float, eps: float,
        weight_decay: float, step: int,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """AdamW."""
        return _adamw(
            p, g.clone(), m.clone(), v.clone(), lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay,
            step=step,
        )  # fmt: skip

    def lamb(
        self, p: Tensor, g: Tensor, m: Tensor, v: Tensor, *, lr: float, beta1: float, beta2: float, eps: float,
        weight_decay: float, step: int,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """LAMB."""
        if step < 1:
            raise ValueError(f"step counts from 1, got {step}")
        m = torch.lerp(g, m, beta1)
        v = v.mul(beta2).addcmul_(g, g, value=1 - beta2)
        u = m.div(1 - beta1**step).div_(v.div(1 - beta2**step).sqrt_().add_(eps)).add_(p, alpha=weight_decay)
        p_norm, u_norm = torch.linalg.vector_norm(p), torch.linalg.vector_norm(u)
        ratio = torch.where((p_norm > 0) & (u_norm > 0), p_norm / u_norm, torch.ones_like(p_norm))
        return p - lr * ratio * u, m, v

    def clip_by_global_norm(
        self, gradients: Mapping[str, Tensor], *, max_norm: float, epsilon: float = 0.0
    ) -> tuple[dict[str, Tensor], float]:
        """(clipped gradients, the norm before)."""
        norm = self.gradient_norm(gradients)
        scale = max_norm / (norm + epsilon) if norm + epsilon > max_norm else 1.0
        if not math.isfinite(norm):
            scale = math.nan
        return {name: g * scale for name, g in gradients.items()}, norm

    def gradient_norm(self, gradients: Mapping[str, Tensor]) -> float:
        """The norm over all gradients: one wait for the device, no copy of them."""
        norms = [torch.linalg.vector_norm(g) for g in gradients.values()]
        return float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0

    def update_in_place(
        self, rule: str, p: Tensor, g: Tensor, m: Tensor, v: Tensor, *, scale: float, **options: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same update by g·scale, bit by bit, in the memory of g, m and v where `_IN_PLACE` has the rule."""
        # Row-major, as a weight is when it comes from a checkpoint: products of another layout round otherwise.
        g = g.contiguous()
        if scale != 1:
            g.mul_(scale)
        if rule in _IN_PLACE:
            return _IN_PLACE[rule](p, g, m, v, **options)
        new: tuple[Tensor, Tensor, Tensor] = getattr(self, rule)(p, g, m, v, **options)
        return new


def _bert_adam(
    p: Tensor, g: Tensor, m: Tensor, v: Tensor, *, lr: float, beta1: float, beta2: float, eps: float,
    weight_decay: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """New p in the memory of g; m and v in place."""
    torch.lerp(g, m, beta1, out=m)
    v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
    torch.sqrt(v, out=g).add_(eps)
    torch.div(m, g, out=g).add_(p, alpha=weight_decay)
    return torch.sub(p, g, alpha=lr, out=g), m, v


def _adamw(
    p: Tensor, g: Tensor, m: Tensor, v: Tensor, *, lr: float, beta1: float, beta2: float, eps: float,
    weight_decay: float, step: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """New p in the memory of g; m and v in place.

    torch.optim's own function would need a copy of p, since it changes p itself: with it a step of bert-base, 8 × 128,
    peaks 0.2 GB higher (benchmarks/step_memory.py).
    """
    if step < 1:
        raise ValueError(f"step counts from 1, got {step}")
    torch.lerp(g, m, beta1, out=m)
    v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
    torch.sqrt(v, out=g).div_(math.sqrt(1 - beta2**step)).add_(eps)
    torch.div(m, g, out=g).mul_(-lr / (1 - beta1**step))
    return g.add_(p, alpha=1 - lr * weight_decay), m, v


_IN_PLACE: dict[str, Callable[..., tuple[Tensor, Tensor, Tensor]]] = {"bert_adam": _bert_adam, "adamw": _adamw}
