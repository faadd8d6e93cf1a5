"""What engines compute in place of the model, each as a change of the graph.

A change takes any graph, so that two of different kinds can be tried together; where it has nothing to change there, it
gives None.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np

from refbert.backend import Host
from refbert.backend.wrapper import OpsAlone
from refbert.embedder import POOLINGS, Dense, Embedder, Normalize, sigmoid
from refbert.errors import InputError, TokenizerError, quiet
from refbert.model import Model
from refbert.text.batching import Text
from refbert.text.tokenization import Encoding, Tokenizer
from refbert_conformance.outputs.files import POOLER, VECTORS, Outputs
from refbert_conformance.outputs.graph import Graph
from refbert_conformance.outputs.rounding import STORED, parameters

_LENGTHS = (128, 256, 384, 512)
_PADDED = (32, 64, 128)  # more columns cost more than they are worth
_EPSILONS = (1e-12, 1e-8, 1e-7, 1e-6, 1e-5, 1e-3)
WORDS, _SEGMENTS, _PLACES = (f"bert.embeddings.{kind}_embeddings.weight" for kind in ("word", "token_type", "position"))


@dataclass(frozen=True)
class Hypothesis:
    """What was computed, in words that go after "the model with"; two of one ``kind`` exclude each other."""

    kind: str
    name: str
    change: Callable[[Graph], Graph | None]


@dataclass(frozen=True)
class Reading:
    """How texts become tokens: the options of `Model.tokens_to_embed`."""

    texts: Sequence[Text]
    truncate: bool
    max_length: int | None
    prompt: str | None
    embedding: bool

    def limit(self, model: Model) -> int:
        """The longest that a text may be, in tokens."""
        own = model.embedder.max_length if self.embedding and self.max_length is None else self.max_length
        return model.limit(None if own is None else min(own, model.limit()))

    def tokens(self, model: Model, **changes: Any) -> tuple[tuple[Encoding, ...], int]:
        """The texts' tokens, and how many first ones are not pooled; raises `InputError` as `Model.batch`."""
        how = replace(self, **changes)
        if how.embedding:
            found, skip = model.tokens_to_embed(
                how.texts, prompt=how.prompt, truncate=how.truncate or None, max_length=how.max_length
            )
            return tuple(found), skip
        limit = model.limit(how.max_length)
        return tuple(model.tokenizer.encode(how.texts, max_length=limit, truncate=how.truncate)), 0


@dataclass(frozen=True)
class Tokens:
    """Other tokens for the texts; name: what is other about them. skip: how many first ones are not pooled."""

    name: str
    encodings: tuple[Encoding, ...]
    skip: int = 0


def tokenizations(model: Model, how: Reading, own: Sequence[Encoding], length: int | None) -> Iterator[Tokens]:
    """Other tokens than the model's ``own``; ``length``: how many columns the output has."""
    here = how.limit(model)

    def made(name: str, owner: Model = model, **changes: Any) -> Iterator[Tokens]:
        try:
            with quiet():
                found, skip = how.tokens(owner, **changes)
        except (InputError, TokenizerError):
            return
        yield Tokens(name, found, skip)

    usual = () if model.embedder.max_length is None else (model.embedder.max_length,)
    ends = {*_LENGTHS, *usual, model.limit(), *(() if length is None else (length,))}
    whole: list[tuple[Encoding, ...]] = []
    for end in sorted(n for n in ends if n <= model.limit() and n != here):
        for one in made(f"texts cut at {end} tokens", truncate=True, max_length=end):
            if max(len(e.input_ids) for e in one.encodings) == end:
                yield one
            elif not whole:  # longer limits give the same
                whole.append(one.encodings)
                yield replace(one, name="texts not cut")
    prompt = model.embedder.prompt if how.prompt is None else how.prompt
    if how.embedding and prompt:
        yield from made("no prompt", prompt="")
    if any(not isinstance(text, str) for text in how.texts):
        swapped = [text if isinstance(text, str) else (text[1], text[0]) for text in how.texts]
        yield from made("the texts of a pair in the other order", texts=swapped)
    for name, tokenizer in _tokenizers(model.tokenizer):
        other = _Retokenizing(model, tokenizer)
        yield from made(name, other)
    bare = tuple(_only(e, [not special for special in e.special_tokens_mask]) for e in own)
    if all(e.input_ids for e in bare):
        yield Tokens("no [CLS] and [SEP]", bare)
    for side, keep in (("[CLS]", slice(1, None)), ("[SEP] at the end", slice(None, -1))):
        left = tuple(_only(e, np.isin(np.arange(n), np.arange(n)[keep]))
                     for e in own for n in (len(e.input_ids),))  # fmt: skip
        yield Tokens(f"no {side}", left)


class _Retokenizing(Model):
    """A loaded model with another tokenizer."""

    def __init__(self, model: Model, tokenizer: Tokenizer) -> None:
        vars(self).update(vars(model))
        self._tokenizer = tokenizer


def _only(e: Encoding, keep: Any) -> Encoding:
    return Encoding(
        *(tuple(x for x, kept in zip(getattr(e, field.name), keep, strict=True) if kept) for field in fields(e))
    )


def _tokenizers(tokenizer: Tokenizer) -> Iterator[tuple[str, Tokenizer]]:
    import tokenizers

    written = json.loads(tokenizer.library.to_str())
    normalizer = written.get("normalizer") or {}
    if normalizer.get("type") != "BertNormalizer":
        return
    lower = normalizer["lowercase"]
    strips = lower if normalizer["strip_accents"] is None else normalizer["strip_accents"]
    for name, changes in (
        ("texts lower-cased" if not lower else "texts not lower-cased", {"lowercase": not lower}),
        ("accents stripped" if not strips else "accents kept", {"lowercase": lower, "strip_accents": not strips}),
        ("Chinese characters not split", {"handle_chinese_chars": False}),
    ):
        other = written | {"normalizer": normalizer | changes}
        yield name, Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(other)), tokenizer.settings)


def hypotheses(model: Model, base: Graph, outputs: Outputs, tokens: Sequence[Tokens]) -> Iterator[Hypothesis]:
    """Everything that is tried, for these outputs."""
    for other in tokens:
        yield Hypothesis("tokens", other.name, partial(_tokenized, other))
    yield Hypothesis("types", "every token type 0", partial(_typed, 0))
    yield Hypothesis("types", "every token type 1", partial(_typed, 1))
    yield Hypothesis("types", "no token type embeddings", lambda g: _without(g, _SEGMENTS))
    yield Hypothesis("positions", "positions counted from 1", partial(_shifted, model, 1))
    yield Hypothesis("positions", "positions counted from 2, as in RoBERTa", partial(_shifted, model, 2))
    yield Hypothesis("positions", "no position embeddings", lambda g: _without(g, _PLACES))
    if base.starts.any():
        yield Hypothesis("positions", "positions counted over the padding", lambda g: g.changed(from_column=True))
    kinds = {x.kind for x in outputs.arrays}
    limit, own = model.limit(), base.columns
    lengths = [outputs.length] if outputs.length else [own, *(n for n in _PADDED if own < n <= limit)]
    for n in lengths:
        ending = f" ({n} columns)" if len(lengths) > 1 else ""
        yield Hypothesis("mask", f"padding attended to{ending}", partial(_padded, n, True, False))
        if VECTORS in kinds:
            yield Hypothesis("mask", f"padding pooled{ending}", partial(_padded, n, False, True))
            yield Hypothesis("mask", f"padding attended to and pooled{ending}", partial(_padded, n, True, True))
    for form in ("erf", "tanh"):
        yield Hypothesis("activation", f"the {form} form of GELU", partial(_activated, f"gelu_{form}"))
    yield Hypothesis("activation", "ReLU for GELU", partial(_activated, "relu"))
    yield Hypothesis("activation", "x σ(1.702 x) for GELU", _quick)
    for eps in _EPSILONS:
        yield Hypothesis("epsilon", f"LayerNorm's epsilon {eps:g}", partial(_choosing, layer_norm_eps=eps))
    for layer in range(base.choices.layers):
        says = "the embeddings alone" if layer == 0 else f"layer {layer} of {base.choices.layers}"
        yield Hypothesis("layer", says, partial(_choosing, layers=layer))
    yield Hypothesis("norm", "no LayerNorm of the embeddings", partial(_unnormed, "bert.embeddings"))
    last = f"bert.encoder.layer.{base.choices.layers - 1}.output"
    yield Hypothesis("norm", "no LayerNorm after the last layer", partial(_unnormed, last))
    heads, D = base.choices.heads, model.config.hidden_size // base.choices.heads
    yield Hypothesis("scale", "the scores of attention not divided", partial(_scored, math.sqrt(D)))
    yield Hypothesis("scale", "the scores of attention divided by √H", partial(_scored, 1 / math.sqrt(heads)))
    if VECTORS in kinds:
        yield from _poolings(model, base.embedder)
    if kinds - {VECTORS} and model.has_pooler:
        yield Hypothesis("pooler", "[CLS]'s state in place of the pooler's output", lambda g: g.changed(bare=True))
    logits = tuple(kinds - {VECTORS, POOLER, "hidden"})
    if logits:
        for name, function in (("softmax", _softmax), ("log softmax", _log_softmax), ("sigmoid", sigmoid)):
            yield Hypothesis(
                "ending", f"{name} of the logits", lambda g, f=function: g.changed(ending=dict.fromkeys(logits, f))  # type: ignore[misc]
            )  # fmt: skip
    for name, change in STORED.items():
        yield Hypothesis("weights", name, _stored(base, change))


def _tokenized(other: Tokens, g: Graph) -> Graph:
    return g.changed(encodings=other.encodings, skip=other.skip)


def _stored(base: Graph, change: Callable[[str, Host], Host]) -> Callable[[Graph], Graph | None]:
    made = parameters(base.parameters, change)

    def changed(g: Graph) -> Graph:
        if g.parameters is base.parameters:
            return g.changed(parameters=made)
        return g.changed(parameters={n: x if g.parameters[n].any() else g.parameters[n] for n, x in made.items()})

    return changed


def _typed(number: int, g: Graph) -> Graph | None:
    if len(g.parameters[_SEGMENTS]) <= number:
        return None
    return g.changed(encodings=tuple(replace(e, token_type_ids=(number,) * len(e.token_type_ids)) for e in g.encodings))


def _without(g: Graph, table: str) -> Graph:
    return g.changed(parameters={**g.parameters, table: np.zeros_like(g.parameters[table])})


def _shifted(model: Model, by: int, g: Graph) -> Graph | None:
    return g.changed(first_position=by) if g.columns + by <= model.limit() else None


def _unpooled(ids: tuple[int, ...], g: Graph) -> Graph | None:
    return g.changed(unpooled=ids) if all(0 in e.special_tokens_mask for e in g.encodings) else None


def _unnormed(place: str, g: Graph) -> Graph | None:
    own = [g.parameters[f"{place}.LayerNorm.{name}"] for name in ("weight", "bias")]
    return g.changed(wrap=partial(_NoNorm, own=own)) if g.wrap is None else None


def _scored(factor: float, g: Graph) -> Graph:
    query = {name: x * factor for name, x in g.parameters.items() if ".attention.self.query." in name}
    return g.changed(parameters={**g.parameters, **query})


def _padded(length: int, attends: bool, pools: bool, g: Graph) -> Graph:
    return g.changed(length=length, attends_padding=attends, pools_padding=pools)


def _choosing(g: Graph, **changes: Any) -> Graph:
    return g.changed(choices=replace(g.choices, **changes))


def _quick(g: Graph) -> Graph | None:
    return g.changed(wrap=_QuickGelu) if g.wrap is None else None


def _activated(name: str, g: Graph) -> Graph | None:
    return None if g.choices.activation == name else _choosing(g, activation=name)


def _poolings(model: Model, how: Embedder) -> Iterator[Hypothesis]:
    scaled = how.normalize or (bool(how.modules) and isinstance(how.modules[-1], Normalize))
    width = how.size(model.config.hidden_size)
    says = "not scaled to length 1" if scaled else "scaled to length 1"
    yield Hypothesis("length", says, lambda g: g.changed(embedder=_scaled(g.embedder, not scaled)))
    for name in POOLINGS:
        if (name,) != how.pooling and (name != "pooler" or model.has_pooler):
            try:
                if replace(how, pooling=(name,)).size(model.config.hidden_size) != width:
                    continue
            except InputError:
                continue
            yield Hypothesis("pooling", f"{name} pooling", lambda g, n=name: g.changed(  # type: ignore[misc]
                embedder=replace(g.embedder, pooling=(n,))))  # fmt: skip
    special = {"[CLS]": model.tokenizer.cls_id, "[SEP]": model.tokenizer.sep_id}
    for tokens in (("[CLS]", "[SEP]"), ("[CLS]",), ("[SEP]",)):
        ids = tuple(special[token] for token in tokens)
        yield Hypothesis("pooled", f"{' and '.join(tokens)} not pooled", partial(_unpooled, ids))
    left = replace(how, modules=tuple(m for m in how.modules if not isinstance(m, Dense)))
    if len(left.modules) < len(how.modules) and left.size(model.config.hidden_size) == width:
        yield Hypothesis("dense", "its Dense module left out", lambda g: g.changed(embedder=left))


def _scaled(how: Embedder, wanted: bool) -> Embedder:
    if wanted:
        return replace(how, normalize=True)
    modules = how.modules[:-1] if how.modules and isinstance(how.modules[-1], Normalize) else how.modules
    return replace(how, modules=modules, normalize=False)


class _QuickGelu(OpsAlone):
    """GELU in Hendrycks & Gimpel's other approximation; what noise moves the backend's own by moves this one, too."""

    def call(self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        made = function(*arguments, **options)
        if name != "gelu":
            return made
        from refbert.ops.gelu import gelu

        x = arguments[0]
        return x * sigmoid(1.702 * x) + (made[0] - gelu(x, **options)[0]), made[1]


class _NoNorm(OpsAlone):
    """One LayerNorm, which is known by its parameters, left out."""

    def __init__(self, backend: Any, own: Sequence[Host]) -> None:
        super().__init__(backend)
        self._own = own

    def call(self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        made = function(*arguments, **options)
        if name == "layer_norm" and all(map(np.array_equal, map(self.backend.to_numpy, arguments[1:3]), self._own)):
            return arguments[0], made[1]
        return made


def _softmax(x: Host) -> Host:
    return np.asarray(np.exp(_log_softmax(x)))


def _log_softmax(x: Host) -> Host:
    x = x - x.max(axis=-1, keepdims=True)
    return np.asarray(x - np.log(np.exp(x).sum(axis=-1, keepdims=True)))
