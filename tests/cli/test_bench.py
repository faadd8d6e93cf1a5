"""`refbert bench`, and refbert.benchmark under it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from small_checkpoint import write_small_checkpoint
from test_run import fails, refbert_cli

import refbert
from refbert import benchmark
from refbert.config import flops
from refbert.errors import InputError
from refbert.ops.cross_entropy import IGNORE

TINY = ("--model", "bert-tiny", "--batch-size", "2", "--length", "16", "--rounds", "3")
KEYS = {
    "backend", "library", "dtype", "device", "model", "weights", "parameters", "work", "batch_size", "length",
    "seconds", "tokens_per_second", "gflop_per_second", "limit_gflop_per_second", "fraction_of_limit", "peak_memory",
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny():
    return refbert.from_config(refbert.preset("bert-tiny"), heads=benchmark.PRETRAINING)


def test_json_of_a_preset():
    done = refbert_cli("bench", *TINY, "--json", env={"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    out = json.loads(done.stdout)
    assert set(out) == KEYS
    assert (out["backend"], out["dtype"], out["weights"], out["work"]) == ("numpy", "float32", "random", "forward")
    assert len(out["seconds"]["runs"]) == 3
    low, high = out["seconds"]["quartiles"]
    assert 0 < low <= out["seconds"]["median"] <= high
    assert out["tokens_per_second"] == pytest.approx(32 / out["seconds"]["median"])
    work = 2 * flops.forward_flops(refbert.preset("bert-tiny"), 16)
    assert out["gflop_per_second"] == pytest.approx(work / out["seconds"]["median"] / 1e9)
    assert out["fraction_of_limit"] == pytest.approx(out["gflop_per_second"] / out["limit_gflop_per_second"])
    assert out["peak_memory"]["process"] > 4 * out["parameters"]
    assert out["peak_memory"]["device"] is None


def test_table_of_a_step_on_loaded_weights(tmp_path):
    path = write_small_checkpoint(tmp_path)
    done = refbert_cli(
        "bench",
        "--backend",
        "reference",
        "--model",
        path,
        "--step",
        "--batch-size",
        "2",
        "--length",
        "8",
        "--rounds",
        "1",
    )
    assert done.returncode == 0, done.stderr
    for word in ("reference", "forward and backward", "loaded weights", "tokens/s", "GFLOP/s", "peak memory, process"):
        assert word in done.stdout, word
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--backend", "nmpy"), "numpy"),
        (("--backend", "numpy", "--dtype", "int3"), "int3"),
        (("--device", "moon"), "moon"),
        (("--length", "513"), "512"),
        (("--length", "0"), "--length"),
        (("--batch-size", "0"), "--batch-size"),
        (("--rounds", "none"), "--rounds"),
        (("--model", "./nowhere"), "nowhere"),
    ],
)
def test_bad_input_is_one_line(arguments, says):
    fails(refbert_cli("bench", "--model", "bert-tiny", *arguments, env={"HF_HUB_OFFLINE": "1"}), says)


def test_measure_refuses_what_the_model_does_not_have(tiny):
    for wrong in ({"batch_size": 0, "length": 4}, {"batch_size": 1, "length": 513}, {"batch_size": 1, "length": 0}):
        with pytest.raises(InputError):
            benchmark.measure(tiny, **wrong)
    plain = refbert.from_config(refbert.preset("bert-tiny"))
    with pytest.raises(InputError, match="masked_lm and next_sentence"):
        benchmark.measure(plain, batch_size=1, length=4, step=True)


def test_measure_counts_what_it_times(tiny):
    found = benchmark.measure(tiny, batch_size=3, length=20, step=True, rounds=2, limit=1e12)
    masked = 3 * 3  # 15 % of 20 in each row
    per_sequence = flops.training_flops(tiny.config, 20, benchmark.PRETRAINING, masked_positions=3)
    assert found.flops == 3 * per_sequence == benchmark.step_flops(tiny.config, 3, 20, masked)
    assert (found.tokens, found.limit, len(found.seconds)) == (60, 1e12, 2)
    assert found.fraction == pytest.approx(found.flops / found.median / 1e12)


def test_the_timed_forward_is_the_models(tiny):
    batch, _ = benchmark.random_batch(tiny.config, 2, 9)
    assert np.array_equal(benchmark.forward_and_wait(tiny, batch), tiny(batch, heads=()).last_hidden_state)


def test_random_batch_labels_15_percent_of_each_row():
    _, labels = benchmark.random_batch(refbert.preset("bert-tiny"), 4, 128)
    assert (labels["labels"] != IGNORE).sum(axis=1).tolist() == [19] * 4
    _, labels = benchmark.random_batch(refbert.preset("bert-tiny"), 4, 2)
    assert (labels["labels"] != IGNORE).sum(axis=1).tolist() == [1] * 4


def test_the_limit_is_at_least_what_a_product_reaches():
    backend = refbert.backend.registry.create("numpy")
    limit = benchmark.product_limit(backend, seconds=0.0)
    assert math.isfinite(limit)
    assert limit > 1e8  # a computer that does less than a tenth of a GFLOP/s has no NumPy


def test_timed_warms_up_first():
    calls = []
    assert len(benchmark.timed(lambda: calls.append(None), 4)) == 4
    assert len(calls) == 6
