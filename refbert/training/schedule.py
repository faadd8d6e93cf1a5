"""The learning-rate schedule: linear warmup, then linear decay to zero.

Source   Devlin et al. 2019 A.2: "learning rate warmup over the first 10,000 steps, and linear decay of the learning
         rate". The two implementations differ after the warmup:

    Google (optimization.py)    warmup  lr = peak · s/w                  decay  lr = peak · (1 − s/T)
    Hugging Face                warmup  lr = peak · s/w                  decay  lr = peak · (T − s)/(T − w)

    s counts updates from 0, so the first update has rate 0 (and still moves Adam's moments). Google's decay is counted
    from step 0, not from the end of the warmup: the rate jumps down by peak · w/T at s = w.
"""

from __future__ import annotations


def learning_rate(step: int, *, peak: float, warmup: int, total: int, from_zero: bool) -> float:
    """Return the rate of update ``step`` (from 0). ``from_zero``: Google's decay (see `refbert.config.profiles`)."""
    if step < warmup:
        return peak * step / warmup
    if step >= total:
        return 0.0
    return peak * (1 - step / total) if from_zero else peak * (total - step) / (total - warmup)
