"""The parameter updates and clipping on tensors; refbert.ops has the equations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.optim.adamw import adamw as torch_adamw

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
        """PyTorch's own AdamW kernel."""
        return _adamw(
            p, g, m.clone(), v.clone(), lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay, step=step
        )

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
    torch.div(m, v.sqrt().add_(eps), out=g).add_(p, alpha=weight_decay)
    return torch.sub(p, g, alpha=lr, out=g), m, v


def _adamw(
    p: Tensor, g: Tensor, m: Tensor, v: Tensor, *, lr: float, beta1: float, beta2: float, eps: float,
    weight_decay: float, step: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """m and v in place, by the function behind torch.optim.AdamW, which would do the same to p."""
    if step < 1:
        raise ValueError(f"step counts from 1, got {step}")
    new = p.clone()
    torch_adamw(
        [new], [g], [m], [v], [], [torch.tensor(float(step - 1))],
        amsgrad=False, beta1=beta1, beta2=beta2, lr=lr, weight_decay=weight_decay, eps=eps, maximize=False,
    )  # fmt: skip
    return new, m, v


_IN_PLACE: dict[str, Callable[..., tuple[Tensor, Tensor, Tensor]]] = {"bert_adam": _bert_adam, "adamw": _adamw}
