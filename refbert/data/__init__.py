"""Data: text files to tokenized corpora, to pretraining batches with their labels.

corpus      text files, stdin, Parquet -> documents of sentences
wordpiece   sentences -> a vocabulary
store       documents -> a tokenized corpus on disk
duplicates  which sentences stood before
mixing      which documents a round shows, where files have weights
pairs       a document -> spans of sentence pairs
masking     a batch -> hidden tokens and labels
rows        a document's examples, and a batch of such with its labels
stream      all of it, as a source of batches that can be resumed anywhere; labelled examples likewise

For fine-tuning, labelled files to batches with their labels:

tables      CSV, TSV, JSON lines        conll   tagged words        squad   questions about passages
labelled    a task's file, and the set of its labels
features    texts -> rows and labels: first pieces of words, windows of passages, choices
"""

from refbert.data.corpus import read_sentences
from refbert.data.rows import Rows
from refbert.data.settings import Phase, Pretraining, paper_phases
from refbert.data.store import Store, build_store
from refbert.data.stream import PretrainingSource
from refbert.data.wordpiece import train_wordpiece

__all__ = [
    "Phase", "Pretraining", "PretrainingSource", "Rows", "Store", "build_store", "paper_phases", "read_sentences",
    "train_wordpiece",
]  # fmt: skip
