"""What a model answers where everyone knows the answer, and whether its sentence vectors follow the meaning.

    python everyday.py --model DIR [--output FILE] [--list everyday.tsv] [--pairs similar.tsv | --no-pairs]

first, five   of sentences with a [MASK], how many have a sensible likeliest token, and one among the likeliest five.
              A sensible answer is a whole word of the list; one that the vocabulary does not hold cannot be given, and
              sentences of which it holds none count as missed ("not in its vocabulary").
correlation   Spearman's, of the cosine of two sentences' vectors with how similar they were judged, 0 to 5
cat, kitten   whether their vectors are closer than those of cat and tax law
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refbert.errors import InputError, RefbertError

MASK, TOP = "[MASK]", 5


@dataclass(frozen=True)
class Sentence:
    """A sentence with one [MASK], and the words that would do."""

    kind: str
    text: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Answered:
    """What a model said, likeliest first; ``known``: whether its vocabulary holds a sensible answer at all."""

    sentence: Sentence
    said: tuple[str, ...]
    known: bool

    @property
    def first(self) -> bool:
        """Whether the likeliest is sensible."""
        return self.said[0] in self.sentence.answers

    @property
    def among(self) -> bool:
        """Whether one of those said is."""
        return not set(self.sentence.answers).isdisjoint(self.said)


def _rows(path: Path, columns: int) -> list[tuple[int, list[str]]]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            fields = [field.strip() for field in line.split("\t")]
            if len(fields) != columns or not all(fields):
                raise InputError(f"{path}:{number}: {columns} fields with tabs between are expected")
            rows.append((number, fields))
    if not rows:
        raise InputError(f"{path}: nothing in it")
    return rows


def read_sentences(path: Path) -> list[Sentence]:
    """The list; raises `InputError` for a line that is no kind, sentence with one [MASK], and lower-case words."""
    out = []
    for number, (kind, text, answers) in _rows(path, 3):
        if text.count(MASK) != 1:
            raise InputError(f"{path}:{number}: one {MASK} is expected")
        words = answers.split()
        if answers != answers.lower() or len(set(words)) != len(words):
            raise InputError(f"{path}:{number}: answers are lower case, each once")
        out.append(Sentence(kind, text, tuple(words)))
    return out


def read_pairs(path: Path) -> list[tuple[float, str, str]]:
    """The pairs; raises `InputError` for a line that is no number from 0 to 5 and two sentences."""
    out = []
    for number, (score, one, other) in _rows(path, 3):
        try:
            value = float(score)
        except ValueError:
            value = -1
        if not 0 <= value <= 5:
            raise InputError(f"{path}:{number}: a number from 0 to 5 is expected, not {score!r}")
        out.append((value, one, other))
    return out


def ask(model: Any, sentences: Sequence[Sentence]) -> list[Answered]:
    """What a refbert model says to each."""
    from refbert.tasks.fill_mask import fill_mask

    vocabulary = {model.tokenizer.token(i) for i in range(model.tokenizer.vocab_size)}
    texts = [sentence.text.replace(MASK, model.tokenizer.mask_token) for sentence in sentences]
    return [
        Answered(
            sentence,
            tuple(prediction.token for prediction in filled.masks[0].predictions),
            not vocabulary.isdisjoint(sentence.answers),
        )
        for sentence, filled in zip(sentences, fill_mask(model, texts, top_k=TOP), strict=True)
    ]


def vectors(model: Any, pairs: Sequence[tuple[float, str, str]]) -> dict[str, float]:
    """The correlation, and two cosines."""
    from refbert.evaluation.scores import spearman

    judged, one, other = zip(*pairs, strict=True)
    a, b = (model.encode(list(texts), normalize=True) for texts in (one, other))
    cat, kitten, law = model.encode(["cat", "kitten", "tax law"], normalize=True)
    return {
        "correlation": spearman(judged, (a * b).sum(axis=1)),
        "cat_kitten": float(cat @ kitten),
        "cat_tax_law": float(cat @ law),
    }


def figures(answered: Sequence[Answered]) -> dict[str, Any]:
    """How many, in all and by kind, and what was said to each sentence."""
    kinds = list(dict.fromkeys(a.sentence.kind for a in answered))
    groups = {"all": list(answered)} | {k: [a for a in answered if a.sentence.kind == k] for k in kinds}
    return {
        "counts": {
            name: {"first": sum(a.first for a in some), "five": sum(a.among for a in some), "of": len(some)}
            for name, some in groups.items()
        },
        "said": {a.sentence.text: list(a.said) for a in answered},
    }


def report(answered: Sequence[Answered], similarity: dict[str, float] | None) -> str:
    """The counts, the sentences whose first answer is not sensible, and the vectors' figures if there are any."""
    lines = ["| kind | first answer sensible | among the first five |", "| --- | --- | --- |"]
    for name, count in figures(answered)["counts"].items():
        lines.append(f"| {name} | {count['first']} of {count['of']} | {count['five']} of {count['of']} |")
    missed = [a for a in answered if not a.first]
    if missed:
        lines += ["", "| missed | first five | |", "| --- | --- | --- |"]
    for a in missed:
        note = "among them" if a.among else "" if a.known else "not in its vocabulary"
        lines.append(f"| {a.sentence.text} | {', '.join(a.said)} | {note} |")
    if similarity is None:
        return "\n".join(lines)
    cat, law = similarity["cat_kitten"], similarity["cat_tax_law"]
    lines += [
        "",
        f"Sentence vectors: correlation {similarity['correlation']:.2f}; cat is "
        f"{'closer to kitten than' if cat > law else 'NOT closer to kitten than'} to tax law ({cat:.2f}, {law:.2f}).",
    ]
    return "\n".join(lines)


def main() -> int:
    """The command line."""
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="what `refbert pretrain` or export.py wrote")
    parser.add_argument("--list", type=Path, default=here / "everyday.tsv", help="kind, sentence, answers, by tabs")
    parser.add_argument("--pairs", type=Path, default=here / "similar.tsv", help="similarity, two sentences, by tabs")
    parser.add_argument("--no-pairs", dest="pairs", action="store_const", const=None, help="no sentence vectors")
    parser.add_argument("--output", type=Path, help="a JSON file for the figures")
    given = parser.parse_args()
    try:
        import refbert

        sentences = read_sentences(given.list)
        pairs = None if given.pairs is None else read_pairs(given.pairs)
        model = refbert.load(given.model)
        answered = ask(model, sentences)
        similarity = None if pairs is None else vectors(model, pairs)
    except (RefbertError, OSError) as error:
        print(f"everyday.py: {error}", file=sys.stderr)
        return 2
    if given.output is not None:
        content = figures(answered) | ({} if similarity is None else {"vectors": similarity})
        given.output.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(report(answered, similarity))
    return 0


if __name__ == "__main__":
    sys.exit(main())
