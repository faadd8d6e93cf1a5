"""Reshape and transpose: the same numbers in another arrangement.

Source   No paper's: the spec needs them to tell start logits from end logits and to line up the choices of a
         multiple-choice question.
Shapes   reshape: x [...], shape with the same number of entries  ->  y [shape], row-major order kept
         transpose: x with n axes, axes a permutation of 0 … n−1  ->  y, where axis i of y is axis axes[i] of x

Equation
    reshape: y has x's entries in the same row-major order, y.flat_n = x.flat_n
    transpose: y_{i_0, i_1, …} = x_j where j_{axes[k]} = i_k

Gradient
    Both only rename entries, so the cotangent is renamed back: reshape to the old shape, or the inverse permutation.
"""

from __future__ import annotations

from refbert.ops.types import Array, Pullback


def reshape(x: Array, shape: tuple[int, ...]) -> tuple[Array, Pullback]:
    """y = x in another shape. Raises ValueError if the number of entries differs."""
    y = x.reshape(shape).copy()

    def pullback(dy: Array) -> tuple[Array]:
        return (dy.reshape(x.shape).copy(),)

    return y, pullback


def transpose(x: Array, axes: tuple[int, ...]) -> tuple[Array, Pullback]:
    """y = x with its axes permuted. Raises ValueError if axes is not a permutation."""
    y = x.transpose(axes).copy()

    def pullback(dy: Array) -> tuple[Array]:
        inverse = sorted(range(len(axes)), key=axes.__getitem__)
        return (dy.transpose(inverse).copy(),)

    return y, pullback


__all__ = ["reshape", "transpose"]
