"""Mutants in how a model is put together: (block, area, what is wrong, spec file, the spec's text, the bug's text).

"objective" is a whole model that a backend compiles, "encoder_layer" a fused layer.
"""

from __future__ import annotations

from refbert_conformance.mutants.mutant import Mutant, mutant, patched_spec

# The choices with another eps.
_LOOSE = '{}__import__("dataclasses").replace(c, layer_norm_eps=1e-5)'

_TABLE: tuple[tuple[str, str, str, str, str, str], ...] = (
    ("objective", "wiring", "segment embedding ignored", "embeddings", "ops.add(words, segments)", "(words, ops.add(words, segments)[1])"),
    ("objective", "wiring", "position ids off by one", "embeddings", "np.tile(np.arange(S), (B, 1))", "np.tile(np.arange(S) + 1, (B, 1))"),
    ("objective", "wiring", "positions of the first sequence's gradient only", "embeddings", '"position_embeddings.weight": places_back(dplaces)[0]', '"position_embeddings.weight": places_back(dplaces)[0] / B'),
    ("objective", "wiring", "embeddings without LayerNorm's bias gradient", "embeddings", "**norm,", '**norm, "LayerNorm.bias": norm["LayerNorm.bias"] * 0,'),
    ("objective", "wiring", "pooler reads the last token", "pooler", "np.arange(B) * S)", "np.arange(B) * S + S - 1)"),
    ("objective", "wiring", "pooler without tanh", "pooler", "pooled, tanh_back = ops.tanh(z)", "pooled, tanh_back = z, lambda d: (d,)"),
    ("objective", "wiring", "next-sentence labels swapped", "head_table", "heads.next_sentence(ops, p, x), _mean", "heads.next_sentence(ops, p, x), lambda ops, z, y, d, c: _mean(ops, z, [1 - y[0]], d, c)"),
    ("objective", "losses", "masked-LM mean over all tokens", "losses", "labelled(labels) + c.masked_lm_epsilon", "4 * labelled(labels) + c.masked_lm_epsilon"),
    ("objective", "losses", "Google's 1e-5 left out", "losses", "labelled(labels) + c.masked_lm_epsilon", "labelled(labels) + 0 * c.masked_lm_epsilon"),
    ("objective", "losses", "losses averaged instead of added", "bert", "        loss, _ = ops.add(loss, term)", "        loss = ops.add(loss, term)[0] / 2"),
    ("objective", "losses", "start and end of an answer exchanged", "losses", "ops.gather(split, np.arange(B))", "ops.gather(split, B + np.arange(B))"),
    ("objective", "losses", "answers outside the window clamped into it", "losses", "return np.where(clamped == S, IGNORE, clamped)", "return np.clip(positions, 0, S - 1)"),
    ("objective", "tying", "the tied gradient of the decoder only", "heads", "TIED: dtied,", "TIED: dtied * 2,"),
    ("objective", "tying", "the tied gradient of the lookup only", "heads", "TIED: dtied,", "TIED: dtied * 0,"),
    ("objective", "tying", "the later contribution replaces the earlier", "scope", "ops.add(total[name], gradient)[0] if name in total else gradient", "gradient"),
    ("objective", "wiring", "masked-LM transform without its bias gradient", "heads", "drows, transform = z_back(dz)", 'drows, transform = z_back(dz)\n        transform["cls.predictions.transform.dense.bias"] = transform["cls.predictions.transform.dense.bias"] * 0'),
    ("objective", "wiring", "layers in reverse", "encoder", 'layer = Scope(p, f"layer.{i}.")', 'layer = Scope(p, f"layer.{c.layers - 1 - i}.")'),
    ("objective", "wiring", "the residual's gradient lost", "attention", "for other in (dx_q, dx_k, dx_v):", "for other in (dx_q, dx_k):"),
    ("objective", "wiring", "the feed-forward residual's gradient lost", "feed_forward", "dx, _ = ops.add(dx, dx_up)", "dx = dx_up"),
    ("objective", "dropout", "one mask for both residual sites", "feed_forward", 'site=f"{site}.output"', 'site=f"{site}.attention.output"'),
    ("objective", "dropout", "no dropout on the embeddings", "embeddings", "rate=c.hidden_dropout, draws=draws", "rate=0.0, draws=draws"),
    ("objective", "dropout", "the hidden rate for attention", "attention", "keep=keep, rate=c.attention_dropout\n", "keep=keep, rate=c.hidden_dropout\n"),
    ("objective", "dropout", "the hidden rate for the classifier", "heads", "rate=c.classifier_dropout", "rate=c.hidden_dropout"),
    ("objective", "wiring", "token types beyond 1 read as 1", "embeddings", 'p["token_type_embeddings.weight"], token_type_ids)', 'p["token_type_embeddings.weight"], np.minimum(token_type_ids, 1))'),
    ("objective", "dropout", "sites of layers from 10 on by their last digit", "encoder", 'site=f"encoder.layer.{i}"', 'site=f"encoder.layer.{i % 10}"'),
    ("objective", "dropout", "no attention dropout where the hidden rate is 0", "attention", "c.attention_dropout > 0:", "c.attention_dropout > 0 and c.hidden_dropout > 0:"),
    ("objective", "dropout", "no classifier dropout where the hidden rate is 0", "heads", "rate=c.classifier_dropout", "rate=c.classifier_dropout if c.hidden_dropout else 0.0"),
    ("objective", "losses", "a negative answer is ignored instead of clamped", "losses", "clamped = np.clip(positions, 0, S)", "clamped = np.where(positions < 0, S, np.clip(positions, 0, S))"),
    ("objective", "losses", "masked-LM label 0 does not count", "head_table", "positions = np.flatnonzero(flat != IGNORE)", "positions = np.flatnonzero(flat > 0)"),
    ("objective", "losses", "at most 20 masked-LM predictions", "head_table", "positions = np.flatnonzero(flat != IGNORE)", "positions = np.flatnonzero(flat != IGNORE)[:20]"),
    ("objective", "wiring", "no label at all is no error", "bert", "if not wanted:\n        raise ValueError", "if False:\n        raise ValueError"),
    ("objective", "wiring", "unused positions decay through their gradient", "embeddings", '"position_embeddings.weight": places_back(dplaces)[0]', '"position_embeddings.weight": places_back(dplaces)[0] + p["position_embeddings.weight"] * 1e-9'),
    ("objective", "wiring", "positions end at 63", "embeddings", "np.tile(np.arange(S), (B, 1))", "np.tile(np.minimum(np.arange(S), 63), (B, 1))"),
    ("objective", "losses", "a part of a batch divides by its own labels", "bert", "    if denominators is None:", "    if True:"),
    ("objective", "dropout", "a part of a batch takes the masks of the first rows", "bert", "    encoded, bert_back = bert(ops,", "    draws = draws and Dropout(draws.seed, draws.step)\n    encoded, bert_back = bert(ops,"),
    ("objective", "wiring", "eps 1e-5, whatever is asked for", "feed_forward", "x, o, c,", _LOOSE.format("x, o, ") + ","),
    ("objective", "wiring", "eps 1e-5 in the embeddings", "embeddings", '"LayerNorm", e, c)', _LOOSE.format('"LayerNorm", e, ') + ")"),
    ("objective", "wiring", "eps 1e-5 in the masked-LM head", "heads", "g, c)", _LOOSE.format("g, ") + ")"),
    ("objective", "wiring", "the tanh GELU for erf", "layers", 'form=activation.removeprefix("gelu_")', 'form="tanh"'),
    ("objective", "wiring", "the exact GELU for tanh", "layers", 'form=activation.removeprefix("gelu_")', 'form="erf"'),
    ("encoder_layer", "wiring", "pre-LN attention", "attention", "add_and_norm(ops, p, x, o, c,", "add_and_norm(ops, p, 0 * x, o, c,"),
    ("encoder_layer", "wiring", "eps 1e-5, whatever is asked for", "feed_forward", "x, o, c,", _LOOSE.format("x, o, ") + ","),
    ("encoder_layer", "wiring", "the tanh GELU for erf", "layers", 'form=activation.removeprefix("gelu_")', 'form="tanh"'),
    ("encoder_layer", "wiring", "ReLU for tanh", "layers", "return ops.tanh(x)", "return ops.relu(x)"),
    ("encoder_layer", "wiring", "query and key exchanged", "attention", "        q, k, v, mask=mask", "        k, q, v, mask=mask"),
    ("encoder_layer", "masking", "the mask ignored", "attention", "mask=mask, heads=c.heads, mask_value=c.mask_value, keep=keep", "mask=mask * 0 + 1, heads=c.heads, mask_value=c.mask_value, keep=keep"),
    ("encoder_layer", "masking", "−10000, whatever is asked for", "attention", "mask_value=c.mask_value, keep=keep", "mask_value=-10000.0, keep=keep"),
    ("encoder_layer", "wiring", "one head too few", "attention", "heads=c.heads, mask_value=c.mask_value, keep", "heads=max(1, c.heads // 2) if c.heads % 2 == 0 else c.heads, mask_value=c.mask_value, keep"),
    ("encoder_layer", "wiring", "the first residual used twice", "encoder", "feed_forward(ops, p, attended, c,", "feed_forward(ops, p, ops.add(attended, x)[0], c,"),
    ("encoder_layer", "wiring", "output bias left out", "feed_forward", 'dense(ops, p, "output.dense", g)', 'dense(ops, {**p, "output.dense.bias": p["output.dense.bias"] * 0}, "output.dense", g)'),
)  # fmt: skip


def _made(number: int, op: str, area: str, what: str, file: str, old: str, new: str) -> Mutant:
    import sys

    bert = patched_spec(file, old, new, number)
    layer = sys.modules[bert.__name__.removesuffix("bert") + "encoder"].__dict__["encoder_layer"]
    if op == "objective":
        return mutant(op, area, what, spec_objective=staticmethod(bert.__dict__["objective"]))
    return mutant(op, area, what, spec_layer=staticmethod(layer))


WIRING: tuple[Mutant, ...] = tuple(_made(number, *row) for number, row in enumerate(_TABLE))
