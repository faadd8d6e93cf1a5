"""Dropout's random numbers: a counter-based generator keyed by seed, step and site.

Because a mask depends on (seed, step, site) alone and is drawn on the host, a training run is the same function on
every backend, a resumed run draws what the uninterrupted one would have, and no mask depends on which others were drawn
before it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Dropout:
    """The keep masks of one training step. ``seed`` names the run, ``step`` the optimizer step (from 0)."""

    seed: int
    step: int = 0

    def keep(self, site: str, shape: tuple[int, ...], rate: float) -> npt.NDArray[np.bool_]:
        """True with probability 1 − rate, independently per entry.

        ``site`` is the name of the place in the model ("encoder.layer.3.output", …): no two places share a mask.
        """
        label = f"{self.seed}/{self.step}/{site}".encode()
        key = np.frombuffer(hashlib.blake2b(label, digest_size=16).digest(), dtype=np.uint64)
        draws = np.random.Generator(np.random.Philox(key=key)).random(shape, dtype=np.float32)
        return draws >= rate
