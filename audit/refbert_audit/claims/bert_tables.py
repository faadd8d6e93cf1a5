"""Devlin et al. 2019, Tables 1-8: the arithmetic of the printed numbers, and what reproducing them would take."""

from __future__ import annotations

import numpy as np

from refbert.config.parameters import count
from refbert.config.presets import TABLE_6, preset
from refbert_audit import Missing, Value, Values
from refbert_audit.quoted import BASE_MNLI_TABLE_5, BASE_SST_TABLE_5, TABLE_1, TABLE_6_SCORES, TABLE_7_BASE_DEV, TABLE_8
from refbert_audit.registry import Check


def average(row: str) -> float:
    """The mean of a row's nine numbers, MNLI's two counted apart."""
    return float(np.mean(TABLE_1[row][:9]))


def bert_table1_average() -> Values:
    """The mean of the printed scores, matched and mismatched MNLI counted as two tasks."""
    rows = ("BERT base", "BERT large", "OpenAI GPT", "Pre-OpenAI SOTA")
    yield from (Value(row, average(row), TABLE_1[row][9], within=0.0501) for row in rows)


def bert_table1_average_of_tasks() -> Values:
    """With MNLI's two numbers counted as one task the average of base is another."""
    row = TABLE_1["BERT base"]
    tasks = [(row[0] + row[1]) / 2, *row[2:9]]
    yield Value("base, eight tasks", float(np.mean(tasks)), 79.05, within=0.0501, claimed=row[9])


def bert_table1_average_elmo() -> Values:
    """The mean of that row's nine numbers rounds to 70.9."""
    row = "BiLSTM+ELMo+Attn"
    yield Value("average, one decimal", round(average(row), 1), 70.9, claimed=TABLE_1[row][9])


def bert_table1_improvement() -> Values:
    """Averages recomputed from the scores, less OpenAI GPT's: of rounded ones, as printed, and of exact ones."""
    names = ("BERT base", "BERT large")
    printed = [round(average(row), 1) - round(average("OpenAI GPT"), 1) for row in names]
    exact = [average(row) - average("OpenAI GPT") for row in names]
    yield Value("gains of base and large", printed, [4.5, 7.0], within=1e-9)
    yield Value("before rounding", exact, [4.467, 6.944], within=5e-4)


def bert_table1_mnli() -> Values:
    """Large's matched accuracy less the best before."""
    best = max(TABLE_1[row][0] for row in TABLE_1 if not row.startswith("BERT"))
    yield Value("gain", TABLE_1["BERT large"][0] - best, 4.6, within=1e-9)


def bert_table1_large_better() -> Values:
    """The nine differences."""
    gains = np.subtract(TABLE_1["BERT large"], TABLE_1["BERT base"])[:9]
    yield Value("tasks on which large is better", int((gains > 0).sum()), 9)


def bert_table6_parameters() -> Values:
    """Exact parameters of the six sizes, pooler included: they never shrink, and rows 2 and 3 differ in heads alone."""
    found = [count(preset(f"table6-{L}-{H}-{A}")) for L, H, A in TABLE_6]
    expected = [45_691_392, 66_955_008, 66_955_008, 109_482_240, 183_987_200, 335_141_888]
    yield Value("parameters", found, expected)
    yield Value("they never shrink", bool((np.diff(found) >= 0).all()), True)


def bert_table6_heads_free() -> Values:
    """Parameters of (6, 768, 3) less those of (6, 768, 12)."""
    few, many = (count(preset(f"table6-6-768-{A}")) for A in (3, 12))
    yield Value("difference", few - many, 0)


def bert_table6_monotone() -> Values:
    """Differences from row to row: perplexity falls, the three accuracies rise, throughout."""
    steps = np.diff(np.array(TABLE_6_SCORES), axis=0)
    right = [(steps[:, 0] < 0).all(), *((steps[:, i] > 0).all() for i in (1, 2, 3))]
    yield Value("perplexity, MNLI, MRPC, SST-2 improve throughout", [bool(x) for x in right], [True] * 4)


def bert_table6_four_datasets() -> Values:
    """Columns of the table that hold accuracies: three."""
    yield Value("datasets", np.array(TABLE_6_SCORES).shape[1] - 1, 3, claimed=4)


def bert_table6_sst() -> Values:
    """Base's row of Table 6 against Table 5."""
    base = TABLE_6_SCORES[TABLE_6.index((12, 768, 12))]
    yield Value("Table 6 − Table 5", base[3] - BASE_SST_TABLE_5, 0.2, within=1e-9, claimed=0.0)


def bert_table7_features() -> Values:
    """The best of the feature-based rows less the fine-tuned base."""
    features = {name: f1 for name, f1 in TABLE_7_BASE_DEV.items() if name != "fine-tuned"}
    best = max(features, key=lambda name: features[name])
    yield Value("the best", best, "concatenated last four")
    yield Value("behind by", TABLE_7_BASE_DEV["fine-tuned"] - features[best], 0.3, within=1e-9)


def bert_table8_shares() -> Values:
    """Sums of the rows."""
    yield Value("sums", np.array(TABLE_8)[:, :3].sum(axis=1), [100.0] * 6)


def bert_table8_first_row() -> Values:
    """NER against Table 7 and MNLI against Table 5."""
    apart = [TABLE_8[0][4] - TABLE_7_BASE_DEV["fine-tuned"], TABLE_8[0][3] - BASE_MNLI_TABLE_5]
    yield Value("NER, MNLI: Table 8 − the other", apart, [-1.0, -0.2], within=1e-9, claimed=[0.0, 0.0])


def bert_table8_robust() -> Values:
    """Range of MNLI over the six strategies: less than a point; and [MASK] alone is worst for features, as C.2 says."""
    table = np.array(TABLE_8)
    yield Value("range of MNLI", float(np.ptp(table[:, 3])), 0.8, within=1e-9)
    yield Value("worst for features: row", int(table[:, 5].argmin()), 1)


def needs(what: str) -> Check:
    """The check of a claim whose numbers only training again would confirm: it says what that takes."""

    def check() -> Values:
        """Reproducing the scores takes data and training that do not come with refbert."""
        raise Missing(what)

    return check


bert_table1_scores = needs(
    "BERT's pretrained weights, the GLUE data, and its evaluation server (test labels are not public)"
)
bert_table2_scores = needs("BERT large's weights, SQuAD 1.1, TriviaQA, and the hidden test set")
bert_table3_scores = needs("BERT large's weights, SQuAD 2.0, and the hidden test set")
bert_table4_scores = needs("BERT large's weights and the SWAG data")
bert_table5_ablation = needs("BooksCorpus, English Wikipedia, and several pretraining runs of base")
bert_table6_scores = needs("BooksCorpus, English Wikipedia, and a pretraining run for each size")
bert_table7_scores = needs("BERT's cased weights and the CoNLL-2003 data (licensed)")
bert_table8_scores = needs("BooksCorpus, English Wikipedia, and a pretraining run for each strategy")
bert_convergence = needs("BooksCorpus, English Wikipedia, and two pretraining runs of base")
