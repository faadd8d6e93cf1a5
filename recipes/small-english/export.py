"""A finished run to the model that ships: float16 weights, configuration, tokenizer, and the card.

    python export.py RUN refbert/models/small-english

float16 is for the disk: refbert computes in float32 as with any checkpoint, and so does Hugging Face with dtype
float32. The files appear together or not at all. Fails if they are larger than the wheel allows, if a weight does not
fit into float16, or if the rounded model's logits differ from the run's by more than `MOST`.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

import refbert
from refbert import checkpoint
from refbert.errors import CheckpointError, InputError, RefbertError

LIMIT = 12_000_000  # bytes in the wheel
# Rounding a weight moves it by 2^-11 of itself; a logit is a sum of products of some 20 layers of rounded weights.
MOST = 0.05
_PROBE = ("The capital of France is [MASK].", ("A cat is a kind of [MASK].", "It sleeps all day."))


def export(run: Path, directory: Path, *, limit: int = LIMIT) -> int:
    """Write ``directory``; returns its bytes. Raises `InputError` for a model that cannot ship."""
    if directory.exists():
        raise InputError(f"{directory}: exists already; remove it first")
    model = refbert.load(run)
    halves = {name: _half(name, tensor) for name, tensor in model.state_dict().items()}
    partial = directory.with_name(f".{directory.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        checkpoint.write(partial, halves, model.config, heads=model.heads, pooler=model.has_pooler)
        model.tokenizer.save(partial)
        card = Path(__file__).with_name("README.md")
        if card.is_file():
            shutil.copy(card, partial / "README.md")
        size = sum(path.stat().st_size for path in partial.iterdir())
        if size > limit:
            raise InputError(f"{directory}: {size:,} bytes, more than the {limit:,} that the wheel has room for")
        moved = _difference(model, refbert.load(partial))
        if moved > MOST:
            raise InputError(f"{directory}: float16 moves a logit by {moved:.3g}, more than {MOST}")
        partial.rename(directory)
    except OSError as error:
        raise CheckpointError(f"{directory}: cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return size


def _half(name: str, tensor: Any) -> Any:
    with np.errstate(over="ignore"):
        half = tensor.astype(np.float16)
    if not np.isfinite(half).all():
        raise InputError(f"{name}: a weight that float16 does not hold")
    return half


def _difference(one: Any, other: Any) -> float:
    """The largest difference of any logit on a few texts."""
    batch = one.batch(_PROBE)
    a, b = one(batch).logits, other(batch).logits
    return max(float(np.abs(a[head] - b[head]).max()) for head in a)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="what `refbert pretrain --output` wrote")
    parser.add_argument("directory", type=Path, help="where the wheel takes it from")
    given = parser.parse_args()
    try:
        size = export(given.run, given.directory)
    except RefbertError as error:
        print(f"export.py: {error}", file=sys.stderr)
        return 2
    print(f"{given.directory}: {size:,} bytes of {LIMIT:,}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
