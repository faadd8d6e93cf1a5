"""Gradient checkpointing: the same gradients, a layer's input instead of its activations, and the option that asks."""

from __future__ import annotations

import dataclasses
import gc
import json
import sys
import tracemalloc
import weakref

import numpy as np
import pytest
import small
from calling import cli

import refbert
from refbert.backend import registry
from refbert.config import BertConfig
from refbert.text.tokenization import Tokenizer
from refbert.training import session
from refbert.training.accumulation import loss_and_gradients
from refbert.training.precision import MixedPrecision
from refbert_conformance.engine.measure import Record
from refbert_conformance.engine.subject import Subject
from refbert_conformance.properties.objective import properties
from refbert_numpy import attention, rows, threads
from refbert_numpy import objective as numpy_objective
from refbert_numpy.backend import NumpyBackend

CONFIG = small.CONFIG.replace(
    num_hidden_layers=4, hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2, num_labels=4
)
B, S = 6, 7
NUMBERS = np.arange(B)
LABELS = {
    small.PRETRAINING: small.batch_and_labels(5)[1],
    ("masked_lm",): {"labels": small.batch_and_labels(5)[1]["labels"]},
    ("sequence_classification",): {"labels": NUMBERS % 4},
    ("token_classification",): {"labels": (NUMBERS[:, None] + np.arange(S)) % 4},
    ("question_answering",): {"start_positions": NUMBERS % 3, "end_positions": NUMBERS % 3 + 1},
    ("multiple_choice",): {"labels": np.array([1, 0])},
}


def both(backend, heads, *, config=CONFIG, dtype="float64", repeat=1):
    """(loss and gradients without checkpointing, the same with it)."""
    model = small.model(backend, dtype, heads=heads, config=config)
    batch, _ = small.batch_and_labels(5)
    found = []
    for model.gradient_checkpointing in (False, *[True] * repeat):
        loss, gradients = model.loss_and_gradients(batch, LABELS[heads], dropout=refbert.Dropout(3, 1))
        found.append({"loss": loss} | gradients)
    return found[0], found[-1]


@pytest.mark.parametrize("heads", LABELS, ids="+".join)
@pytest.mark.parametrize("backend", ["reference", "numpy"])
def test_the_gradients_are_the_same_bits(backend, heads):
    """With dropout, and in the second step too, which finds memory that the first has used."""
    plain, checkpointed = both(backend, heads, repeat=2)
    assert plain.keys() == checkpointed.keys()
    for name, x in plain.items():
        assert np.array_equal(x, checkpointed[name]), name


@pytest.mark.parametrize("heads", LABELS, ids="+".join)
def test_the_gradients_are_the_same_on_torch(heads):
    pytest.importorskip("torch")
    plain, checkpointed = both("torch", heads)
    assert plain.keys() == checkpointed.keys()
    for name, x in plain.items():
        assert np.linalg.norm(x - checkpointed[name]) <= 1e-12 * max(np.linalg.norm(x), 1e-3), name


@pytest.mark.parametrize("layers", [0, 1, 2])
@pytest.mark.parametrize("backend", ["reference", "numpy"])
def test_few_layers(backend, layers):
    for heads in (("masked_lm",), small.PRETRAINING):  # only some rows of the last layer are needed, or all
        plain, checkpointed = both(backend, heads, config=CONFIG.replace(num_hidden_layers=layers))
        for name, x in plain.items():
            assert np.array_equal(x, checkpointed[name]), name


def with_threads(monkeypatch, count):
    """So many threads, however few cores there are, and several blocks."""
    monkeypatch.setattr(threads, "threads", lambda: count)
    monkeypatch.setattr(numpy_objective, "ENOUGH", 1)
    monkeypatch.setattr(rows, "BLOCK", 7 * CONFIG.hidden_size)
    monkeypatch.setattr(attention, "BLOCK", 2 * S * S)


@pytest.mark.parametrize("count", [3, 4])  # 6 sequences: two for each thread, or rows shared out
def test_threads_that_share_a_layers_memory_do_not_meet(monkeypatch, count):
    with_threads(monkeypatch, count)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for heads in (("masked_lm",), small.PRETRAINING):
            for _ in range(15):
                plain, checkpointed = both("numpy", heads)
                for name, x in plain.items():
                    assert np.array_equal(x, checkpointed[name]), name
    finally:
        sys.setswitchinterval(before)


@pytest.mark.parametrize("count", [1, 3])
def test_numpys_own_keeps_the_conformance_suites_bounds(monkeypatch, count):
    """Its corpus (heads, masks, activations, dropout, parts of batches) against the reference."""
    with_threads(monkeypatch, count)
    own = NumpyBackend.objective

    def asked(self, params, batch, labels, heads, c, **options):
        return own(self, params, batch, labels, heads, dataclasses.replace(c, gradient_checkpointing=True), **options)

    monkeypatch.setattr(NumpyBackend, "objective", asked)
    subject = Subject("numpy", lambda: registry.create("numpy", dtype="float64"))
    accuracy = next(one for one in properties() if one.name == "accuracy")
    for recipe in accuracy.always(subject, "quick"):
        accuracy.check(subject, recipe, Record(subject.arithmetic))


def test_a_pullback_may_be_called_again():
    model = small.model("numpy", config=CONFIG)
    batch, labels = small.batch_and_labels(5)
    c = dataclasses.replace(model.choices, gradient_checkpointing=True)
    _, _, pullback = model.backend.objective(
        model.parameters, batch, labels, model.heads, c, draws=refbert.Dropout(3, 1)
    )
    one, two = pullback(np.float64(1)), pullback(np.float64(1))
    for name, x in one.items():
        assert np.array_equal(x, two[name]), name


# Memory

H, F, TOKENS = 32, 128, (8, 64)


def peak(backend, layers, *, checkpointing):
    """Bytes of a second step: numpy's backend keeps memory from the first, so another model takes that."""
    config = BertConfig(
        vocab_size=50, hidden_size=H, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=F,
        max_position_embeddings=64,
    )  # fmt: skip
    batch = refbert.Batch(input_ids=np.ones(TOKENS, int))
    labels = {"labels": np.where(np.arange(64) == 3, 5, np.full(TOKENS, -100)), "next_sentence_label": np.zeros(8, int)}
    first, second = (small.model(backend, config=config) for _ in range(2))
    first.gradient_checkpointing = second.gradient_checkpointing = checkpointing
    first.device_loss_and_gradients(batch, labels, dropout=refbert.Dropout(0))
    tracemalloc.start()
    second.device_loss_and_gradients(batch, labels, dropout=refbert.Dropout(0))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


@pytest.mark.parametrize("backend", ["reference", "numpy"])
def test_a_layer_more_costs_its_input_and_its_gradients(backend):
    number = 8  # bytes of a float64
    gradients = (4 * H * H + 2 * H * F + 9 * H + F) * number
    read = TOKENS[0] * TOKENS[1] * H * number
    growth = (peak(backend, 12, checkpointing=True) - peak(backend, 4, checkpointing=True)) / 8
    assert growth <= 1.1 * (read + gradients)  # Python's own objects are the tenth; one array more would be 1.5
    kept = (peak(backend, 12, checkpointing=False) - peak(backend, 4, checkpointing=False)) / 8
    assert kept > 5 * growth  # or there would be nothing to measure


def kept_by_autograd(layers, *, checkpointing):
    """Bytes that PyTorch holds between forward and backward."""
    torch = pytest.importorskip("torch")

    class Kept:
        def __init__(self, x):
            self.x = x

    model = small.model("torch", config=CONFIG.replace(num_hidden_layers=layers))
    batch, labels = small.batch_and_labels(5)
    c = dataclasses.replace(model.choices, gradient_checkpointing=checkpointing)
    alive = weakref.WeakSet()

    def pack(x):
        kept = Kept(x.detach())  # a result with its graph would hold itself
        alive.add(kept)
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.x):
        step = model.backend.objective(model.parameters, batch, labels, model.heads, c, draws=refbert.Dropout(0))
        gc.collect()
        total = sum(kept.x.nbytes for kept in alive)
    del step
    return total


def test_torch_keeps_a_layers_input_and_nothing_else():
    read = B * S * CONFIG.hidden_size * 8
    assert kept_by_autograd(6, checkpointing=True) - kept_by_autograd(2, checkpointing=True) == 4 * read
    assert kept_by_autograd(6, checkpointing=False) - kept_by_autograd(2, checkpointing=False) > 40 * read


# Who asks for it


def test_mixed_precision_and_micro_batches_ask_the_model_that_computes(monkeypatch):
    pytest.importorskip("torch")
    model = small.model("torch", "float32")
    precision = MixedPrecision(model, "bfloat16")
    batch, labels = small.batch_and_labels(4)
    asked = []
    own = type(model.backend).objective

    def spy(self, params, batch, labels, heads, c, **options):
        asked.append((self.dtype, c.gradient_checkpointing))
        return own(self, params, batch, labels, heads, c, **options)

    monkeypatch.setattr(type(model.backend), "objective", spy)
    for model.gradient_checkpointing in (True, False):
        loss_and_gradients(model, batch, labels, micro_batch=3, precision=precision)
    assert asked == [("bfloat16", True)] * 2 + [("bfloat16", False)] * 2


@pytest.fixture
def trained(monkeypatch):
    """What the models that are trained say of it."""
    said, train = [], session.train

    def spy(model, *arguments, **options):
        said.append(model.gradient_checkpointing)
        return train(model, *arguments, **options)

    monkeypatch.setattr(session, "train", spy)
    return said


def recorded(directory):
    return json.loads((directory / "run.json").read_text(encoding="utf-8"))["settings"]["gradient_checkpointing"]


def weights(directory):
    return refbert.load(directory, backend="reference", dtype="float32").state_dict()


def test_refbert_pretrain(trained, tmp_path, capsys):
    text, size = tmp_path / "corpus.txt", tmp_path / "config.json"
    text.write_text("\n\n".join(f"the cat sat on mat {i}.\nit ran home to {i} dogs." for i in range(30)), "utf-8")
    size.write_text(json.dumps(CONFIG.replace(max_position_embeddings=16).to_dict()), "utf-8")
    common = [text, "--size", size, "--steps", 3, "--batch-size", 4, "--vocab-size", 80, "--short-length", 12,
              "--long-length", 12]  # fmt: skip
    assert cli(capsys, "pretrain", *common, "--output", tmp_path / "plain")[0] == 0
    assert cli(capsys, "pretrain", *common, "--output", tmp_path / "less", "--gradient-checkpointing")[0] == 0
    assert trained == [False, True]
    assert [recorded(tmp_path / name) for name in ("plain", "less")] == [False, True]
    plain, less = weights(tmp_path / "plain"), weights(tmp_path / "less")
    assert all(np.array_equal(x, less[name]) for name, x in plain.items())
    status, _, err = cli(capsys, "pretrain", "--output", tmp_path / "less", "--resume", "--no-gradient-checkpointing")
    assert (status, trained) == (0, [False, True, False])
    assert "going on with another gradient_checkpointing" in err


def test_refbert_finetune(trained, tmp_path, capsys):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", *"abcdefgh"]
    model = refbert.from_config(CONFIG.replace(vocab_size=len(words)), backend="numpy")
    model.tokenizer = Tokenizer.from_vocabulary(words, settings={"do_lower_case": True})
    model.save(tmp_path / "model")
    train = tmp_path / "train.csv"
    train.write_text("text,label\n" + "good a b,yes\nbad c d,no\n" * 4, "utf-8")
    common = ["--task", "classify", "--model", tmp_path / "model", "--train", train, "--epochs", 1]
    assert cli(capsys, "finetune", *common, "--output", tmp_path / "plain")[0] == 0
    assert cli(capsys, "finetune", *common, "--output", tmp_path / "less", "--gradient-checkpointing")[0] == 0
    assert trained == [False, True]
    assert recorded(tmp_path / "less") is True
    plain, less = weights(tmp_path / "plain"), weights(tmp_path / "less")
    assert all(np.array_equal(x, less[name]) for name, x in plain.items())
