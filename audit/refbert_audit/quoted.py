"""What the documents print, copied out: the BERT paper's tables, and formulas that BERT does not use.

What claims say of these is about the documents alone, so nothing of refbert is run for it.
"""

from __future__ import annotations

import numpy as np

# Devlin et al. 2019.
# Table 1: MNLI-m, MNLI-mm, QQP, QNLI, SST-2, CoLA, STS-B, MRPC, RTE, and the average that is printed.
TABLE_1 = {
    "Pre-OpenAI SOTA": (80.6, 80.1, 66.1, 82.3, 93.2, 35.0, 81.0, 86.0, 61.7, 74.0),
    "BiLSTM+ELMo+Attn": (76.4, 76.1, 64.8, 79.8, 90.4, 36.0, 73.3, 84.9, 56.8, 71.0),
    "OpenAI GPT": (82.1, 81.4, 70.3, 87.4, 91.3, 45.4, 80.0, 82.3, 56.0, 75.1),
    "BERT base": (84.6, 83.4, 71.2, 90.5, 93.5, 52.1, 85.8, 88.9, 66.4, 79.6),
    "BERT large": (86.7, 85.9, 72.1, 92.7, 94.9, 60.5, 86.5, 89.3, 70.1, 82.1),
}
# Table 6, in the order of `refbert.config.presets.TABLE_6`: perplexity, MNLI-m, MRPC, SST-2.
TABLE_6_SCORES = (
    (5.84, 77.9, 79.8, 88.4), (5.24, 80.6, 82.2, 90.7), (4.68, 81.9, 84.8, 91.3),
    (3.99, 84.4, 86.7, 92.9), (3.54, 85.7, 86.9, 93.3), (3.23, 86.6, 87.8, 93.7),
)  # fmt: skip
# Table 8: % [MASK], % unchanged, % random; MNLI, NER fine-tuned, NER from features.
TABLE_8 = (
    (80, 10, 10, 84.2, 95.4, 94.9), (100, 0, 0, 84.3, 94.9, 94.0), (80, 0, 20, 84.1, 95.2, 94.6),
    (80, 20, 0, 84.4, 95.2, 94.7), (0, 20, 80, 83.7, 94.8, 94.6), (0, 0, 100, 83.6, 94.9, 94.6),
)  # fmt: skip
BASE_SST_TABLE_5, BASE_MNLI_TABLE_5 = 92.7, 84.4
TABLE_7_BASE_DEV = {
    "fine-tuned": 96.4, "embeddings": 91.0, "second-to-last": 95.6, "last": 94.9, "weighted sum of last four": 95.9,
    "concatenated last four": 96.1, "weighted sum of all": 95.5,
}  # fmt: skip


def sinusoids(positions: np.ndarray, d: int) -> np.ndarray:
    """Vaswani et al. 2017 §3.5: sin at even features 2i, cos at odd ones, of pos / 10000^(2i/d); [P, d]."""
    angle = positions[:, None] / 10_000 ** (2 * np.arange(d // 2) / d)
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(len(positions), d)


def noam(step: int) -> float:
    """Vaswani et al. 2017 §5.3 eq. 3, for d = 512 and 4,000 steps of warmup."""
    return float(512**-0.5 * min(step**-0.5, step * 4000**-1.5))


def article_positions(positions: np.ndarray, d: int) -> np.ndarray:
    """The article's: as `sinusoids`, but with the feature's own index j for i: 10000^(2j/d); [P, d]."""
    j = np.arange(d)
    angle = positions[:, None] / 10_000 ** (2 * j / d)
    return np.where(j % 2 == 1, np.cos(angle), np.sin(angle))
