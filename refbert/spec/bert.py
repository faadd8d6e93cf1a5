"""BERT: embeddings, encoder, pooler, in the paper's order; and the objective on top of it.

Source   Devlin et al. 2019 §3; the sum of losses is A.2's.
Shapes   input_ids, token_type_ids, attention_mask [B, S]  ->  hidden [B, S, H], pooled [B, H]
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Generic

from refbert.backend import A, Backend, BlockPullback, Host, KeepMasks
from refbert.config.heads import POOLED_HEADS
from refbert.spec import head_table
from refbert.spec.choices import Choices
from refbert.spec.embeddings import embeddings
from refbert.spec.encoder import Watch, encoder
from refbert.spec.head_table import head_loss
from refbert.spec.pooler import pooler
from refbert.spec.scope import Scope, accumulate, prefixed
from refbert.text.batching import Batch


@dataclass(frozen=True)
class Encoded(Generic[A]):
    """What the encoder says of a batch: hidden [B, S, H], pooled [B, H] or None where there is no pooler."""

    hidden: A
    pooled: A | None

    def read_by(self, head: str) -> A:
        """What a head reads: [B, S, H] or [B, H]."""
        if head not in POOLED_HEADS:
            return self.hidden
        assert self.pooled is not None, f"{head} needs the pooler"
        return self.pooled


def bert(
    ops: Backend[A],
    p: Mapping[str, A],
    batch: Batch,
    c: Choices,
    *,
    pooled: bool = True,
    draws: KeepMasks | None = None,
    gradients: bool = True,
    watch: Watch[A] | None = None,
) -> tuple[Encoded[A], Callable[[A | None, A | None], dict[str, A]]]:
    """The encoder's outputs, and a pullback from (dhidden, dpooled) to the gradients by full name.

    Either cotangent may be None where a loss does not use that output, but not both.

        x      = Embed(input_ids, token_type_ids)
        hidden = Encoder(x, attention_mask)
        pooled = Pooler(hidden)                       where it is asked for, else None

        Backward: hidden is used twice, as an output and by the pooler, so two cotangents meet in it, the loss's own and
        the pooler's dh. With p_1, p_2 and p_3 the parameters of the embeddings, the encoder and the pooler:

            dh, dp_3 = Pooler's pullback of dpooled
            dx, dp_2 = Encoder's pullback of dhidden + dh
            dp_1 = Embed's pullback of dx

        Without dpooled there is no dh and no dp_3; without dhidden the encoder's pullback gets dh alone.
    """
    x, embeddings_back = embeddings(ops, Scope(p, "bert.embeddings."), batch.input_ids, batch.token_type_ids, c, draws)
    hidden, encoder_back = encoder(
        ops, Scope(p, "bert.encoder."), x, batch.attention_mask, c, draws=draws, gradients=gradients, watch=watch
    )
    first, pooler_back = pooler(ops, Scope(p, "bert.pooler."), hidden) if pooled else (None, None)

    def pullback(dhidden: A | None, dpooled: A | None) -> dict[str, A]:
        pooler_gradients: dict[str, A] = {}
        if dpooled is not None and pooler_back is not None:
            dfirst, pooler_gradients = pooler_back(dpooled)
            dhidden = dfirst if dhidden is None else ops.add(dhidden, dfirst)[0]
        assert dhidden is not None, "a loss must use the hidden states or the pooled vector"
        dx, encoder_gradients = encoder_back(dhidden)
        return (
            prefixed("bert.embeddings.", embeddings_back(dx))
            | prefixed("bert.encoder.", encoder_gradients)
            | prefixed("bert.pooler.", pooler_gradients)
        )

    return Encoded(hidden, first), pullback


def objective(
    ops: Backend[A],
    p: Mapping[str, A],
    batch: Batch,
    labels: Mapping[str, Host],
    heads: Collection[str],
    c: Choices,
    *,
    draws: KeepMasks | None = None,
    denominators: Mapping[str, float] | None = None,
) -> tuple[A, dict[str, A], Callable[[A], dict[str, A]]]:
    """(loss [], the losses by head, pullback from dloss to the gradients by full name).

    ``labels`` has the keys that `refbert.config.heads.HEADS` lists for the heads; the loss is the sum over the heads
    that are labelled (A.2: "the sum of the mean masked LM likelihood and the mean next sentence prediction
    likelihood").
    ``denominators`` (default: those of these labels) are `refbert.spec.head_table.denominators` of the batch of which
    these rows are a part: the losses and gradients of the parts then add up to those of the batch. Raises ValueError
    where no head is labelled.

    Shapes   batch of [B, S], the heads' labels  ->  loss, a scalar (shape []), and one such by head

        logits_k = Head_k(x_k)
        loss_k   = Loss_k(logits_k, labels_k)
        loss     = Σ_k loss_k

        k runs over the heads that are labelled. x_k is pooled for next sentence, classes of sequences and choices,
        and hidden for masked LM, tags and answers. Where no head reads pooled, the pooler does not run.

        Backward: the sum hands every term the same cotangent, dloss. Heads that read the same output of `bert` each
        return a cotangent of it, and these add up; so do the gradients of a parameter that is used in several places.

            dlogits_k  = the loss's pullback of dloss
            dx_k, dp_k = the head's pullback of dlogits_k
            dhidden = Σ_{k : x_k = hidden} dx_k           dpooled = Σ_{k : x_k = pooled} dx_k
            dp = bert's pullback of (dhidden, dpooled) + Σ_k dp_k

        The word embeddings E [V, H] are used at both ends: they are looked up, and they are the output projection of
        masked LM, logits = t Eᵀ + bias. Their gradient adds up from both, a row from the tokens that are v and from
        every predicted position n:

            dE_v = Σ_{(b, s) : ids_bs = v} de_bs + Σ_n dlogits_nv t_n
    """
    wanted = head_table.labelled_heads(heads, labels)
    if not wanted:
        raise ValueError("no head is labelled")
    if denominators is None:
        denominators = head_table.denominators(wanted, labels, batch.input_ids.shape[1], c)
    encoded, bert_back = bert(ops, p, batch, c, pooled=bool(POOLED_HEADS & set(wanted)), draws=draws)
    terms: list[tuple[str, A, BlockPullback[A]]] = [
        (name, *head_loss(name, ops, p, encoded.read_by(name), labels, c, draws, denominators)) for name in wanted
    ]
    loss = terms[0][1]
    for _, term, _ in terms[1:]:
        loss, _ = ops.add(loss, term)

    def pullback(dloss: A) -> dict[str, A]:
        dhidden: A | None = None
        dpooled: A | None = None
        collected: list[dict[str, A]] = []
        for name, _, back in terms:  # addition hands every term the same cotangent
            dinput, gradients = back(dloss)
            collected.append(gradients)
            if name in POOLED_HEADS:
                dpooled = dinput if dpooled is None else ops.add(dpooled, dinput)[0]
            else:
                dhidden = dinput if dhidden is None else ops.add(dhidden, dinput)[0]
        return accumulate(ops, bert_back(dhidden, dpooled), *collected)

    return loss, {name: term for name, term, _ in terms}, pullback
