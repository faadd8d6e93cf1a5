"""attention and attention_probabilities: what a query must not see, and what it gets where that is known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from refbert.backend import Host
from refbert_conformance.cases.inputs import rounded
from refbert_conformance.cases.operations import MASKS, OpCase, Recipe
from refbert_conformance.engine.measure import Record
from refbert_conformance.engine.property import Property
from refbert_conformance.engine.subject import Subject
from refbert_conformance.properties.symmetries.common import back, call, equal, symmetry
from refbert_conformance.tolerances.bounds import expected


@dataclass(frozen=True)
class Seen:
    """A seed, a kind of mask, and a length."""

    seed: int
    mask: str = "ragged"
    S: int = 4

    def case(self, dtype: str, op: str = "attention", mask_value: float = -math.inf) -> OpCase:
        """Attention with that mask; some row always sees something."""
        recipe = Recipe(
            op,
            {"B": 2 + self.seed % 2, "S": self.S, "A": 1 + self.seed % 3, "D": 1 + self.seed % 5},
            ("normal", ("normal", "large", "huge", "offset")[self.seed % 4], "mixed", "normal"),
            self.seed,
            {"mask": self.mask, "mask_value": mask_value, "rate": None},
        )
        return recipe.build(dtype)


def properties() -> list[Property]:
    """Masked keys, mask values, single keys, equal scores, neighbours."""
    visible = st.builds(Seen, st.integers(0, 2**20), st.sampled_from(MASKS), st.integers(2, 7))
    return [
        symmetry("forward", "attention", "unseen keys",
                 "The content of masked keys and values changes no bit.", _unseen, visible),
        symmetry("backward", "attention", "unseen keys",
                 "Masked keys and values get gradient exactly 0.", _unseen_back, visible),
        symmetry("forward", "attention_probabilities", "mask value",
                 "A finite mask value is added to the score, as it is.", _added, visible),
        symmetry("forward", "attention_probabilities", "unseen keys",
                 "Masked keys get probability exactly 0, at any score.", _unseen_probabilities, visible),
        symmetry("forward", "attention", "one key",
                 "With one visible key, every query gets its value, bit for bit.", _one_key, visible),
        symmetry("forward", "attention", "equal scores",
                 "Zero queries average the visible values exactly where 2ᵏ are visible.", _equal_scores, visible),
        symmetry("forward", "attention", "rows apart",
                 "A sequence's result does not depend on its neighbours' content.", _rows_apart, visible),
    ]  # fmt: skip


def _other_content(case: OpCase, dtype: str, size: float = 100.0) -> OpCase:
    """The same case with other numbers in the masked keys and values (finite: 0 · ∞ is NaN everywhere)."""
    hidden = ~case.options["mask"].astype(bool)  # [B, S]
    rng = np.random.default_rng(1)
    arrays = list(case.arrays)
    for i in range(1, len(arrays)):
        other = rounded(size * rng.standard_normal(arrays[i].shape), dtype)
        arrays[i] = np.where(hidden[..., None], other, arrays[i])
    return OpCase(case.op, tuple(arrays), case.options, case.dy)


def _seeing(case: OpCase) -> Host:
    """Sequences with a visible key: [B]. In the others everything is seen, equally (−∞) or as it is (−10000)."""
    return np.asarray(case.options["mask"].astype(bool).any(axis=-1))


def _unseen(subject: Subject, example: Seen, record: Record) -> None:
    case = example.case(subject.dtype)
    seeing = _seeing(case)
    a, b = (call(subject, c)[seeing] for c in (case, _other_content(case, subject.dtype)))
    if np.isfinite(a).all():
        equal(b, a, "with other content in masked keys, y of the sequences that see something")


def _unseen_back(subject: Subject, example: Seen, record: Record) -> None:
    case = example.case(subject.dtype)
    assert case.dy is not None
    hidden = ~case.options["mask"].astype(bool) & _seeing(case)[:, None]
    _, dk, dv = back(subject, case, case.dy)
    for name, d in (("dk", dk), ("dv", dv)):
        equal(d[hidden], np.zeros_like(d[hidden]), f"{name} of masked keys")


def _added(subject: Subject, example: Seen, record: Record) -> None:
    """Scores that the mask value brings level with the others: 100 · 100 = 10,000. A value that is larger, or put in
    the score's place, or rounded another way than the score, tips the balance."""
    case = example.case(subject.dtype, "attention_probabilities", -10000.0)
    B, S, _ = case.arrays[0].shape
    mask = case.options["mask"]
    # One head of one feature: the score is the product of two numbers.
    near = np.random.default_rng(example.seed).integers(-2, 3, (B, S, 1)) / 128
    k = np.where(mask[..., None].astype(bool), near, 100 + near * (subject.arithmetic.u < 2.0**-12))
    arrays = (np.full((B, S, 1), 100.0), k)
    options = {"mask": mask, "heads": 1, "mask_value": -10000.0}
    (want,) = expected("attention_probabilities", arrays, options, subject.arithmetic)
    record.compare(call(subject, OpCase("attention_probabilities", arrays, options)), want)


def _unseen_probabilities(subject: Subject, example: Seen, record: Record) -> None:
    case = example.case(subject.dtype, "attention_probabilities")
    p = call(subject, case)  # [B, A, S, S]
    hidden = ~case.options["mask"].astype(bool) & _seeing(case)[:, None]
    at = np.broadcast_to(hidden[:, None, None, :], p.shape)
    equal(p[at], np.zeros_like(p[at]), "p of masked keys")
    # Scores up to 10¹² (float16 ends at 65504): no finite number stands for −∞.
    size = 1e3 if subject.dtype == "float16" else (100.0, 1e10)[example.seed % 2]
    other = call(subject, _other_content(case, subject.dtype, size))
    seeing = _seeing(case)
    equal(other[seeing], p[seeing], "with other content in masked keys, p")


def _one_key(subject: Subject, example: Seen, record: Record) -> None:
    case = Seen(example.seed, "one", example.S).case(subject.dtype)
    v = case.arrays[2]
    chosen = case.options["mask"].argmax(axis=1)
    want = np.broadcast_to(v[np.arange(len(v)), chosen][:, None, :], v.shape)
    equal(call(subject, case), want, "y")


def _equal_scores(subject: Subject, example: Seen, record: Record) -> None:
    rng = np.random.default_rng(example.seed)
    B, S, A, D = 2, 8, 1 + example.seed % 3, 2
    mask = np.zeros((B, S), np.int64)
    for row in mask:
        row[rng.permutation(S)[: 2 ** rng.integers(0, 4)]] = 1
    k, v = rounded(rng.standard_normal((B, S, A * D)), subject.dtype), rng.integers(-8, 9, (B, S, A * D)).astype(float)
    case = OpCase("attention", (np.zeros_like(k), k, v), {"mask": mask, "heads": A, "mask_value": -math.inf})
    want = (v * mask[..., None]).sum(axis=1, keepdims=True) / mask.sum(axis=1)[:, None, None]
    equal(call(subject, case), np.broadcast_to(want, v.shape), "y")


def _rows_apart(subject: Subject, example: Seen, record: Record) -> None:
    case = example.case(subject.dtype)
    rng = np.random.default_rng(2)
    arrays = [a.copy() for a in case.arrays]
    for a in arrays:
        a[1:] = rounded(5 * rng.standard_normal(a[1:].shape), subject.dtype)
    other = OpCase(case.op, tuple(arrays), case.options)
    equal(call(subject, other)[:1], call(subject, case)[:1], "with other neighbours, y of sequence 0: y")
