"""google-research/bert: modeling.py and the heads, as profile "google" computes them; optimization.py, schedules."""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from refbert import ops
from refbert.backend.reference import ReferenceBackend
from refbert.checkpoint.names import from_tensorflow, is_weight, to_tensorflow
from refbert.config import BertConfig
from refbert.config.heads import PRETRAINING
from refbert.config.parameters import initialize, shapes
from refbert.config.profiles import GOOGLE
from refbert.data.settings import Phase
from refbert.data.stream import PretrainingSource
from refbert.randomness import Dropout
from refbert.spec.layers import activate
from refbert.text.batching import Batch
from refbert_audit import Value, Values
from refbert_audit.corpora import store, tokenizer
from refbert_audit.measures import largest
from refbert_audit.models import SIZES, attentions, batch, gradients, hidden_states, masked_labels, model
from refbert_audit.runs import RUN, examples_of_a_run, finetuning, optimizer_of_a_run, updated
from refbert_audit.watching import Watching, dropout_sites


def google_gelu() -> Values:
    """The activation of a model of profile google on a grid, against 0.5x(1 + tanh(√(2/π)(x + 0.044715x³)))."""
    x = np.linspace(-5, 5, 2001)
    y, _ = activate(ReferenceBackend(), x, model(profile="google").choices.activation)
    formula = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    yield Value("largest difference", largest(y - formula), 0.0, within=1e-14, by="refbert, profile google")


def google_layer_norm_epsilon() -> Values:
    """ε recovered from a model's embeddings, where the tables are so small that it matters: ε = (d/x̂)² − σ²."""
    one = model(scale=0.0)
    table = one.parameters["bert.embeddings.word_embeddings.weight"]
    table[:] = 1e-6 * np.random.default_rng(0).standard_normal(table.shape)
    rows = batch()
    e = table[rows.input_ids]
    d = e - e.mean(-1, keepdims=True)
    found = np.median((d / hidden_states(one, rows)[0]) ** 2 - (d * d).mean(-1, keepdims=True))
    yield Value("ε", float(found), 1e-12, within=1e-18)


def google_init_truncated() -> Values:
    """A million fresh weights: their deviation, and the largest. (1 − 2·2φ(2)/(2Φ(2) − 1))^½ = 0.8796 of 0.02."""
    name = "bert.embeddings.word_embeddings.weight"
    w = initialize({name: (2000, 500)}, SIZES, seed=0, profile=GOOGLE)[name]
    yield Value("deviation", float(w.std()), 0.017593, within=6 * 0.0176 / math.sqrt(2e6))
    yield Value("largest, in deviations of 0.02", float(np.abs(w).max() / 0.02), 2.0, within=1e-3)


def google_init_rest() -> Values:
    """All fresh parameters of a pretraining model, by kind."""
    drawn = initialize(shapes(SIZES, PRETRAINING), SIZES, seed=0, profile=GOOGLE)
    for name, ending, value in (("biases", "bias", 0.0), ("gains", "LayerNorm.weight", 1.0)):
        yield Value(name, sorted({float(x) for n, w in drawn.items() if n.endswith(ending) for x in w}), [value])


def google_type_vocabulary() -> Values:
    """Segment embeddings of a configuration file that does not say how many, under each library's file name."""
    sizes = {"vocab_size": 9, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1}
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for path in (Path(folder, "bert_config.json"), Path(folder, "config.json")):
            path.write_text(json.dumps(sizes), encoding="utf-8")
            found.append(shapes(BertConfig.from_file(path))["bert.embeddings.token_type_embeddings.weight"][0])
    yield Value("bert_config.json, config.json", found, [16, 2], claimed=[2, 2])


def google_mask_value() -> Values:
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
    yield Value("what the layer's attention is given", sorted(given), [-10_000.0], by="refbert, profile google")
    added, apart = odds(length, [1, 0]) - 10_000, odds(1.0, [0, 0]) - odds(1.0, [1, 1])
    yield Value("added to a masked key's score", added, -10_000.0, within=1e-9, by="refbert, profile google")
    yield Value("nothing visible − nothing masked", apart, 0.0, within=1e-10, by="refbert, profile google")


def google_dropout_heads() -> Values:
    """Places outside embeddings and encoder that a training step draws masks for, by head."""

    def beyond(heads: tuple[str, ...]) -> list[str]:
        return [s for s in dropout_sites(heads) if not s.startswith(("embeddings", "encoder."))]

    yield Value("pretraining, SQuAD", [beyond(PRETRAINING), beyond(("question_answering",))], [[], []])
    yield Value("classifier", beyond(("sequence_classification",)), ["classifier"])


def google_dropout_gelu() -> Values:
    """The op that follows each GELU of the encoder in a training step."""
    ops = Watching.step(Dropout(0)).ops
    after = [ops[i + 1] for i, op in enumerate(ops[:-1]) if op == "gelu"]
    yield Value("after gelu in two layers, and in the head", after, ["linear", "linear", "layer_norm"])


def google_dropout_order() -> Values:
    """The ops of a training step of one layer in order, from the embeddings' LayerNorm on."""
    ops = Watching.step(Dropout(0), config=SIZES.replace(num_hidden_layers=1), pooler=False).ops
    begin = ops.index("layer_norm")
    attention = ["linear", "linear", "linear", "attention", "linear", "dropout", "add", "layer_norm"]
    feed_forward = ["linear", "gelu", "linear", "dropout"]
    yield Value("order", ops[begin : begin + 14], ["layer_norm", "dropout", *attention, *feed_forward])


def google_pooler_users() -> Values:
    """Which heads' losses give the pooler a gradient."""
    heads = ("next_sentence", "sequence_classification", "masked_lm", "question_answering")
    moved = [largest(gradients((head,))["bert.pooler.dense.weight"]) > 0 for head in heads]
    yield Value("NSP, classes, MLM, SQuAD", moved, [True, True, False, False])


def google_mlm_head() -> Values:
    """The ops behind the encoder in a training step, and the shapes of the last map: P labelled rows, V words."""
    watching = Watching.step(pooler=False)
    stop = watching.ops.index("cross_entropy")
    P = int((masked_labels(batch()) >= 0).sum())
    last = [list(shape) for shape in watching.calls[stop - 1][1]]
    V, H = SIZES.vocab_size, SIZES.hidden_size
    yield Value("ops", watching.ops[stop - 5 : stop], ["gather", "linear", "gelu", "layer_norm", "linear"])
    yield Value("rows, matrix and bias of the last map", last, [[P, H], [V, H], [V]])


def google_mlm_denominator() -> Values:
    """Google's loss over the true mean; and each profile's loss where nothing is masked."""
    rows, config, by = batch(), SIZES.replace(hidden_act="relu"), "refbert, profiles google and hf"
    some, none = masked_labels(rows), np.full(rows.shape, -100)
    google, hf = (model(("masked_lm",), profile=profile, config=config) for profile in ("google", "hf"))
    ratio = google.loss_and_gradients(rows, some)[0] / hf.loss_and_gradients(rows, some)[0]
    yield Value("google / mean, 8 masked", ratio, 8 / (8 + 1e-5), within=1e-12, claimed=1.0, by=by)
    nothing, _ = google.loss_and_gradients(rows, none)
    yield Value("loss where nothing is masked", nothing, 0.0, by="refbert, profile google")


def google_nsp_labels() -> Values:
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
    yield Value("labels that are right, of 100", right, 100)


def google_names_transposed() -> Values:
    """Every parameter of all heads through the table of names, there and back; which of them are turned."""
    names = {n for h in (PRETRAINING, ("sequence_classification",), ("question_answering",)) for n in shapes(SIZES, h)}
    there = {n: to_tensorflow(n) for n in names}
    turned = {n for n, (_, transposed) in there.items() if transposed}
    heads = {"cls.seq_relationship.weight", "classifier.weight", "qa_outputs.weight"}
    back = sum(from_tensorflow(theirs)[0] == n for n, (theirs, _) in there.items())
    yield Value("names that come back", back, len(names))
    kernels = {n for n in names if there[n][0].endswith("/kernel")}
    yield Value("kernels that are not turned, or others that are", sorted(turned ^ kernels), [])
    yield Value("heads turned", len(turned & heads), 0)


def google_names_not_weights() -> Values:
    """What reading a checkpoint takes for a weight."""
    kernel = "bert/encoder/layer_0/output/dense/kernel"
    names = (kernel, f"{kernel}/adam_m", f"{kernel}/adam_v", "global_step")
    yield Value("weight, m, v, step", [is_weight(n) for n in names], [True, False, False, False])


def google_extract_features() -> Values:
    """Hidden states counted from the end: −1 is the last layer's output, and with L layers −L is the first's."""
    one, rows = model(), batch()
    states = hidden_states(one, rows)
    yield Value("state −1 is the output", largest(states[-1] - one(rows).last_hidden_state), 0.0)
    yield Value("states, embeddings included", len(states), SIZES.num_hidden_layers + 1)


def google_span_outside() -> Values:
    """One answer of three lies behind the window: each profile's loss over the other two's sum."""
    rows = batch()
    inside = Batch(rows.input_ids[:2], rows.token_type_ids[:2], rows.attention_mask[:2])
    starts, ends = np.array([1, 2, 99]), np.array([2, 3, 99])

    def share(profile: str) -> float:
        one = model(("question_answering",), profile=profile, config=SIZES.replace(hidden_act="relu"))
        loss, _ = one.loss_and_gradients(rows, {"start_positions": starts, "end_positions": ends})
        mean, _ = one.loss_and_gradients(inside, {"start_positions": starts[:2], "end_positions": ends[:2]})
        return loss / (2 * mean)

    google, hf = share("google"), share("hf")
    yield Value("loss / sum of the two, google", google, 1 / 3, within=1e-12, by="refbert, profile google")
    yield Value("loss / sum of the two, hf", hf, 1 / 2, within=1e-12, claimed=1 / 3, by="refbert, profile hf")


ADAM: dict[str, Any] = {"beta1": 0.9, "beta2": 0.999, "weight_decay": 0.0}


def google_adam_bias_correction() -> Values:
    """The step of BERT's Adam over that of AdamW, on the same constant gradient: (1 − β₁ᵗ)/√(1 − β₂ᵗ)."""
    p, g = np.zeros(1), np.ones(1)
    zero: Any = np.zeros(1)
    m = v = other_m = other_v = zero
    ratio = []
    for t in range(1, 1001):
        a, m, v = ops.bert_adam(p, g, m, v, lr=1.0, eps=0.0, **ADAM)
        b, other_m, other_v = ops.adamw(p, g, other_m, other_v, lr=1.0, eps=0.0, step=t, **ADAM)
        ratio.append(float(a[0] / b[0]))
    yield Value("a run's update", RUN.new_optimizer().rule, "bert_adam", by="refbert, profile google")
    yield Value("at t = 1", ratio[0], math.sqrt(10), within=1e-9, claimed=1.0)
    yield Value("largest", max(ratio), 6.57, within=5e-3, claimed=1.0)
    yield Value("at t", int(np.argmax(ratio)) + 1, 12)
    yield Value("at t = 1000", ratio[-1], 1.26, within=5e-3, claimed=1.0)


def google_adam_epsilon() -> Values:
    """A gradient so small that √v = ε: outside the root the step is m/2ε, inside it would be m/√(ε² + ε)."""
    g = 1e-6 / math.sqrt(0.001)
    optimizers = (optimizer_of_a_run(), finetuning().new_optimizer(GOOGLE))
    steps = [-updated(one, 0.0, g, lr=1.0) / (0.1 * g / 2e-6) for one in optimizers]
    yield Value("step / (m/2ε), pretraining and fine-tuning", steps, [1.0, 1.0], within=1e-9)


def google_adam_exclusions() -> Values:
    """One update without gradients of all parameters of a pretraining model: which of them move."""
    one = model(PRETRAINING)
    zeros = {name: np.zeros(x.shape) for name, x in one.parameters.items()}
    new, _ = optimizer_of_a_run().step(one.backend, one.parameters, zeros, lr=0.1)
    moved = {name for name in new if not np.array_equal(new[name], one.parameters[name])}
    tables = {name for name in moved if "embeddings.weight" in name}
    fixed = [n for n in shapes(SIZES, PRETRAINING) if n not in moved and not ("LayerNorm" in n or n.endswith("bias"))]
    wrongly = [n for n in sorted(moved) if "LayerNorm" in n or n.endswith("bias")]
    yield Value("LayerNorms and biases that decay", wrongly, [])
    yield Value("other parameters that do not", fixed, [])
    yield Value("embedding tables that decay", len(tables), 3)


def google_adam_own_test() -> Values:
    """Google's own test, in float64: the mean of (target − w)², its gradient −2/3 (target − w)."""
    target = np.array([0.4, 0.2, -0.5])
    optimizer, seen = optimizer_of_a_run(weight_decay=0.0, max_norm=None), [np.array([0.1, -0.2, -0.1])]
    for _ in range(100):
        w = seen[-1]
        new, _ = optimizer.step(ReferenceBackend(), {"w": w}, {"w": -2 / 3 * (target - w)}, lr=0.2)
        seen.append(new["w"])
    yield Value("after step 1", seen[1], [0.73235555, 0.43238054, -0.73238054], within=5e-9)
    yield Value("after step 100", seen[-1], [0.40164604, 0.19782445, -0.49782445], within=5e-9)
    yield Value("largest distance from the target", largest(seen[-1] - target), 0.0, within=0.01)


def google_clip() -> Values:
    """Two gradients of joint norm 10, and two of joint norm 0.5: what arrives in the first moments, m = 0.1 g.

    Of a pretraining run, and of fine-tuning.
    """
    arrived = []
    for of_a_run, (a, b) in product((True, False), ((6.0, 8.0), (0.3, 0.4))):
        optimizer = RUN.new_optimizer() if of_a_run else finetuning().new_optimizer(GOOGLE)
        weights = {"a": np.zeros(1), "b": np.zeros(1)}
        _, norm = optimizer.step(ReferenceBackend(), weights, {"a": np.array([a]), "b": np.array([b])}, lr=0.1)
        arrived.append([norm, *(10 * float(optimizer.m[name][0]) for name in weights)])
    yield Value("norm 10: norm, gradients", arrived[::2], [[10.0, 0.6, 0.8]] * 2, within=1e-12)
    yield Value("norm 0.5: norm, gradients", arrived[1::2], [[0.5, 0.3, 0.4]] * 2, within=1e-12)


def google_schedule_jump() -> Values:
    """Rates around the end of the warmup in both profiles: Google counts the decay from step 0, so it jumps by w/T."""
    hf = replace(RUN, profile="hf")
    jump = [1e4 * (s.rate(10_000) - s.rate(9_999)) for s in (RUN, hf)]
    rate, by = RUN.rate(10_000), "refbert, profile google"
    yield Value("rate of step 10,000", rate, 9.9e-5, within=1e-18, claimed=1e-4, by=by)
    yield Value("step to it, 1e-4", jump, [-0.0099, 0.0001], within=1e-12, by="refbert, profiles google and hf")


def google_schedule_first() -> Values:
    """The first update of a run, its rate from the schedule."""
    optimizer = optimizer_of_a_run(max_norm=None)
    yield Value("rate", RUN.rate(0), 0.0)
    yield Value("weight", updated(optimizer, 0.5, 2.0, lr=RUN.rate(0)), 0.5)
    yield Value("m, v", [optimizer.m["w"][0], optimizer.v["w"][0]], [0.2, 0.004], within=1e-15)


def google_finetune_warmup() -> Values:
    """The share that a fine-tuning run takes by default, and where the rate of 1,000 steps is highest."""
    settings = finetuning()
    plan = settings.plans()[0]
    rates = [settings.rate(step, plan, steps=1000, profile=GOOGLE) for step in range(1000)]
    yield Value("share", settings.warmup_share, 0.1)
    yield Value("steps up to the highest rate", int(np.argmax(rates)) + 1, 100)
