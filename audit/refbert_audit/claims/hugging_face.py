"""Hugging Face transformers: where it follows Google, where it does not.

It is run beside refbert in every claim. Where it is not installed these claims are unavailable.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from refbert.backend.reference import ReferenceBackend
from refbert.checkpoint.names import from_hugging_face, to_hugging_face
from refbert.config import BertConfig
from refbert.config.heads import PRETRAINING
from refbert.config.parameters import count, initialize, shapes
from refbert.config.presets import preset
from refbert.config.profiles import HF
from refbert.data.masking import mask_batch
from refbert.errors import InputError
from refbert.loading import load
from refbert.ops.cross_entropy import IGNORE
from refbert.spec.layers import activate
from refbert.text.batching import Batch
from refbert.text.tokenization import Tokenizer
from refbert_audit import Missing, Value, Values
from refbert_audit.corpora import SPECIALS, tokenizer
from refbert_audit.measures import largest, spread
from refbert_audit.models import BERT, LARGE, SIZES, attentions, batch, labels_for, masked_labels, model
from refbert_audit.runs import RUN, examples_of_a_run
from refbert_audit.watching import Watching, dropout_sites
from refbert_inspection import hugging_face
from refbert_inspection.hugging_face import config_of, inputs, library, outputs, twin


def by() -> str:
    """Who speaks for Hugging Face."""
    return hugging_face.release()


def hf_params() -> Values:
    """Hugging Face's classes at base's size, and large's body: their parameters counted, against refbert's count."""
    kinds: dict[tuple[str, ...], tuple[bool, int]] = {
        (): (True, 109_482_240), PRETRAINING: (True, 110_106_428), ("masked_lm",): (False, 109_514_298),
        ("question_answering",): (False, 108_893_186), ("sequence_classification",): (True, 109_483_778),
    }  # fmt: skip
    ours = [count(preset(BERT), heads, pooler=pooler) for heads, (pooler, _) in kinds.items()]

    def theirs(heads: tuple[str, ...], name: str) -> int:
        with library("torch").device("meta"):  # shapes without memory
            return sum(p.numel() for p in hugging_face.class_of(heads)(config_of(preset(name))).parameters())

    yield Value("base, five classes", [theirs(heads, BERT) for heads in kinds], [n for _, n in kinds.values()], by=by())
    yield Value("the same, refbert's count", ours, [n for _, n in kinds.values()])
    yield Value("large", theirs((), LARGE), count(preset(LARGE)), by=by())


def hf_forward() -> Values:
    """A random pretraining model in float64, eager attention, rows with padding: both heads' logits."""
    one, rows = model(PRETRAINING), batch(ragged=True)
    ours, theirs = one(rows), outputs(twin(one), rows)
    words = ours.logits["masked_lm"] - theirs.prediction_logits.numpy()
    order = ours.logits["next_sentence"] - theirs.seq_relationship_logits.numpy()
    yield Value("masked-LM logits, largest difference", largest(words), 0.0, within=1e-12, by=by())
    yield Value("next-sentence logits", largest(order), 0.0, within=1e-12, by=by())


def hf_gradients() -> Values:
    """Loss and all gradients of a random pretraining model, against PyTorch's autograd."""
    one, rows = model(PRETRAINING), batch(ragged=True)
    labels = labels_for(PRETRAINING, rows)
    loss, ours = one.loss_and_gradients(rows, labels)
    theirs = twin(one)
    out = theirs(**inputs(rows, **labels))
    out.loss.backward()
    found = {name: p.grad.numpy() for name, p in theirs.named_parameters() if p.grad is not None}
    scale = max(float(np.linalg.norm(g)) for g in ours.values())
    apart = [float(np.linalg.norm(ours[name] - g)) / scale for name, g in found.items()]
    yield Value("loss", loss - float(out.loss.detach()), 0.0, within=1e-12, by=by())
    yield Value("tensors compared", len(found), len(ours), by=by())
    yield Value("largest difference, of the largest gradient", max(apart), 0.0, within=1e-12, by=by())


def hf_gelu() -> Values:
    """Its activation on a grid, against those of models of refbert's two profiles: erf (hf), tanh (google)."""
    x = np.linspace(-6, 6, 24_001)
    grid = library("torch").tensor(x)
    y = library("transformers.activations").ACT2FN["gelu"](grid).numpy()
    for profile, expected, within in (("hf", 0.0, 1e-15), ("google", 4.73e-4, 1e-6)):
        ours, _ = activate(ReferenceBackend(), x, model(profile=profile).choices.activation)
        yield Value(f"from profile {profile}", largest(y - ours), expected, within=within, by=by())


def hf_mask_nothing_visible() -> Values:
    """The probabilities of such a row: 1/S each in Hugging Face's eager attention; Google's as without a mask."""
    rows = batch()
    dead = Batch(rows.input_ids, rows.token_type_ids, np.array([[1] * 11, [1] * 11, [0] * 11]))

    def attention(profile: str, mask: Batch) -> np.ndarray:
        one = model(profile=profile, config=SIZES.replace(hidden_act="relu"))
        return np.asarray(attentions(one, mask)[0][2])

    theirs = twin(model(config=SIZES.replace(hidden_act="relu")))
    hf = theirs(**inputs(dead), output_attentions=True).attentions[0][2].detach().numpy()
    yield Value("largest |p − 1/S|", largest(hf - 1 / 11), 0.0, within=1e-12, by=by())
    unmasked = bool(np.allclose(hf, attention("hf", rows)))
    yield Value("it is as if nothing were masked", unmasked, False, claimed=True, by=by())
    ours = largest(attention("hf", dead) - hf)
    yield Value("refbert's − Hugging Face's", ours, 0.0, within=1e-12, by="refbert, profile hf")
    same = largest(attention("google", dead) - attention("google", rows))
    yield Value("Google's − unmasked", same, 0.0, within=1e-10, by="refbert, profile google")


def hf_mask_sdpa() -> Values:
    """The same model with both, rows with and without a visible key; profile hf does as eager does."""
    rows = batch()
    dead = Batch(rows.input_ids, rows.token_type_ids, np.array([[1] * 11, [1] * 8 + [0] * 3, [0] * 11]))
    one = model()
    found = [outputs(twin(one, attn_implementation=kind), dead).last_hidden_state.numpy() for kind in ("eager", "sdpa")]
    apart = np.abs(found[0] - found[1]).max(axis=(1, 2))
    ours = largest(one(dead).last_hidden_state - found[0])
    yield Value("rows with a visible key", apart[:2].max(), 0.0, within=1e-12, by=by())
    yield Value("a row without one differs", bool(apart[2] > 1e-3), True, claimed=False, by=by())
    yield Value("profile hf − eager, all rows", ours, 0.0, within=1e-12, by="refbert, profile hf")


def hf_mlm_no_targets() -> Values:
    """The loss where every label is −100. refbert gives 0 in both profiles: such a batch says nothing."""
    one, rows = model(("masked_lm",)), batch()
    none = np.full(rows.shape, IGNORE)
    ours = one.loss_and_gradients(rows, none)[0]
    theirs = float(outputs(twin(one), rows, labels=none).loss)
    yield Value("Hugging Face's loss", theirs, math.nan, claimed=0.0, by=by())
    yield Value("refbert's, profile hf", ours, 0.0, by="refbert, profile hf")


def hf_mlm_all_positions() -> Values:
    """Rows of logits for a batch of 33 positions, 8 of them labelled; and rows that refbert's loss is made of."""
    watching, rows = Watching(), batch()
    one = model(("masked_lm",), backend=watching)
    labels = masked_labels(rows)
    theirs = outputs(twin(one), rows, labels=labels).logits.shape[:2]
    one.loss_and_gradients(rows, labels)
    ours = next(shapes[0] for name, shapes, _ in watching.calls if name == "cross_entropy")
    yield Value("rows of logits", math.prod(theirs), 33, claimed=int((labels != IGNORE).sum()), by=by())
    yield Value("refbert's in training: rows, words", ours, [8, SIZES.vocab_size])


def hf_init() -> Values:
    """Fresh word embeddings of 3,000 × 96: their deviation, their largest, and the row of the padding token."""
    config = SIZES.replace(vocab_size=3000, hidden_size=96)
    name = "bert.embeddings.word_embeddings.weight"
    ours = initialize({name: (3000, 96)}, config, seed=0, profile=HF)[name]
    library("torch").manual_seed(0)
    theirs = library().BertModel(config_of(config)).embeddings.word_embeddings.weight.detach().numpy()
    for w, who in ((theirs, by()), (ours, "refbert, profile hf")):
        yield Value("deviation", float(w[1:].std()), 0.02, within=6 * 0.02 / math.sqrt(2 * w[1:].size), by=who)
        yield Value("largest is beyond three deviations", largest(w) > 0.06, True, claimed=False, by=who)
        yield Value("padding's row", largest(w[0]), 0.0, by=who)


def hf_schedule() -> Values:
    """Its multiplier around the end of a warmup of 10,000 steps and in the middle, of 1,000,000."""
    steps = (0, 9_999, 10_000, 505_000, 1_000_000)
    ours = replace(RUN, learning_rate=1.0, profile="hf")
    torch = library("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    made = library().get_linear_schedule_with_warmup(optimizer, 10_000, 1_000_000)
    expected = [0.0, 0.9999, 1.0, 0.5, 0.0]
    yield Value("multipliers", [float(made.lr_lambdas[0](step)) for step in steps], expected, within=1e-15, by=by())
    yield Value("refbert's", [ours.rate(step) for step in steps], expected, within=1e-15, by="refbert, profile hf")


def hf_collator() -> Values:
    """Targets of 400 sequences of 98 words: a fixed number would have variance 0, tosses have n·p·(1 − p) = 12.5."""
    B, S = 400, 100
    ids = np.full((B, S), tokenizer().library.token_to_id("w1"))
    ids[:, 0], ids[:, -1] = tokenizer().cls_id, tokenizer().sep_id
    special = np.isin(ids, (tokenizer().cls_id, tokenizer().sep_id))
    roles = {f"{role}_token": f"[{role.upper()}]" for role in ("unk", "cls", "sep", "pad", "mask")}
    wrapped = library().PreTrainedTokenizerFast(tokenizer_object=tokenizer().library, **roles)
    collate = library().DataCollatorForLanguageModeling(wrapped, mlm_probability=0.15, seed=1)
    theirs = collate([{"input_ids": row} for row in ids.tolist()])["labels"].numpy()
    draws = np.random.default_rng(1).random((B, 3, S))
    whole_words = np.zeros(tokenizer().vocab_size, dtype=bool)
    settings, mask_id = examples_of_a_run(masking="independent"), tokenizer().mask_id
    _, ours = mask_batch(ids, special, np.full(B, S), draws, settings, mask_id=mask_id, continues=whole_words)

    for labels, who in ((theirs, by()), (ours, 'refbert, masking="independent"')):
        n = (labels != IGNORE).sum(axis=1)
        yield Value("mean share of words", n.mean() / 98, 0.15, within=spread(0.15, 98 * B), by=who)
        # A sample variance of n normal numbers is off by σ²√(2/n).
        yield Value("variance", n.var(), 98 * 0.15 * 0.85, within=6 * 12.5 * math.sqrt(2 / B), claimed=0.0, by=who)
        yield Value("on [CLS] or [SEP]", int((labels[special] != IGNORE).sum()), 0, by=who)


def their_tokenizer(pieces: list[str]) -> Any:
    """Hugging Face's BertTokenizer of a vocabulary file."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
        return library().BertTokenizer.from_pretrained(folder)


def hf_tokenizer() -> Values:
    """Rows of 100 and 101 a's, and a text with [MASK], through BertTokenizer."""
    vocabulary = [*SPECIALS, "a", "##a", "mask", "[", "]"]
    made = their_tokenizer(vocabulary)
    ours = Tokenizer.from_vocabulary(vocabulary, profile=HF)
    texts = ("a" * 100, "a" * 101, "a [MASK]")
    found = {
        by(): [made.tokenize(text) for text in texts],
        "refbert, profile hf": [e.tokens[1:-1] for e in ours.encode(texts, max_length=512)],
    }
    expected = [[100, "##a"], [1, "[UNK]"], [2, "[MASK]"]]
    for who, pieces in found.items():
        yield Value("pieces, and the last", [[len(tokens), tokens[-1]] for tokens in pieces], expected, by=who)


def hf_type_vocabulary() -> Values:
    """The default of its configuration class, and of refbert's."""
    yield Value("segments", library().BertConfig().type_vocab_size, 2, by=by())
    yield Value("refbert's", BertConfig().type_vocab_size, 2)


def hf_dropout_tags() -> Values:
    """Its module in front of the classifier, and the place that refbert draws a mask for."""
    theirs = float(library().BertForTokenClassification(config_of(SIZES)).dropout.p)
    yield Value("rate", theirs, 0.1, by=by())
    yield Value("refbert's", dropout_sites(("token_classification",))["classifier"], 0.1)


def hf_names() -> Values:
    """The names of its pretraining class, against refbert's; and old names, without the prefix, read as new."""
    ours = set(shapes(SIZES, PRETRAINING))
    theirs = {n for n, _ in library().BertForPreTraining(config_of(SIZES)).named_parameters()}
    old = {n: to_hugging_face(n, prefix=False, old=True) for n in ours}
    misread = sorted(n for n in ours if from_hugging_face(old[n]) != n)
    yield Value("names that only one has", sorted(theirs ^ ours), [], by=by())
    yield Value("old names with gamma", any("gamma" in n for n in old.values()), True)
    yield Value("old names that are not read as what they were", misread, [])


def hf_integration(directory: str | None) -> Values:
    """With --model DIR the weights there are run on the test's input and compared with its nine numbers.

    Raises `InputError` for weights of another model.
    """
    if directory is None:
        raise Missing("the weights of bert-base-uncased (refbert audit hf.integration --model DIR)")
    one, ids = load(directory, heads=()), np.array([[0, 345, 232, 328, 740, 140, 1695, 69, 6078, 1588, 2]])
    if ids.max() >= one.config.vocab_size or one.config.hidden_size != 768:
        raise InputError(f"{directory}: not bert-base-uncased: {one!r}")
    out = one(Batch(ids, attention_mask=(ids > 0).astype(np.int64))).last_hidden_state
    expected = [[0.4249, 0.1008, 0.7531], [0.3771, 0.1188, 0.7467], [0.4152, 0.1098, 0.7108]]
    yield Value("out[0, 1:4, 1:4]", out[0, 1:4, 1:4], expected, within=1e-4)
