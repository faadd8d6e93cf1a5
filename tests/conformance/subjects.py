"""Backends with one thing wrong, for the tests of `refbert conform` (found as subjects:Name)."""

from __future__ import annotations

import os
import time

import numpy as np

from refbert import ops
from refbert.backend import REQUIRED
from refbert.backend.reference import ReferenceBackend
from refbert.errors import BackendUnavailable


class Good(ReferenceBackend):
    name = "good"


class EpsOutside(ReferenceBackend):
    def layer_norm(self, x, gamma, beta, *, eps):
        _, back = ops.layer_norm(x, gamma, beta, eps=eps)
        d = x - x.mean(axis=-1, keepdims=True)
        return gamma * d / (np.sqrt((d * d).mean(axis=-1, keepdims=True)) + eps) + beta, back


class Hangs(ReferenceBackend):
    def relu(self, x):
        while True:
            time.sleep(1)


class Crashes(ReferenceBackend):
    def relu(self, x):
        os.abort()


class Exits(ReferenceBackend):
    def relu(self, x):
        os._exit(3)


class Prints(ReferenceBackend):
    def relu(self, x):
        for _ in range(200):
            os.write(1, b"x" * (1 << 20))
        return ops.relu(x)


class Huge(ReferenceBackend):
    """A terabyte, as a view of one number: must be refused by its shape, not copied."""

    def relu(self, x):
        return np.broadcast_to(np.float64(0), (1 << 37, 1)), lambda dy: (dy,)


class Hoards(ReferenceBackend):
    def relu(self, x):
        self.kept = [np.ones(1 << 24) for _ in range(64)]
        return ops.relu(x)


class OnlyOnce(ReferenceBackend):
    """As on a device that is one process's alone."""

    def __init__(self, **how):
        super().__init__(**how)
        with open(os.environ["ONLY_ONCE"], "a+") as file:
            file.seek(0)
            owner = file.read() or str(os.getpid())
            if owner != str(os.getpid()):
                raise BackendUnavailable("the device is taken")
            file.truncate(0)
            file.write(owner)


class Lacks(ReferenceBackend):
    relu = None


class Signature(ReferenceBackend):
    def relu(self, x, slope):
        return ops.relu(x)


class NotAPair(ReferenceBackend):
    def relu(self, x):
        return ops.relu(x)[0]


class Scribbles(ReferenceBackend):
    def relu(self, x):
        result = ops.relu(x.copy())
        x[...] = 0
        return result


class Declares(ReferenceBackend):
    arithmetic = {"colour": "blue"}  # noqa: RUF012


class Unmakable:
    dtypes = ("float32",)

    def __init__(self, dtype=None, device=None):
        raise KeyError("no such driver")


class DiesEarly:
    dtypes = ("float32",)

    def __init__(self, dtype=None, device=None):
        os.abort()


class Tensor32(ReferenceBackend):
    """Products through TF32, as declared by Declared32 and not by this."""

    dtypes = ("float32",)

    @staticmethod
    def cut(a):
        bits = np.ascontiguousarray(a, np.float32).view(np.uint32)
        return ((bits + 0x1000) & np.uint32(0xFFFFE000)).view(np.float32)

    def linear(self, x, w, b):
        y = (self.cut(x) @ self.cut(w).T + b).astype(np.float32)

        def pullback(dy):
            rows = dy.reshape(-1, w.shape[0])
            dx = (self.cut(dy) @ self.cut(w)).astype(np.float32)
            return dx, self.cut(rows).T @ self.cut(x).reshape(-1, w.shape[1]), rows.sum(axis=0)

        return y, pullback


class Declared32(Tensor32):
    arithmetic = {"matmul_inputs": "tensorfloat32"}  # noqa: RUF012


class Nan(ReferenceBackend):
    """A layer whose gradients are NaN, so that the growth of the error is no number."""

    def layer_norm(self, x, gamma, beta, *, eps):
        y, back = ops.layer_norm(x, gamma, beta, eps=eps)
        return y * np.asarray(np.nan, y.dtype), back


class WrongInFloat64(ReferenceBackend):
    """Right in what it is tried in if nobody asks for more."""

    dtypes = ("float32", "float64", "float16")

    def __init__(self, dtype=None, device=None):
        if dtype == "float16":
            raise RuntimeError("no float16 on this device")
        super().__init__(dtype or "float32", device)

    def relu(self, x):
        y, back = ops.relu(x)
        return (y + 1 if self.dtype == "float64" else y), back


class Silent:
    """Right in everything, and says no version of the contract."""

    name, library, dtypes = "silent", "refbert", ("float64",)

    def __init__(self, dtype=None, device=None):
        self.dtype, self.device = dtype or "float64", device or "cpu"


for _op in (*REQUIRED, "softmax"):
    setattr(Silent, _op, vars(ReferenceBackend)[_op])


class FromTheFuture(ReferenceBackend):
    contract = 9


class ForInference(ReferenceBackend):
    """Nothing but results."""

    dtypes = ("float32",)
    gradients = False
    dropout = cross_entropy = mean_squared_error = None
    update = global_norm = None


def _result_only(op):
    return lambda self, *arguments, **options: (getattr(ops, op)(*arguments, **options)[0], None)


for _op in ("add", "reshape", "transpose", "embedding", "gather", "linear", "layer_norm", "gelu", "relu", "tanh",
            "softmax", "attention_probabilities", "attention"):  # fmt: skip
    setattr(ForInference, _op, _result_only(_op))


class WrongForInference(ForInference):
    def tanh(self, x):
        return (ops.tanh(x)[0] * 2).astype(x.dtype), None


class WorkspaceForInference(ForInference):
    """Right in one thread: all calls of a shape share an array."""

    def relu(self, x):
        work = self.__dict__.setdefault("work", {}).setdefault(x.shape, np.empty_like(x))
        work[...] = x
        work[work < 0] = 0
        return work.copy(), None


class HardlyForInference(ForInference):
    gradients = 0


class LacksForInference(ForInference):
    tanh = None
