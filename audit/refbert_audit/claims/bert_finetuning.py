"""Devlin et al. 2019 §3.2, §4, §5.3, A.3: fine-tuning and its heads."""

from __future__ import annotations

import string
from collections.abc import Iterator

import numpy as np

from refbert.config.parameters import count
from refbert.config.presets import preset
from refbert.data.features import Window, answer_features, encode_words, tag_features, windows
from refbert.ops.cross_entropy import IGNORE
from refbert.spec import heads, losses
from refbert.tasks.answering import Answered, answer
from refbert.text.batching import Batch
from refbert.text.tokenization import Tokenizer
from refbert_audit import Value, Values
from refbert_audit.corpora import reader, tokenizer
from refbert_audit.measures import largest, log_losses, refused, without_gradient
from refbert_audit.models import BERT, SIZES, batch, gradients, hidden_states, loss_and_logits, model
from refbert_audit.runs import finetuning

CLASSES = ("sequence_classification",)
TAGS = ("token_classification",)
SPANS = ("question_answering",)
CHOICES = ("multiple_choice",)


def own_parameters(head: str, K: int = 2) -> int:
    """Parameters that a head adds to base with its pooler."""
    config = preset(BERT).replace(num_labels=K)
    return count(config, (head,)) - count(config)


def bert_finetune_all() -> Values:
    """Tensors without a gradient in a classification step: none but the key biases, which cancel in the softmax."""
    silent = without_gradient(gradients(CLASSES))
    yield Value("tensors without a gradient", [n for n in silent if "key.bias" not in n], [])
    yield Value("key biases", len(silent), SIZES.num_hidden_layers)


def bert_finetune_grid() -> Values:
    """The runs that the paper's grid makes."""
    plans = finetuning().plans()
    yield Value("runs", len(plans), 18)
    yield Value("batch sizes", sorted({p.batch_size for p in plans}), [16, 32])
    yield Value("rates", sorted({p.learning_rate for p in plans}), [2e-5, 3e-5, 5e-5])
    yield Value("epochs", sorted({p.epochs for p in plans}), [2, 3, 4])


def bert_finetune_grid_glue() -> Values:
    """§4.1's rates 5e-5, 4e-5, 3e-5, 2e-5 looked for in the appendix's grid: 4e-5 is not in it."""
    rates = {p.learning_rate for p in finetuning().plans()}
    yield Value("rates not in the grid", sorted({5e-5, 4e-5, 3e-5, 2e-5} - rates), [4e-5], claimed=[])


def bert_finetune_grid_squad2() -> Values:
    """The batch size 48 of §4.3 looked for in the appendix's grid."""
    sizes = {p.batch_size for p in finetuning().plans()}
    yield Value("batch size 48 is in the grid", 48 in sizes, False, claimed=True)


def bert_finetune_restarts() -> Values:
    """Seeds of three restarts, and whether a choice between runs without a development set is refused."""
    runs = finetuning(restarts=3, learning_rates=(5e-5,), batch_sizes=(32,), epochs=(3,)).plans()
    yield Value("seeds", [run.seed for run in runs], [0, 1, 2])
    yield Value("without a dev set it is refused", refused(lambda: finetuning(dev=None)), True)


def bert_glue_parameters() -> Values:
    """Parameters that the classifier adds to base with its pooler, K = 3: a bias for each class on top."""
    yield Value("new parameters, K = 3", own_parameters("sequence_classification", 3), 2307, claimed=2304)


def bert_glue_head() -> Values:
    """The head's logits against C Wᵀ, and against what the code does: pooled Wᵀ + b."""
    one, rows = model(CLASSES), batch()
    out = one(rows)
    assert out.pooler_output is not None
    p, logits = one.state_dict(), out.logits["sequence_classification"]
    formula = out.last_hidden_state[:, 0] @ p["classifier.weight"].T
    code = out.pooler_output @ p["classifier.weight"].T + p["classifier.bias"]
    yield Value("logits − (pooled Wᵀ + b)", largest(logits - code), 0.0, within=1e-12)
    yield Value("logits are C Wᵀ", bool(np.allclose(logits, formula)), False, claimed=True)


def bert_glue_loss() -> Values:
    """The loss against the mean of −log softmax written out."""
    y = np.array([0, 3, 4])
    loss, logits = loss_and_logits("sequence_classification", {"labels": y}, batch())
    yield Value("difference", loss - log_losses(logits, y).mean(), 0.0, within=1e-12)


def bert_squad_parameters() -> Values:
    """Parameters that the head adds: the two vectors, and two biases, which no softmax notices."""
    added = own_parameters("question_answering")
    one, rows = model(SPANS), batch()
    before = one(rows).logits["question_answering"]
    one.parameters["qa_outputs.bias"] += 3.0
    after = one(rows).logits["question_answering"]
    yield Value("new parameters", added, 2 * 768 + 2, claimed=2 * 768)
    yield Value("a bias shifts all positions alike, by", float(np.ptp(after - before)), 0.0, within=1e-12)


def bert_squad_softmax() -> Values:
    """The gradient of the loss at the question's positions: were they left out of the softmax, it would be 0."""
    one = model(SPANS)
    rows = batch(1, 11)
    hidden = one(rows).last_hidden_state
    logits, _ = heads.question_answering(one.backend, one.parameters, hidden)
    _, back = losses.span_loss(one.backend, logits, np.array([7]), np.array([8]), one.choices, 2.0, 2.0)
    (dlogits,) = back(np.ones(()))
    question = np.abs(dlogits[0, :5]).min()
    yield Value("positions of the question are in the softmax", bool(question > 0), True, claimed=False)


def bert_squad_loss() -> Values:
    """The loss over the sum of the two means: the code halves it."""
    labels = {"start_positions": np.array([1, 2, 3]), "end_positions": np.array([4, 5, 6])}
    loss, z = loss_and_logits("question_answering", labels, batch())
    each = [log_losses(z[..., which], y).mean() for which, y in enumerate(labels.values())]
    yield Value("loss / (start + end)", loss / sum(each), 0.5, within=1e-12, claimed=1.0)


def bert_squad_packed() -> Values:
    """A question and a passage as the reader packs them."""
    (window,) = windows(tokenizer(), [("w1 w2", "w3 w4 w5")], max_length=32, doc_stride=8)
    e = window.encoding
    yield Value("tokens", e.tokens, ["[CLS]", "w1", "w2", "[SEP]", "w3", "w4", "w5", "[SEP]"])
    yield Value("segments", e.token_type_ids, [0, 0, 0, 0, 1, 1, 1, 1])


def read() -> Iterator[tuple[Answered, Window, np.ndarray]]:
    """Three questions: a random model's answers, every span looked at, the one window, its logits of start and end."""
    one = reader(scale=0.3)
    pairs = [(f"w{i} w{i + 1}", " ".join(f"w{7 * i + j}" for j in range(20))) for i in range(3)]
    for pair, found in zip(pairs, answer(one, pairs, n_best=1000, max_length=30), strict=True):
        (window,) = windows(tokenizer(), [pair], max_length=30, doc_stride=8)
        yield found, window, one(tokenizer().pad([window.encoding])).logits["question_answering"][0]


def bert_squad_score() -> Values:
    """The best span of each of three texts, against a search through all pairs of the logits."""
    off, backwards = [], 0
    for found, window, z in read():
        n = len(window.offsets)
        start, end = (z[window.first : window.first + n, which] for which in (0, 1))
        best = max(start[i] + end[j] for i in range(n) for j in range(i, n))
        off.append(abs(best - found.answers[0].score))
        backwards += sum(a.stop <= a.start for a in found.answers)
    yield Value("best score − the search's", max(off), 0.0, within=1e-10)
    yield Value("spans that end before they start", backwards, 0)


def bert_squad2_no_answer() -> Values:
    """The labels of a question with no answer, and of one whose answer the window does not hold."""
    found = windows(tokenizer(), [("w1", "w2 w3 w4")], max_length=32, doc_stride=8)
    labels = [answer_features(found, [one])[0][0].labels for one in (None, ("w3", 3))]
    none, some = ([y["start_positions"], y["end_positions"]] for y in labels)
    yield Value("start, end without an answer", none, [0, 0])
    yield Value("start, end of w3", some, [4, 4])


def bert_squad2_null_score() -> Values:
    """The margin of three texts against that sum, from the logits at [CLS], less the best span's score."""
    off = [abs(float(z[0].sum()) - found.answers[0].score - found.null_margin) for found, _, z in read()]
    yield Value("largest difference", max(off), 0.0, within=1e-10)


def bert_squad2_threshold() -> Values:
    """Where the decision turns for a margin s_null − ŝ of 2: at a threshold of 2, so the threshold is −τ."""
    found, *_ = next(read())
    one = Answered(found.question, found.passage, found.answers, null_margin=2.0)
    given = [one.text(threshold) != "" for threshold in (-2.0, 1.9, 2.0, 2.1)]
    best, null = 0.0, 2.0
    by_tau = [best > null + tau for tau in (-2.0, 1.9, 2.0, 2.1)]
    yield Value("answered at −2, 1.9, 2, 2.1", given, [False, False, True, True], claimed=by_tau)


def bert_swag_parameters() -> Values:
    """Parameters that the head adds: the vector, and a bias that the softmax over choices does not notice."""
    one, rows = model(CHOICES), batch(4)
    before = one.loss_and_gradients(rows, {"labels": np.array([1])})[0]
    one.parameters["classifier.bias"] += 3.0
    after = one.loss_and_gradients(rows, {"labels": np.array([1])})[0]
    yield Value("new parameters", own_parameters("multiple_choice"), 769, claimed=768)
    yield Value("a bias of 3 changes the loss by", after - before, 0.0, within=1e-12)


def bert_swag_softmax() -> Values:
    """The loss of one question with four choices against −log softmax of its four scores."""
    loss, logits = loss_and_logits("multiple_choice", {"labels": np.array([2])}, batch(4))
    yield Value("difference", loss - log_losses(logits.reshape(4), 2), 0.0, within=1e-12)


def bert_ner_first_piece() -> Values:
    """Labels of a sentence whose second word falls into three pieces: its other pieces do not count."""
    (words,) = encode_words(tokenizer(), [["w1", "abc", "w2"]], max_length=16)
    (feature,) = tag_features([words], [[1, 2, 3]])
    labels = feature.labels["labels"]
    yield Value("tokens", words.encoding.tokens, ["[CLS]", "w1", "a", "##b", "##c", "w2", "[SEP]"])
    yield Value("labels", labels, [IGNORE, 1, 2, IGNORE, IGNORE, 3, IGNORE])


def bert_ner_no_crf() -> Values:
    """The last hidden vector of one position is changed: the tags' logits of all others must stay."""
    one, rows = model(TAGS), batch()
    hidden = one(rows).last_hidden_state
    other = hidden.copy()
    other[:, 3] += 1
    a, b = (heads.classifier(one.backend, one.parameters, x, one.choices)[0] for x in (hidden, other))
    moved = np.flatnonzero(np.abs(a - b).max(axis=(0, 2))).tolist()
    yield Value("positions whose logits move", moved, [3])


def bert_ner_cased() -> Values:
    """What the two kinds of tokenizer make of Paris and paris: to the uncased one they are the same word."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "Paris", "paris", *string.ascii_lowercase]
    made = [Tokenizer.from_vocabulary(vocabulary, settings={"do_lower_case": lower}) for lower in (True, False)]
    same = [len({e.input_ids for e in t.encode(["Paris", "paris"], max_length=8)}) == 1 for t in made]
    yield Value("the same to uncased and cased", same, [True, False])


def bert_feature_based_layers() -> Values:
    """Hidden states of a run at base's width: embeddings and every layer, the last four concatenated."""
    config = preset(BERT).replace(vocab_size=9, num_hidden_layers=4, intermediate_size=8)
    states = hidden_states(model(config=config, scale=0.02), Batch(np.array([[1, 2, 3]])))
    last = np.concatenate(states[-4:], axis=-1)
    yield Value("states of 4 layers and the embeddings", len(states), 5)
    yield Value("width of four side by side", last.shape[-1], 3072)
