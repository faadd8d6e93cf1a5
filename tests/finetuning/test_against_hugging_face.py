"""Fine-tuned models in transformers: the same predictions, and before that the same losses, update for update."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from labelled_files import write_choices, write_classes, write_model, write_questions, write_sets, write_tags
from rounding import RUNS, SLACK, rename

import refbert
from refbert import ops
from refbert.backend.reference import ReferenceBackend
from refbert.data.labelled import label_set, read
from refbert.data.stream import Epochs
from refbert.errors import RefbertWarning
from refbert.model import Model
from refbert.tasks.answering import answer
from refbert.tasks.classifying import choose, classify, regress
from refbert.tasks.tagging import tag, tag_words
from refbert.training.finetuning import finetune
from refbert.training.finetuning_settings import Settings
from refbert.training.loop import train
from refbert.training.optimizer import Optimizer
from refbert.training.schedule import learning_rate
from refbert.training.task_model import begin, features

STEPS, PEAK, WARMUP = 12, 2e-3, 3
FILES = {
    "classify": lambda path: write_classes(path / "x.csv"),
    "regress": lambda path: write_classes(path / "x.csv", numbers=True),
    "multi-label": lambda path: write_sets(path / "x.jsonl"),
    "tag": lambda path: write_tags(path / "x.conll"),
    "answer": lambda path: write_questions(path / "x.json"),
    "choose": lambda path: write_choices(path / "x.jsonl"),
}
CLASSES = {
    "classify": transformers.AutoModelForSequenceClassification,
    "regress": transformers.AutoModelForSequenceClassification,
    "multi-label": transformers.AutoModelForSequenceClassification,
    "tag": transformers.AutoModelForTokenClassification,
    "answer": transformers.AutoModelForQuestionAnswering,
    "choose": transformers.AutoModelForMultipleChoice,
}

pytestmark = pytest.mark.filterwarnings("ignore:drawn afresh:refbert.errors.RefbertWarning")


def settings(path, task, **changes):
    if not (path / "model").is_dir():
        write_model(path / "model")
    common = {"max_length": 16, "doc_stride": 4, "batch_sizes": (4,), "learning_rates": (PEAK,), "epochs": (2,)}
    return Settings(task=task, model=str(path / "model"), train=str(FILES[task](path)), **common | changes)


def beginning(path, task, backend="reference", dtype="float64"):
    """(model, source) as fine-tuning begins."""
    chosen = settings(path, task, backend=backend, dtype=dtype)
    data = read(task, chosen.train, chosen.columns)
    model = begin(chosen, label_set(task, data), seed=5)
    return model, Epochs(features(chosen, data, model), model.tokenizer, batch_size=4, seed=5)


def rate(step):
    return learning_rate(step, peak=PEAK, warmup=WARMUP, total=STEPS, from_zero=False)


def our_losses(model, source):
    losses = []
    train(
        model, source, optimizer=Optimizer(rule="adamw", clip_epsilon=model.profile.clip_epsilon), rate=rate,
        steps=STEPS, seed=0, dropout=False, on_update=lambda update: losses.append(update.loss),
    )  # fmt: skip
    return np.array(losses)


def their_losses(task, directory, source):
    """The same batches through Hugging Face's model, torch's clipping and torch's AdamW, in float64."""
    model = CLASSES[task].from_pretrained(directory, dtype=torch.float64, attn_implementation="eager").eval()
    # transformers never moves the embedding of [PAD]; Google's code and refbert train it like any other. It makes a
    # difference for answers only, whose softmax is over all positions, padding included.
    model.bert.embeddings.word_embeddings.padding_idx = None
    spared = {n for n, _ in model.named_parameters() if n.endswith("bias") or "LayerNorm" in n}
    groups = [
        {"params": [p for n, p in model.named_parameters() if n not in spared], "weight_decay": 0.01},
        {"params": [p for n, p in model.named_parameters() if n in spared], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.999), eps=1e-6)
    losses = []
    for step in range(STEPS):
        batch, labels = source.next(step)
        arrays = {name: torch.from_numpy(getattr(batch, name)) for name in vars(batch)}
        if task == "choose":
            arrays = {name: x.reshape(len(labels["labels"]), -1, x.shape[-1]) for name, x in arrays.items()}
        if task == "multi-label":  # theirs are floats
            labels = {name: x.astype(np.float64) for name, x in labels.items()}
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        optimizer.zero_grad()
        loss = model(**arrays, **{name: torch.from_numpy(x) for name, x in labels.items()}).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    return np.array(losses)


@pytest.mark.parametrize("task", CLASSES)
@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_the_same_loss_curve_in_float64(tmp_path, backend, task):
    model, source = beginning(tmp_path, task, backend)
    model.save(tmp_path / "start")
    theirs = their_losses(task, tmp_path / "start", source)
    ours = our_losses(model, source)
    assert np.abs(np.diff(ours)).max() > 1e-3  # something was learned, so there is something to compare
    assert (np.abs(ours - theirs) <= 1e-9 * np.abs(theirs)).all()


@pytest.mark.parametrize("task", ["classify", "tag", "answer"])
def test_the_same_loss_curve_in_float32_within_rounding(tmp_path, task):
    """What float32 may do to the curve is measured: the textbook reference in float32, its hidden units renamed."""
    model, source = beginning(tmp_path, task)
    weights = {name: w.astype(np.float32).astype(np.float64) for name, w in model.state_dict().items()}
    exact = Model(model.config, weights, backend=ReferenceBackend(), heads=model.heads)
    exact.save(tmp_path / "start")
    theirs = their_losses(task, tmp_path / "start", source)
    reference = our_losses(exact, source)

    def start(backend, weights):
        return Model(
            model.config, {n: w.astype(np.float32) for n, w in weights.items()}, backend=backend, heads=model.heads
        )

    allowed = np.zeros(STEPS)
    for seed in range(RUNS):
        rng = np.random.default_rng(seed)
        hidden, inner = (rng.permutation(n) for n in (model.config.hidden_size, model.config.intermediate_size))
        renamed = start(ReferenceBackend("float32"), rename(weights, hidden, inner))
        allowed = np.maximum(allowed, np.abs(our_losses(renamed, source) - reference))
    allowed = np.maximum.accumulate(allowed)  # an error made once stays in the weights
    for backend in ("numpy", "torch"):
        ours = our_losses(start(refbert.backend.registry.create(backend, dtype="float32"), weights), source)
        assert (np.abs(ours - theirs) <= np.maximum(SLACK * allowed, 4 * 2.0**-24 * np.abs(theirs))).all(), backend


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """Every task's fine-tuned model, made when it is asked for."""
    made = {}

    def get(task):
        if task not in made:
            path = tmp_path_factory.mktemp(task)
            finetune(path / "out", settings(path, task))
            model = CLASSES[task].from_pretrained(path / "out", attn_implementation="eager").eval()
            made[task] = refbert.load(path / "out"), model, transformers.AutoTokenizer.from_pretrained(path / "out")
        return made[task]

    return get


TEXTS = ["the cat sat", "a dog .", "cats on the mats", "mat"]
# Both sides compute in float32, on logits of size 1 to 10: some dozens of roundings of 6e-8.
CLOSE = 2e-5


def hugging_face(model, inputs):
    with torch.no_grad():
        return model(**inputs)


def test_classes_in_transformers(tuned):
    ours, theirs, tokenizer = tuned("classify")
    assert theirs.config.id2label == {0: "has", 1: "not"}
    assert theirs.config.problem_type == "single_label_classification"
    logits = hugging_face(theirs, tokenizer(TEXTS, padding=True, return_tensors="pt")).logits.numpy()
    for text, found, row in zip(TEXTS, classify(ours, TEXTS), logits, strict=True):
        assert found.text == text
        assert found.label == theirs.config.id2label[int(row.argmax())]
        expected = ops.softmax(row.astype(np.float64))[0]
        assert [s.score for s in sorted(found.scores, key=lambda s: s.number)] == pytest.approx(expected, abs=CLOSE)


def test_numbers_in_transformers(tuned):
    ours, theirs, tokenizer = tuned("regress")
    assert (theirs.config.num_labels, theirs.config.problem_type) == (1, "regression")
    logits = hugging_face(theirs, tokenizer(TEXTS, padding=True, return_tensors="pt")).logits.numpy()[:, 0]
    assert [found.values[0] for found in regress(ours, TEXTS)] == pytest.approx(logits, abs=CLOSE)


def test_tags_in_transformers(tuned):
    ours, theirs, tokenizer = tuned("tag")
    assert theirs.config.id2label[0] == "O"
    sentences = [text.split() for text in TEXTS]
    inputs = tokenizer(sentences, is_split_into_words=True, padding=True, return_tensors="pt")
    logits = hugging_face(theirs, inputs).logits.numpy()
    for i, found in enumerate(tag_words(ours, sentences)):
        words = inputs.word_ids(i)
        firsts = [words.index(w) for w in range(len(sentences[i]))]
        assert list(found.tags) == [theirs.config.id2label[int(logits[i, s].argmax())] for s in firsts]
        best = [ops.softmax(logits[i, s].astype(np.float64))[0].max() for s in firsts]
        assert list(found.scores) == pytest.approx(best, abs=CLOSE)


def test_running_text_is_tagged_as_its_words(tuned):
    ours, _, _ = tuned("tag")
    text = "The cat, the Cats."
    (found,) = tag(ours, [text])
    assert found.tagged.words == ("The", "cat", ",", "the", "Cats", ".")
    (words,) = tag_words(ours, [found.tagged.words])
    assert found.tagged.tags == words.tags
    assert found.tagged.scores == pytest.approx(words.scores, abs=CLOSE)
    for entity in found.entities:
        assert text[entity.start : entity.stop] == entity.text
    with pytest.warns(RefbertWarning, match="cut to 4 tokens"):
        (cut,) = tag(ours, [text], max_length=4, truncate=True)
    assert cut.tagged.scores[2:] == (0.0,) * 4
    assert cut.tagged.scores[1] > 0


def test_answers_in_transformers(tuned):
    ours, theirs, tokenizer = tuned("answer")
    question = "the cat"
    passage = "the dog sat on a mat . the cat sat on the dog . a mat . the dog sat . dogs on mats"
    stride, max_length, longest = 4, 16, 3
    room = max_length - 5
    inputs = tokenizer(
        question, passage, truncation="only_second", max_length=max_length, stride=room - stride, padding=True,
        return_overflowing_tokens=True, return_offsets_mapping=True, return_tensors="pt",
    )  # fmt: skip
    offsets = inputs.pop("offset_mapping").numpy()
    inputs.pop("overflow_to_sample_mapping")
    out = hugging_face(theirs, inputs)
    # Every span of every window, each token's where it has most context.
    where = [[s for s in range(len(row)) if inputs.sequence_ids(w)[s] == 1] for w, row in enumerate(offsets)]

    def context(w, s):
        i = where[w].index(s)
        return min(i, len(where[w]) - 1 - i) + 0.01 * len(where[w])

    spans = {}
    for w, row in enumerate(offsets):
        for s in where[w]:
            others = [
                (context(v, t), -v)
                for v in range(len(offsets))
                for t in where[v]
                if tuple(offsets[v][t]) == tuple(row[s])
            ]
            if max(others)[1] != -w:
                continue
            for e in where[w]:
                if s <= e < s + longest:
                    span = (int(row[s][0]), int(row[e][1]))
                    spans[span] = float(out.start_logits[w, s] + out.end_logits[w, e])
    best = max(spans, key=spans.get)
    (found,) = answer(
        ours, [(question, passage)], max_length=max_length, doc_stride=stride, n_best=100, max_answer=longest
    )
    assert len(offsets) > 2
    assert {(a.start, a.stop): a.score for a in found.answers} == pytest.approx(
        dict(sorted(spans.items(), key=lambda x: -x[1])[:100]), abs=CLOSE
    )
    assert (found.answers[0].start, found.answers[0].stop) == best
    null = min(float(out.start_logits[w, 0] + out.end_logits[w, 0]) for w in range(len(offsets)))
    assert found.null_margin == pytest.approx(null - spans[best], abs=CLOSE)
    assert found.text() == passage[best[0] : best[1]]
    assert found.text(found.null_margin - 1) == ""
    assert sum(a.probability for a in found.answers) == pytest.approx(1)


def test_choices_in_transformers(tuned):
    ours, theirs, tokenizer = tuned("choose")
    questions = [("the", ("cat sat", "a dog", "mat .")), ("a mat", ("dog", "the cat on the mat", "cat"))]
    flat = tokenizer(
        [t for t, c in questions for _ in c], [x for _, c in questions for x in c], padding=True, return_tensors="pt"
    )
    logits = hugging_face(theirs, {k: v.reshape(2, 3, -1) for k, v in flat.items()}).logits.numpy()
    for found, row in zip(choose(ours, questions), logits, strict=True):
        assert found.choice == int(row.argmax())
        assert list(found.scores) == pytest.approx(ops.softmax(row.astype(np.float64))[0], abs=CLOSE)
