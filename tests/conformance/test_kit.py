"""``refbert kit`` and ``refbert judge``: what a target's files get for a verdict."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from calling import cli

import refbert_numpy
from refbert.checkpoint.safetensors_file import read_safetensors, write_safetensors
from refbert.cli import main
from refbert_conformance.kit.files import SCHEMA
from refbert_conformance.kit.recording import record
from refbert_conformance.properties.table import matching
from refbert_conformance.scoreboard import read

DOCUMENT = Path(__file__).parents[2] / "docs" / "conformance.md"
ONLY = "*/[st]*[xh]/*"  # tanh, which a backend must have, and softmax, which it need not


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    place = tmp_path_factory.mktemp("kit") / "kit"
    with pytest.raises(SystemExit):
        main(["kit", str(place), "--only", ONLY])
    return place


@pytest.fixture(scope="module")
def manifest(kit):
    return json.loads((kit / "manifest.json").read_text(encoding="utf-8"))


@pytest.fixture
def right(kit):
    """The reference's own answers."""
    return {name: x.astype(np.float32) for name, x in read_safetensors(kit / "expected.safetensors").items()}


@pytest.fixture
def judged(kit, tmp_path, capsys):
    def judge(results, *options):
        """(exit status, report or None, what was said)."""
        write_safetensors(tmp_path / "mine.safetensors", results)
        report = tmp_path / "r.json"
        status, out, error = cli(capsys, "judge", kit, tmp_path / "mine.safetensors", "--json", report, *options)
        assert "Traceback" not in error
        return status, read(report) if report.exists() else None, out + error

    return judge


def rows_of(report, outcome):
    return {row["id"]: row["message"] for row in report["properties"] if row["outcome"] == outcome}


def play(place, results, monkeypatch, backend=refbert_numpy.NumpyBackend):
    """Be the target, as the documentation has it."""
    text = DOCUMENT.read_text(encoding="utf-8")
    (code,) = re.findall(r"<!-- kit-target -->\n```python\n(.*?)```", text, flags=re.DOTALL)
    monkeypatch.setattr(sys, "argv", ["target.py", str(place), str(results)])
    monkeypatch.setattr(refbert_numpy, "NumpyBackend", backend)
    with np.errstate():  # which it sets
        exec(compile(code, "target.py", "exec"), {})


def test_the_references_answers_pass(judged, right, manifest, tmp_path):
    status, report, said = judged(right, "--html", tmp_path / "r.html", "--name", "npu")
    assert status == 0, said
    assert (report["verdict"], report["missing"], report["backend"]["name"]) == ("conformant", [], "npu")
    assert list(rows_of(report, "passed")) == list(manifest["properties"])
    rho = [row["rho"] for row in report["properties"] if row["id"] == "backward/tanh/accuracy"]
    assert 0 < rho[0] < 0.5
    unseen = [id for ids in manifest["left_out"].values() for id in ids]
    assert sorted(rows_of(report, "unavailable")) == sorted(unseen)
    assert "contract/tanh/repeatable" in unseen
    assert "npu" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_the_documents_target_passes(kit, tmp_path, monkeypatch, capsys):
    (tmp_path / "results").mkdir()
    play(kit, tmp_path / "results" / "some.safetensors", monkeypatch)
    status, out, error = cli(capsys, "judge", kit, tmp_path / "results")
    assert status == 0, out + error


def test_a_wrong_gradient_is_named(tmp_path, monkeypatch, capsys):
    class Wrong(refbert_numpy.NumpyBackend):
        def layer_norm(self, x, gamma, beta, *, eps):
            y, pullback = super().layer_norm(x, gamma, beta, eps=eps)

            def wrong(dy):
                dx, *rest = pullback(dy)
                return (dx * np.float32(1.001), *rest)

            return y, wrong

    kit, results, file = (tmp_path / name for name in ("kit", "wrong.safetensors", "r.json"))
    assert cli(capsys, "kit", kit, "--only", "backward/layer_norm")[0] == 0
    play(kit, results, monkeypatch, Wrong)
    status, said, _ = cli(capsys, "judge", kit, results, "--json", file)
    report = read(file)
    assert (status, report["verdict"]) == (1, "not conformant")
    failed = rows_of(report, "failed")
    assert "backward/layer_norm/accuracy" in failed
    assert "backward/layer_norm/flat cotangent" in rows_of(report, "passed")
    assert re.match(r"case \d{4}: dx\[.*\] is .* should be .*, ρ = ", failed["backward/layer_norm/accuracy"])
    row = next(row for row in report["properties"] if row["id"] == "backward/layer_norm/accuracy")
    assert row["rho"] > 1
    assert row["failure"]["worst"]["output"] == "dx"
    assert "FAILED  backward/layer_norm/accuracy" in said


def output_of(manifest, property, name):
    return next(tensor for case in manifest["cases"] for tensor, output in case["outputs"].items()
                if tensor.endswith(f"/{name}") and property in output["properties"])  # fmt: skip


def test_a_missing_output_is_named_and_the_rest_is_judged(judged, right, manifest):
    gone = output_of(manifest, "backward/tanh/accuracy", "dx")
    del right[gone]
    status, report, said = judged(right)
    assert (status, report["verdict"], report["missing"]) == (3, "inconclusive", [gone])
    inconclusive = rows_of(report, "inconclusive")
    assert re.fullmatch(rf"1 of \d+ results are missing: {gone}", inconclusive["backward/tanh/accuracy"])
    assert gone in said
    wrong = output_of(manifest, "backward/softmax/accuracy", "dx")
    right[wrong] += np.float32(1)
    status, report, _ = judged(right)
    assert (status, report["verdict"]) == (1, "not conformant")
    assert "backward/softmax/accuracy" in rows_of(report, "failed")


def test_nothing_is_conformant_without_a_required_op(judged, right, manifest):
    ops = {case["case"]: case["op"] for case in manifest["cases"]}
    for op, status, outcome in (("softmax", 0, "unsupported"), ("tanh", 3, "inconclusive")):
        got, report, _ = judged({name: x for name, x in right.items() if ops[name.split("/")[0]] != op})
        assert got == status
        assert set(rows_of(report, outcome)) == {p for p in manifest["properties"] if f"/{op}/" in p}


def test_a_target_for_inference(judged, right):
    status, report, said = judged({name: x for name, x in right.items() if name.endswith("/y")}, "--inference")
    assert (status, report["verdict"]) == (0, "conformant for inference"), said
    assert "backward/softmax/accuracy" in rows_of(report, "unsupported")


def damaged(x, how):
    return {
        "shape": x.reshape(1, *x.shape),
        "float64": x.astype(np.float64),
        "float16": x.astype(np.float16),
        "NaN": np.full_like(x, np.nan),
        "infinity": np.full_like(x, np.inf),
        "zeros": np.zeros_like(x),
    }[how]


@pytest.mark.parametrize("how", ["shape", "float64", "float16", "NaN", "infinity", "zeros"])
def test_a_damaged_output_fails(judged, right, manifest, how):
    one = output_of(manifest, "forward/tanh/accuracy", "y")
    status, report, said = judged(right | {one: damaged(right[one], how)})
    assert (status, report["verdict"]) == (1, "not conformant")
    failed = rows_of(report, "failed")
    assert failed["forward/tanh/accuracy"].startswith(f"case {one.split('/')[0]}: ")
    assert all("/tanh/" in id for id in failed)
    if how in ("shape", "float64", "float16"):
        assert f"{one} {'has shape' if how == 'shape' else f'is {how}'}" in said


def test_what_is_no_answer_gets_one_line(kit, right, tmp_path, capsys):
    whole, other = tmp_path / "whole.safetensors", tmp_path / "other.safetensors"
    write_safetensors(whole, right)
    (tmp_path / "cut.safetensors").write_bytes(whole.read_bytes()[:-7])
    (tmp_path / "foreign.safetensors").write_text("not at all")
    write_safetensors(other, {"0001/z": np.zeros(2, np.float32)})
    (tmp_path / "none").mkdir()
    changed = tmp_path / "changed"
    changed.mkdir()
    manifest = json.loads((kit / "manifest.json").read_text(encoding="utf-8"))
    other_examples = {id: [{"Recipe": one["Recipe"] | {"seed": 5}} if "accuracy" in id else one for one in examples]
                      for id, examples in manifest["properties"].items()}  # fmt: skip
    (changed / "manifest.json").write_text(json.dumps(manifest | {"properties": other_examples}), encoding="utf-8")
    lines = {
        (kit, tmp_path / "cut.safetensors"): "damaged or cut short",
        (kit, tmp_path / "foreign.safetensors"): "damaged or cut short",
        (kit, other): "the kit does not ask for, 0001/z the first",
        (kit, whole, whole): "is in another file, too",
        (kit, tmp_path / "none"): "no *.safetensors in this directory",
        (kit, tmp_path / "missing"): "no such file",
        (tmp_path, whole): "no such file",
        (changed, whole): "it has been changed since it was written",
    }
    for arguments, said in lines.items():
        status, out, error = cli(capsys, "judge", *arguments)
        assert (status, out, error.count("\n")) == (2, "", 1), error
        assert said in error
    no_example = json.dumps(manifest | {"properties": {"forward/tanh/accuracy": [{"Recipe": {"speed": 1}}]}})
    nothing_of = json.dumps(manifest | {"properties": {}})
    unheard_of = json.dumps(manifest | {"dtype": "int8"})
    for text in ("{}", '{"format": "refbert-kit/1"}', "[1]", "{", no_example, nothing_of, unheard_of):
        (changed / "manifest.json").write_text(text, encoding="utf-8")
        status, out, error = cli(capsys, "judge", changed, whole)
        assert (status, out, error.count("\n")) == (2, "", 1), error


def test_a_kit_is_refused_in_one_line(kit, tmp_path, capsys):
    lines = {
        (kit,): "is there already",
        (tmp_path / "a", "--only", "contract"): 'no kit has anything of "contract"',
        (tmp_path / "a", "--only", "nothing"): "no property matches",
        (tmp_path / "a", "--arithmetic", "[]"): "arithmetic is not an object",
        (tmp_path / "a", "--arithmetic", '{"accumulation": [1]}'): '"accumulation" is not a text',
        (tmp_path / "a", "--arithmetic", '{"speed": 1}'): "arithmetic declares speed",
    }
    for arguments, said in lines.items():
        status, out, error = cli(capsys, "kit", *arguments)
        assert (status, out, error.count("\n")) == (2, "", 1), error
        assert said in error
    assert not (tmp_path / "a").exists()


def test_the_manifest_is_as_the_schema_says(kit, manifest):
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(manifest, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest | {"more": 1}, schema)
    assert (kit / SCHEMA.name).read_bytes() == SCHEMA.read_bytes()
    inputs, bounds = (read_safetensors(kit / f"{name}.safetensors") for name in ("inputs", "bounds"))
    used = {tensor for case in manifest["cases"]
            for tensor in (*case["inputs"].values(), *case["host_arrays"].values(), case["cotangent"])}  # fmt: skip
    assert used - {None} == set(inputs)
    outputs = {name: tuple(one["shape"]) for case in manifest["cases"] for name, one in case["outputs"].items()}
    assert {name: x.shape for name, x in bounds.items()} == outputs  # a layer's would be a number for each row
    assert {p for case in manifest["cases"] for one in case["outputs"].values() for p in one["properties"]} == set(
        manifest["properties"]
    )


@pytest.mark.parametrize(
    ("only", "dtype", "stored"),
    [("forward/attention/one key", "float32", np.float32), ("backward/dropout/same mask", "float16", np.float16)],
)
def test_a_kit_is_the_same_bytes_twice(only, dtype, stored, tmp_path, monkeypatch, capsys):
    """And its target has a mask, an infinite option, a narrow dtype."""
    for name in "ab":
        assert cli(capsys, "kit", tmp_path / name, "--only", only, "--dtype", dtype)[0] == 0
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(files) == 5
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    results = {n: x.astype(stored) for n, x in read_safetensors(tmp_path / "a" / "expected.safetensors").items()}
    write_safetensors(tmp_path / "r.safetensors", results)
    status, out, error = cli(capsys, "judge", tmp_path / "a", tmp_path / "r.safetensors")
    assert status == 0, out + error
    if dtype == "float32":
        play(tmp_path / "a", tmp_path / "played.safetensors", monkeypatch)
        assert cli(capsys, "judge", tmp_path / "b", tmp_path / "played.safetensors")[0] == 0


def test_what_is_declared_goes_with_the_kit(tmp_path, capsys):
    """The inputs of exact sums depend on it, and so do the bounds."""
    only, declared = "forward/linear/exact integers", {"matmul_inputs": "bfloat16"}
    properties = matching(only)
    plain, narrow = (
        record(properties, dtype="float32", arithmetic=arithmetic, effort="quick", seed=0)
        for arithmetic in ({}, declared)
    )
    assert {case.call.digest for case in plain.cases}.isdisjoint(case.call.digest for case in narrow.cases)
    assert cli(capsys, "kit", tmp_path / "k", "--only", only, "--arithmetic", json.dumps(declared))[0] == 0
    expected = read_safetensors(tmp_path / "k" / "expected.safetensors")
    write_safetensors(tmp_path / "r.safetensors", {n: x.astype(np.float32) for n, x in expected.items()})
    status, out, error = cli(capsys, "judge", tmp_path / "k", tmp_path / "r.safetensors")
    assert status == 0, error
    assert "matmul_inputs bfloat16" in out


def test_a_fused_layer(tmp_path, monkeypatch, capsys):
    class Wrong(refbert_numpy.NumpyBackend):
        def encoder_layer(self, x, params, *, activation, **options):
            return super().encoder_layer(x, params, activation="gelu_tanh", **options)

    assert cli(capsys, "kit", tmp_path / "kit", "--only", "blocks/encoder_layer/fused*")[0] == 0
    manifest = json.loads((tmp_path / "kit" / "manifest.json").read_text(encoding="utf-8"))
    jsonschema.validate(manifest, json.loads(SCHEMA.read_text(encoding="utf-8")))
    assert list(manifest["properties"]) == [f"blocks/encoder_layer/{name}" for name in
                                            ("fused", "fused: options", "fused: unseen keys")]  # fmt: skip
    for backend, status in ((refbert_numpy.NumpyBackend, 0), (Wrong, 1)):
        play(tmp_path / "kit", tmp_path / "r.safetensors", monkeypatch, backend)
        got, out, error = cli(capsys, "judge", tmp_path / "kit", tmp_path / "r.safetensors")
        assert got == status, out + error
    assert re.search(r"FAILED  blocks/encoder_layer/fused: .*\n    case \d{4}: y\[.*\] is off by", out)
