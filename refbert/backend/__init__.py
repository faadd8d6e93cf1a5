"""The plugin contract: what a backend must offer, and what it may.

A backend is any class with these attributes and methods; it needs no import of refbert to be one (structural typing).
It is constructed as ``Class(dtype=None, device=None)``; ``None`` means its own default. If its library or its device
is missing, the constructor raises ImportError or RuntimeError, and the message says how to get it.

Arrays are the backend's own (type variable ``A``); refbert only asks that they have a ``shape``. What comes from the
host (ids, masks, labels, targets) stays NumPy: a backend moves it where it needs it.

Every op returns ``(y, pullback)``. ``pullback(dy)`` returns one cotangent per *array* argument, in signature order; it
changes nothing and may be called again. refbert.ops defines what each op computes; its docstrings are the
specification.

Masks (``mask``, ``keep``) are host arrays of any boolean, integer or floating type. 0 means no, and every
other number means yes: True, 1, 255, −1 and 0.5 alike. A `refbert.Batch` holds nothing but 0 and 1, as int64.

Threads: any method may be called in any thread, in several at once, and a pullback in another thread than its op. Each
call gives the bits that it gives alone, for as long as nobody writes into its arguments meanwhile; a backend may make
callers wait for each other. Instances are independent: making, using or dropping one changes nothing of another's.
What a child process may do after a fork is up to the library; `numpy` and `torch` compute there, on the CPU.

Errors are refbert.ops' own: IndexError for what is out of range, ValueError for shapes and options that make no sense.
A backend offers an optional method by having it, and refuses a part of one by NotImplementedError.

Versions: `REQUIRED_BY_VERSION` lists what each version of this contract requires. An entry never changes. Within a
version optional methods and attributes may be added, and words made clearer. What an existing plugin would fail by (a
new requirement, another meaning, other arguments) makes a new version; refbert goes on taking plugins of the versions
listed, and refuses others in one line. An optional method that refbert gives up is simply no longer called.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from refbert.errors import BackendError, Unsupported

# What lives on the host: NumPy arrays of ids, masks, labels, weights.
Host = npt.NDArray[Any]

# What optional methods receive besides arrays, and may read off them: `refbert.Batch`, `refbert.spec.choices.Choices`
# and `refbert.Dropout` are the classes that refbert passes.


class TokenBatch(Protocol):
    """B sequences, padded to S tokens: three host arrays [B, S] of int64, to be left as they are.

    input_ids: rows of the word embeddings. token_type_ids: the segment of each token, 0 or 1. attention_mask: 1 for a
    token, 0 for padding.
    """

    input_ids: Host
    token_type_ids: Host
    attention_mask: Host


class ModelChoices(Protocol):
    """The numbers and names that a model computes with, besides its weights. They are only read.

    layers, heads: encoder layers, and attention heads in each. activation: of the feed-forward block, "gelu_erf",
    "gelu_tanh", "relu", "tanh" or "linear". layer_norm_eps: LayerNorm's ε. mask_value: added to the scores of padding,
    −∞ (excluded) or a finite number. hidden_dropout, attention_dropout, classifier_dropout: dropout's rates after
    embeddings, attention and feed-forward; on attention probabilities; in front of a classifier. masked_lm_epsilon:
    added to the number of labels that the masked-LM loss is divided by. span_mean_over_batch: whether the two halves of
    a span's loss are averaged over all sequences, or over those whose answer lies inside the window.
    gradient_checkpointing: whether of each layer only its input is to be kept, and the rest computed again.
    """

    layers: int
    heads: int
    activation: str
    layer_norm_eps: float
    mask_value: float
    hidden_dropout: float
    attention_dropout: float
    classifier_dropout: float
    masked_lm_epsilon: float
    span_mean_over_batch: bool
    gradient_checkpointing: bool


class KeepMasks(Protocol):
    """Dropout's random numbers, drawn on the host: the same on every backend."""

    def keep(
        self, site: str, shape: tuple[int, ...], rate: float, *, among: tuple[int, int] | None = None
    ) -> npt.NDArray[np.bool_]:
        """Which entries stay, of the given shape; among: (start, stop), only these rows of them. Sites, with layers i
        from 0:

        "embeddings", "encoder.layer.i.attention.self" [B, A, S, S], "encoder.layer.i.attention.output",
        "encoder.layer.i.output" [B, S, H], "classifier".
        """


A = TypeVar("A")
Pullback = Callable[[A], tuple[A, ...]]
Out = tuple[A, Callable[[A], tuple[A, ...]]]
# What a fused block's pullback returns: the cotangent of x, and the gradients by parameter name.
BlockPullback = Callable[[A], tuple[A, dict[str, A]]]


class Backend(Protocol[A]):
    """Required: every attribute and method, but for `TRAINING` where ``gradients`` is False.

    name: how it is called on the command line.      library: the library it stands on, with its version.
    dtype: what it computes in ("float32", …).       device: where ("cpu", "cuda:0", …).
    dtypes: every dtype it offers, its default first.
    """

    name: str
    library: str
    dtype: str
    device: str
    dtypes: tuple[str, ...]

    def asarray(self, x: Host, /) -> A:
        """A host array as the backend's own, in its dtype, on its device. May share memory; never writes to it."""

    def to_numpy(self, x: A, /) -> Host:
        """The same numbers on the host: float64 for a float64 backend, float32 for every other. May share memory."""

    def add(self, x: A, z: A) -> Out[A]:
        """refbert.ops.add: [...], [...] -> [...]."""

    def reshape(self, x: A, shape: tuple[int, ...]) -> Out[A]:
        """refbert.ops.shape: the same entries, row-major, in another shape."""

    def transpose(self, x: A, axes: tuple[int, ...]) -> Out[A]:
        """refbert.ops.shape: axis i of the result is axis axes[i] of x."""

    def embedding(self, table: A, ids: Host) -> Out[A]:
        """refbert.ops.embedding: [V, H], ids [...] -> [..., H]."""

    def gather(self, x: A, positions: Host) -> Out[A]:
        """refbert.ops.gather: rows of [..., H] at positions [P] -> [P, H]."""

    def linear(self, x: A, w: A, b: A) -> Out[A]:
        """refbert.ops.linear: [..., I], [O, I], [O] -> [..., O]."""

    def layer_norm(self, x: A, gamma: A, beta: A, *, eps: float) -> Out[A]:
        """refbert.ops.layer_norm: [..., H], [H], [H] -> [..., H]."""

    def gelu(self, x: A, *, form: str) -> Out[A]:
        """refbert.ops.gelu: form "erf" or "tanh"."""

    def relu(self, x: A) -> Out[A]:
        """refbert.ops.relu."""

    def tanh(self, x: A) -> Out[A]:
        """refbert.ops.tanh."""

    def attention_probabilities(self, q: A, k: A, *, mask: Host, heads: int, mask_value: float) -> Out[A]:
        """refbert.ops.attention_probabilities: [B, S, H] twice, mask [B, S] -> [B, A, S, S]."""

    def attention(
        self,
        q: A,
        k: A,
        v: A,
        *,
        mask: Host,
        heads: int,
        mask_value: float,
        keep: Host | None = None,
        rate: float = 0.0,
    ) -> Out[A]:
        """refbert.ops.attention: [B, S, H] three times, mask [B, S], keep [B, A, S, S] -> [B, S, H]."""

    def dropout(self, x: A, *, keep: Host, rate: float) -> Out[A]:
        """refbert.ops.dropout: [...] with a mask of the same shape."""

    def cross_entropy(self, logits: A, labels: Host, *, denominator: float) -> Out[A]:
        """refbert.ops.cross_entropy: [..., C], labels [...] -> []."""

    def mean_squared_error(self, x: A, targets: Host, *, denominator: float) -> Out[A]:
        """refbert.ops.mean_squared_error: [...], targets [...] -> []."""


class Declarations(Protocol):
    """Optional attributes, each with what its absence means.

    contract: the version of the contract that the backend speaks; absent: 1.
    gradients: False for a backend for inference only. Its ops return ``(y, None)``, it may leave out `TRAINING` (though
        attention takes ``keep``), and a gradient asked of it is an error. Absent: True.
    arithmetic: how it rounds where its dtype does not say so: a mapping with some of the keys ``accumulation``,
        ``matmul_inputs``, ``intermediates``, ``flush_to_zero``, ``nondeterministic``, ``functions``, ``preset``, as
        refbert_conformance.tolerances.arithmetic explains them; other keys are an error. Absent: by its dtype.
    threads: the environment variable that says how many threads a process of the backend's uses, as
        "OPENBLAS_NUM_THREADS". Absent: there is none.
    compiles: True where every new shape costs a compilation: the conformance suite tries fewer shapes, refbert does
        not care. Absent: False.
    argument: what may follow the backend's installed name and a colon, in words, as "the name of a library" for
        "array-api:torch". Its constructor takes that text as ``argument=…``, and None where nothing follows; its
        ``name`` is then all of it. On the class; absent: it takes none.
    """

    contract: int
    gradients: bool
    arithmetic: Mapping[str, object]
    threads: str
    compiles: bool
    argument: str


class Softmax(Protocol[A]):
    """Optional: refbert itself never calls it; judged where offered, since it finds what attention hides."""

    def softmax(self, x: A) -> Out[A]:
        """refbert.ops.softmax: over the last axis, [..., C] -> [..., C]."""


class FusedEncoderLayer(Protocol[A]):
    """Optional: a whole encoder layer at once, for inference.

    It computes what refbert.spec.encoder.encoder_layer composes of ops, without dropout and without a pullback;
    ``params`` maps the layer's local names ("attention.self.query.weight", …) to arrays. The spec uses it where no
    gradient is asked for; the result must not live in memory that a later call uses again.
    """

    def encoder_layer(
        self, x: A, params: Mapping[str, A], *, mask: Host, heads: int, mask_value: float, activation: str, eps: float
    ) -> A:
        """[B, S, H] -> [B, S, H]."""


class PackedEncoderLayer(Protocol[A]):
    """Optional: the same layer over sequences of different lengths laid end to end, so that no padding is computed.

    A token attends to all tokens of its own sequence and to no other. `refbert.spec.packed` says what it computes; it
    is used where only what belongs to tokens is asked for, as by `refbert.Model.encode`.
    """

    def packed_encoder_layer(
        self, x: A, params: Mapping[str, A], *, lengths: Host, heads: int, activation: str, eps: float
    ) -> A:
        """[N, H], lengths [B] of whole numbers from 1 with sum N -> [N, H]."""


class Updates(Protocol[A]):
    """Optional: the optimizer's step, needed for training on the backend. Clipping is the caller's ``scale``."""

    def update(
        self,
        rule: str,
        p: A,
        g: A,
        m: A,
        v: A,
        *,
        scale: float,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
        weight_decay: float,
        step: int,
    ) -> tuple[A, A, A]:
        """What refbert.ops' function of that name makes of p, g·scale, m and v, all [...]: new (p, m, v).

        p stays as it is; g, m and v may be written into, and what is returned may lie in their memory. No two of the
        four share any. step: 1 for the first update; "bert_adam" has no use for it, for the others one below 1 is a
        ValueError. Raises NotImplementedError, before anything is written, for a rule that the backend does not have;
        refbert has "bert_adam", "adamw" and "lamb".
        """

    def global_norm(self, gradients: Mapping[str, A]) -> float:
        """√ of the sum of the squares of all entries of all arrays, 0 for none; infinite or NaN where an entry is.

        The gradients stay as they are.
        """


class Objective(Protocol[A]):
    """Optional: a whole model at once, compiled or fused, for training.

    It computes what `refbert.spec.bert.objective` composes of ops: the same arguments after the first, the same
    (loss, losses by head, pullback to the gradients by full name).
    """

    def objective(
        self,
        params: Mapping[str, A],
        batch: TokenBatch,
        labels: Mapping[str, Host],
        heads: Collection[str],
        choices: ModelChoices,
        *,
        draws: KeepMasks | None = None,
        denominators: Mapping[str, float] | None = None,
    ) -> tuple[A, dict[str, A], Callable[[A], dict[str, A]]]:
        """params: arrays by full name. labels: host arrays by Hugging Face's names. heads: as `refbert.Model.heads`.

        draws: dropout's masks; None: no dropout. denominators: what the losses are divided by where these rows are a
        part of a batch (`refbert.spec.head_table.denominators`); None: what follows from these labels. The losses have
        the shape []; the pullback takes one of that shape, and leaves out parameters that the loss does not reach.
        Raises ValueError where no head is labelled, IndexError for ids and labels out of range.
        """


class Cast(Protocol[A]):
    """Optional: for mixed precision, where arrays should not travel through the host between two dtypes."""

    def cast(self, x: A, /) -> A:
        """An array of another instance of the backend in this one's dtype, on this one's device, sharing no memory."""


class Recomputed(Protocol[A]):
    """Optional, and only for ops that record one graph for a whole model, instead of a pullback each."""

    def recomputed(self, block: Callable[[A], tuple[A, BlockPullback[A]]], x: A) -> tuple[A, BlockPullback[A]]:
        """``block(x)``, of which the graph keeps x [B, S, H] alone and runs the block again for the backward."""


# Version -> the methods that it requires. Frozen: see the policy above.
REQUIRED_BY_VERSION: Mapping[int, tuple[str, ...]] = {
    1: (
        "asarray", "to_numpy", "add", "reshape", "transpose", "embedding", "gather", "linear", "layer_norm", "gelu",
        "relu", "tanh", "attention_probabilities", "attention", "dropout", "cross_entropy", "mean_squared_error",
    ),
}  # fmt: skip
VERSION = max(REQUIRED_BY_VERSION)

REQUIRED = REQUIRED_BY_VERSION[VERSION]
OPTIONAL_PROTOCOLS: tuple[type, ...] = (
    Softmax, FusedEncoderLayer, PackedEncoderLayer, Objective, Updates, Cast, Recomputed,
)  # fmt: skip


def methods(protocol: type) -> tuple[str, ...]:
    """The names of a protocol's methods."""
    return tuple(name for name, member in vars(protocol).items() if callable(member) and not name.startswith("_"))


# Read off the protocols, so that a list cannot fall behind the contract.
OPTIONAL = tuple(name for protocol in OPTIONAL_PROTOCOLS for name in methods(protocol))
ATTRIBUTES = tuple(Backend.__annotations__)
OPTIONAL_ATTRIBUTES = tuple(Declarations.__annotations__)

# What plugins had for training before there were versions.
_FORMER_UPDATES = ("bert_adam", "adamw", "lamb", "clip_by_global_norm")

# Of the required ones those that only training needs.
TRAINING = ("dropout", "cross_entropy", "mean_squared_error")

# A dtype's name -> unit roundoff, half the distance from 1 to the next number (round to nearest).
UNIT_ROUNDOFF = {
    "float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8,
}  # fmt: skip


def has_gradients(backend: object) -> bool:
    """Whether the backend is for training too: yes, unless it declares ``gradients = False``."""
    return getattr(backend, "gradients", True) is not False


def contract_of(backend: object, called: str = "") -> int:
    """The version that the backend, or its class, speaks; raises `BackendError` for one that is not known here."""
    version = getattr(backend, "contract", 1)
    who = f'backend "{called or _called(backend)}"'
    if isinstance(version, bool) or not isinstance(version, int):
        raise BackendError(f"{who}: contract must be a whole number, as {VERSION} is, not {version!r}")
    if version not in REQUIRED_BY_VERSION:
        known = ", ".join(map(str, REQUIRED_BY_VERSION))
        raise BackendError(f"{who} speaks contract {version}, but this refbert speaks contract {known}")
    return version


def says_contract(backend: object) -> bool:
    """Whether the backend names the version itself."""
    return hasattr(backend, "contract")


def contract_note(version: int, *, said: bool) -> str:
    """The version, for people: "1", or what it is taken for where the backend does not say."""
    return str(version) if said else f"says no contract version: taken as {version}"


def missing_ops(backend: object) -> tuple[str, ...]:
    """The ops that the backend must have, for training or for inference, and does not."""
    free = () if has_gradients(backend) else TRAINING
    required = REQUIRED_BY_VERSION[contract_of(backend)]
    return tuple(name for name in required if name not in free and not callable(getattr(backend, name, None)))


def require_whole(backend: Any) -> None:
    """Raise `BackendError`, or for operations `Unsupported`, where a backend lacks what refbert computes with.

    `refbert.backend.registry.create` does not ask: the conformance suite tries such a backend and says what it lacks.
    """
    for name in ATTRIBUTES:
        if not getattr(backend, name, None):
            raise BackendError(f'backend "{_called(backend)}" lacks the attribute {name}')
    missing = missing_ops(backend)
    if missing:
        raise Unsupported(f'backend "{_called(backend)}" lacks required operations: {", ".join(missing)}')


def without_updates(backend: object) -> str:
    """Why the backend cannot train, in one line; "" if it can."""
    lacks = [name for name in methods(Updates) if not callable(getattr(backend, name, None))]
    if not lacks:
        return ""
    former = [name for name in _FORMER_UPDATES if callable(getattr(backend, name, None))]
    if former:
        instead = "which contract 1 replaces by update(rule, …) and global_norm(gradients)"
        return f"it has {', '.join(former)}, {instead}: see docs/writing-a-backend.md"
    return f"it lacks {', '.join(lacks)}"


def require_updates(backend: Any) -> None:
    """Raise `Unsupported` where a backend cannot make an optimizer's step."""
    why = without_updates(backend)
    if why:
        raise Unsupported(f'backend "{_called(backend)}" cannot train: {why}')


def _called(backend: object) -> str:
    return str(getattr(backend, "name", None) or type(backend).__name__)


def host_dtype(dtype: str) -> type[np.floating[Any]]:
    """The NumPy dtype that numbers of a backend dtype come back in: float64 for float64, float32 otherwise."""
    return np.float64 if dtype == "float64" else np.float32
