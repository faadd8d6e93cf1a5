"""The input representation: token + segment + position embeddings, normalised.

Source   Devlin et al. 2019 §3 and Figure 2; LayerNorm and dropout after the sum are in Google's modeling.py
         (embedding_postprocessor). Learned positions, at most P of them (A.2: 512); no scaling by √H.
Shapes   input_ids, token_type_ids [B, S]  ->  x [B, S, H]

    e = E_word[ids] + E_segment[types] + E_position[0 … S−1]
    x = dropout(LN(e))

    Backward: LN's pullback gives de; the sum hands the same de to all three tables, each of which adds it up over the
    rows that looked it up (a segment row over half a batch, a position row over all B sequences).

        dE_word_v     = Σ_{(b, s) : ids_bs = v} de_bs
        dE_segment_t  = Σ_{(b, s) : types_bs = t} de_bs
        dE_position_s = Σ_b de_bs
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from refbert.backend import A, Backend, Host, KeepMasks
from refbert.spec.choices import Choices
from refbert.spec.layers import dropout, layer_norm


def embeddings(
    ops: Backend[A],
    p: Mapping[str, A],
    input_ids: Host,
    token_type_ids: Host,
    c: Choices,
    draws: KeepMasks | None = None,
    positions: Host | None = None,
) -> tuple[A, Callable[[A], dict[str, A]]]:
    """x [B, S, H], and a pullback from dx to the five parameters' gradients (names below ``bert.embeddings.``).

    ``positions`` [B, S] where they do not count from 0 in each row (`refbert.spec.packed`).
    """
    B, S = input_ids.shape
    if positions is None:
        positions = np.tile(np.arange(S), (B, 1))  # [B, S]

    words, words_back = ops.embedding(p["word_embeddings.weight"], input_ids)
    segments, segments_back = ops.embedding(p["token_type_embeddings.weight"], token_type_ids)
    places, places_back = ops.embedding(p["position_embeddings.weight"], positions)
    words_segments, add_segments_back = ops.add(words, segments)
    e, add_places_back = ops.add(words_segments, places)
    normed, norm_back = layer_norm(ops, p, "LayerNorm", e, c)
    x, dropout_back = dropout(ops, normed, site="embeddings", rate=c.hidden_dropout, draws=draws)

    def pullback(dx: A) -> dict[str, A]:
        (dnormed,) = dropout_back(dx)
        de, norm = norm_back(dnormed)
        dwords_segments, dplaces = add_places_back(de)
        dwords, dsegments = add_segments_back(dwords_segments)
        return {
            "word_embeddings.weight": words_back(dwords)[0],
            "token_type_embeddings.weight": segments_back(dsegments)[0],
            "position_embeddings.weight": places_back(dplaces)[0],
            **norm,
        }

    return x, pullback
