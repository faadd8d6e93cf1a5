"""What a verdict is about: every dtype or one, training or inference."""

from __future__ import annotations

import json

import numpy as np
import pytest
from subjects import ForInference
from test_conform import conform

import refbert
from refbert.cli import main
from refbert.errors import InputError, Unsupported
from refbert_conformance.scoreboard import read, read_all


def judged(backend, *arguments, cwd):
    report = cwd / "r.json"
    done = conform("--backend", backend, "--effort", "quick", "--json", report, *arguments, cwd=cwd)
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    return done, report


def test_a_report_names_the_dtypes_that_it_did_not_judge(tmp_path):
    page = tmp_path / "r.html"
    done, report = judged("subjects:WrongInFloat64", "--only", "forward/relu", "--html", page, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not judged: float64, float16 (--dtype all judges every dtype" in done.stdout
    assert read(report)["not_judged"] == ["float64", "float16"]
    assert "dtypes not judged</dt><dd>float64, float16</dd>" in page.read_text(encoding="utf-8")


def test_dtype_all_judges_each_and_the_worst_counts(tmp_path):
    done, report = judged("subjects:WrongInFloat64", "--only", "forward/relu", "--dtype", "all", cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "float16: not judged (" in done.stdout
    assert "no float16 on this device" in done.stdout
    first, second = read_all(report)
    assert (first["backend"]["dtype"], first["verdict"]) == ("float32", "conformant")
    assert (second["backend"]["dtype"], second["verdict"]) == ("float64", "not conformant")
    assert first["not_judged"] == second["not_judged"] == ["float16"]
    with pytest.raises(InputError, match="2 reports, where one is expected"):
        read(report)
    page = tmp_path / "both.html"
    with pytest.raises(SystemExit) as status:
        main(["scoreboard", str(report), "--html", str(page)])
    assert not status.value.code
    assert "2 backends" in page.read_text(encoding="utf-8")


def test_dtype_all_of_one_dtype_is_one_report(tmp_path):
    done, report = judged("subjects:Tensor32", "--only", "forward/relu", "--dtype", "all", cwd=tmp_path)
    assert done.returncode == 0
    assert read(report)["not_judged"] == []
    assert "not judged" not in done.stdout


def test_a_dtype_that_cannot_be_made_is_no_clean_bill(tmp_path):
    done, _ = judged("subjects:WrongInFloat64", "--only", "forward/tanh", "--dtype", "all", cwd=tmp_path)
    assert done.returncode == 2, done.stdout


def test_what_is_for_inference_is_judged_for_inference(tmp_path):
    page = tmp_path / "r.html"
    done, report = judged("subjects:ForInference", "--html", page, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "conformant for inference: " in done.stdout
    data = json.loads(report.read_text(encoding="utf-8"))
    assert data["verdict"] == "conformant for inference"
    assert data["backend"]["gradients"] is False
    assert "conformant for inference" in page.read_text(encoding="utf-8")
    rows = {row["id"]: row for row in data["properties"]}
    outcomes = {
        level: {row["outcome"] for row in rows.values() if row["level"] == level} for level in ("backward", "training")
    }
    assert outcomes == {"backward": {"unsupported"}, "training": {"unsupported"}}
    for id in ("contract/linear/calls independent", "contract/linear/repeatable",
               "contract/backend/required operations",
               "contract/attention/host arrays", "forward/attention/accuracy",
               "models/inference/accuracy"):  # fmt: skip
        assert rows[id]["outcome"] == "passed", rows[id]
        assert rows[id]["examples"], id
    for row in rows.values():
        if row["level"] == "contract" and callable(getattr(ForInference, row["op"], None)):
            assert row["outcome"] == "passed", (row["id"], row["message"])
    assert rows["models/training/accuracy"]["outcome"] == "unsupported"
    assert "gradients = False" in rows["models/training/accuracy"]["message"]


@pytest.mark.parametrize(
    ("name", "only"),
    [
        ("WrongForInference", "tanh"),
        ("WrongForInference", "models/inference"),
        ("LacksForInference", "*"),
        ("WorkspaceForInference", "relu"),
        ("HardlyForInference", "backend/attributes"),
    ],
)
def test_what_is_wrong_for_inference_is_not_conformant(name, only, tmp_path):
    done, report = judged(f"subjects:{name}", "--only", only, cwd=tmp_path)
    assert done.returncode == 1, done.stdout
    assert read(report)["verdict"] == "not conformant"


def test_a_model_runs_on_it_and_is_not_trained():
    model = refbert.load("small-english", backend="reference", dtype="float32")
    alone = refbert.Model(
        model.config, model.parameters, backend=ForInference("float32"), heads=model.heads,
        tokenizer=lambda: model.tokenizer,
    )  # fmt: skip
    assert np.array_equal(alone.encode(["A whale."]), model.encode(["A whale."]))
    batch = model.batch(["A whale."])
    with pytest.raises(Unsupported, match="is for inference only; train on another one"):
        alone.loss_and_gradients(batch, {"labels": np.where(batch.input_ids > 5, batch.input_ids, -100)})
