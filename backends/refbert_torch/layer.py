"""A whole encoder layer for inference: the spec's composition without autograd's bookkeeping.

Q, K and V are one product, weights are prepacked (refbert_torch.prepacked), and sums are taken in place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch.nn import functional

Tensor = torch.Tensor
Linear = Callable[[Tensor, Sequence[Tensor], Sequence[Tensor]], Tensor]

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu_erf": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "relu": functional.relu,
    "tanh": torch.tanh,
    "linear": lambda x: x,
}
_QKV = tuple(f"attention.self.{name}" for name in ("query", "key", "value"))


def encoder_layer(
    x: Tensor, params: Mapping[str, Tensor], linear: Linear, attend: Callable[[Tensor, Tensor, Tensor], Tensor], *,
    activation: str, eps: float,
) -> Tensor:  # fmt: skip
    """[..., H] -> [..., H]; ``linear`` multiplies rows by one or several weights, ``attend`` takes q, k, v like x."""
    if activation not in ACTIVATIONS:
        raise ValueError(f'unknown activation "{activation}"')
    rows = x.reshape(-1, x.shape[-1])

    def project(x: Tensor, *names: str) -> Tensor:
        return linear(x, [params[f"{n}.weight"] for n in names], [params[f"{n}.bias"] for n in names])

    def norm(x: Tensor, name: str) -> Tensor:
        gamma, beta = params[f"{name}.LayerNorm.weight"], params[f"{name}.LayerNorm.bias"]
        return functional.layer_norm(x, gamma.shape, gamma, beta, eps)

    q, k, v = (part.reshape(x.shape) for part in torch.chunk(project(rows, *_QKV), 3, dim=1))
    context = attend(q, k, v).reshape(rows.shape)
    attended = norm(project(context, "attention.output.dense").add_(rows), "attention.output")
    active = ACTIVATIONS[activation](project(attended, "intermediate.dense"))
    return norm(project(active, "output.dense").add_(attended), "output").reshape(x.shape)
