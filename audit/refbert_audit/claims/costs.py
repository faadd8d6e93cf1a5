"""What a BERT costs: closed forms, against the operations and the memory that running takes."""

from __future__ import annotations

import tracemalloc
from functools import partial

import numpy as np

from refbert.backend.reference import ReferenceBackend
from refbert.config import flops
from refbert.config.heads import HEADS, PRETRAINING
from refbert.config.presets import preset
from refbert.spec.bert import bert
from refbert.text.batching import Batch
from refbert.training.optimizer import Optimizer
from refbert_audit import Value, Values
from refbert_audit.models import BERT, LARGE, SIZES, batch, labels_for, model
from refbert_audit.watching import Counting, flops_of


def per_token(name: str, S: int, expected: int) -> list[Value]:
    """The encoder's operations a token: counted while a layer of that size runs in float32 on S tokens, and closed."""
    config = preset(name).replace(vocab_size=9, num_hidden_layers=1)
    one = model(config=config, pooler=False, backend=Counting(dtype="float32"), scale=0.02)
    layer, _ = flops_of(lambda: one(Batch(np.ones((1, S), dtype=np.int64))))
    closed = flops.encoder_flops_per_token(preset(name), S)
    counted = preset(name).num_hidden_layers * layer / S
    return [Value("counted", counted, expected), Value("closed form", closed, expected)]


def costs_flops_base_128() -> Values:
    """NumPy's matrix products are counted while a layer of base runs on 128 tokens; times 12, over 128."""
    yield from per_token(BERT, 128, 174_587_904)


def costs_flops_base_512() -> Values:
    """As for 128 tokens."""
    yield from per_token(BERT, 512, 188_743_680)
    yield Value("base with its pooler, one sequence", flops.forward_flops(preset(BERT), 512), 96_637_943_808)


def costs_flops_large_128() -> Values:
    """As for base, with 24 layers."""
    yield from per_token(LARGE, 128, 616_562_688)
    yield Value("closed form at 512", flops.encoder_flops_per_token(preset(LARGE), 512), 654_311_424)


def costs_flops_heads() -> Values:
    """Counted and closed for each head of a small model whose sizes all differ."""
    rows, found = batch(2, 11), []
    for head in HEADS:
        counted, _ = flops_of(partial(model((head,), backend=Counting()), rows))
        found.append(counted - 2 * flops.forward_flops(SIZES, 11, (head,)))
    yield Value("counted − closed form, six heads", found, [0] * 6)


def costs_flops_backward() -> Values:
    """A pretraining step, counted, over the forward of the encoder, the pooler and the labelled positions."""
    rows = batch(2, 11)
    labels = labels_for(PRETRAINING, rows)
    P = int((labels["labels"] >= 0).sum())
    counted, _ = flops_of(lambda: model(PRETRAINING, backend=Counting()).loss_and_gradients(rows, labels))
    forward = 2 * flops.forward_flops(SIZES, 11, ("next_sentence",))
    forward += P * (2 * SIZES.hidden_size**2 + 2 * SIZES.hidden_size * SIZES.vocab_size)
    yield Value("step / forward", counted / forward, 3.0)


def costs_flops_masked_positions() -> Values:
    """Counted while the small model projects 3 and all 22 positions; shares of base by the form that this confirms."""
    rows = batch(2, 11)
    one = model(("masked_lm",), backend=Counting())
    some, _ = flops_of(lambda: one(rows, masked_lm_positions=[1, 5, 13]))
    every, _ = flops_of(lambda: one(rows))
    each = 2 * SIZES.hidden_size**2 + 2 * SIZES.hidden_size * SIZES.vocab_size
    rest = flops.forward_flops(preset(BERT), 128, ("next_sentence",))
    shares = [1 - rest / flops.forward_flops(preset(BERT), 128, PRETRAINING, masked_positions=P) for P in (20, 128)]
    step = flops.training_flops(preset(BERT), 128, PRETRAINING, masked_positions=20)
    yield Value("19 positions more cost", every - some, 19 * each)
    yield Value("share of base's forward, 20 and 128 positions", shares, [0.041, 0.216], within=5e-4)
    yield Value("base's training step, one sequence", step, 69_928_989_696)
    yield Value("a forward that projects all 128", flops.forward_flops(preset(BERT), 128, PRETRAINING), 28_500_298_752)


def costs_memory_training() -> Values:
    """Bytes of all arrays after a training step of a small float32 model, over its parameters; then base and large."""
    backend, optimizer = ReferenceBackend(dtype="float32"), Optimizer()
    one, rows = model(PRETRAINING, backend=backend), batch()
    _, gradients = one.device_loss_and_gradients(rows, labels_for(PRETRAINING, rows))
    held = [*gradients.values()]
    new, _ = optimizer.step(backend, one.parameters, gradients, lr=1e-4)
    held += [*new.values(), *optimizer.m.values(), *optimizer.v.values()]
    sizes = [flops.training_bytes(preset(p), PRETRAINING) / 1e9 for p in (BERT, LARGE)]
    yield Value("bytes per parameter", sum(x.nbytes for x in held) / one.num_parameters, 16.0)
    yield Value("GB, base and large", sizes, [1.76, 5.38], within=0.005)


def costs_memory_activations() -> Values:
    """Memory that a forward's pullback holds on to, from the difference between 4 and 2 layers, over the estimate.

    refbert's reference keeps some more than it must (masks and shifted copies), a tuned backend some less.
    """
    S = 128
    config = SIZES.replace(hidden_size=96, intermediate_size=384, max_position_embeddings=S)
    rows = batch(1, S)

    def held(layers: int) -> int:
        one = model(config=config.replace(num_hidden_layers=layers))
        bert(one.backend, one.parameters, rows, one.choices)  # whatever is imported on first use
        tracemalloc.start()
        try:
            kept = bert(one.backend, one.parameters, rows, one.choices)
            return tracemalloc.get_traced_memory()[0] if kept else 0
        finally:
            tracemalloc.stop()

    estimate = flops.activation_bytes(config.replace(num_hidden_layers=2), S, dtype="float64")
    ratio = (held(4) - held(2)) / estimate
    yield Value("held / estimate", ratio, 1.0, within=0.1)
