"""What `refbert run --save` stores: everything that the model computes for the task, each text once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from refbert.backend import Host
from refbert.config.heads import HEADS
from refbert.model import Model, Output
from refbert.spec.bert import Encoded
from refbert.spec.pooler import pooler
from refbert.spec.scope import Scope
from refbert.text.batching import Batch, by_length

if TYPE_CHECKING:
    from refbert.text.tokenization import Encoding


class Keeping(Model):
    """A loaded model that keeps all its outputs, text by text, so that storing them runs nothing again."""

    def __init__(self, model: Model) -> None:
        vars(self).update(vars(model))
        self._kept: dict[Any, dict[str, Host]] = {}
        self._per_token = {"last_hidden_state"}

    def logits(
        self, batch: Batch, heads: Collection[str], *, masked_lm_positions: Sequence[int] | Host | None = None
    ) -> dict[str, Host]:
        """As of any model; what was not asked for is computed and kept too."""
        out = self(batch)
        self._keep(batch, out)
        found = {name: out.logits[name] for name in self._known(heads)}
        if masked_lm_positions is not None and "masked_lm" in found:
            found["masked_lm"] = found["masked_lm"].reshape(-1, self.config.vocab_size)[masked_lm_positions]
        return found

    def _token_states(self, p: Any, batch: Batch) -> Any:
        ops, states = self.backend, super()._token_states(p, batch)
        seen = batch.attention_mask.reshape(-1)
        rows, _ = ops.gather(states, np.where(seen, np.cumsum(seen) - 1, 0))  # at padding any, for it is not kept
        hidden, _ = ops.reshape(rows, (*batch.shape, self.config.hidden_size))
        pooled = pooler(ops, Scope(p, "bert.pooler."), hidden)[0] if self.has_pooler else None
        logits = self._logits(p, Encoded(hidden, pooled), batch, self.heads, None)
        self._keep(batch, Output(ops.to_numpy(hidden), None if pooled is None else ops.to_numpy(pooled), logits))
        return states

    def _keep(self, batch: Batch, out: Output) -> None:
        for i, n in enumerate(batch.lengths):
            kept = {"last_hidden_state": out.last_hidden_state[i, :n]}
            if out.pooler_output is not None:
                kept["pooler_output"] = out.pooler_output[i]
            for head, logits in out.logits.items():
                name = "logits" if len(out.logits) == 1 else f"{head}_logits"
                if HEADS[head].reads == "pooled":
                    kept[name] = logits[i]
                else:
                    kept[name] = logits[i, :n]
                    self._per_token.add(name)
            self._kept[_key(batch.input_ids[i, :n], batch.token_type_ids[i, :n])] = kept

    def arrays(self, encodings: Sequence[Encoding], batch_size: int) -> dict[str, Host]:
        """The raw arrays of texts, [N, S, …] with 0 at padding, under Hugging Face's output names.

        A text that the task has not read as it stands here, a passage in windows, is run now.
        """
        keys = [_key(e.input_ids, e.token_type_ids) for e in encodings]
        missing = [e for e, key in zip(encodings, keys, strict=True) if key not in self._kept]
        for _, batch in by_length(self.tokenizer, missing, batch_size):
            self._keep(batch, self(batch))
        whole = self.tokenizer.pad(encodings)
        N, S = whole.shape
        out: dict[str, Host] = {
            "input_ids": whole.input_ids,
            "token_type_ids": whole.token_type_ids,
            "attention_mask": whole.attention_mask,
        }
        for name in self._kept[keys[0]]:
            rows = [self._kept[key][name] for key in keys]
            if name not in self._per_token:
                out[name] = np.stack(rows)
                continue
            out[name] = np.zeros((N, S, *rows[0].shape[1:]), rows[0].dtype)
            for i, row in enumerate(rows):
                out[name][i, : len(row)] = row
        return out


def _key(input_ids: Any, token_type_ids: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(map(int, input_ids)), tuple(map(int, token_type_ids))
