"""Checkpoints: every layout in which BERT weights are published, read into one set of names.

names               the table of names: Hugging Face's (ours), its older ones, Google's TensorFlow 1 variables
safetensors_file    model.safetensors, memory-mapped
pytorch_file        pytorch_model.bin, without PyTorch and without running what is in the file
tensorflow_file     bert_model.ckpt.index and .data, checked with crc32c
reading             a directory -> Checkpoint; matching: Checkpoint -> the parameters that a model expects
mapped              a look at every weight that does not keep the file in memory
hub                 a name on the Hugging Face hub -> a local directory
sentence_modules    sentence-transformers' modules -> how a text's vector is made, and where the checkpoint is
export              a directory that Hugging Face transformers loads to the same outputs
"""

from refbert.checkpoint.export import write
from refbert.checkpoint.hub import locate, resolve
from refbert.checkpoint.matching import Matched, heads_in, match
from refbert.checkpoint.reading import Checkpoint, read
from refbert.checkpoint.sentence_modules import lower_cases, read_embedder, transformer_directory, write_embedder

__all__ = [
    "Checkpoint",
    "Matched",
    "heads_in",
    "locate",
    "lower_cases",
    "match",
    "read",
    "read_embedder",
    "resolve",
    "transformer_directory",
    "write",
    "write_embedder",
]
