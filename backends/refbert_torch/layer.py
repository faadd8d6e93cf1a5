"""A whole encoder layer for inference: the spec's composition without autograd's bookkeeping.

Q, K and V are one product, sums are taken in place, and weights are prepacked: on the CPU in oneDNN's own layout.
PyTorch otherwise makes that layout from [O, I] anew in every call. Measured for bert-base's products, PyTorch 2.13
(time with / without): one core of a Zen 4 0.84 at 1024 rows and 0.70 at 16 in float32, 0.91 and 0.86 in bfloat16; on
two cores of a processor without AVX-512, float32: 0.70 at 16, 0.85 at 32, 1.00 at 64, 1.17 at 1024. So the layout is
left alone there for more than `FEW` rows. The price is a second copy of those weights. The operators are PyTorch's
private ones (torch.compile's backend uses them), so what is not there is not used.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

FEW = 48  # rows up to which oneDNN's layout pays without AVX-512

_NAMES = ("_reorder_linear_weight", "_linear_pointwise")
_DTYPES = (torch.float32, torch.bfloat16)


def available(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether weights of that dtype can be prepacked there."""
    onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if device.type != "cpu" or dtype not in _DTYPES or not onednn:
        return False
    if dtype is torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    return all(hasattr(torch.ops.mkldnn, name) for name in _NAMES)


def most_rows() -> int | None:
    """Up to how many rows the layout pays on this processor; None: however many."""
    wide = "AVX512" in torch.backends.cpu.get_cpu_capability()
    return None if wide else FEW


class PrepackedLinears:
    """x wᵀ + b with weights prepacked when they are first met; several w, b side by side count as one.

    First met, not met again: another layout rounds otherwise, and the second call must give the first one's bits.
    ``pack``: in oneDNN's layout; ``most``: for no more rows than that.
    """

    def __init__(self, *, pack: bool, most: int | None = None) -> None:
        self._pack, self._most = pack, most
        # (id of the first weight, whether packed) -> (the weights and biases, their versions, the weight and the bias
        # that are ready)
        self._kept: dict[tuple[int, bool], tuple[tuple[weakref.ref[Tensor], ...], tuple[int, ...], Tensor, Tensor]] = {}

    def __call__(self, x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
        """[N, I], [O, I] …, [O] … -> [N, ΣO]. A tensor that changed in place since is got ready anew."""
        pack = self._pack and (self._most is None or len(x) <= self._most)
        if not pack and len(weights) == 1:
            return functional.linear(x, weights[0], biases[0])
        weight, bias = self._ready(weights, biases, pack)
        if not pack:
            return functional.linear(x, weight, bias)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return out

    def _ready(self, weights: Sequence[Tensor], biases: Sequence[Tensor], pack: bool) -> tuple[Tensor, Tensor]:
        both, key = (*weights, *biases), (id(weights[0]), pack)
        versions = tuple(0 if tensor.is_inference() else tensor._version for tensor in both)
        found = self._kept.get(key)
        if found is not None:
            refs, known, weight, bias = found
            if known == versions and all(ref() is tensor for ref, tensor in zip(refs, both, strict=True)):
                return weight, bias
        weight, bias = torch.cat(list(weights)), torch.cat(list(biases))  # copies: to hold one's own keeps it alive
        if pack:
            weight = torch.ops.mkldnn._reorder_linear_weight(weight)
        refs = (weakref.ref(weights[0], self._forget(key)), *(weakref.ref(tensor) for tensor in both[1:]))
        self._kept[key] = (refs, versions, weight, bias)
        return weight, bias

    def _forget(self, key: tuple[int, bool]) -> Callable[[object], None]:
        kept = self._kept  # not self: a weight must not keep its backend alive

        def forget(_: object) -> None:
            kept.pop(key, None)

        return forget


ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu_erf": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "relu": functional.relu,
    "tanh": torch.tanh,
    "linear": lambda x: x,
}
_QKV = tuple(f"attention.self.{name}" for name in ("query", "key", "value"))


def encoder_layer(
    x: Tensor, params: Mapping[str, Tensor], linear: PrepackedLinears,
    attend: Callable[[Tensor, Tensor, Tensor], Tensor], *, activation: str, eps: float,
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
