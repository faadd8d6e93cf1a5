"""google-research/bert: modeling.py and the heads, as profile "google" computes them."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

import numpy as np

from refbert.backend.reference import ReferenceBackend
from refbert.checkpoint.names import from_tensorflow, is_weight, to_tensorflow
from refbert.config import BertConfig
from refbert.config.heads import PRETRAINING
from refbert.config.parameters import initialize, shapes
from refbert.config.profiles import GOOGLE, HF
from refbert.data.settings import Phase
from refbert.data.stream import PretrainingSource
from refbert.randomness import Dropout
from refbert.spec.layers import activate
from refbert.text.batching import Batch
from refbert_audit.corpora import store, tokenizer
from refbert_audit.findings import Finding, Value, agrees, deviates
from refbert_audit.registry import claim
from refbert_audit.shared import (
    SIZES,
    attentions,
    batch,
    examples_of_a_run,
    gradients,
    hidden_states,
    largest,
    masked_labels,
    model,
)
from refbert_audit.watching import Watching, dropout_sites


@claim("google.gelu")
def gelu() -> Finding:
    """The activation of a model of profile google on a grid, against 0.5x(1 + tanh(√(2/π)(x + 0.044715x³)))."""
    x = np.linspace(-5, 5, 2001)
    y, _ = activate(ReferenceBackend(), x, model(profile="google").choices.activation)
    formula = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return agrees(Value("largest difference", largest(y - formula), 0.0, within=1e-14, by="refbert, profile google"))


@claim("google.layer-norm.epsilon")
def layer_norm_epsilon() -> Finding:
    """ε recovered from a model's embeddings, where the tables are so small that it matters: ε = (d/x̂)² − σ²."""
    one = model(scale=0.0)
    table = one.parameters["bert.embeddings.word_embeddings.weight"]
    table[:] = 1e-6 * np.random.default_rng(0).standard_normal(table.shape)
    rows = batch()
    e = table[rows.input_ids]
    d = e - e.mean(-1, keepdims=True)
    found = np.median((d / hidden_states(one, rows)[0]) ** 2 - (d * d).mean(-1, keepdims=True))
    return agrees(Value("ε", float(found), 1e-12, within=1e-18))


@claim("google.init.truncated")
def init_truncated() -> Finding:
    """A million fresh weights: their deviation, and the largest. (1 − 2·2φ(2)/(2Φ(2) − 1))^½ = 0.8796 of 0.02."""
    name = "bert.embeddings.word_embeddings.weight"
    w = initialize({name: (2000, 500)}, SIZES, seed=0, profile=GOOGLE)[name]
    return agrees(
        Value("deviation", float(w.std()), 0.017593, within=6 * 0.0176 / math.sqrt(2e6)),
        Value("largest, in deviations of 0.02", float(np.abs(w).max() / 0.02), 2.0, within=1e-3),
    )


@claim("google.init.rest")
def init_rest() -> Finding:
    """All fresh parameters of a pretraining model, by kind."""
    drawn = initialize(shapes(SIZES, PRETRAINING), SIZES, seed=0, profile=GOOGLE)
    biases = {float(x) for n, w in drawn.items() if n.endswith("bias") for x in np.unique(w)}
    gains = {float(x) for n, w in drawn.items() if n.endswith("LayerNorm.weight") for x in np.unique(w)}
    return agrees(Value("biases", sorted(biases), [0.0]), Value("gains", sorted(gains), [1.0]))


@claim("google.type-vocabulary")
def type_vocabulary() -> Finding:
    """Segment embeddings of a configuration file that does not say how many, under each library's file name."""
    sizes = {"vocab_size": 9, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1}
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("bert_config.json", "config.json"):
            path = Path(folder) / name
            path.write_text(json.dumps(sizes), encoding="utf-8")
            table = shapes(BertConfig.from_file(path))["bert.embeddings.token_type_embeddings.weight"]
            found.append(table[0])
    return deviates(
        Value("bert_config.json, config.json", found, [16, 2], claimed=[2, 2]),
    )


@claim("google.mask.value")
def mask_value() -> Finding:
    """What a model of profile google adds to a masked key's score, read off its attention probabilities.

    Queries are made so long that a masked key's score is 10,000 above a visible one's: the two then weigh the same, and
    log p_masked − log p_visible is what is left of 10,000. A row with no visible key sinks as a whole, and attends as
    if nothing were masked.
    """
    watching = Watching()
    one = model(profile="google", config=SIZES.replace(num_hidden_layers=1), backend=watching)
    rows, layer = batch(1, 2), "bert.encoder.layer.0.attention.self."
    one.parameters[f"{layer}query.weight"][:] = 0

    def odds(length: float, mask: list[int]) -> float:
        one.parameters[f"{layer}query.bias"][:] = length
        seen = attentions(one, Batch(rows.input_ids, rows.token_type_ids, np.array([mask])))
        with np.errstate(divide="ignore"):
            visible, other = np.log(seen[0][0, 0, 0])
        return float(other - visible)

    length = 10_000 / odds(1.0, [1, 1])
    given = {options["mask_value"] for op, _, options in watching.calls if op == "attention"}
    return agrees(
        Value("what the layer's attention is given", sorted(given), [-10_000.0], by="refbert, profile google"),
        Value("added to a masked key's score", odds(length, [1, 0]) - 10_000, -10_000.0, within=1e-9,
              by="refbert, profile google"),
        Value("nothing visible − nothing masked", odds(1.0, [0, 0]) - odds(1.0, [1, 1]), 0.0, within=1e-10,
              by="refbert, profile google"),
    )  # fmt: skip


@claim("google.dropout.heads")
def dropout_heads() -> Finding:
    """Places outside embeddings and encoder that a training step draws masks for, by head."""

    def beyond(heads: tuple[str, ...]) -> list[str]:
        return [s for s, _, _ in dropout_sites(heads) if not s.startswith(("embeddings", "encoder."))]

    return agrees(
        Value("pretraining, SQuAD", [beyond(PRETRAINING), beyond(("question_answering",))], [[], []]),
        Value("classifier", beyond(("sequence_classification",)), ["classifier"]),
    )


@claim("google.dropout.gelu")
def dropout_gelu() -> Finding:
    """The op that follows each GELU of the encoder in a training step."""
    ops = Watching.step(Dropout(0)).ops
    after = [ops[i + 1] for i, op in enumerate(ops[:-1]) if op == "gelu"]
    return agrees(Value("after gelu in two layers, and in the head", after, ["linear", "linear", "layer_norm"]))


@claim("google.dropout.order")
def dropout_order() -> Finding:
    """The ops of a training step of one layer in order, from the embeddings' LayerNorm on."""
    ops = Watching.step(Dropout(0), config=SIZES.replace(num_hidden_layers=1), pooler=False).ops
    begin = ops.index("layer_norm")
    return agrees(
        Value("order", ops[begin : begin + 14], [
            "layer_norm", "dropout",
            "linear", "linear", "linear", "attention", "linear", "dropout", "add", "layer_norm",
            "linear", "gelu", "linear", "dropout",
        ])
    )  # fmt: skip


@claim("google.pooler.users")
def pooler_users() -> Finding:
    """Which heads' losses give the pooler a gradient."""
    heads = ("next_sentence", "sequence_classification", "masked_lm", "question_answering")
    moved = [largest(gradients((head,))["bert.pooler.dense.weight"]) > 0 for head in heads]
    return agrees(Value("NSP, classes, MLM, SQuAD", moved, [True, True, False, False]))


@claim("google.mlm.head")
def mlm_head() -> Finding:
    """The ops behind the encoder in a training step, and the shapes of the last map: P labelled rows, V words."""
    watching = Watching.step(pooler=False)
    stop = watching.ops.index("cross_entropy")
    P = int((masked_labels(batch()) >= 0).sum())
    last = [list(shape) for shape in watching.calls[stop - 1][1]]
    V, H = SIZES.vocab_size, SIZES.hidden_size
    return agrees(
        Value("ops", watching.ops[stop - 5 : stop], ["gather", "linear", "gelu", "layer_norm", "linear"]),
        Value("rows, matrix and bias of the last map", last, [[P, H], [V, H], [V]]),
    )


@claim("google.mlm.denominator")
def mlm_denominator() -> Finding:
    """Google's loss over the true mean; and each profile's loss where nothing is masked."""
    rows = batch()
    losses = {}
    for profile in ("google", "hf"):
        one = model(("masked_lm",), profile=profile, config=SIZES.replace(hidden_act="relu"))
        some, none = masked_labels(rows), np.full(rows.shape, -100)
        losses[profile] = [one.loss_and_gradients(rows, y)[0] for y in (some, none)]
    return deviates(
        Value("google / mean, 8 masked", losses["google"][0] / losses["hf"][0], 8 / (8 + 1e-5), within=1e-12,
              claimed=1.0, by="refbert, profiles google and hf"),
        Value("loss where nothing is masked", losses["google"][1], 0.0, by="refbert, profile google"),
    )  # fmt: skip


@claim("google.nsp.labels")
def nsp_labels() -> Finding:
    """Labels of training batches against the words: w_i w_i+1 … documents tell whether B goes on where A stopped."""
    documents = [[f"w{10 * d + s}" for s in range(10)] for d in range(50)]
    settings = examples_of_a_run(rate=0.0, short_sequence_probability=0.0)
    phases = (Phase(2, 9, 50),)
    source = PretrainingSource(store(documents, "counting"), tokenizer(), seed=3, phases=phases, settings=settings)
    first = tokenizer().library.token_to_id("w0")
    right = 0
    for step in range(2):
        rows, labels = source.next(step)
        original = np.where(labels["labels"] >= 0, labels["labels"], rows.input_ids)
        for ids, types, label in zip(original, rows.token_type_ids, labels["next_sentence_label"], strict=True):
            words = np.flatnonzero(ids >= first)
            a, b = (words[types[words] == part] for part in (0, 1))
            right += bool(ids[b[0]] == ids[a[-1]] + 1) == (label == 0)
    return agrees(Value("labels that are right, of 100", right, 100))


@claim("google.names.transposed")
def names_transposed() -> Finding:
    """Every parameter of all heads through the table of names, there and back; which of them are turned."""
    names = {n for h in (PRETRAINING, ("sequence_classification",), ("question_answering",)) for n in shapes(SIZES, h)}
    there = {n: to_tensorflow(n) for n in names}
    turned = {n for n, (_, transposed) in there.items() if transposed}
    heads = {"cls.seq_relationship.weight", "classifier.weight", "qa_outputs.weight"}
    return agrees(
        Value("names that come back", sum(from_tensorflow(theirs)[0] == n for n, (theirs, _) in there.items()),
              len(names)),
        Value("kernels that are not turned, or others that are",
              sorted(turned ^ {n for n in names if there[n][0].endswith("/kernel")}), []),
        Value("heads turned", len(turned & heads), 0),
    )  # fmt: skip


@claim("google.names.not-weights")
def names_not_weights() -> Finding:
    """What reading a checkpoint takes for a weight."""
    kernel = "bert/encoder/layer_0/output/dense/kernel"
    names = (kernel, f"{kernel}/adam_m", f"{kernel}/adam_v", "global_step")
    return agrees(Value("weight, m, v, step", [is_weight(n) for n in names], [True, False, False, False]))


@claim("google.extract-features")
def extract_features() -> Finding:
    """Hidden states counted from the end: −1 is the last layer's output, and with L layers −L is the first's."""
    one, rows = model(), batch()
    states = hidden_states(one, rows)
    return agrees(
        Value("state −1 is the output", largest(states[-1] - one(rows).last_hidden_state), 0.0),
        Value("states, embeddings included", len(states), SIZES.num_hidden_layers + 1),
    )


@claim("google.span.outside")
def span_outside() -> Finding:
    """One answer of three lies behind the window: each profile's loss over the other two's sum."""
    rows = batch()
    starts, ends = np.array([1, 2, 99]), np.array([2, 3, 99])
    found = []
    for profile in (GOOGLE, HF):
        one = model(("question_answering",), profile=profile.name, config=SIZES.replace(hidden_act="relu"))
        loss, _ = one.loss_and_gradients(rows, {"start_positions": starts, "end_positions": ends})
        inside = Batch(rows.input_ids[:2], rows.token_type_ids[:2], rows.attention_mask[:2])
        mean, _ = one.loss_and_gradients(inside, {"start_positions": starts[:2], "end_positions": ends[:2]})
        found.append(loss / (2 * mean))
    return deviates(
        Value("loss / sum of the two, google", found[0], 1 / 3, within=1e-12, by="refbert, profile google"),
        Value("loss / sum of the two, hf", found[1], 1 / 2, within=1e-12, claimed=1 / 3, by="refbert, profile hf"),
    )
