"""`refbert audit` as a user calls it."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from refbert.cli import main
from refbert_audit import all_claims
from refbert_audit.documentation import BEGIN, END

ROOT = Path(__file__).parent.parent.parent


def audit(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "refbert", "audit", *map(str, arguments)], capture_output=True, text=True,
        encoding="utf-8", check=False,
    )  # fmt: skip


def here(capsys, *arguments):
    """(status, stdout, stderr) without a process of its own."""
    with pytest.raises(SystemExit) as ended:
        main(["audit", *map(str, arguments)])
    seen = capsys.readouterr()
    return ended.value.code, seen.out, seen.err


def test_one_claim_in_full():
    done = audit("bert.params.large")
    assert done.returncode == 0, done.stderr
    for word in ("335,141,888", "336,226,108", "§3", "BERT large has 340M", "agrees (as on record)",
                 "def bert_params_large() -> Values:", "audit/refbert_audit/claims/bert_model.py"):  # fmt: skip
        assert word in done.stdout, word


def test_a_deviation_says_who_does_what(capsys):
    code, out, _ = here(capsys, "bert.optimizer.l2")
    assert code == 0
    assert "the document says" in out
    assert "Google: decoupled decay" in out


def test_a_group(capsys):
    code, out, _ = here(capsys, "bert.params.", "article.positions")
    assert code == 0
    for claim in all_claims():
        assert (claim.id in out) == claim.id.startswith(("bert.params.", "article.positions.")), claim.id
    assert "every verdict is the one on record" in out


def test_json_is_one_line(capsys):
    code, out, _ = here(capsys, "--json", "bert.masking")
    assert code == 0
    (line,) = out.splitlines()
    data = json.loads(line)
    assert {c["id"] for c in data["claims"]} == {c.id for c in all_claims() if c.id.startswith("bert.masking.")}
    assert here(capsys, "--json", "bert.masking")[1] == out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["bert.params.larg"], "near it: bert.params.large"),
        (["--html", "nowhere/at/all.html", "bert.params"], "does not exist"),
        (["--model", "nowhere", "hf.integration"], "no such directory"),
        (["--nonsense"], "No such option"),
        (["--write-docs", "nowhere.md"], "no such file"),
    ],
)
def test_mistakes_are_one_line_and_status_2(capsys, arguments, says):
    code, out, err = here(capsys, *arguments)
    assert (code, out) == (2, "")
    (line,) = err.strip().splitlines()
    assert line.startswith("refbert: ")
    assert says in line


def test_a_directory_without_a_checkpoint_is_a_mistake(capsys, tmp_path):
    code, out, err = here(capsys, "--model", tmp_path, "hf.integration")
    assert (code, out) == (2, "")
    assert err.strip().splitlines() == [
        f"refbert: {tmp_path}: no config.json and no bert_config.json, so this is not a BERT checkpoint"
    ]


def test_a_vocabulary_is_enough_for_the_claim_that_reads_it_alone(capsys, tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n", encoding="utf-8")
    code, out, err = here(capsys, "--model", tmp_path, "article.example.ids")
    assert (code, err) == (1, "")  # another vocabulary than bert-base-chinese's
    assert "verdict: wrong" in out


def test_what_is_unavailable_is_one_line_and_status_2(capsys, monkeypatch):
    """The rest is reported; and a verdict that is not as recorded counts for more."""
    from refbert_inspection import hugging_face

    monkeypatch.setattr(hugging_face, "find_spec", lambda name: None)
    code, out, err = here(capsys, "hf.gelu", "hf.params", "article.params")
    assert code == 2
    assert err == "refbert: 2 of 4 claims unavailable: needs transformers and torch (pip install transformers torch)\n"
    assert "code      2: 2 unavailable\n" in out
    assert "article   2: 1 agrees, 1 wrong\n" in out
    assert "every other verdict is the one on record" in out
    code, out, _ = here(capsys, "hf.gelu")
    assert (code, "verdict: unavailable (on record is agrees)" in out) == (2, True)
    assert here(capsys, "hf.gelu", "--json")[0] == 2
    assert here(capsys, "hf.integration")[0] == 0
    monkeypatch.setattr("refbert.config.parameters._dense", lambda name, n_in, n_out: {f"{name}.weight": (n_out, n_in)})
    assert here(capsys, "hf.gelu", "bert.params.large")[0] == 1


def test_links_and_what_is_inferred(capsys):
    code, out, _ = here(capsys, "bert.params.tied")
    assert code == 0
    assert "source: https://arxiv.org/abs/1810.04805v2\n" in out
    assert "inferred: no document says it in so many words" in out
    assert "inferred" not in here(capsys, "bert.params.large")[1]
    _, out, _ = here(capsys, "bert.params")
    assert "agrees*" in out
    assert "* 3 are inferred" in out


def test_list_runs_nothing(capsys):
    code, out, _ = here(capsys, "--list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == [c.id for c in all_claims()]


def test_html(capsys, tmp_path):
    file = tmp_path / "audit.html"
    assert here(capsys, "--html", file, "bert.schedule")[0] == 0
    assert 'id="bert.schedule.warmup"' in file.read_text(encoding="utf-8")


def test_write_docs_keeps_what_is_around(capsys, tmp_path):
    file = tmp_path / "page.md"
    file.write_text(f"before\n{BEGIN}\nwhat was here\n{END}\nafter\n", encoding="utf-8")
    assert here(capsys, "--write-docs", file)[0] == 0
    text = file.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "what was here" not in text
    assert here(capsys, "--write-docs", file)[0] == 0
    assert file.read_text(encoding="utf-8") == text
    file.write_text("no markers", encoding="utf-8")
    assert here(capsys, "--write-docs", file)[0] == 2


def test_other_weights_do_not_pass_for_those_that_are_missing(capsys, tmp_path):
    from refbert import from_config
    from refbert_audit.models import SIZES

    from_config(SIZES, backend="reference").save(tmp_path / "small")
    code, out, _ = here(capsys, "--model", tmp_path / "small", "hf.integration")
    assert code == 1
    assert "not bert-base-uncased" in out


def test_without_weights_it_says_what_is_missing(capsys):
    code, out, _ = here(capsys, "hf.integration")
    assert code == 0
    assert "missing: the weights of bert-base-uncased" in out


def test_the_table_fits_80_columns(whole, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    importlib.import_module("refbert_audit.command")._show_all(whole[0], 1.0)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    for claim in all_claims():
        assert sum(line.startswith(f"{claim.id} ") for line in lines) == 1, claim.id
