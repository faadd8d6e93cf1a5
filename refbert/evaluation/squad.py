"""SQuAD's scores of answers: exact match and F1, in percent, and the best threshold for "no answer".

Source   Rajpurkar et al. 2016 (evaluate-v1.1.py) and 2018 (evaluate-v2.0.py). An answer is compared after lower-casing,
         without ASCII punctuation and without a, an and the; F1 is of its words as a bag; the best over the answers
         that people gave counts. The two scripts differ where nothing is left of an answer: 2.0 gives F1 1 if nothing
         is left of both, 1.1 gives 0.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize(answer: str) -> str:
    """Lower case, no punctuation, no articles, single spaces: in that order."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def exact(predicted: str, answer: str) -> float:
    """1 if they are the same once normalized."""
    return float(normalize(predicted) == normalize(answer))


def word_f1(predicted: str, answer: str, *, empty_matches: bool = True) -> float:
    """F1 of the words. ``empty_matches``: two answers of which nothing is left agree (2.0) or do not (1.1)."""
    ours, theirs = normalize(predicted).split(), normalize(answer).split()
    if empty_matches and not (ours and theirs):
        return float(ours == theirs)
    common = (Counter(ours) & Counter(theirs)).total()
    return 2 * common / (len(ours) + len(theirs)) if common else 0.0


def question_scores(predicted: str, answers: Sequence[str], *, unanswerable: bool) -> tuple[float, float]:
    """(exact, F1) of one answer; "" is "no answer". ``unanswerable``: by SQuAD 2.0's rules."""
    if unanswerable:
        answers = [answer for answer in answers if normalize(answer)] or [""]
    return (
        max((exact(predicted, answer) for answer in answers), default=0.0),
        max((word_f1(predicted, answer, empty_matches=unanswerable) for answer in answers), default=0.0),
    )


def squad_scores(
    predicted: Mapping[str, str], answers: Mapping[str, Sequence[str]], *, unanswerable: bool
) -> dict[str, float]:
    """exact_match and f1 in percent, by question's id; a question without a prediction counts as wrong.

    With ``unanswerable`` (SQuAD 2.0) also those of the questions that have an answer and of those that have none.
    """
    each = {
        name: question_scores(predicted[name], golden, unanswerable=unanswerable) if name in predicted else (0.0, 0.0)
        for name, golden in answers.items()
    }
    out = _percent(each)
    if unanswerable:
        with_answer = {name for name, golden in answers.items() if any(normalize(answer) for answer in golden)}
        for what, wanted in (("has_answer", with_answer), ("no_answer", set(answers) - with_answer)):
            if wanted:
                out |= {f"{what}_{k}": v for k, v in _percent({n: each[n] for n in wanted}).items()}
    return out


def best_threshold(
    best_answers: Mapping[str, str],
    answers: Mapping[str, Sequence[str]],
    null_margins: Mapping[str, float],
    score: Callable[[str, Sequence[str]], float],
) -> tuple[float, float]:
    """(threshold, its mean score in percent): "no answer" is said where the margin is above the threshold.

    ``best_answers``: the best answer of each question, whatever its margin; never "". The threshold lies on the margin
    of a question that is answered; where saying "no answer" to all is best, below all margins by 1.
    """
    names = sorted(answers, key=lambda name: null_margins[name])
    total = sum(score("", answers[name]) for name in names)
    best, threshold = total, min(null_margins.values(), default=0.0) - 1
    for i, name in enumerate(names):
        total += score(best_answers[name], answers[name]) - score("", answers[name])
        tied = i + 1 < len(names) and null_margins[names[i + 1]] == null_margins[name]
        if total > best and not tied:
            best, threshold = total, null_margins[name]
    return threshold, 100 * best / max(1, len(names))


def _percent(each: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    n = max(1, len(each))
    return {
        "exact_match": 100 * sum(e for e, _ in each.values()) / n,
        "f1": 100 * sum(f for _, f in each.values()) / n,
    }
