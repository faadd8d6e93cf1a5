"""The everyday list and how it is scored: against answers counted by hand, and lists that are not ones."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import everyday
import numpy as np
import pytest

import refbert
from refbert.errors import InputError
from refbert.models import DEFAULT

RECIPE = Path(everyday.__file__).parent
HOT = everyday.Sentence("opposite", "The opposite of hot is [MASK].", ("cold", "cool"))


def _answered(*said: str) -> everyday.Answered:
    return everyday.Answered(HOT, said, True)


def test_the_committed_lists_are_lists() -> None:
    for name in ("everyday.tsv", "second.tsv"):
        sentences = everyday.read_sentences(RECIPE / name)
        assert len({sentence.text for sentence in sentences}) == len(sentences) == 60
    pairs = everyday.read_pairs(RECIPE / "similar.tsv")
    assert 20 <= len(pairs) <= 30
    # Both ends of the scale, or a correlation says little.
    assert {0.0, 5.0} <= {score for score, _, _ in pairs}


@pytest.mark.parametrize(
    ("said", "first", "among"),
    [
        (("cold", "hot"), True, True),
        (("hot", "cool"), False, True),
        (("hot", "coldest"), False, False),
        (("##cold", "Cold"), False, False),  # a piece of a word, and another token
    ],
)
def test_a_sensible_answer_is_a_word_of_the_list(said: tuple[str, ...], first: bool, among: bool) -> None:
    answered = _answered(*said)
    assert (answered.first, answered.among) == (first, among)


def test_counts_by_hand() -> None:
    rose = everyday.Sentence("kind", "A rose is a kind of [MASK].", ("flower",))
    answered = [_answered("cold", "hot"), _answered("hot", "cold"), everyday.Answered(rose, ("rose", "salt"), False)]
    assert everyday.figures(answered)["counts"] == {
        "all": {"first": 1, "five": 2, "of": 3},
        "opposite": {"first": 1, "five": 2, "of": 2},
        "kind": {"first": 0, "five": 0, "of": 1},
    }
    report = everyday.report(answered, {"correlation": 0.5, "cat_kitten": 0.2, "cat_tax_law": 0.3})
    assert "| all | 1 of 3 | 2 of 3 |" in report
    assert "| A rose is a kind of [MASK]. | rose, salt | not in its vocabulary |" in report
    assert "| The opposite of hot is [MASK]. | hot, cold | among them |" in report
    assert "cold, hot" not in report  # a first answer that is sensible is no miss
    assert "NOT closer" in report


class _Known:
    """Sentence vectors by hand."""

    def __init__(self, vectors: dict[str, list[float]]) -> None:
        self.vectors = vectors

    def encode(self, texts: list[str], normalize: bool) -> np.ndarray:
        assert normalize
        x = np.array([self.vectors[text] for text in texts], dtype=np.float64)
        return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize(("judged", "correlation"), [((5.0, 2.0, 0.0), 1), ((0.0, 2.0, 5.0), -1)])
def test_vectors_that_follow_the_judgement_and_that_do_not(judged: tuple[float, ...], correlation: float) -> None:
    model = _Known({"a": [1, 0], "b": [1, 1], "c": [0, 1], "cat": [1, 0], "kitten": [3, 4], "tax law": [4, 3]})
    found = everyday.vectors(model, [(score, "a", other) for score, other in zip(judged, "abc", strict=True)])
    assert found["correlation"] == pytest.approx(correlation)
    assert found["cat_kitten"] == pytest.approx(0.6)
    assert found["cat_tax_law"] == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("kind\tNo place to fill.\tword", "one \\[MASK\\]"),
        ("kind\t[MASK] and [MASK].\tword", "one \\[MASK\\]"),
        ("kind\tA [MASK].\tWord", "lower case"),
        ("kind\tA [MASK].\tword word", "each once"),
        ("kind\tA [MASK].", "3 fields"),
        ("kind\tA [MASK].\t ", "3 fields"),
        ("# nothing", "nothing in it"),
    ],
)
def test_a_list_that_is_none(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "list.tsv").write_text(f"{line}\n", encoding="utf-8")
    with pytest.raises(InputError, match=message):
        everyday.read_sentences(tmp_path / "list.tsv")


@pytest.mark.parametrize("score", ["six", "5.1", "-1", "nan"])
def test_a_similarity_that_is_none(tmp_path: Path, score: str) -> None:
    (tmp_path / "pairs.tsv").write_text(f"{score}\tOne.\tTwo.\n", encoding="utf-8")
    with pytest.raises(InputError, match="from 0 to 5"):
        everyday.read_pairs(tmp_path / "pairs.tsv")


@pytest.mark.parametrize("name", ["everyday", "second"])
@pytest.mark.parametrize("model", ["small-english", "small-chinese"])
def test_the_recorded_figures_are_the_shipped_models(model: str, name: str) -> None:
    """A new model without new figures, or a changed list, fails here."""
    recipe = RECIPE.with_name(model)
    found = everyday.figures(everyday.ask(refbert.load(model), everyday.read_sentences(recipe / f"{name}.tsv")))
    recorded = json.loads((recipe / f"{name}-scores.json").read_text(encoding="utf-8"))
    assert found["counts"] == recorded["counts"]


def test_the_recorded_vectors_are_the_shipped_models() -> None:
    vectors = everyday.vectors(refbert.load("small-english"), everyday.read_pairs(RECIPE / "similar.tsv"))
    recorded = json.loads((RECIPE / "everyday-scores.json").read_text(encoding="utf-8"))
    # Cosines of float32 vectors of 384 numbers: two neighbours in rank may change places, no more.
    assert vectors == pytest.approx(recorded["vectors"], abs=0.01)


def test_the_examples_work() -> None:
    """What is shown is of the everyday lists, and its first answer is sensible."""
    root = RECIPE.parents[1]
    documents = ["README.md", "docs/how-to/run.md", "docs/tour/19-shipped-model.md", "refbert/cli/run.py"]
    command = re.compile(r'refbert run (?:--model (small-\w+) )?"([^"]*\[MASK\][^"]*)"')
    examples = {name: command.findall((root / name).read_text(encoding="utf-8")) for name in documents}
    assert all(examples.values()), examples
    shown: dict[str, set[str]] = {}
    for model, text in itertools.chain(*examples.values()):
        shown.setdefault(model or DEFAULT, set()).add(text)
    assert set(shown) == {"small-english", "small-chinese"}
    for model, texts in shown.items():
        lists = [RECIPE.with_name(model) / name for name in ("everyday.tsv", "second.tsv")]
        sentences = {sentence.text: sentence for path in lists for sentence in everyday.read_sentences(path)}
        for answered in everyday.ask(refbert.load(model), [sentences[text] for text in sorted(texts)]):
            assert answered.first, answered


def test_a_missing_model_is_one_line() -> None:
    command = [sys.executable, str(RECIPE / "everyday.py"), "--model", "no/such/model"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("everyday.py: ")
    assert done.stderr.count("\n") == 1
