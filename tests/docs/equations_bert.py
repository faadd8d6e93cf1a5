"""The equations of refbert.spec.bert: a whole BERT and its losses in plain numbers, and the backward between blocks."""

from __future__ import annotations

import cmath
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from calculus import STEP, agree, gradients, plus, product, shown, times, transposed
from equations_attention import HEADS, D
from equations_blocks import DRAWS, DROPPING, OPS, attend, draw, gelu, kept, layer_norm
from equations_heads import entropy

from refbert.config import BertConfig
from refbert.config.parameters import shapes
from refbert.ops.cross_entropy import IGNORE
from refbert.spec.bert import bert, objective
from refbert.spec.embeddings import embeddings
from refbert.spec.encoder import encoder
from refbert.spec.pooler import pooler
from refbert.spec.scope import Scope
from refbert.text.batching import Batch

B, S, H, V, F, K = 2, 3, HEADS * D, 5, 2, 2
CONFIG = BertConfig(
    vocab_size=V, hidden_size=H, num_hidden_layers=1, num_attention_heads=HEADS, intermediate_size=F,
    max_position_embeddings=S, num_labels=K,
)  # fmt: skip
CHOICES = replace(DROPPING, layers=1)
LAYER = "bert.encoder.layer.0."
WORDS = "bert.embeddings.word_embeddings.weight"
TRANSFORM = "cls.predictions.transform"
IDS, TYPES, MASK = np.array([[4, 1, 4], [0, 4, 1]]), np.array([[0, 0, 1], [0, 1, 1]]), np.array([[1, 1, 1], [1, 1, 0]])
BATCH = Batch(IDS, TYPES, MASK)


def dense(p, name, x):
    return plus(product(x, transposed(p[f"{name}.weight"])), p[f"{name}.bias"])


def norm(p, name, x):
    return layer_norm(x, p[f"{name}.LayerNorm.weight"], p[f"{name}.LayerNorm.bias"])


def activated(x):
    return [[gelu(v) for v in row] for row in x]


def dropped(b, site, x):
    """Dropout of sequence b."""
    return times(x, kept(site, (B, S, H))[b])


def summed_embeddings(p, b):
    """e of sequence b, before LayerNorm."""
    kinds = ("word", "token_type", "position")
    words, types, positions = (p[f"bert.embeddings.{kind}_embeddings.weight"] for kind in kinds)
    return [plus([words[IDS[b, s]]], types[TYPES[b, s]], positions[s])[0] for s in range(S)]


def hidden_states(p, b, e):
    """Sequence b from its summed embeddings through the layer."""
    x = dropped(b, "embeddings", norm(p, "bert.embeddings", e))
    a = attend(*(dense(p, f"{LAYER}attention.self.{name}", x) for name in ("query", "key", "value")), MASK[b])
    o = dropped(b, "encoder.layer.0.attention.output", dense(p, f"{LAYER}attention.output.dense", a))
    y = norm(p, f"{LAYER}attention.output", plus(x, o))
    g = activated(dense(p, f"{LAYER}intermediate.dense", y))
    o = dropped(b, "encoder.layer.0.output", dense(p, f"{LAYER}output.dense", g))
    return norm(p, f"{LAYER}output", plus(y, o))


def encoded(p, e=None):
    """hidden and pooled of all sequences."""
    hidden = [hidden_states(p, b, summed_embeddings(p, b) if e is None else e[b]) for b in range(B)]
    first = dense(p, "bert.pooler.dense", [rows[0] for rows in hidden])
    return hidden, [[cmath.tanh(v) for v in row] for row in first]


def parameters(rng, *names):
    return draw(rng, **shapes(CONFIG, names))


def by_complex_step(f, p, dy):
    """The gradients of Σ dy·f(p) by name."""
    found = gradients(lambda *arrays: f(dict(zip(p, arrays, strict=True))), list(p.values()), dy)
    return dict(zip(p, found, strict=True))


def lists(p):
    return {name: value.tolist() for name, value in p.items()}


def slopes_agree(rng, got, f, p, dy):
    """The gradients by name of Σ dy·f(p), each against one complex step in a random direction.

    A step along every entry of a whole model takes seconds; the checks of its blocks take them.
    """
    assert set(got) == set(p)
    for name, value in p.items():
        direction = rng.standard_normal(value.shape)
        y = np.asarray(f(lists(p) | {name: (value + 1j * STEP * direction).tolist()}), complex)
        assert got[name].shape == value.shape, name
        agree((got[name] * direction).sum(), (dy * y).sum().imag / STEP, name)


def same(ours, theirs):
    """Gradients by name."""
    assert set(ours) == set(theirs)
    for name, gradient in theirs.items():
        agree(ours[name], gradient, name)


@shown(
    "bert",
    "x      = Embed(input_ids, token_type_ids)",
    "hidden = Encoder(x, attention_mask)",
    "pooled = Pooler(hidden)                       where it is asked for, else None",
    "dh, dp_3 = Pooler's pullback of dpooled",
    "dx, dp_2 = Encoder's pullback of dhidden + dh",
    "dp_1 = Embed's pullback of dx",
    "Without dpooled there is no dh and no dp_3; without dhidden the encoder's pullback gets dh alone.",
)
def bert_(rng):
    p = parameters(rng)
    dhidden, dpooled = rng.standard_normal((B, S, H)), rng.standard_normal((B, H))

    def f(p):
        """Both outputs in a row."""
        hidden, pooled = encoded(p)
        return [v for rows in hidden for row in rows for v in row] + [v for row in pooled for v in row]

    out, pullback = bert(OPS, p, BATCH, CHOICES, draws=DRAWS)
    agree(np.concatenate([out.hidden.ravel(), out.pooled.ravel()]), np.real(f(lists(p))))
    slopes_agree(rng, pullback(dhidden, dpooled), f, p, np.concatenate([dhidden.ravel(), dpooled.ravel()]))

    x, embeddings_back = embeddings(OPS, Scope(p, "bert.embeddings."), IDS, TYPES, CHOICES, DRAWS)
    hidden, encoder_back = encoder(OPS, Scope(p, "bert.encoder."), x, MASK, CHOICES, draws=DRAWS)
    dh, dp_3 = pooler(OPS, Scope(p, "bert.pooler."), hidden)[1](dpooled)
    for given, meeting, of_pooler in (
        ((dhidden, dpooled), dhidden + dh, dp_3),
        ((dhidden, None), dhidden, {}),
        ((None, dpooled), dh, dp_3),
    ):
        dx, dp_2 = encoder_back(meeting)
        named = {"embeddings": embeddings_back(dx), "encoder": dp_2, "pooler": of_pooler}
        same(pullback(*given), {f"bert.{part}.{n}": g for part, found in named.items() for n, g in found.items()})
    out, pullback = bert(OPS, p, BATCH, CHOICES, pooled=False, draws=DRAWS)
    assert out.pooled is None
    agree(out.hidden, hidden)


TOKENS, NEXT, CLASSES = np.array([[IGNORE, 3, 0], [2, IGNORE, IGNORE]]), np.array([1, 0]), np.array([0, 1])
STARTS, ENDS = np.array([1, 2]), np.array([2, 0])


def transformed(p, hidden):
    """t at the labelled positions."""
    rows = [hidden[b][s] for b in range(B) for s in range(S) if TOKENS[b, s] != IGNORE]
    return norm(p, TRANSFORM, activated(dense(p, f"{TRANSFORM}.dense", rows)))


def masked_lm(p, hidden):
    logits = plus(product(transformed(p, hidden), transposed(p[WORDS])), p["cls.predictions.bias"])
    return entropy(logits, TOKENS[TOKENS != IGNORE], 3)


def question_answering(p, hidden):
    starts, ends = ([[row[i] for row in dense(p, "qa_outputs", rows)] for rows in hidden] for i in (0, 1))
    return (entropy(starts, STARTS, B) + entropy(ends, ENDS, B)) / 2


def next_sentence(p, pooled):
    return entropy(dense(p, "cls.seq_relationship", pooled), NEXT, B)


def sequence_classification(p, pooled):
    return entropy(dense(p, "classifier", times(pooled, kept("classifier", (B, H)))), CLASSES, B)


@dataclass(frozen=True)
class Head:
    """reads: 0 for hidden, 1 for pooled. loss(p, what it reads). own: how the names of its parameters start."""

    reads: int
    loss: Callable
    own: tuple[str, ...]
    labels: dict


PLAIN_HEADS = {
    "masked_lm": Head(0, masked_lm, (WORDS, "cls.predictions."), {"labels": TOKENS}),
    "question_answering": Head(
        0, question_answering, ("qa_outputs.",), {"start_positions": STARTS, "end_positions": ENDS}
    ),
    "next_sentence": Head(1, next_sentence, ("cls.seq_relationship.",), {"next_sentence_label": NEXT}),
    "sequence_classification": Head(1, sequence_classification, ("classifier.",), {"labels": CLASSES}),
}


def plain_losses(p, asked):
    """By head."""
    out = encoded(p)
    return {name: head.loss(p, out[head.reads]) for name, head in asked.items()}


def added_up(p, asked, dloss, *, pooled):
    """dp as the equations have it; each head's part by complex steps."""
    out, bert_back = bert(OPS, p, BATCH, CHOICES, pooled=pooled, draws=DRAWS)
    x, dx = (out.hidden, out.pooled), [None, None]
    of_heads = []
    for head in asked.values():
        own = {name: value for name, value in p.items() if name.startswith(head.own)}

        def f(q, head=head):
            return head.loss(lists(p) | q, q["x"])

        dp_k = by_complex_step(f, {"x": x[head.reads], **own}, dloss)
        dx_k, before = dp_k.pop("x"), dx[head.reads]
        dx[head.reads] = dx_k if before is None else before + dx_k
        of_heads.append(dp_k)
    dp = bert_back(*dx)
    for dp_k in of_heads:
        for name, gradient in dp_k.items():
            dp[name] = dp[name] + gradient if name in dp else gradient
    return dp


@shown(
    "bert",
    "logits_k = Head_k(x_k)",
    "loss_k   = Loss_k(logits_k, labels_k)",
    "loss     = Σ_k loss_k",
    "k runs over the heads that are labelled.",
    "Where no head reads pooled, the pooler does not run.",
    "Raises ValueError where no head is labelled.",
    "dlogits_k  = the loss's pullback of dloss",
    "dx_k, dp_k = the head's pullback of dlogits_k",
    "dhidden = Σ_{k : x_k = hidden} dx_k           dpooled = Σ_{k : x_k = pooled} dx_k",
    "dp = bert's pullback of (dhidden, dpooled) + Σ_k dp_k",
)
def objective_(rng):
    dloss = np.array(-1.3)
    for labelled, unlabelled, pooled in (
        (("masked_lm", "next_sentence", "question_answering"), (), True),  # two of hidden, one of pooled
        (("next_sentence", "sequence_classification"), ("question_answering",), True),  # two of pooled
        (("masked_lm",), ("next_sentence",), False),
    ):
        p = parameters(rng, *labelled, *unlabelled)
        asked = {name: PLAIN_HEADS[name] for name in labelled}
        labels = {key: value for head in asked.values() for key, value in head.labels.items()}
        given = {name: value for name, value in p.items() if pooled or not name.startswith("bert.pooler.")}
        loss, terms, pullback = objective(OPS, given, BATCH, labels, (*unlabelled, *labelled), CHOICES, draws=DRAWS)
        expected = plain_losses(lists(p), asked)
        assert list(terms) == list(expected)
        agree(list(terms.values()), np.real(list(expected.values())))
        agree(loss, np.real(sum(expected.values())))

        def f(moved, p=p, asked=asked):
            return sum(plain_losses(lists(p) | moved, asked).values())

        got = pullback(dloss)
        slopes_agree(rng, got, f, {name: p[name] for name in shapes(CONFIG, labelled, pooler=pooled)}, dloss)
        same(got, added_up(p, asked, dloss, pooled=pooled))
    with pytest.raises(ValueError, match="no head is labelled"):
        objective(OPS, p, BATCH, {}, ("masked_lm",), CHOICES)


@shown("bert", "logits = t Eᵀ + bias", "dE_v = Σ_{(b, s) : ids_bs = v} de_bs + Σ_n dlogits_nv t_n")
def tied(rng):
    dloss = np.array(0.7)
    p = parameters(rng, "masked_lm")
    plain = lists(p)
    _, _, pullback = objective(OPS, p, BATCH, {"labels": TOKENS}, ("masked_lm",), CHOICES, draws=DRAWS)
    e = [summed_embeddings(plain, b) for b in range(B)]
    (de,) = gradients(lambda e: masked_lm(plain, encoded(plain, e)[0]), [e], dloss)
    t = np.real(transformed(plain, encoded(plain)[0]))
    logits = t @ p[WORDS].T + p["cls.predictions.bias"]
    (dlogits,) = gradients(lambda z: entropy(z, TOKENS[TOKENS != IGNORE], 3), [logits], dloss)
    for v in range(V):
        lookup = sum((de[b, s] for b in range(B) for s in range(S) if IDS[b, s] == v), np.zeros(H))
        agree(pullback(dloss)[WORDS][v], lookup + sum(dlogits[n, v] * t[n] for n in range(len(t))))
