"""Random numbers that depend on a key alone; dropout's are keyed by seed, step and site.

Because a mask depends on (seed, step, site) alone and is drawn on the host, a training run is the same function on
every backend, a resumed run draws what the uninterrupted one would have, and no mask depends on which others were drawn
before it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


def philox(*key: object) -> np.random.Philox:
    """Make a counter-based generator, keyed by the parts of ``key`` (compared as text)."""
    import hashlib  # here: with OpenSSL's library behind it, it costs 3 ms and 4 MB, and inference draws nothing

    label = "/".join(str(part) for part in key).encode()
    return np.random.Philox(key=np.frombuffer(hashlib.blake2b(label, digest_size=16).digest(), dtype=np.uint64))


@dataclass(frozen=True)
class Dropout:
    """The keep masks of one training step. ``seed`` names the run, ``step`` the optimizer step (from 0).

    ``rows`` = (start, stop, total): the masks of rows start to stop of a batch of ``total`` rows, which are the same
    bits that the whole batch's masks have there. So a batch may be computed in pieces, or by several processes.
    """

    seed: int
    step: int = 0
    rows: tuple[int, int, int] | None = None

    def keep(
        self, site: str, shape: tuple[int, ...], rate: float, *, among: tuple[int, int] | None = None
    ) -> npt.NDArray[np.bool_]:
        """True with probability 1 − rate, independently per entry.

        ``site`` is the name of the place in the model ("encoder.layer.3.output", …): no two places share a mask.
        ``among`` = (start, stop): only these rows of the mask of that shape. Raises ValueError if ``rows`` are set and
        ``shape`` is not theirs, or if there are no such rows.
        """
        bits = philox(self.seed, self.step, site)
        first, skipped = 0, 0
        if self.rows is not None:
            first, stop, total = self.rows
            if not shape or not 0 <= first <= stop <= total or shape[0] != stop - first:
                raise ValueError(f"a mask of shape {shape} is not of rows {first} to {stop} of {total}")
        if among is not None:
            if not shape or not 0 <= among[0] <= among[1] <= shape[0]:
                raise ValueError(f"a mask of shape {shape} has no rows {among[0]} to {among[1]}")
            first, shape = first + among[0], (among[1] - among[0], *shape[1:])
        if first:
            # Philox is counter-based: a step of the counter is eight numbers of 32 bits, and steps can be leapt over.
            leaps, skipped = divmod(first * math.prod(shape[1:]), _PER_STEP)
            bits.advance(leaps)
        draws = np.random.Generator(bits).random(skipped + math.prod(shape), dtype=np.float32)
        return (draws[skipped:] >= rate).reshape(shape)


# Philox 4x64 gives four 64-bit numbers for each value of its counter; a float32 takes 32 bits.
_PER_STEP = 8
