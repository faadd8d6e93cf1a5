"""The documents that claims are from: what each is, and where to read the place that a claim names.

A paper's sections have no address of their own, so they lead to the paper. Google's files lead to the line where the
named function begins, in the commit that the claims are about; Hugging Face's to the file in the release on record.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["papers", "code", "derived", "article"]
KINDS: Mapping[Kind, str] = {
    "papers": "published papers",
    "code": "code of Google and Hugging Face",
    "derived": "what follows from the papers' sizes",
    "article": "an unsigned article",
}


@dataclass(frozen=True)
class Document:
    """title: what it is. kind: as what it is counted. url: where it is read; "" where it is not published."""

    title: str
    kind: Kind
    url: str = ""


_BERT = "https://arxiv.org/abs/1810.04805v2"
_GOOGLE = "https://github.com/google-research/bert/blob/eedf5716ce1268e56f0a50264a88cafad334ac61/"
_HUGGING_FACE = "https://github.com/huggingface/transformers/blob/v5.24.0/"

# An id's first word -> the document that the claim is from, in the order of the report.
DOCUMENTS: Mapping[str, Document] = {
    "bert": Document("Devlin et al. 2019, BERT (arXiv 1810.04805)", "papers", _BERT),
    "transformer": Document(
        "Vaswani et al. 2017, Attention Is All You Need (arXiv 1706.03762), where BERT builds on it",
        "papers",
        "https://arxiv.org/abs/1706.03762",
    ),
    "google": Document("google-research/bert, the released code (commit eedf571)", "code", _GOOGLE.rstrip("/")),
    "hf": Document("Hugging Face transformers, against the paper and Google's code", "code", _HUGGING_FACE.rstrip("/")),
    "costs": Document("Costs that follow from the papers' sizes (no document states them)", "derived", _BERT),
    "article": Document(
        "An unsigned Chinese article on configuring BERT (no author, not published where it can be cited)", "article"
    ),
}

# Google's file -> the lines on which what claims name begins.
_LINES: Mapping[str, Mapping[str, int]] = {
    "create_pretraining_data.py": {
        "--do_whole_word_mask": 46, "--dupe_factor": 57, "--short_seq_prob": 63,
        "create_instances_from_document": 223, "create_masked_lm_predictions": 342, "truncate_seq_pair": 418,
    },
    "modeling.py": {
        "BertConfig": 31, "gelu": 264, "layer_norm": 362, "create_initializer": 375, "embedding_postprocessor": 428,
        "attention_layer": 558, "transformer_model": 754,
    },
    "optimization.py": {"create_optimizer": 25, "AdamWeightDecayOptimizer": 87},
    "optimization_test.py": {"test_adam": 25},
    "run_classifier.py": {"--warmup_proportion": 90, "_truncate_seq_pair": 557},
    "run_pretraining.py": {"get_masked_lm_output": 240, "get_next_sentence_output": 285},
    "run_squad.py": {
        "convert_examples_to_features": 309, "_check_is_max_context": 513, "compute_loss": 646,
        "write_predictions": 741,
    },
    "tokenization.py": {
        "BasicTokenizer": 185, "_run_strip_accents": 220, "_is_chinese_char": 264, "_clean_text": 286,
        "WordpieceTokenizer": 300, "max_input_chars_per_word": 303, "_is_punctuation": 386,
    },
    "tokenization_test.py": {"test_full_tokenizer": 28},
}  # fmt: skip
# Hugging Face's file -> the folder that it is in.
_FOLDERS: Mapping[str, str] = {
    "activations.py": "src/transformers",
    "configuration_bert.py": "src/transformers/models/bert",
    "data_collator.py": "src/transformers/data",
    "modeling_bert.py": "src/transformers/models/bert",
    "optimization.py": "src/transformers",
    "test_modeling_bert.py": "tests/models/bert",
    "tokenization_bert.py": "src/transformers/models/bert",
}

_FILE = re.compile(r"\b(README|\w+\.py)\b")
_NAMED = re.compile(r"--\w+|\w+")


def links(id: str, where: str) -> list[tuple[str, str]]:
    """(text, address or "") of the parts of ``where``, which they are when joined: "§3", or files and what is between.

    A function, class or flag that is named behind a file is where that file's address leads.
    """
    prefix = id.split(".")[0]
    pieces = _FILE.split(where)  # text, file, text, file, …, text
    if len(pieces) == 1:
        return [(where, "" if where.startswith("(") else DOCUMENTS[prefix].url)]
    files = range(1, len(pieces), 2)
    found = [(piece, _address(prefix, piece, pieces[i + 1]) if i in files else "") for i, piece in enumerate(pieces)]
    return [(text, url) for text, url in found if text]


def _address(prefix: str, file: str, behind: str) -> str:
    if prefix == "hf":
        return f"{_HUGGING_FACE}{_FOLDERS[file]}/{file}"
    lines = _LINES.get(file, {})
    line = next((f"#L{lines[word]}" for word in _NAMED.findall(behind) if word in lines), "")
    return f"{_GOOGLE}{'README.md' if file == 'README' else file}{line}"
