"""The heads that a BERT may carry: one row for each, with all that is not arithmetic.

What a head computes is in refbert.spec.head_table, under the same names; parameters and costs follow from the rows
(refbert.config.parameters, refbert.config.flops).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from refbert.config import BertConfig


@dataclass(frozen=True)
class Head:
    """One head.

    architecture: Hugging Face's class of a model with this head alone.
    tasks: what it is trained for and asked, in the command line's words.
    parameter: what the names of its parameters begin with.
    reads: "positions", the hidden states of chosen positions; "tokens", those of all; "pooled", one vector a sequence.
    outputs: how many numbers it makes of each vector that it reads.
    labels: the arrays that its loss needs, under Hugging Face's names.
    label: what a label is. "class": the class of one vector. "problem": what ``config.problem_type`` says, one class,
        or [B, K] of 0 and 1, or [B, K] floats. "position": a position of the sequence. "choice": one of several rows.
    tied: the word embeddings are the output projection, behind a transform of the head's own.
    """

    architecture: str
    tasks: tuple[str, ...]
    parameter: str
    reads: str
    outputs: Callable[[BertConfig], int]
    labels: tuple[str, ...] = ("labels",)
    label: str = "class"
    tied: bool = False


# In the order in which logits and losses are reported.
HEADS: Mapping[str, Head] = {
    "masked_lm": Head(
        "BertForMaskedLM", ("fill-mask",), "cls.predictions", "positions", lambda c: c.vocab_size, tied=True
    ),
    "next_sentence": Head(
        "BertForNextSentencePrediction", ("next-sentence",), "cls.seq_relationship", "pooled", lambda c: 2,
        labels=("next_sentence_label",),  # 0: B follows A, 1: random
    ),
    "sequence_classification": Head(
        "BertForSequenceClassification", ("classify", "multi-label", "regress"), "classifier", "pooled",
        lambda c: c.num_labels, label="problem",
    ),
    "token_classification": Head(
        "BertForTokenClassification", ("tag",), "classifier", "tokens", lambda c: c.num_labels
    ),
    "question_answering": Head(
        "BertForQuestionAnswering", ("answer",), "qa_outputs", "tokens", lambda c: 2,
        labels=("start_positions", "end_positions"), label="position",
    ),
    "multiple_choice": Head(
        "BertForMultipleChoice", ("choose",), "classifier", "pooled", lambda c: 1, label="choice"
    ),
}  # fmt: skip

PRETRAINING = ("masked_lm", "next_sentence")

# These need the pooler.
POOLED_HEADS = frozenset(name for name, head in HEADS.items() if head.reads == "pooled")

# A checkpoint has one `classifier`, so a model has one of these at most.
CLASSIFIERS = tuple(name for name, head in HEADS.items() if head.parameter == "classifier")
