"""Are the arrays the model's? And if not, which of the things that engines do instead has made them?

Two tests, both by `tolerances.noise` (the model composed of ops, each moved at random within its own bound), T standard
deviations each, in the arithmetic that the engine is said to compute in:

rows        how far a row may be from the model's, in any direction
direction   how far rounding may take all rows together along one line: from the model towards what a hypothesis makes.
            Rounding errors have no aim, so that is far less. With d the way from the model f to the hypothesis, and e
            the error, <e, d>/|d| is one number, whose variance is the noise's along d.

An output is the model's if every row is within its bound, and no hypothesis that is nearer than the model lies in a
direction in which the output is further out than rounding takes it. A hypothesis explains an output if it passes the
first test in the model's place; it is the cause if the second test, from each of the others towards it, rules these
out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from refbert.backend import Host, registry
from refbert.errors import InputError
from refbert.model import Model
from refbert.text.tokenization import Encoding
from refbert_conformance.outputs.files import VECTORS, Array, Outputs
from refbert_conformance.outputs.graph import Graph, encoded, outputs
from refbert_conformance.outputs.hypotheses import WORDS, Hypothesis, Reading, Tokens, hypotheses, tokenizations
from refbert_conformance.outputs.rounding import NARROW, STORINGS, Narrow, parameters, rounded
from refbert_conformance.tolerances.arithmetic import Arithmetic
from refbert_conformance.tolerances.noise import T, allowed, runs

MODEL = "the model"
FAR = 3.0  # a hypothesis that explains not everything is named if it is so many times nearer than all others
_SHOWN = 3
_AIMED = 0.1  # the cosine of two errors that are no accident: in hundreds of dimensions others have a few hundredths
_KEPT = 1 << 28  # bytes of hidden states, at most, of graphs that differ in what follows them
_SAME = 2.0**-40  # what two graphs in float64 may differ by, as a share, and be the same


@dataclass(frozen=True, eq=False)
class Made:
    """What a graph makes of one array: rows by their numbers, with the text of each; how many the array lacks."""

    rows: Host
    keys: Host
    text: Host
    missing: int

    def common(self, other: Made) -> tuple[Host, Host]:
        """The places of the rows that both have, here and there."""
        _, here, there = np.intersect1d(self.keys, other.keys, return_indices=True)
        return here, there


@dataclass(frozen=True, eq=False)
class Noise:
    """What rounding does to one array: how far each row may go, and samples of how far all go, [samples, R, D].

    stored: how far each number goes, at most, where the file holds it in fewer bits, [R, D].
    """

    bound: Host
    errors: Host
    stored: Host

    def along(self, direction: Host, text: Host, rows: Host) -> float:
        """How far rounding may take these rows together along a direction of length 1.

        Texts are rounded independently, so their variances add up; a direction has a quarter of the average at least.
        What is stored is off by a number in [−E, E], whose variance is E²/3.
        """
        shares = np.zeros((len(self.errors), int(text.max()) + 1))
        each = np.einsum("srd,rd->sr", self.errors[:, rows], direction)
        np.add.at(shares.T, text, each.T)
        floor = float((self.errors**2).mean()) / 16
        storing = float(((self.stored[rows] * direction) ** 2).sum()) / 3
        return T * float(np.sqrt(max((shares**2).mean(axis=0).sum(), floor) + storing))


@dataclass(frozen=True)
class Candidate:
    """One thing that may have been computed, and how far the output is from it.

    distance: the norm of all differences over that of what is expected, of the worst array.
    """

    name: str
    distance: float
    graph: Graph
    made: Mapping[str, Made]


@dataclass(frozen=True)
class Judged:
    """One array against the model. where: its worst row. towards: the nearest hypothesis of those in whose direction
    it is further out than rounding explains; ρ in that direction, and how much of the way the output has gone."""

    name: str
    shape: tuple[int, ...]
    rows: int
    missing: int
    distance: float
    allowed: float
    rho: float
    where: tuple[int, ...]
    towards: str = ""
    rho_towards: float = 0.0
    way: float = 0.0

    @property
    def within(self) -> bool:
        """Whether rounding explains all of it."""
        return self.rho <= 1 and not self.missing and not self.towards


@dataclass(frozen=True)
class Verdict:
    """What is found. tokens: what is other about the file's tokens, in words. ranked: the nearest first, the model
    among them. causes: what explains the output, several where they cannot be told apart; then said in ``sentence``."""

    arrays: tuple[Judged, ...]
    tokens: tuple[str, ...]
    ranked: tuple[Candidate, ...]
    causes: tuple[str, ...]
    sentence: str

    @property
    def within(self) -> bool:
        """Whether the output is the model's."""
        return not self.tokens and all(one.within for one in self.arrays)


class Judge:
    """One file's outputs, for texts that are read in one way, in one arithmetic."""

    def __init__(self, model: Model, how: Reading, given: Outputs, arithmetic: Arithmetic) -> None:
        self.model, self.how, self.given, self.arithmetic = model, how, given, arithmetic
        self._fast: Any = registry.create("numpy", dtype="float64")
        encodings, skip = how.tokens(model)
        self._known: dict[tuple[Any, ...], tuple[Host, Graph]] = {}
        others = [*tokenizations(model, how, encodings, given.length)]
        starts, self._theirs = self._tokens_of_the_file([encodings, *(one.encodings for one in others)])
        self._differences, theirs = self._other_tokens(encodings, others)
        p, vocabulary = self._parameters([encodings, *(x.encodings for x in others), self._theirs or ()])
        pad = model.tokenizer.pad_id
        self.base = Graph(p, model.choices, model.embedder, encodings, starts, pad, vocabulary, skip=skip)
        self._tried = [*hypotheses(model, self.base, given, [*theirs, *others])]
        for array in given.arrays:
            keys, _, _ = self.base.keys(array)
            wrong = ~np.isfinite(array.rows[keys])
            if wrong.any():
                at = np.argwhere(wrong)[0]
                raise InputError(
                    f"{array.name} is {array.rows[keys][tuple(at)]} in row {list(self._at(array, keys[at[0]]))}"
                )

    # Tokens

    def _tokens_of_the_file(self, ways: Sequence[Sequence[Encoding]]) -> tuple[Host, tuple[Encoding, ...] | None]:
        """The column of each text's first token, and the tokens that there were, by what the file says of them.

        Where it has no ids, they are those of the first of the ``ways`` that makes as many.
        """
        tokenizer, tokens = self.model.tokenizer, self.given.tokens
        ids, mask, types = (tokens.get(name) for name in ("input_ids", "attention_mask", "token_type_ids"))
        if mask is None:
            if ids is None:
                return np.zeros(len(ways[0]), np.int64), None
            mask = (ids != tokenizer.pad_id).astype(np.int64)
        places = [np.flatnonzero(row) for row in mask]
        for b, seen in enumerate(places):
            if not len(seen) or seen[-1] - seen[0] + 1 != len(seen):
                raise InputError(f"attention_mask must be ones with zeros before or behind them; row {b + 1} is not")
        lengths = [len(seen) for seen in places]
        like = next((way for way in ways if [len(e.input_ids) for e in way] == lengths), None)
        if ids is None and like is None:
            raise InputError(f"attention_mask has {lengths} tokens, and no way to read these texts gives as many")
        found = []
        for b, seen in enumerate(places):
            known = like[b] if like is not None else None
            here = known.input_ids if ids is None and known else tuple(map(int, ids[b, seen]))  # type: ignore[index]
            kinds = known.token_type_ids if known else (0,) * len(here)
            special = tuple(int(i in (tokenizer.cls_id, tokenizer.sep_id)) for i in here)
            kinds = kinds if types is None else tuple(map(int, types[b, seen]))
            found.append(Encoding(here, kinds, tuple(tokenizer.tokens(here)), special))
        return np.array([seen[0] for seen in places]), tuple(found)

    def _other_tokens(self, own: Sequence[Encoding], others: Sequence[Tokens]) -> tuple[tuple[str, ...], list[Tokens]]:
        """What is other about the file's tokens, in words; and these tokens, unless they are among the others."""
        theirs = self._theirs
        if theirs is None or _same(theirs, own):
            return (), []
        for one in others:
            if _same(theirs, one.encodings):
                return (one.name,), []
        name = _difference(theirs, own)
        return (name,), [Tokens(name, theirs)]

    def _parameters(self, every: Sequence[Sequence[Encoding]]) -> tuple[dict[str, Any], Host | None]:
        """The weights that the engine has, with the word embeddings that are needed, and of which ids these are.

        All are, where they make logits; else those of the tokens, and the largest, which int8 is scaled by.
        """
        p, dtype = dict(self.model.parameters), self.arithmetic.dtype
        words, vocabulary = p[WORDS], None
        if all(array.kind != "masked_lm" for array in self.given.arrays):
            largest = int(abs(words).max(axis=1).argmax())
            ids = {self.model.tokenizer.pad_id, largest, *(i for one in every for e in one for i in e.input_ids)}
            vocabulary = np.array(sorted(ids))
            p[WORDS] = words[vocabulary]
        if self.arithmetic.low:  # both sides have the same weights, in what they are stored in
            p = {name: rounded(x, dtype) for name, x in p.items()}
        return p, vocabulary

    # Numbers

    def _made(self, graph: Graph, values: dict[str, Host]) -> dict[str, Made]:
        return {array.name: Made(values[array.name], *graph.keys(array)) for array in self.given.arrays}

    def _encoded(self, graph: Graph) -> Host:
        key = graph.encoder_key()
        if key not in self._known:
            hidden = encoded(self._fast, graph)
            if sum(x.nbytes for x, _ in self._known.values()) > _KEPT:
                return np.asarray(hidden)
            self._known[key] = hidden, graph  # which keeps what the key names
        return self._known[key][0]

    def _candidate(self, name: str, graph: Graph) -> Candidate | None:
        """None where the graph cannot be computed, or is one that makes rows of another size."""
        with np.errstate(all="ignore"):
            made = self._made(graph, outputs(self._fast, graph, self.given.arrays, self._encoded(graph)))
        distances = []
        for array in self.given.arrays:
            one = made[array.name]
            if one.rows.shape[1:] != array.rows.shape[1:] or not len(one.keys):
                return None
            distances.append(_share(array.rows[one.keys] - one.rows, one.rows))
        distance = max(distances)
        return Candidate(name, distance, graph, made) if np.isfinite(distance) else None

    def _noise(self, graph: Graph) -> dict[str, Noise]:
        arrays = self.given.arrays
        with np.errstate(all="ignore"):
            every = runs(lambda ops: outputs(ops, graph, arrays), self.arithmetic)
            reference = next(every)
            errors: dict[str, list[Host]] = {name: [] for name in reference}
            for noisy in every:
                for name, y in noisy.items():
                    errors[name].append(y - reference[name])
        found = {}
        for array in arrays:
            e = np.stack(errors[array.name])
            bound = allowed((e**2).sum(axis=-1).mean(axis=0))
            if array.kind == VECTORS:  # the scaling, which is the host's: a norm, a root, a division
                D, a = reference[array.name].shape[-1], self.arithmetic
                own = a.gamma(D, a.u_accumulation) / 2 + a.gamma(3, a.u)
                bound = bound + own * np.linalg.norm(reference[array.name], axis=-1)
            stored = array.u * abs(reference[array.name])
            found[array.name] = Noise(bound + np.linalg.norm(stored, axis=-1), e, stored)
        return found

    def _rho(self, array: Array, one: Made, noise: Noise) -> Host:
        with np.errstate(all="ignore"):
            off = np.linalg.norm(array.rows[one.keys] - one.rows, axis=-1)
            rho = np.where(off == 0, 0, off / noise.bound)
        return np.where(np.isnan(rho), np.inf, rho)

    def _towards(self, array: Array, origin: Made, aim: Made, noise: Noise) -> tuple[float, float]:
        """ρ along the way from one to the other, and how much of it the output has gone; 0 where they are the same.

        The noise is that of either: they are as like as makes no difference there.
        """
        here, there = origin.common(aim)
        way = aim.rows[there] - origin.rows[here]
        length = float(np.linalg.norm(way))
        if not length > _SAME * float(np.linalg.norm(origin.rows[here])):
            return 0.0, 0.0
        gone = float(((array.rows[origin.keys[here]] - origin.rows[here]) * way).sum()) / length
        noisy = here if len(noise.bound) == len(origin.keys) else there
        room = noise.along(way / length, origin.text[here], noisy)
        return gone / room, gone / length

    # Verdict

    def verdict(self) -> Verdict:
        """Judge, and look for the cause of what is not within."""
        base = self._candidate(MODEL, self.base)
        if base is None:
            raise InputError("the model's own outputs cannot be compared with these: other sizes, or not finite")
        noise = self._noise(self.base)
        self._tried += self._reordered(base)
        others = [x for one in self._tried for x in self._made_of(one.name, one.change(self.base), base)]
        judged = tuple(self._judged(array, base, noise[array.name], others) for array in self.given.arrays)
        found = Verdict(judged, self._differences, tuple(_ranked([base, *others])), (), "")
        if found.within:
            return found
        return self._explained(found, base, others, noise)

    def _made_of(self, name: str, graph: Graph | None, base: Candidate) -> Iterator[Candidate]:
        if graph is None or graph.columns + graph.first_position > self.model.limit():
            return
        found = self._candidate(name, graph)
        if found is not None and not _alike(found, base):
            yield found

    def _reordered(self, base: Candidate) -> list[Hypothesis]:
        """The texts that the rows are nearest to, by the first of each text's, if they are others."""
        array, encodings = self.given.arrays[0], self.base.encodings
        S = array.values.shape[1] if array.per_token else 1
        rows, own = array.rows[::S], base.made[array.name]
        first = np.isin(own.keys, np.arange(len(encodings)) * S)
        if self.base.starts.any() or int(first.sum()) < len(encodings):
            return []
        apart = np.stack([np.linalg.norm(rows - one, axis=-1) for one in own.rows[first]], axis=1)
        order = [int(i) for i in apart.argmin(axis=1)]
        wrong = [b for b, i in enumerate(order) if i != b]
        if not wrong:
            return []
        name = "the texts in another order"
        if len(set(order)) < len(order):
            name = ", ".join(f"text {order[b] + 1} in place of text {b + 1}" for b in wrong[:_SHOWN])
        return [Hypothesis("order", name, lambda g: g.changed(encodings=tuple(g.encodings[i] for i in order)))]

    def _judged(self, array: Array, base: Candidate, noise: Noise, others: Sequence[Candidate]) -> Judged:
        one = base.made[array.name]
        rho = self._rho(array, one, noise)
        worst = int(rho.argmax())
        towards, far, gone, nearest = "", 0.0, 0.0, np.inf
        for other in others:
            aim = other.made[array.name]
            ratio, way = self._towards(array, one, aim, noise)
            apart = _share(array.rows[aim.keys] - aim.rows, aim.rows)
            # Beyond the middle: nearer to it than to the model. Of several in one direction it is the nearest.
            if ratio > 1 and way > 0.5 and apart < nearest:
                towards, far, gone, nearest = other.name, ratio, way, apart
        return Judged(
            array.name, array.values.shape, len(one.keys), one.missing,
            _share(array.rows[one.keys] - one.rows, one.rows),
            float(np.sqrt((noise.bound**2).sum())) / float(np.linalg.norm(one.rows)),
            float(rho[worst]), self._at(array, int(one.keys[worst])), towards, far, gone,
        )  # fmt: skip

    def _at(self, array: Array, key: int) -> tuple[int, ...]:
        return tuple(int(i) for i in np.unravel_index(key, array.values.shape[:-1]))

    def _fits(self, one: Candidate, noise: dict[str, Noise]) -> float:
        """The worst row in bounds; infinite where tokens or rows are not those of the file."""
        lacking = any(made.missing for made in one.made.values())
        if lacking or not self._of_the_file(one):
            return float("inf")
        return max(float(self._rho(x, one.made[x.name], noise[x.name]).max()) for x in self.given.arrays)

    def _of_the_file(self, one: Candidate) -> bool:
        """Whether its tokens are those that the file names, if it does: the model's own in whatever order, as rows may
        have another."""
        if self._theirs is None or _same(self._theirs, one.graph.encodings):
            return True
        if self._differences:
            return False
        named = {(e.input_ids, e.token_type_ids) for e in self._theirs}
        return all((e.input_ids, e.token_type_ids) in named for e in one.graph.encodings)

    def _rules_out(self, one: Candidate, other: Candidate, noise: dict[str, Noise]) -> bool:
        """Whether the output is further from ``other`` towards ``one`` than rounding takes it."""
        return any(self._towards(x, other.made[x.name], one.made[x.name], noise[x.name])[0] > 1
                   for x in self.given.arrays)  # fmt: skip

    def _explained(
        self, found: Verdict, base: Candidate, others: list[Candidate], noise: dict[str, Noise]
    ) -> Verdict:  # fmt: skip
        if all(one.within for one in found.arrays):
            sentence = f"the arrays are the model's, and the tokens beside them others: {found.tokens[0]}"
            return replace(found, sentence=sentence)
        best = self._best(others)
        if best is None and others:
            others += self._pairs(base, others)
            best = self._best(others)
        ranked = _ranked([base, *others])
        if best is not None:
            one, its = best
            rivals = [x for x in ranked if x is not one and x is not base and not self._rules_out(one, x, its)]
            likely = [x for x in rivals if self._fits_as(x, its)]
            causes = (one.name, *(x.name for x in likely))
            nearest = next((x for x in ranked if x not in (one, *likely)), base)
            sentence = (
                f"cause: {' or '.join(causes)}: {number(one.distance)} away, within rounding; "
                f"the next, {nearest.name}, is {number(nearest.distance)} away"
            )
            return Verdict(found.arrays, found.tokens, tuple(ranked), causes, sentence)
        if stored := "" if found.tokens else self._stored(base, noise):
            sentence = f"cause: {stored}: every number is such a one, and the storing explains the rest"
            return Verdict(found.arrays, found.tokens, tuple(ranked), (stored,), sentence)
        narrow = self._narrow(base)
        ranked = _ranked([*ranked, *(one for one, _ in narrow)])
        nearest, *rest = ranked
        # Zeros are 1 away: what is not much nearer than they are resembles nothing.
        if nearest is not base and rest and all(FAR * nearest.distance <= x for x in (1, *(x.distance for x in rest))):
            sentence = (
                f"cause: {nearest.name}, most likely: {number(nearest.distance)} away, which is more than rounding "
                f"explains, but all others are {FAR:g} times as far or more"
            )
            return Verdict(found.arrays, found.tokens, tuple(ranked), (nearest.name,), sentence)
        for one, sentence in sorted(((x, says) for x, says in narrow if says), key=lambda pair: pair[0].distance):
            return Verdict(found.arrays, found.tokens, tuple(ranked), (one.name,), sentence)
        sentence = "none of the hypotheses explains it"
        if found.tokens:
            sentence += f", but the tokens are others: {found.tokens[0]}"
        return Verdict(found.arrays, found.tokens, tuple(ranked), (), sentence)

    def _best(self, others: Sequence[Candidate]) -> tuple[Candidate, dict[str, Noise]] | None:
        """The nearest candidate if it explains the output, with its noise; of the file's tokens, if these are known."""
        for one in _ranked([x for x in others if self._of_the_file(x)])[:1]:
            noise = self._noise(one.graph)
            if self._fits(one, noise) <= 1:
                return one, noise
        return None

    def _fits_as(self, one: Candidate, noise: dict[str, Noise]) -> bool:
        """Whether it explains the output, by the noise of another that does, and has as many rows."""
        same = all(len(one.made[name].keys) == len(its.bound) for name, its in noise.items())
        return same and self._fits(one, noise) <= 1

    def _pairs(self, base: Candidate, others: Sequence[Candidate]) -> list[Candidate]:
        """The two nearest, each together with all of another kind."""
        by_name = {one.name: one for one in self._tried}
        near = [by_name[x.name] for x in _ranked(others)[:2] if x.distance < 0.9 * base.distance]
        found: list[Candidate] = []
        seen: set[frozenset[str]] = set()
        for first in near:
            alone = next(x.distance for x in others if x.name == first.name)
            for second in self._tried:
                names = frozenset((first.name, second.name))
                if second.kind == first.kind or names in seen:
                    continue
                seen.add(names)
                graph = first.change(self.base)
                both = None if graph is None else second.change(graph)
                made = self._made_of(f"{first.name} and {second.name}", both, base)
                found += [x for x in made if FAR * x.distance <= alone]
        return found

    def _narrow(self, base: Candidate) -> list[tuple[Candidate, str]]:
        """Narrower arithmetic, with a sentence where the output looks like it."""
        return [pair for one in NARROW if (pair := self._narrowed(one, base)) is not None]

    def _narrowed(self, narrow: Narrow, base: Candidate) -> tuple[Candidate, str] | None:
        stored = self.base.changed(parameters=parameters(self.base.parameters, narrow.weights))
        simulated = self._candidate(f"computed in {narrow.name}", stored.changed(wrap=narrow.wrap))
        weights = self._candidate(narrow.name, stored)
        if simulated is None or weights is None or _alike(simulated, base):
            return None
        far, ways, aims = [], [], []
        for array in self.given.arrays:
            f, w, s = (x.made[array.name].rows for x in (base, weights, simulated))
            y, d, way = array.rows[base.made[array.name].keys] - f, s - f, w - f
            far.append(float(np.linalg.norm(y) / np.linalg.norm(d)))
            if way.any():
                ways.append(float((y * way).sum() / (way * way).sum()))
            else:  # the weights are stored so
                aims.append(float((y * d).sum() / np.linalg.norm(y) / np.linalg.norm(d)))
        alike = all(0.5 <= x <= 2 for x in far)
        if not alike or not all(0.5 <= x <= 1.5 for x in ways) or not all(x >= _AIMED for x in aims):
            return simulated, ""
        where = (
            f"{ways[0]:.2f} of the way that the rounded weights make" if ways else f"at a cosine of {aims[0]:.2f} to it"
        )
        return simulated, (
            f"cause: computed in {narrow.name}, most likely: as far from the model as that takes it (refbert so: "
            f"{number(base.distance / max(far))}), and {where}"
        )  # fmt: skip

    def _stored(self, base: Candidate, noise: Mapping[str, Noise]) -> str:
        """What all numbers of the file are rounded to, if nothing else was done to the model's; else ""."""
        for name, storing, room in STORINGS:
            rho = []
            for array in self.given.arrays:
                one, its = base.made[array.name], noise[array.name]
                y = array.rows[one.keys]
                # A decimal fraction is a number of float32, too; and a number has to have more digits to show it.
                if np.any(abs(storing(y) - y) > 2.0**-24 * abs(y)) or np.mean(room(y) > 2.0**-22 * abs(y)) < 0.5:
                    break
                bound = its.bound + np.linalg.norm(room(one.rows), axis=-1)
                rho.append(float(self._rho(array, one, replace(its, bound=bound)).max()))
            if len(rho) == len(self.given.arrays) and max(rho) <= 1:
                return name
        return ""


def number(x: float) -> str:
    """Three digits."""
    return f"{x:.3g}"


def _share(difference: Host, whole: Host) -> float:
    return float(np.linalg.norm(difference) / max(float(np.linalg.norm(whole)), np.finfo(np.float64).tiny))


def _difference(theirs: Sequence[Encoding], own: Sequence[Encoding]) -> str:
    """What is other, in words."""
    if _same(theirs, own, types=False):
        if not any(any(e.token_type_ids) for e in theirs):
            return "every token type 0"
        first = next(
            b for b, (x, y) in enumerate(zip(theirs, own, strict=True)) if x.token_type_ids != y.token_type_ids
        )
        return f"other token types in text {first + 1}"
    b, x, y = next((b, x, y) for b, (x, y) in enumerate(zip(theirs, own, strict=True)) if x.input_ids != y.input_ids)
    pairs = zip(x.input_ids, y.input_ids, strict=False)
    t = next((t for t, (i, j) in enumerate(pairs) if i != j), min(len(x.input_ids), len(y.input_ids)))
    shown = [f'"{e.tokens[t]}" ({e.input_ids[t]})' if t < len(e.input_ids) else "nothing" for e in (x, y)]
    return f"other tokens (first: text {b + 1}, token {t}, {shown[0]} where the model has {shown[1]})"


def _ranked(candidates: Sequence[Candidate]) -> list[Candidate]:
    return sorted(candidates, key=lambda one: one.distance)


def _alike(one: Candidate, other: Candidate) -> bool:
    """Whether both are the same function of these texts."""
    for name, made in one.made.items():
        its = other.made[name]
        if not np.array_equal(made.keys, its.keys) or _share(made.rows - its.rows, its.rows) > _SAME:
            return False
    return True


def _same(one: Sequence[Encoding], other: Sequence[Encoding], *, types: bool = True) -> bool:
    return all(
        x.input_ids == y.input_ids and (not types or x.token_type_ids == y.token_type_ids)
        for x, y in zip(one, other, strict=True)
    )  # fmt: skip
