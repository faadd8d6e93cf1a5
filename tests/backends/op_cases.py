"""What every backend's ops are tried on, and how far they may be from the reference."""

from __future__ import annotations

import math

import numpy as np

from refbert import ops
from refbert_conformance.cases.refused import REFUSED
from refbert_conformance.tolerances import bounds
from refbert_conformance.tolerances.arithmetic import Arithmetic
from refbert_conformance.tolerances.bounds import ARRAYS


def cases():
    """name -> (op, arrays, options); arrays are float64, drawn so that float16 can hold them and their sums."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.standard_normal(shape)

    B, S, H, A, V, F = 2, 7, 12, 3, 37, 40
    ids = rng.integers(0, 5, (B, S))  # of 37: many repeats, many rows that nobody looks up
    ragged = np.arange(S) < np.array([[S], [3]])
    dead = np.arange(S) < np.array([[0], [4]])
    labels = np.array([[3, -100, 36, 0, 0, -100, 5], [-100] * S])
    keep = rng.random((B, A, S, S)) < 0.7
    q, k, v = draw(B, S, H), draw(B, S, H), draw(B, S, H)
    row, across = draw(1, 40), draw(1, 40)
    across -= row * (across @ row.T) / (row @ row.T)  # terms that cancel: rounding each to float16 would show
    attention = {"heads": A, "mask_value": -math.inf}
    google = {"heads": A, "mask_value": -10000.0}
    return {
        "add": ("add", (draw(B, S, H), draw(B, S, H)), {}),
        "reshape": ("reshape", (draw(B, S, H),), {"shape": (S, B * H)}),
        "transpose": ("transpose", (draw(B, S, H),), {"axes": (2, 0, 1)}),
        "embedding": ("embedding", (draw(V, H),), {"ids": ids}),
        "embedding of nothing": ("embedding", (draw(V, H),), {"ids": ids[:0]}),
        "gather": ("gather", (draw(B, S, H),), {"positions": np.array([0, 13, 5, 5])}),
        "linear": ("linear", (draw(B, S, H), draw(F, H), draw(F)), {}),
        "linear to one": ("linear", (row, across, 0.01 * draw(1)), {}),
        "linear of nothing": ("linear", (draw(0, S, H), draw(F, H), draw(F)), {}),
        "layer_norm": ("layer_norm", (3 + draw(B, S, H), 1 + 0.3 * draw(H), draw(H)), {"eps": 1e-12}),
        "layer_norm, long rows": ("layer_norm", (draw(3, 301), 1 + 0.3 * draw(301), draw(301)), {"eps": 1e-5}),
        "gelu erf": ("gelu", (3 * draw(B, S, F),), {"form": "erf"}),
        "gelu tanh": ("gelu", (3 * draw(B, S, F),), {"form": "tanh"}),
        "gelu of nothing": ("gelu", (draw(0, F),), {"form": "erf"}),
        "relu": ("relu", (draw(B, S, F),), {}),
        "tanh": ("tanh", (draw(B, H),), {}),
        "softmax": ("softmax", (4 * draw(B, S, V),), {}),
        "softmax, long rows": ("softmax", (4 * draw(2, 300),), {}),
        "softmax of one": ("softmax", (draw(B, 1),), {}),
        "probabilities": ("attention_probabilities", (q, k), {"mask": ragged} | attention),
        "probabilities, google": ("attention_probabilities", (q, k), {"mask": ragged.astype(int)} | google),
        "probabilities, nothing visible": ("attention_probabilities", (q, k), {"mask": dead} | attention),
        "probabilities, mask by columns": (
            "attention_probabilities", (q, k), {"mask": np.asfortranarray(ragged)} | attention,
        ),
        "attention": ("attention", (q, k, v), {"mask": ragged} | attention),
        "attention with dropout": ("attention", (q, k, v), {"mask": dead, "keep": keep, "rate": 0.3} | attention),
        "attention of nothing": ("attention", (q[:0], k[:0], v[:0]), {"mask": ragged[:0]} | attention),
        "attention, S = 1": ("attention", (q[:, :1], k[:, :1], v[:, :1]), {"mask": dead[:, :1]} | attention),
        "dropout": ("dropout", (draw(B, S, H),), {"keep": rng.random((B, S, H)) < 0.9, "rate": 0.1}),
        "cross_entropy": ("cross_entropy", (3 * draw(B, S, V),), {"labels": labels, "denominator": 5}),
        "cross_entropy, long rows": (
            "cross_entropy", (3 * draw(2, 600),), {"labels": np.array([599, 1]), "denominator": 2.00001},
        ),
        "cross_entropy, no label": (
            "cross_entropy", (draw(3, V),), {"labels": np.full(3, -100), "denominator": 0},
        ),
        "cross_entropy of nothing": (
            "cross_entropy", (draw(0, V),), {"labels": np.zeros(0, int), "denominator": 0},
        ),
        "mean_squared_error": ("mean_squared_error", (draw(B, 1),), {"targets": draw(B, 1), "denominator": B}),
        "mean_squared_error, no axes": ("mean_squared_error", (draw(),), {"targets": draw(), "denominator": 1}),
    }  # fmt: skip


CASES = cases()
# refbert.ops itself, on device arrays: in float64, on the stand-in, the same NumPy calls and so the same bits.
SHARED = ("add", "reshape", "transpose", "embedding", "gather", "relu", "tanh", "dropout", "mean_squared_error")


def expected(op, arrays, options, dtype, dy_seed=1):
    """((y, cotangents) in float64, their error bounds, dy) for inputs that are exact in ``dtype``."""
    y, _ = getattr(ops, op)(*arrays, **options)
    dy = np.random.default_rng(dy_seed).standard_normal(y.shape).astype(dtype).astype(np.float64)
    found = bounds.expected(op, arrays, options, Arithmetic.of(dtype), dy)
    return [one.y for one in found], [one.bound for one in found], dy


def check(backend, case, *, exact=False):
    op, arrays, options = CASES[case]
    arrays = [a.astype(backend.dtype).astype(np.float64) for a in arrays]
    reference, allowed, dy = expected(op, arrays, options, backend.dtype)
    given = [backend.asarray(a) for a in arrays]
    y, back = getattr(backend, op)(*given, **options)
    first, second = back(backend.asarray(dy)), back(backend.asarray(dy))
    assert len(first) == len(arrays)
    for a, x in zip(arrays, given, strict=True):
        np.testing.assert_array_equal(backend.to_numpy(x), a, err_msg=f"{case} changed its input")
    names = ["y", *(f"cotangent {i}" for i in range(len(arrays)))]
    for name, result, again, t, bound in zip(names, (y, *first), (y, *second), reference, allowed, strict=True):
        got = backend.to_numpy(result)
        assert got.dtype == (np.float64 if backend.dtype == "float64" else np.float32)
        assert got.shape == t.shape, f"{case}, {name}: shape {got.shape}, expected {t.shape}"
        if exact:
            np.testing.assert_array_equal(got, t, err_msg=f"{case}, {name}")
        excess = abs(got - t) - bound
        assert (excess <= 0).all(), (
            f"{case}, {name}, {backend.dtype} on {backend.library}: error {abs(got - t).max():.3g}, "
            f"bound {np.max(bound):.3g}, excess {excess.max():.3g} at {np.unravel_index(excess.argmax(), t.shape)}"
        )
        assert np.isfinite(bound).all()
        if op not in ("embedding", "gather"):  # whose atomic additions may come in another order
            np.testing.assert_array_equal(backend.to_numpy(again), got, err_msg=f"{case}, {name}: a second pullback")


RATES = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-6, "weight_decay": 0.01}

# (op, shapes of its arrays, options, what refbert.ops raises)
BAD_ARGUMENTS = [(one.op, one.shapes, one.options, one.error) for one in REFUSED if one.op in ARRAYS]


def model_difference(backend, profile):
    """The largest normwise relative difference of loss and gradients between a backend and the reference in float64."""
    from refbert.backend.reference import ReferenceBackend
    from refbert.config import BertConfig
    from refbert.config.parameters import shapes
    from refbert.config.profiles import PROFILES
    from refbert.randomness import Dropout
    from refbert.spec.bert import objective
    from refbert.spec.choices import Choices
    from refbert.text.batching import Batch

    rng = np.random.default_rng(0)
    B, S = 2, 6
    config = BertConfig(
        vocab_size=31, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20,
        max_position_embeddings=8, num_labels=4,
    )  # fmt: skip
    mask = np.arange(S) < np.array([[S], [4]])
    batch = Batch(
        input_ids=rng.integers(0, 31, (B, S)),
        token_type_ids=rng.integers(0, 2, (B, S)),
        attention_mask=mask.astype(np.int64),
    )
    tasks = {
        ("masked_lm", "next_sentence"): {
            "labels": np.where(rng.random((B, S)) < 0.5, rng.integers(0, 31, (B, S)), -100),
            "next_sentence_label": np.array([1, 0]),
        },
        ("question_answering",): {"start_positions": np.array([1, 9]), "end_positions": np.array([3, 9])},
        ("token_classification",): {"labels": rng.integers(0, 4, (B, S))},
        ("sequence_classification",): {"labels": rng.standard_normal((B, 4))},
        ("multiple_choice",): {"labels": np.array([1])},
    }
    worst = 0.0
    for heads, labels in tasks.items():
        weights = {
            name: (1.0 if "LayerNorm.weight" in name else 0.0) + 0.3 * rng.standard_normal(shape)
            for name, shape in shapes(config, heads, pooler=True).items()
        }
        results = []
        for b in (ReferenceBackend(), backend):
            loss, _, back = objective(
                b, {name: b.asarray(w) for name, w in weights.items()}, batch, labels, heads,
                Choices.of(config, PROFILES[profile]), draws=Dropout(seed=1),
            )  # fmt: skip
            gradients = back(b.asarray(np.ones(())))
            results.append({"loss": b.to_numpy(loss)} | {name: b.to_numpy(g) for name, g in gradients.items()})
        assert results[0].keys() == results[1].keys()
        for name, reference in results[0].items():
            worst = max(
                worst, float(np.linalg.norm(results[1][name] - reference)) / max(float(np.linalg.norm(reference)), 1e-3)
            )
    return worst
