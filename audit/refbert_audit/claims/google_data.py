"""google-research/bert: what create_pretraining_data.py and run_squad.py do beyond the paper."""

from __future__ import annotations

import numpy as np

from refbert.data.draws import Draws
from refbert.data.features import answer_features, windows
from refbert.data.masking import mask_batch
from refbert.data.pairs import examples
from refbert.data.store import continues
from refbert.ops.cross_entropy import IGNORE
from refbert.tasks.answering import answer, window_length
from refbert_audit import Value, Values
from refbert_audit.corpora import Coins, corpus, reader, store, texts, tokenizer
from refbert_audit.measures import spread
from refbert_audit.runs import examples_of_a_run, finetuning


def masked(lengths: list[int], **settings: object) -> tuple[np.ndarray, np.ndarray]:
    """(ids, labels) of sequences [CLS] words [SEP] of these lengths, every third token a "##" piece."""
    S, B = max(lengths), len(lengths)
    goes_on = continues(tokenizer())
    rng = np.random.default_rng(1)
    pieces, wholes = np.flatnonzero(goes_on), np.flatnonzero(~goes_on)[5:]
    ids = np.where(np.arange(S) % 3 == 2, rng.choice(pieces, (B, S)), rng.choice(wholes, (B, S)))
    end = np.array(lengths)[:, None]
    special = (np.arange(S) == 0) | (np.arange(S) >= end - 1)
    ids[special] = tokenizer().sep_id
    chosen = examples_of_a_run(**settings)
    _, labels = mask_batch(
        ids, special, np.array(lengths), rng.random((B, 3, S)), chosen, mask_id=tokenizer().mask_id, continues=goes_on
    )
    return ids, labels


def google_masking_count() -> Values:
    """Targets of sequences of 5, 10, 30, 50 and 128 tokens: 0.75, 1.5, 4.5, 7.5 and 19.2, rounded as Python does."""
    _, labels = masked([5, 10, 30, 50, 128])
    _, few = masked([128], max_predictions=7)
    yield Value("targets", (labels != IGNORE).sum(axis=1), [1, 2, 4, 8, 19])
    yield Value("with max_predictions 7", int((few != IGNORE).sum()), 7)


def google_masking_vocabulary() -> Values:
    """Random replacements of one word, 40,000 times, under a vocabulary of 50 pieces: how often each occurs.

    A replacement by the word itself or by [MASK] cannot be told from what is kept or masked.
    """
    V, mask_id, word = 50, 4, 7
    ids = np.full((400, 100), word)
    settings = examples_of_a_run(masking="independent", rate=1.0)
    draws = np.random.default_rng(1).random((400, 3, 100))
    none = np.zeros(ids.shape, dtype=bool)
    made, _ = mask_batch(ids, none, np.full(400, 100), draws, settings, mask_id=mask_id, continues=np.zeros(V, bool))
    n = ids.size
    occurs = np.bincount(made[(made != word) & (made != mask_id)], minlength=V) / n
    others = np.delete(occurs, [mask_id, word])
    yield Value("[PAD], [UNK], [CLS] and [SEP], of all tokens", occurs[:4].sum(), 0.4 / V, within=spread(0.4 / V, n))
    yield Value("each other piece", others, [0.1 / V] * (V - 2), within=spread(0.1 / V, n))


def google_masking_whole_word() -> Values:
    """Words of two pieces in 200 sequences: how many are chosen by half, with the option and without."""

    def split(whole_word: bool) -> int:
        ids, labels = masked([128] * 200, whole_word=whole_word)
        chosen, second = labels != IGNORE, np.flatnonzero(continues(tokenizer())[ids][:, :127].all(axis=0))
        return int((chosen[:, second] != chosen[:, second - 1]).sum())

    yield Value("words split, with it", split(whole_word=True), 0)
    yield Value("without it there are some", split(whole_word=False) > 100, True)


def google_instances_short() -> Values:
    """Documents for which a shorter length is drawn, of 30,000; and whether those of the corpus give more examples."""
    alone = store(texts(50, sentences=(1, 1), tokens=(5, 45)), "alone")
    drawn = [Coins("shorter", number) for number in range(30_000)]
    for number, draws in enumerate(drawn):
        examples(alone, number % 50, 128, examples_of_a_run(), draws)
    share = sum(bool(draws.shorter) for draws in drawn) / len(drawn)
    yield Value("share", share, 0.1, within=spread(0.1, len(drawn)))
    found: dict[bool, list[int]] = {True: [], False: []}
    for document in range(corpus().documents):
        draws = Coins("short", document)
        made = examples(corpus(), document, 512, examples_of_a_run(), draws)
        found[bool(draws.shorter)].append(len(made))
    more = np.mean(found[True]) > 2 * np.mean(found[False])
    yield Value("they give more than twice the examples", bool(more), True)


def google_instances_ten_tries() -> Values:
    """Two documents, and draws that always name the first: how often it is asked, and where B comes from."""

    class Stubborn(Draws):
        """Always the lowest number."""

        asked = 0

        def between(self, low: int, high: int) -> int:
            self.asked += high == 1  # of two documents
            return low

    two = store([["w0 w0"], ["w1 w1 w1"]], "two")
    draws = Stubborn("always")
    (only,) = examples(two, 0, 32, examples_of_a_run(short_sequence_probability=0.0), draws)
    yield Value("times", draws.asked, 10)
    yield Value("B is the document itself", [only.b_start, only.b_stop], [only.a_start, only.a_stop])


def google_instances_put_back() -> Values:
    """Where nothing is cut, a document's own parts in order are the whole document."""
    short = store(texts(60, sentences=(2, 12), tokens=(1, 5)), "short")
    lost = 0
    for d in range(60):
        bounds = short.boundaries(*short.document(d))
        place = int(bounds[0])
        for e in examples(short, d, 512, examples_of_a_run(short_sequence_probability=0.0), Draws("put back", d)):
            lost += e.a_start - place
            place = e.a_stop if e.label else e.b_stop
        lost += int(bounds[-1]) - place
    yield Value("tokens lost in 60 documents", lost, 0)


def google_instances_truncation() -> Values:
    """Pairs of 100 + 100 and of 100 + 140 tokens for 125 places: lengths left, and the share that A loses in front."""
    one, other = (" ".join(["w1"] * n) for n in (100, 140))
    long = store([[one, one], [one, other]] * 200, "long")
    settings = examples_of_a_run(short_sequence_probability=0.0)
    sizes, front = set(), 0
    following = 0
    for d in range(400):
        for e in examples(long, d, 128, settings, Draws("cut", d)):
            if e.label:
                continue
            following += 1
            sizes.add((e.a_stop - e.a_start, e.b_stop - e.b_start))
            front += e.a_start - int(long.boundaries(*long.document(d))[0])
    yield Value("lengths of A and B", sorted(sizes), [[63, 62]])
    yield Value("lost in front, of A's 37", front / (37 * following), 0.5, within=spread(0.5, 37 * following))


def google_instances_static() -> Values:
    """Versions of the corpus in 20 rounds: ten, which repeat, unless the profile is dynamic."""
    found = [len({examples_of_a_run(profile=p).version(r) for r in range(20)}) for p in ("google", "dynamic")]
    yield Value("versions in 20 rounds, google and dynamic", found, [10, 20], claimed=[20, 20])


def google_squad_windows() -> Values:
    """A question of 100 words on a passage of 700, read with the defaults, and an answering run."""
    passage, question = (" ".join(f"w{i % 400}" for i in range(n)) for n in (700, 100))
    limits = finetuning(task="answer").limits()
    length = window_length(512, limits.max_length)
    found = windows(tokenizer(), [(question, passage)], max_length=length, doc_stride=limits.doc_stride)
    starts = [w.offsets[0][0] for w in found]
    places = [passage[:start].count(" ") for start in starts]
    one = reader(max_position_embeddings=512)
    (given,), (every,) = (
        answer(one, [("w1", passage)], n_best=n, max_answer=limits.max_answer) for n in (limits.n_best, 10**6)
    )
    yield Value("longest window", max(len(w.encoding.input_ids) for w in found), 384)
    yield Value("starts, in tokens", places[:3], [0, 128, 256])
    yield Value("tokens of the question", found[0].first - 2, 64)
    yield Value("answers", len(given.answers), 20)
    yield Value("words of the longest, if all are kept", max(len(a.text.split()) for a in every.answers), 30)


def google_squad_context() -> Values:
    """For every token of a passage in overlapping windows: the window it is read in, against a search."""
    passage = " ".join(f"w{i}" for i in range(60))
    found = windows(tokenizer(), [("w1", passage)], max_length=24, doc_stride=5)
    begins = [passage[: w.offsets[0][0]].count(" ") for w in found]
    wrong = 0
    for token in range(60):
        score = {}
        for n, (w, begin) in enumerate(zip(found, begins, strict=True)):
            if begin <= token < begin + len(w.offsets):
                sides = (token - begin, begin + len(w.offsets) - 1 - token)
                score[n] = min(sides) + 0.01 * len(w.offsets)
        best = max(score, key=lambda n: score[n])
        wrong += not found[best].central[token - begins[best]]
    total = sum(sum(w.central) for w in found)
    yield Value("tokens read elsewhere", wrong, 0)
    yield Value("tokens read, once each", total, 60)


def google_squad_null() -> Values:
    """The margin of a long passage against the windows' scores at [CLS]."""
    one, passage = reader(), " ".join(f"w{i}" for i in range(60))
    (found,) = answer(one, [("w1", passage)], max_length=24, doc_stride=5)
    cut = windows(tokenizer(), [("w1", passage)], max_length=24, doc_stride=5)
    logits = [one(tokenizer().pad([w.encoding])).logits["question_answering"] for w in cut]
    nulls = [float(z[0, 0].sum()) for z in logits]
    yield Value("margin − (lowest − best)", found.null_margin - min(nulls) + found.answers[0].score, 0.0, within=1e-10)


def google_squad_outside() -> Values:
    """An answer of two words in windows of which some hold it, some a half of it, some nothing."""
    passage = " ".join(f"w{i}" for i in range(30))
    found = windows(tokenizer(), [("w1", passage)], max_length=14, doc_stride=5)
    answer_start = passage.index("w12 w13")
    features, lost = answer_features(found, [("w12 w13", answer_start)])
    wrong = held = 0
    for window, feature in zip(found, features, strict=True):
        words = [passage[a:b] for a, b in window.offsets]
        start, end = feature.labels["start_positions"], feature.labels["end_positions"]
        whole = "w12" in words and "w13" in words
        held += whole
        place = window.first + words.index("w12") if whole else 0
        wrong += (start, end) != ((place, place + 1) if whole else (0, 0))
    yield Value("windows, and those that hold the answer", [len(found), held], [5, 2])
    yield Value("windows with other labels", wrong, 0)
    yield Value("answers lost altogether", lost, [])
