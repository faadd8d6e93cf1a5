"""The heads: what is put on top of the encoder for each task.

Shapes   hidden [B, S, H] or pooled [B, H]  ->  logits. Each head's pullback returns (cotangent of its input, gradients
         by full name).

Source   masked LM: Devlin et al. 2019 §3.1 and Google's run_pretraining.py get_masked_lm_output (dense, activation,
         LayerNorm, then the word-embedding matrix again as the output projection, with a bias of its own).
         Next sentence: §3.1 and get_next_sentence_output (label 0: B follows A; 1: B is random).
         Classification: §4.1, log softmax(C Wᵀ); the code adds a bias, and dropout on the pooled vector.
         Tagging: §5.3, one classifier per token. Answering: §4.2, a start and an end vector, here the two rows of
         ``qa_outputs``. Multiple choice: §4.4, one score per choice from its pooled vector.
"""

from __future__ import annotations

from collections.abc import Mapping

from refbert.backend import A, Backend, BlockPullback, Host, KeepMasks
from refbert.spec.choices import Choices
from refbert.spec.layers import activate, dense, dropout, layer_norm

TIED = "bert.embeddings.word_embeddings.weight"


def masked_lm(
    ops: Backend[A], p: Mapping[str, A], hidden: A, positions: Host, c: Choices
) -> tuple[A, BlockPullback[A]]:
    """Logits [P, V] of the vocabulary at the flat positions [P] (position s of sequence b is b·S + s).

    Shapes   hidden [B, S, H], positions [P]  ->  logits [P, V]

        t = LN(act(h W + b)),     logits = t Eᵀ + bias,     E the word embeddings [V, H]

    Only the asked positions are projected: V is 40 times H. E receives two gradients in a training step, one from
    here and one from the lookup (`refbert.spec.scope.accumulate` adds them).

        Backward: with z = h W + b and g = act(z), and 0 at the positions that were not asked for:

            dt = dlogits E                    dE = dlogitsᵀ t,   dbias = Σ_n dlogits_n
            dg = LN's pullback of dt          dz = act′(z) dg
            dh = dz Wᵀ                        dW = hᵀ dz,   db = Σ_n dz_n
    """
    rows, rows_back = ops.gather(hidden, positions)  # [P, H]
    z, z_back = dense(ops, p, "cls.predictions.transform.dense", rows)
    g, activation_back = activate(ops, z, c.activation)
    t, norm_back = layer_norm(ops, p, "cls.predictions.transform.LayerNorm", g, c)
    logits, logits_back = ops.linear(t, p[TIED], p["cls.predictions.bias"])  # [P, V]

    def pullback(dlogits: A) -> tuple[A, dict[str, A]]:
        dt, dtied, dbias = logits_back(dlogits)
        dg, norm = norm_back(dt)
        (dz,) = activation_back(dg)
        drows, transform = z_back(dz)
        (dhidden,) = rows_back(drows)
        return dhidden, {TIED: dtied, "cls.predictions.bias": dbias, **transform, **norm}

    return logits, pullback


def next_sentence(ops: Backend[A], p: Mapping[str, A], pooled: A) -> tuple[A, BlockPullback[A]]:
    """Logits [B, 2]: index 0 for "B follows A", index 1 for "B is random".

    Shapes   pooled [B, H]  ->  logits [B, 2]

        logits = pooled W + b

        Backward: a linear map's, dpooled = dlogits Wᵀ, dW = pooledᵀ dlogits, db = Σ_b dlogits_b.
    """
    return dense(ops, p, "cls.seq_relationship", pooled)


def classifier(
    ops: Backend[A], p: Mapping[str, A], x: A, c: Choices, draws: KeepMasks | None = None
) -> tuple[A, BlockPullback[A]]:
    """Logits [..., K] after dropout: of the pooled vector [B, H] (sequences, choices) or of every token [B, S, H].

    Shapes   x [..., H]  ->  logits [..., K]; K = 1 for the choices of a question

        d = dropout(x),     logits = d W + b

        Backward: dd = dlogits Wᵀ, dx = dropout's pullback of dd; dW = dᵀ dlogits, db = Σ_n dlogits_n.
    """
    dropped, dropout_back = dropout(ops, x, site="classifier", rate=c.classifier_dropout, draws=draws)
    logits, dense_back = dense(ops, p, "classifier", dropped)

    def pullback(dlogits: A) -> tuple[A, dict[str, A]]:
        ddropped, gradients = dense_back(dlogits)
        (dx,) = dropout_back(ddropped)
        return dx, gradients

    return logits, pullback


def question_answering(ops: Backend[A], p: Mapping[str, A], hidden: A) -> tuple[A, BlockPullback[A]]:
    """Logits [B, S, 2]: how well each position serves as the start (index 0) and the end (index 1) of the answer.

    Shapes   hidden [B, S, H]  ->  logits [B, S, 2]

        logits = hidden W + b               the columns of W are the paper's start vector S and end vector E

        Backward: a linear map's, dhidden = dlogits Wᵀ, dW = hiddenᵀ dlogits and db = Σ dlogits over all positions.
    """
    return dense(ops, p, "qa_outputs", hidden)
