"""The masked-LM head with its loss: logits, softmax and the products around them, by partitions of the vocabulary.

refbert.spec.heads.masked_lm and refbert.ops.cross_entropy have the equations. The logits are kept as [V, P], so that a
thread's words are rows of them, of E and of E's gradient alike. Two waits: for the largest logit of each position, and
for the sums of exponentials.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from refbert.backend import Backend
from refbert.spec.choices import Choices
from refbert.spec.heads import TIED
from refbert.spec.layers import activate, dense, layer_norm
from refbert_numpy.memory import Array, Recycler
from refbert_numpy.partition import partition
from refbert_numpy.rows import blocks
from refbert_numpy.threads import Team

_BIAS, _TRANSFORM = "cls.predictions.bias", "cls.predictions.transform."


class MaskedLM:
    """Of the hidden states [P, H] at the labelled positions, with their labels [P]: ``loss`` []; ``backward`` once."""

    def __init__(
        self, ops: Backend[Array], p: Mapping[str, Array], hidden: Array, labels: Array, denominator: float, c: Choices,
        team: Team, memory: Recycler,
    ) -> None:  # fmt: skip
        self._p, self._labels, self._team, self._memory = p, labels, team, memory
        V = len(p[TIED])
        if labels.size and not (int(labels.min()) >= 0 and int(labels.max()) < V):
            raise IndexError(f"labels must be in [0, {V}), got {int(labels.min())} to {int(labels.max())}")
        self._per_row = 1 / denominator if denominator else 0.0
        self._t, self._transform_back = _transform(ops, p, hidden, c)  # [P, H]
        self._words = partition(V, team.size)
        self._e = memory.take(V, len(labels))  # logits, then their exponentials, then their cotangents
        self.loss = self._forward()

    def _forward(self) -> Array:
        P, size = len(self._labels), self._team.size
        largest, sums = (np.empty((size, P), self._e.dtype) for _ in range(2))
        chosen = np.empty(P, self._e.dtype)  # each position's logit of its label

        def work(t: int) -> None:
            words, mine = self._words[t], self._own_labels(t)
            z = self._e[words]
            np.matmul(self._p[TIED][words], self._t.T, out=z)
            bias = self._p[_BIAS][words][:, None]
            for block in blocks(*z.shape):
                z[block] += bias[block]
            chosen[mine] = self._e[self._labels[mine], mine]
            np.max(z, axis=0, out=largest[t], initial=-np.inf)
            self._team.sync()
            top, total = largest.max(axis=0), np.zeros(P, z.dtype)
            for block in blocks(*z.shape):
                part = z[block]
                part -= top
                np.exp(part, out=part)
                total += np.ones(len(part), z.dtype) @ part
            sums[t] = total

        self._team.run(work)
        self._sums = sums.sum(axis=0)  # [P]
        losses = np.log(self._sums) - (chosen - largest.max(axis=0))
        return np.asarray(losses.sum() * self._e.dtype.type(self._per_row))

    def _own_labels(self, t: int) -> Array:
        """Which positions' labels are among a thread's words."""
        words = self._words[t]
        return np.flatnonzero((self._labels >= words.start) & (self._labels < words.stop))

    def backward(self, dloss: Array) -> tuple[Array, dict[str, Array]]:
        """(the cotangent of the hidden states [P, H], gradients by full name)."""
        E, size = self._p[TIED], self._team.size
        per_row = self._e.dtype.type(dloss * self._per_row)
        factor = per_row / self._sums  # p dloss/M = e factor
        dE, dbias = self._memory.take(*E.shape), self._memory.take(len(E))
        dts = np.empty((size, *self._t.shape), E.dtype)

        def work(t: int) -> None:
            words, mine = self._words[t], self._own_labels(t)
            dz = self._e[words]
            for block in blocks(*dz.shape):
                dz[block] *= factor
            self._e[self._labels[mine], mine] -= per_row
            np.matmul(dz, np.ones(dz.shape[1], dz.dtype), out=dbias[words])
            np.matmul(dz, self._t, out=dE[words])
            np.matmul(dz.T, E[words], out=dts[t])

        self._team.run(work)
        dhidden, gradients = self._transform_back(dts.sum(axis=0))
        return dhidden, {TIED: dE, _BIAS: dbias} | gradients


def _transform(
    ops: Backend[Array], p: Mapping[str, Array], hidden: Array, c: Choices
) -> tuple[Array, Callable[[Array], tuple[Array, dict[str, Array]]]]:
    """t = LN(act(hidden W + b)), as the spec composes it."""
    z, z_back = dense(ops, p, _TRANSFORM + "dense", hidden)
    active, active_back = activate(ops, z, c.activation)
    t, norm_back = layer_norm(ops, p, _TRANSFORM + "LayerNorm", active, c)

    def pullback(dt: Array) -> tuple[Array, dict[str, Array]]:
        dactive, norm = norm_back(dt)
        (dz,) = active_back(dactive)
        dhidden, transform = z_back(dz)
        return dhidden, transform | norm

    return t, pullback
