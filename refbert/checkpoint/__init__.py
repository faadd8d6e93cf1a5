"""Checkpoints: every layout in which BERT weights are published, read into one set of names.

names               the table of names: Hugging Face's (ours), its older ones, Google's TensorFlow 1 variables
safetensors_file    model.safetensors, memory-mapped
pytorch_file        pytorch_model.bin, without PyTorch and without running what is in the file (pickled)
tensorflow_file     bert_model.ckpt.index and .data, checked with crc32c
quantized           int8 rows with scales, compressed-tensors' layout
reading             a directory -> Checkpoint; matching: Checkpoint -> the parameters that a model expects
mapped              mapped files: a look at every weight that keeps nothing in memory, and whether they have changed
budget              what a file may make of itself, by its own length
hub                 a name on the Hugging Face hub -> a local directory
sentence_modules    sentence-transformers' modules -> how a text's vector is made, and where the checkpoint is
export              a directory that Hugging Face transformers loads to the same outputs
"""

from refbert.checkpoint.budget import check_drawn
from refbert.checkpoint.export import write
from refbert.checkpoint.hub import locate, resolve
from refbert.checkpoint.mapped import watch
from refbert.checkpoint.matching import Matched, heads_in, match
from refbert.checkpoint.names import summary
from refbert.checkpoint.reading import Checkpoint, read
from refbert.checkpoint.sentence_modules import read_modules, write_embedder

__all__ = [
    "Checkpoint", "Matched", "check_drawn", "heads_in", "locate", "match", "read", "read_modules", "resolve", "summary",
    "watch", "write", "write_embedder",
]  # fmt: skip
