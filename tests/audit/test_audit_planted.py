"""Errors planted in refbert, which the audit notices: its verdict turns, or a value is no longer the one on record."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import planting
import pytest

from refbert import ops
from refbert.cli import main
from refbert_audit import all_claims, run, select

ERRORS = planting.read()
FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="unavailable: errors are planted in a forked process")
# Of the errors that are planted and noticed within a second, so many that all kinds of code are among them.
SAMPLE = (
    "bert.sizes.base", "bert.input.layer-norm", "bert.nsp.follows", "bert.optimizer.weight-decay",
    "bert.squad2.threshold", "bert.table1.mnli", "transformer.heads.concat", "google.mask.value",
    "google.tokenizer.greedy", "google.schedule.jump", "google.names.not-weights", "article.tasks.translation",
)  # fmt: skip


def planted(*arguments):
    return subprocess.run(
        [sys.executable, planting.__file__, *map(str, arguments)], capture_output=True, text=True, encoding="utf-8",
        check=False,
    )  # fmt: skip


def test_every_claim_that_is_decided_has_an_error():
    ids = [id for error in ERRORS for id in error.claims]
    assert sorted(ids) == sorted(c.id for c in all_claims() if c.expects != "needs weights/data")


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.claims[0])
def test_what_an_error_replaces_is_there(error):
    """In code that is no claim's own, and what comes of it is Python."""
    assert not error.file.startswith("audit/") or error.file == "audit/refbert_audit/quoted.py"
    compile(error.source(), error.file, "exec")


@FORKS
def test_a_sample_is_noticed():
    """All of them: python tests/audit/planting.py"""
    done = planted(*SAMPLE)
    assert done.returncode == 0, done.stdout + done.stderr
    for id in SAMPLE:
        assert re.search(rf"^{re.escape(id)}: (wrong|agrees|deviates): ", done.stdout, re.MULTILINE), id


@FORKS
@pytest.mark.parametrize(("becomes", "said"), [
    ("    mask_value=-10.0e3,", "MISSED google.mask.value: agrees"),
    ("    mask_value=None,", "MISSED google.mask.value: error: TypeError"),
])  # fmt: skip
def test_an_error_that_goes_unnoticed_or_only_crashes_is_told(tmp_path, becomes, said):
    """One that changes nothing, and one after which the check does not come to a verdict."""
    (error,) = [e for e in ERRORS if e.claims == ("google.mask.value",)]
    file = tmp_path / "planted.txt"
    file.write_text(f"{error.file}\n- {error.was}\n+ {becomes}\n= google.mask.value\n", encoding="utf-8")
    done = planted("--errors", file)
    assert done.returncode == 1, done.stderr
    assert said in done.stdout


def test_the_documentation_lists_them():
    rows = re.findall(r"^\| `([^`]+)` \| (.*) \|$", planting.TABLE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [id for id, _ in rows] == planting.ordered(id for error in ERRORS for id in error.claims)
    by = {id: planting.shown(error) for error in ERRORS for id in error.claims}
    for id, row in rows:
        assert row.startswith(by[id]), f"{id}: python tests/audit/planting.py --write docs/audit-mutations.md"
        assert re.search(r" \| (wrong|agrees|deviates): ([^|]|\\\|)+$", row), id


def status(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(["audit", *arguments])
    return ended.value.code


def test_the_command_says_so(monkeypatch, capsys):
    (before,) = run(select(["bert.params.large"]))
    assert (before.verdict, before.ok) == ("agrees", True)
    with monkeypatch.context() as patch:
        patch.setattr("refbert.config.parameters._dense", lambda name, n_in, n_out: {f"{name}.weight": (n_out, n_in)})
        assert status("bert.params.large") == 1
        assert "NOT AS RECORDED" in capsys.readouterr().out
    assert status("bert.params.large") == 0
    assert "as on record" in capsys.readouterr().out


def test_a_deviation_that_is_gone_is_noticed(monkeypatch):
    """Both profiles with the same GELU: paper and code agree, which is not what is on record."""
    monkeypatch.setattr(ops, "gelu", lambda x, *, form: (x, None))
    (outcome,) = run(select(["bert.encoder.gelu-form"]))
    assert (outcome.verdict, outcome.ok) == ("agrees", False)


def test_a_wrong_statement_with_other_numbers_is_noticed(monkeypatch):
    """The verdict stays "wrong", but what was measured is not what is on record."""
    monkeypatch.setattr("refbert.config.parameters._dense", lambda name, n_in, n_out: {f"{name}.weight": (n_out, n_in)})
    (outcome,) = run(select(["article.params.chinese"]))
    assert (outcome.verdict, outcome.ok) == ("wrong", False)


def test_a_vocabulary_with_other_ids_is_noticed(tmp_path):
    """Of the two claims that only a checkpoint decides, the one about its vocabulary."""
    pieces = [f"[unused{i}]" for i in range(21_128)]
    for id, piece in ((0, "[PAD]"), (100, "[UNK]"), (101, "[CLS]"), (102, "[SEP]"), (103, "[MASK]"), (2769, "我"),
                      (1599, "喜"), (3614, "欢"), (1391, "吃"), (5741, "苹"), (3362, "果")):  # fmt: skip
        pieces[id] = piece
    for verdict in ("agrees", "wrong"):
        (tmp_path / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")
        (outcome,) = run(select(["article.example.ids"]), model=str(tmp_path))
        assert (outcome.verdict, outcome.ok) == (verdict, verdict == "agrees")
        pieces[2769], pieces[2770] = pieces[2770], pieces[2769]


def test_other_weights_of_the_same_width_are_noticed(tmp_path):
    """And the one about the weights of bert-base-uncased."""
    from refbert import from_config
    from refbert_audit.models import SIZES

    wide = SIZES.replace(vocab_size=6100, hidden_size=768, num_attention_heads=12, num_hidden_layers=1)
    from_config(wide, backend="reference").save(tmp_path / "wide")
    (outcome,) = run(select(["hf.integration"]), model=str(tmp_path / "wide"))
    assert (outcome.verdict, outcome.ok) == ("wrong", False)
