"""The backend "torch": PyTorch's kernels, and PyTorch's autograd for every gradient.

Nothing here comes from refbert's derivations: the forward calls torch.nn.functional, and a pullback asks autograd. That
makes it an independent oracle of refbert.ops as well as a fast backend.

backend     the ops                              attention   scores, masks, and PyTorch's fused kernel
layer       a whole encoder layer for inference, and weights in the layout that oneDNN multiplies by
objective   a whole training step's graph        optimizers  the updates and clipping
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError(f'PyTorch is not installed ({error}); install it with: pip install "refbert[torch]"') from error

from refbert_torch.backend import TorchBackend

__all__ = ["TorchBackend"]
