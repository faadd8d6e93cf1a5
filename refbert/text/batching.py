"""A batch: the three arrays that BERT reads, checked once and then trusted.

Devlin et al. 2019 Figure 2: token, segment and position; positions are implied. The mask tells tokens from padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from refbert.config import BertConfig
from refbert.errors import InputError

if TYPE_CHECKING:
    from refbert.text.tokenization import Encoding, Tokenizer

Ids = npt.NDArray[np.int64]
Text = str | tuple[str, str]


@dataclass(frozen=True, eq=False)
class Batch:
    """input_ids, token_type_ids (default: zeros) and attention_mask (default: ones), each [B, S] of int64.

    Anything array-like of whole numbers is accepted. B may be 0; S is at least 1. Raises `InputError` for shapes that
    differ, rows of different lengths, numbers that are not whole or are negative, and a mask with anything but 0
    and 1. The arrays are copies, so that what was checked stays so.
    """

    input_ids: Ids
    token_type_ids: Ids = None  # type: ignore[assignment]  # None only until __post_init__
    attention_mask: Ids = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        ids = _whole("input_ids", self.input_ids)
        types = np.zeros_like(ids) if self.token_type_ids is None else _whole("token_type_ids", self.token_type_ids)
        mask = np.ones_like(ids) if self.attention_mask is None else _whole("attention_mask", self.attention_mask)
        for name, array in (("token_type_ids", types), ("attention_mask", mask)):
            if array.shape != ids.shape:
                raise InputError(f"{name} has shape {array.shape}, but input_ids has shape {ids.shape}")
        if mask.size and int(mask.max()) > 1:
            raise InputError(f"attention_mask must be 0 or 1, found {int(mask.max())}")
        for name, array in (("input_ids", ids), ("token_type_ids", types), ("attention_mask", mask)):
            object.__setattr__(self, name, array)

    @property
    def shape(self) -> tuple[int, int]:
        """(B, S)."""
        B, S = self.input_ids.shape
        return B, S

    @property
    def lengths(self) -> Ids:
        """How many tokens of each row are not padding: [B]."""
        return np.asarray(self.attention_mask.sum(axis=1))

    def rows(self, indices: Any) -> Batch:
        """The batch of some rows (a slice or an array of indices), padding kept."""
        return Batch(self.input_ids[indices], self.token_type_ids[indices], self.attention_mask[indices])

    def check(self, config: BertConfig) -> None:
        """Raise `InputError` for an id, a segment or a length that a model of this configuration does not have."""
        S = self.input_ids.shape[1]
        if config.max_position_embeddings < S:
            raise InputError(
                f"the batch is {S} tokens long, but the model has {config.max_position_embeddings} positions"
            )
        for name, array, limit in (
            ("input_ids", self.input_ids, config.vocab_size),
            ("token_type_ids", self.token_type_ids, config.type_vocab_size),
        ):
            refuse(name, array, array >= limit, f"the model has ids 0 to {limit - 1}")


def by_length(
    tokenizer: Tokenizer,
    encodings: Sequence[Encoding],
    batch_size: int,
    progress: Callable[[int], object] | None = None,
) -> Iterator[tuple[list[int], Batch]]:
    """Batches with their texts' places among ``encodings``, the longest texts first, so that little is padded.

    ``progress`` gets how many texts a batch had once the next is asked for. Raises `InputError` for a size below 1.
    """
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, not {batch_size}")
    order = sorted(range(len(encodings)), key=lambda i: -len(encodings[i].input_ids))
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        yield places, tokenizer.pad([encodings[i] for i in places])
        if progress is not None:
            progress(len(places))


def refuse(name: str, array: npt.NDArray[Any], wrong: npt.NDArray[np.bool_], why: str) -> None:
    """Raise `InputError` that names the first entry that is ``wrong``, if there is one."""
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise InputError(f"{name}[{', '.join(map(str, where))}] is {array[where]}: {why}")


def _whole(name: str, value: object) -> Ids:
    try:
        array = np.asarray(value)
    except ValueError:  # NumPy's word for a ragged list
        raise InputError(f"{name} must be rows of one length: pad the shorter ones") from None
    if array.dtype == np.bool_:
        array = array.astype(np.int64)
    if array.size == 0 and array.dtype == np.float64:  # what NumPy makes of an empty list
        array = array.astype(np.int64)
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"{name} must be whole numbers, not {array.dtype}")
    if array.ndim != 2 or array.shape[1] == 0:
        raise InputError(f"{name} must be two-dimensional, [B, S] with S at least 1; it has shape {array.shape}")
    refuse(name, array, (array < 0) | (array > np.iinfo(np.int64).max), "ids and masks are 0 or more, of 63 bits")
    return np.array(array, dtype=np.int64, order="C")
