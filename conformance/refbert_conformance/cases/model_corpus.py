"""Layers and models that are always tried: each choice by itself, sizes beyond a block of threads, published sizes."""

from __future__ import annotations

import math

from refbert_conformance.cases.model_cases import ModelRecipe, Repeated

# Layers that a backend fuses.
FUSED = (
    *(
        ModelRecipe(seed, "masked_lm", 1, activation=activation, mask=mask, mask_value=value, eps=eps, A=A, D=D)
        for seed, (activation, mask, value, eps, A, D) in enumerate([
            ("gelu_erf", "ragged", -math.inf, 1e-12, 2, 3),
            ("gelu_tanh", "holes", -10000.0, 1e-5, 3, 2),
            ("relu", "none", -math.inf, 1e-12, 1, 5),
            ("tanh", "none", -10000.0, 1e-3, 4, 1),
            ("linear", "one", -math.inf, 1e-2, 2, 2),
            ("gelu_erf", "all", -math.inf, 1e-12, 3, 8),
            ("gelu_tanh", "none", -math.inf, 1e-12, 3, 8),
        ])
    ),
    *(  # scores far beyond ±10,000: what is masked must be so at any height
        ModelRecipe(seed, "masked_lm", 1, S=6, mask=mask, scale=60.0)
        for seed in (0, 1, 4, 5)
        for mask in ("one", "holes")
    ),
    # weights of a size at which one GELU for the other shows, and gains at which ε does
    ModelRecipe(20, "masked_lm", 1, S=7, D=16, F=40, activation="gelu_tanh", scale=0.2),
    ModelRecipe(20, "masked_lm", 1, S=7, D=16, F=40, activation="gelu_erf", scale=0.2),
    ModelRecipe(20, "masked_lm", 1, S=7, D=16, F=40, spread=0.003),
    # more sequences, heads and tokens than one block of threads
    ModelRecipe(8, "masked_lm", 1, B=5, S=9, A=12, D=4, F=40, mask="ragged"),
    ModelRecipe(9, "masked_lm", 1, B=2, S=70, mask="all"),
    # Features in whole blocks and fewer inside than outside (weights of 1/√H: with large ones softmax picks one key,
    # and rounding decides which); inside, more than a block and a rest; one of everything.
    ModelRecipe(12, "masked_lm", 1, B=1, S=3, A=2, D=64, F=72, mask="all", scale=0.1),
    ModelRecipe(13, "masked_lm", 1, B=2, S=2, A=3, D=2, F=300, mask="all"),
    ModelRecipe(16, "masked_lm", 1, B=1, S=1, A=1, D=8, F=1, mask="all"),
)  # fmt: skip
# What changes from call to call in "options".
CHANGING = (ModelRecipe(1, "masked_lm", 1, mask="none"), ModelRecipe(2, "masked_lm", 1, mask_value=-10000.0))
MODELS = (
    *(
        ModelRecipe(seed, task, 2, B=3, S=5, rate=rate, mask=mask, mask_value=value)
        for seed, (task, rate, mask, value) in enumerate([
            ("pretraining", 0.0, "ragged", -math.inf),
            ("pretraining", 0.3, "holes", -math.inf),
            ("masked_lm", 0.0, "holes", -10000.0),
            ("answers", 0.1, "ragged", -10000.0),
            ("answers", 0.0, "ragged", -math.inf),
            ("tags", 0.0, "ragged", -math.inf),
            ("classes", 0.3, "all", -math.inf),
            ("numbers", 0.0, "one", -10000.0),
            ("choices", 0.1, "ragged", -math.inf),
        ])
    ),
    ModelRecipe(9, "pretraining", 3, B=5, S=9, A=5, D=4, F=17, V=40, rate=0.1),
    # Sequences of which nothing is labelled: their keys and values have no part in the loss.
    ModelRecipe(0, "masked_lm", 2, B=6, S=1, mask="all"),
    ModelRecipe(1, "masked_lm", 2, B=6, S=2, mask="all"),
)  # fmt: skip


# One axis or two as in BERT-base and BERT-large, and rows beyond what a thread, a tile and a cache take.
LARGE_LAYERS = (
    Repeated(ModelRecipe(0, "masked_lm", 1, B=2, S=67, A=2, D=64, F=256, mask="ragged", scale=0.05), 3),
    Repeated(ModelRecipe(1, "masked_lm", 1, B=1, S=13, A=12, D=64, F=3072, mask="ragged", scale=0.04), 1),
    Repeated(ModelRecipe(4, "masked_lm", 1, B=1, S=19, A=12, D=64, F=3072, mask="holes", scale=0.04), 35),
    Repeated(ModelRecipe(5, "masked_lm", 1, B=1, S=11, A=16, D=64, F=4096, mask="all", scale=0.03), 7),
    Repeated(ModelRecipe(8, "masked_lm", 1, B=2, S=259, A=2, D=64, F=300, mask="ragged", scale=0.05), 2),
    Repeated(ModelRecipe(9, "masked_lm", 1, B=1, S=515, A=1, D=64, F=128, mask="ragged", scale=0.05), 2),
    Repeated(ModelRecipe(12, "masked_lm", 1, B=2, S=129, A=2, D=64, F=512, mask="none", mask_value=-10000.0), 3),
    Repeated(ModelRecipe(13, "masked_lm", 1, B=3, S=9, A=4, D=16, F=128, mask="ragged", activation="gelu_tanh"), 43),
    Repeated(ModelRecipe(16, "masked_lm", 1, B=1, S=128, A=4, D=64, F=1024, mask="all", scale=0.05), 8),
    Repeated(ModelRecipe(17, "masked_lm", 1, B=1, S=40, A=12, D=64, F=768, mask="ragged", activation="relu"), 2),
)
LARGEST_LAYERS = (
    Repeated(ModelRecipe(0, "masked_lm", 1, B=1, S=128, A=12, D=64, F=3072, mask="ragged", scale=0.04), 8),
    Repeated(ModelRecipe(1, "masked_lm", 1, B=1, S=131, A=16, D=64, F=4096, mask="holes", scale=0.03), 5),
    Repeated(ModelRecipe(4, "masked_lm", 1, B=1, S=512, A=12, D=64, F=3072, mask="ragged", scale=0.04), 2),
    Repeated(ModelRecipe(5, "masked_lm", 1, B=2, S=16, A=12, D=64, F=3072, mask="ragged", scale=0.04), 17),
)
# Layers over sequences end to end.
PACKED = (
    ModelRecipe(0, "masked_lm", 1, B=3, S=5, A=2, D=3),
    ModelRecipe(1, "masked_lm", 1, B=5, S=9, A=12, D=4, F=40, activation="gelu_tanh", eps=1e-5),
    ModelRecipe(2, "masked_lm", 1, B=2, S=70, A=1, D=5, activation="relu"),
    ModelRecipe(3, "masked_lm", 1, B=1, S=1, A=1, D=8, F=1, activation="tanh"),
    ModelRecipe(4, "masked_lm", 1, B=7, S=2, A=3, D=2, activation="linear", eps=1e-2),
)
LARGE_PACKED = (
    Repeated(ModelRecipe(0, "masked_lm", 1, B=3, S=150, A=2, D=64, F=256, scale=0.05), 3),
    Repeated(ModelRecipe(1, "masked_lm", 1, B=1, S=29, A=12, D=64, F=3072, scale=0.04), 28),
    Repeated(ModelRecipe(4, "masked_lm", 1, B=3, S=9, A=4, D=16, F=128, activation="gelu_tanh"), 43),
    Repeated(ModelRecipe(5, "masked_lm", 1, B=2, S=515, A=1, D=64, F=128, scale=0.05), 2),
    Repeated(ModelRecipe(8, "masked_lm", 1, B=4, S=70, A=4, D=64, F=512, scale=0.05, eps=1e-5), 5),
    Repeated(ModelRecipe(9, "masked_lm", 1, B=1, S=13, A=16, D=64, F=4096, scale=0.03), 6),
)
