"""A finished run to the model that ships: int8 weights with scales, configuration, tokenizer, and the card.

    python export.py RUN refbert/models/small-english [--limit BYTES]

The card is README.md of the recipe with the model's name, here or in the folder beside.
int8 is for the disk (`refbert.checkpoint.quantized`): refbert computes in float32 as with any checkpoint. What the
rounding costs is measured on held-out text: recipe.sh scores the run and the model that ships. The files appear
together or not at all. Fails if they are larger than the wheel allows.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import refbert
from refbert import checkpoint
from refbert.errors import CheckpointError, InputError, RefbertError

LIMIT = 12_000_000  # bytes in the wheel


def export(run: Path, directory: Path, *, limit: int = LIMIT) -> int:
    """Write ``directory``; returns its bytes. Raises `InputError` for a model that cannot ship."""
    if directory.exists():
        raise InputError(f"{directory}: exists already; remove it first")
    model = refbert.load(run)
    partial = directory.with_name(f".{directory.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        checkpoint.write(
            partial, model.state_dict(), model.config, heads=model.heads, pooler=model.has_pooler, int8=True
        )
        model.tokenizer.save(partial)
        card = Path(__file__).parents[1] / directory.name / "README.md"
        if card.is_file():
            shutil.copy(card, partial / "README.md")
        size = sum(path.stat().st_size for path in partial.iterdir())
        if size > limit:
            raise InputError(f"{directory}: {size:,} bytes, more than the {limit:,} that the wheel has room for")
        partial.rename(directory)
    except OSError as error:
        raise CheckpointError(f"{directory}: cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return size


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="what `refbert pretrain --output` wrote")
    parser.add_argument("directory", type=Path, help="where the wheel takes it from")
    parser.add_argument("--limit", type=int, default=LIMIT, help="bytes; default: %(default)s")
    given = parser.parse_args()
    try:
        size = export(given.run, given.directory, limit=given.limit)
    except RefbertError as error:
        print(f"export.py: {error}", file=sys.stderr)
        return 2
    print(f"{given.directory}: {size:,} bytes of {given.limit:,}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
