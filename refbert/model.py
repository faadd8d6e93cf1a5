"""A BERT with its weights on a backend: the Python API.

>>> model = refbert.load("path-or-hub-name")                      # doctest: +SKIP
>>> out = model(model.batch(["one text", ("a question", "a passage")]))  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from refbert.backend import Backend, Host, has_gradients, host_dtype, require_whole
from refbert.config import BertConfig
from refbert.config.heads import HEADS, POOLED_HEADS
from refbert.config.parameters import count
from refbert.config.profiles import HF, Profile
from refbert.embedder import DEFAULT, Embedder, pooled_vectors, token_states, with_prompt
from refbert.errors import CheckpointError, InputError, TokenizerError, Unsupported, warn
from refbert.labels import read_labels
from refbert.randomness import Dropout
from refbert.spec.bert import Encoded, bert, objective
from refbert.spec.choices import Choices
from refbert.spec.encoder import Watch
from refbert.spec.head_table import head_logits
from refbert.text.batching import Batch, Text, by_length
from refbert.updating import snapshot

if TYPE_CHECKING:
    from refbert.checkpoint.mapped import MappedFiles
    from refbert.text.tokenization import Encoding, Tokenizer
    from refbert.training.optimizer import Optimizer


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


@dataclass(frozen=True)
class LoadReport:
    """What loading found: where the weights came from and which names did not match.

    initialized: parameters that the checkpoint lacks and that were drawn afresh (a new head).
    unused: weights in the checkpoint that this model has no place for.
    ignored: entries that are not weights (optimizer state, position ids, the tied decoder's second name).
    """

    files: tuple[Path, ...] = ()
    format: str = ""
    initialized: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


def _no_tokenizer() -> Tokenizer:
    raise TokenizerError("this model has no tokenizer: pass a Batch of input_ids instead of text")


class Model:
    """A configuration, weights on a backend, heads, a profile, and (if the checkpoint has one) a tokenizer.

    parameters: name -> the backend's array; names and shapes are `refbert.config.parameters.shapes`'.
    gradient_checkpointing: whether each layer keeps only its input for the backward and is then run again: the same
    gradients in less memory and more time. It may be set at any time.
    mapped_files: the checkpoint's files where the parameters are views of them (`refbert.load`), else None: a call
    raises `CheckpointError` once one of them has been written to.

    Threads may share a model; a call in one during an update in another sees all weights as before it, or as after.
    """

    def __init__(
        self,
        config: BertConfig,
        parameters: Mapping[str, Host],
        *,
        backend: Backend[Any],
        profile: Profile = HF,
        heads: Sequence[str] = (),
        tokenizer: Callable[[], Tokenizer] = _no_tokenizer,
        embedder: Callable[[], Embedder] = lambda: DEFAULT,
        report: LoadReport | None = None,
    ) -> None:
        require_whole(backend)
        self.config = config
        self.profile = profile
        self.backend = backend
        self.heads = tuple(name for name in HEADS if name in heads)
        self.has_pooler = "bert.pooler.dense.weight" in parameters
        self.report = report or LoadReport()
        self.choices = Choices.of(config, profile)
        self.gradient_checkpointing = False
        self.mapped_files: MappedFiles | None = None
        self.parameters: dict[str, Any] = {name: backend.asarray(x) for name, x in parameters.items()}
        self._make_tokenizer, self._make_embedder = tokenizer, embedder
        self._tokenizer: Tokenizer | None = None

    def __repr__(self) -> str:
        c = self.config
        return (
            f"<refbert.Model L={c.num_hidden_layers} H={c.hidden_size} A={c.num_attention_heads} V={c.vocab_size} "
            f"heads={list(self.heads)} profile={self.profile.name} on {self.backend.name} "
            f"({self.backend.dtype}, {self.backend.device})>"
        )

    @property
    def num_parameters(self) -> int:
        """Exact number of parameters."""
        return count(self.config, self.heads, pooler=self.has_pooler)

    # Text

    @property
    def tokenizer(self) -> Tokenizer:
        """The checkpoint's tokenizer, read on first use; raises `TokenizerError` if it has none. Another may be set."""
        if self._tokenizer is None:
            made = self._make_tokenizer()
            self._tokenizer = self._tokenizer or made  # another thread may have set one
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def batch(self, texts: Text | Sequence[Text], *, truncate: bool = False, max_length: int | None = None) -> Batch:
        """Texts, or pairs of texts, as a Batch padded to the longest.

        ``max_length`` is in tokens, [CLS] and [SEP] included, at most (and by default) the model's positions. A longer
        text raises `InputError`, or with ``truncate=True`` is cut with a `RefbertWarning` that says by how much.
        """
        return self.tokenizer.batch(_as_list(texts), max_length=self.limit(max_length), truncate=truncate)

    def limit(self, max_length: int | None = None) -> int:
        """``max_length`` or the model's positions; raises `InputError` for one that the model does not have."""
        limit = self.config.max_position_embeddings
        if max_length is None:
            return limit
        if not 0 < max_length <= limit:
            raise InputError(f"max_length must be between 1 and the model's {limit} positions, not {max_length}")
        return max_length

    # Forward

    def __call__(
        self,
        batch: Batch,
        *,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        heads: Collection[str] | None = None,
        masked_lm_positions: Sequence[int] | Host | None = None,
    ) -> Output:
        """The forward pass, in inference mode (no dropout, nothing kept for a backward).

        ``output_hidden_states`` and ``output_attentions`` ask for those. ``heads`` (default: all the model has) limits
        which logits are computed; ``masked_lm_positions`` limits the masked-LM logits to flat positions b·S + s, which
        saves most of that head's work. Raises `InputError` for ids, segments or lengths that the model does not have.
        """
        wanted = self._known(self.heads if heads is None else heads)
        self._check(batch)
        watch: Watch[Any] = Watch(want_hidden_states=output_hidden_states, want_attentions=output_attentions)
        p = snapshot(self.parameters)
        encoded, _ = bert(self.backend, p, batch, self.choices, pooled=self.has_pooler, gradients=False, watch=watch)
        host = self.backend.to_numpy
        return Output(
            last_hidden_state=host(encoded.hidden),
            pooler_output=None if encoded.pooled is None else host(encoded.pooled),
            logits=self._logits(p, encoded, batch, wanted, masked_lm_positions),
            hidden_states=tuple(host(x) for x in watch.hidden_states) if output_hidden_states else None,
            attentions=tuple(host(x) for x in watch.attentions) if output_attentions else None,
        )

    def logits(
        self, batch: Batch, heads: Collection[str], *, masked_lm_positions: Sequence[int] | Host | None = None
    ) -> dict[str, Host]:
        """The logits of some heads alone, by head: no hidden states on the host, no pooler that none of them reads.

        ``masked_lm_positions``, shapes and errors are as of calling the model.
        """
        wanted = self._known(heads)
        self._check(batch)
        p = snapshot(self.parameters)
        pooled = bool(POOLED_HEADS & set(wanted))
        encoded, _ = bert(self.backend, p, batch, self.choices, pooled=pooled, gradients=False)
        return self._logits(p, encoded, batch, wanted, masked_lm_positions)

    def _known(self, heads: Collection[str]) -> tuple[str, ...]:
        for name in heads:
            if name not in self.heads:
                raise InputError(f"this model has no {name} head (it has: {', '.join(self.heads) or 'none'})")
        return tuple(heads)

    def _logits(self, p: Any, encoded: Encoded[Any], batch: Batch, heads: Sequence[str], asked: Any) -> dict[str, Host]:
        B, S = batch.shape
        positions = np.arange(B * S) if asked is None else np.asarray(asked, dtype=np.int64)
        out = {}
        for name in heads:
            x, head = encoded.read_by(name), HEADS[name]
            made, _ = head_logits(name, self.backend, p, x, self.choices, positions=positions)
            logits = self.backend.to_numpy(made)
            whole = head.reads == "positions" and asked is None
            out[name] = logits.reshape(B, S, head.outputs(self.config)) if whole else logits
        return out

    @cached_property
    def embedder(self) -> Embedder:
        """How this checkpoint makes vectors of texts; raises `CheckpointError` for a way that refbert does not know."""
        return self._make_embedder()

    def encode(
        self,
        texts: Text | Sequence[Text],
        *,
        pooling: str | Sequence[str] | None = None,
        normalize: bool | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        truncate: bool | None = None,
        max_length: int | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Host:
        """One vector per text: [N, E], in input order, for any number of texts (none gives [0, E]).

        What is None is as the checkpoint has it. A sentence-transformers directory says all of it (`Model.embedder`),
        and the vectors are that library's: its prompt, its cut at ``max_seq_length`` (with a `RefbertWarning`), its
        pooling, its Dense and Normalize modules. Any other checkpoint has the mean of the last hidden states, scaled
        to length 1, E = H, and a text that is too long raises `InputError`.

        What is given wins. ``pooling``: of `refbert.embedder.POOLINGS`, one, or several to be joined; it takes the
        place of the checkpoint's; what follows there still follows. ``normalize``: whether vectors end with length 1.
        ``prompt``: put before each text ("": nothing). ``truncate``: whether longer texts are cut. ``max_length``: as
        for `batch`. Raises `InputError` for what is not there, `CheckpointError` for modules that are not computed.

        Texts are grouped by length, so that little is padded; ``progress`` gets how many are done after each group.
        """
        encodings, skip = self.tokens_to_embed(_as_list(texts), prompt=prompt, truncate=truncate, max_length=max_length)
        return self.encode_tokens(
            encodings, pooling=pooling, normalize=normalize, batch_size=batch_size, skip=skip, progress=progress
        )

    def tokens_to_embed(
        self,
        texts: Sequence[Text],
        *,
        prompt: str | None = None,
        truncate: bool | None = None,
        max_length: int | None = None,
    ) -> tuple[list[Encoding], int]:
        """The texts as `encode` reads them, prompt and cut included; how many first tokens are not to be pooled."""
        how = self.embedder
        prompt = how.prompt if prompt is None else prompt
        P = self.config.max_position_embeddings
        limit = self.limit(min(how.max_length or P, P) if max_length is None else max_length)
        if not texts:
            return [], 0
        skip = 0
        if prompt and not how.include_prompt:
            skip = min(len(self.tokenizer.library.encode(prompt).ids), limit) - 1  # its [SEP] is not there
        cut = how.truncate if truncate is None else truncate
        return self.tokenizer.encode(with_prompt(texts, prompt), max_length=limit, truncate=cut), skip

    def encode_tokens(
        self,
        encodings: Sequence[Encoding],
        *,
        pooling: str | Sequence[str] | None = None,
        normalize: bool | None = None,
        batch_size: int = 32,
        skip: int = 0,
        progress: Callable[[int], object] | None = None,
    ) -> Host:
        """`encode` for texts that are tokenized already, the first ``skip`` tokens of each not to be pooled.

        Raises `InputError` for a pooling that is not there, or one whose vectors the checkpoint's modules do not take.
        """
        how = self.embedder.told(pooling, normalize)
        if "pooler" in how.pooling and not self.has_pooler:
            raise InputError('this checkpoint has no pooler: use pooling="mean" or "cls"')
        vectors = np.zeros((len(encodings), how.size(self.config.hidden_size)), host_dtype(self.backend.dtype))
        p = snapshot(self.parameters)
        for places, batch in by_length(self.tokenizer, encodings, batch_size, progress):
            self._check(batch)
            states = self._token_states(p, batch)
            pooled = pooled_vectors(self.backend, p, states, batch.lengths, how.pooling, skip=skip)
            vectors[places] = how.finish(pooled)
        return vectors

    def _token_states(self, p: Any, batch: Batch) -> Any:
        return token_states(self.backend, p, batch, self.choices)

    # Backward

    def loss_and_gradients(
        self, batch: Batch, labels: object, *, dropout: Dropout | None = None
    ) -> tuple[float, dict[str, Host]]:
        """The loss, and its gradient with respect to every parameter, as NumPy arrays keyed like the checkpoint.

        ``labels``: a mapping of Hugging Face's label names (labels, next_sentence_label, start_positions,
        end_positions), or just the array where the model takes one. The loss is the sum over the heads that are
        labelled; −100 marks what does not count. Parameters that the loss does not reach get zeros. ``dropout=None``
        is the deterministic model; `refbert.Dropout` draws the masks of one training step.
        """
        loss, reached = self.device_loss_and_gradients(batch, labels, dropout=dropout)
        host, dtype = self.backend.to_numpy, host_dtype(self.backend.dtype)
        return loss, {
            name: host(reached[name]) if name in reached else np.zeros(tuple(parameter.shape), dtype)
            for name, parameter in self.parameters.items()
        }

    def device_loss_and_gradients(
        self, batch: Batch, labels: object, *, dropout: Dropout | None = None
    ) -> tuple[float, dict[str, Any]]:
        """`loss_and_gradients` with the gradients left in the backend's arrays, and only those that exist."""
        self._check(batch)
        read = read_labels(labels, batch, self.heads, self.config)
        loss, _, gradients = self.part_of_loss_and_gradients(batch, read, None, dropout=dropout)
        return loss, gradients

    def part_of_loss_and_gradients(
        self,
        batch: Batch,
        labels: Mapping[str, Host],
        denominators: Mapping[str, float] | None,
        *,
        dropout: Dropout | None = None,
    ) -> tuple[float, dict[str, float], dict[str, Any]]:
        """(loss, losses by head, gradients on the device) of rows of a larger batch, which add up to the batch's.

        ``denominators``: `refbert.spec.head_table.denominators` of the whole batch's labels; None: of these. Batch and
        labels are as `Batch.check` and `refbert.labels.read_labels` left them; nothing is checked again. Raises
        `Unsupported` on a backend that is for inference only.
        """
        if not has_gradients(self.backend):
            raise Unsupported(f'backend "{self.backend.name}" is for inference only; train on another one')
        own = getattr(self.backend, "objective", None)  # optional: a whole model at once
        compute = partial(objective, self.backend) if own is None else own
        whole = {} if denominators is None else {"denominators": denominators}
        c = replace(self.choices, gradient_checkpointing=self.gradient_checkpointing)
        loss, terms, pullback = compute(snapshot(self.parameters), batch, labels, self.heads, c, draws=dropout, **whole)
        gradients = pullback(self.backend.asarray(np.ones(())))
        host = self.backend.to_numpy
        return float(host(loss)), {name: float(host(term)) for name, term in terms.items()}, gradients

    def train_step(
        self, batch: Batch, labels: object, optimizer: Optimizer, *, lr: float, dropout: Dropout | None = None
    ) -> tuple[float, float | None]:
        """One update of the parameters, in place of the old ones: (loss before it, gradient norm or None)."""
        loss, gradients = self.device_loss_and_gradients(batch, labels, dropout=dropout)
        norm = optimizer.apply(self.backend, self.parameters, gradients, lr=lr)
        return loss, norm

    # Files

    def state_dict(self) -> dict[str, Host]:
        """Every parameter as a NumPy array."""
        self._check_files()
        return {name: self.backend.to_numpy(x) for name, x in snapshot(self.parameters).items()}

    def save(self, directory: str | Path, *, overwrite: bool = False) -> None:
        """Write a directory that Hugging Face transformers (and refbert) loads to the same outputs.

        ``hidden_act`` is written as Hugging Face's word for the function that this profile computes, so a model of
        profile "google" keeps its tanh GELU. Raises `CheckpointError` if there is a checkpoint already.
        """
        from refbert import checkpoint

        spelled = {"gelu_erf": "gelu", "gelu_tanh": "gelu_new"}.get(self.choices.activation, self.choices.activation)
        checkpoint.write(
            Path(directory), self.state_dict(), self.config.replace(hidden_act=spelled), heads=self.heads,
            pooler=self.has_pooler, overwrite=overwrite,
        )  # fmt: skip
        with suppress(TokenizerError):  # the checkpoint came without a vocabulary: the copy has none either
            self.tokenizer.save(Path(directory))
        try:
            if self.embedder is not DEFAULT:
                checkpoint.write_embedder(Path(directory), self.embedder, self.config.hidden_size)
        except CheckpointError as error:
            warn(f"saved without the modules behind it: {error}", stacklevel=2)

    def _check_files(self) -> None:
        if self.mapped_files is not None:
            self.mapped_files.check()

    def _check(self, batch: Batch) -> None:
        self._check_files()
        if not isinstance(batch, Batch):
            raise InputError(f"expected a refbert.Batch (see model.batch), not {type(batch).__name__}")
        batch.check(self.config)


def _as_list(texts: Text | Sequence[Text]) -> list[Text]:
    pair = isinstance(texts, tuple) and len(texts) == 2 and all(isinstance(side, str) for side in texts)
    return [texts] if pair or isinstance(texts, str) else list(texts)  # type: ignore[list-item]
