"""What a forward pass returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from refbert.backend import Host
from refbert.errors import InputError


@dataclass(frozen=True)
class Output:
    """What a forward pass returns, as NumPy arrays (float64 on a float64 backend, else float32).

    last_hidden_state: [B, S, H].            pooler_output: [B, H], or None where the checkpoint has no pooler.
    logits: head -> array. masked_lm [B, S, V] (or [P, V] at the positions asked for), next_sentence [B, 2],
        sequence_classification [B, K], token_classification [B, S, K], question_answering [B, S, 2] (start, end),
        multiple_choice [B, 1], one score per row.
    hidden_states: L+1 arrays [B, S, H], the embeddings' output first, or None.
    attentions: L arrays [B, A, S, S], or None.
    """

    last_hidden_state: Host
    pooler_output: Host | None = None
    logits: Mapping[str, Host] = field(default_factory=dict)
    hidden_states: tuple[Host, ...] | None = None
    attentions: tuple[Host, ...] | None = None

    @property
    def prediction_logits(self) -> Host:
        """The masked-LM head's logits; raises `InputError` if the model has none."""
        return self._of("masked_lm")

    @property
    def seq_relationship_logits(self) -> Host:
        """The next-sentence head's logits [B, 2]; raises `InputError` if the model has none."""
        return self._of("next_sentence")

    @property
    def start_logits(self) -> Host:
        """The answer's start, [B, S]; raises `InputError` if the model has no question-answering head."""
        return self._of("question_answering")[..., 0]

    @property
    def end_logits(self) -> Host:
        """The answer's end, [B, S]; raises `InputError` if the model has no question-answering head."""
        return self._of("question_answering")[..., 1]

    def _of(self, name: str) -> Host:
        if name not in self.logits:
            raise InputError(f"this model has no {name} head (it has: {', '.join(self.logits) or 'none'})")
        return self.logits[name]
