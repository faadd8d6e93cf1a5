"""Masked-LM corruption with explicit draws: which tokens are hidden, and behind what.

Source   Devlin et al. 2019 §3.1, Task #1 ("15% of the token positions at random … (1) the [MASK] token 80% of the time
         (2) a random token 10% of the time (3) the unchanged i-th token 10% of the time") and A.1. Independent draws
         for every token, as in Hugging Face's DataCollatorForLanguageModeling; Google's code draws a fixed number of
         positions per sequence instead.
Shapes   input_ids, special, select, action, random_ids [...] all the same  ->  input_ids [...], labels [...]

Equation (per token; select and action uniform in [0, 1), random_ids uniform over the vocabulary)
    chosen = select < rate and not special          special: [CLS], [SEP], padding
    id'    = [MASK]        where chosen and action < 0.8
           = random_ids    where chosen and 0.8 ≤ action < 0.9
           = id            elsewhere
    label  = id where chosen, IGNORE elsewhere      also where the token stays: it must be predicted all the same

    The draws are *inputs*, as dropout's masks are: a training run is then the same function everywhere. A random
    token may be the token itself (1/V of the time), as in both implementations.
"""

from __future__ import annotations

import numpy as np

from refbert.ops.cross_entropy import IGNORE
from refbert.ops.types import Array, Ids, Mask

MASKED, RANDOM = 0.8, 0.1  # the shares of [MASK] and of random tokens among the chosen


def mask_tokens(
    input_ids: Ids, special: Mask, *, select: Array, action: Array, random_ids: Ids, rate: float, mask_id: int
) -> tuple[Ids, Ids]:
    """(corrupted input_ids, labels). Raises ValueError for a rate outside [0, 1] or shapes that differ."""
    if not 0 <= rate <= 1:
        raise ValueError(f"the masking rate must be in [0, 1], got {rate}")
    for name, array in (("special", special), ("select", select), ("action", action), ("random_ids", random_ids)):
        if array.shape != input_ids.shape:
            raise ValueError(f"{name} must have the shape of input_ids, {input_ids.shape}, got {array.shape}")
    chosen = (select < rate) & ~special.astype(bool)
    masked = chosen & (action < MASKED)
    replaced = chosen & (action >= MASKED) & (action < MASKED + RANDOM)
    corrupted = np.where(masked, mask_id, np.where(replaced, random_ids, input_ids))
    return corrupted, np.where(chosen, input_ids, IGNORE)
