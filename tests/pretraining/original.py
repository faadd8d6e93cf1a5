"""The original's rules for pairs and masks, written again on lists of tokens and from the paper's and the code's words.

``rng`` has random() and randint(low, high), both ends included. Nothing of refbert.data is used.
"""

from __future__ import annotations


def instances(documents, index, length, short_probability, rng, *, coin, tries=10):
    """(A, B, label) per instance of a document; ``documents`` are lists of sentences, each a list of tokens.

    ``coin()`` says at which end a token is cut; it is apart from ``rng`` so that the other choices can be compared.
    """
    document, room = documents[index], length - 3
    target = rng.randint(2, room) if rng.random() < short_probability else room
    made, chunk, held, i = [], [], 0, 0
    while i < len(document):
        chunk.append(document[i])
        held += len(document[i])
        if i == len(document) - 1 or held >= target:
            split = rng.randint(1, len(chunk) - 1) if len(chunk) > 1 else 1
            a = [token for sentence in chunk[:split] for token in sentence]
            b = []
            if len(chunk) == 1 or rng.random() < 0.5:
                label = 1
                for _ in range(tries):
                    other = rng.randint(0, len(documents) - 1)
                    if other != index:
                        break
                start = rng.randint(0, len(documents[other]) - 1)
                for sentence in documents[other][start:]:
                    b += sentence
                    if len(b) >= target - len(a):
                        break
                i -= len(chunk) - split  # put back what was not used
            else:
                label = 0
                b = [token for sentence in chunk[split:] for token in sentence]
            truncate(a, b, room, coin)
            made.append((a, b, label))
            chunk, held = [], 0
        i += 1
    return made


def truncate(a, b, room, coin):
    while len(a) + len(b) > room:
        longer = a if len(a) > len(b) else b
        if coin():
            del longer[0]
        else:
            longer.pop()


def masked_positions(tokens, order, rate, most, *, whole_word):
    """The positions to predict. ``order``: a number per position; words are tried by that of their first piece."""
    words = []
    for position, token in enumerate(tokens):
        if token in ("[CLS]", "[SEP]"):
            continue
        if whole_word and words and token.startswith("##"):
            words[-1].append(position)
        else:
            words.append([position])
    words.sort(key=lambda word: order[word[0]])
    budget = min(most, max(1, int(round(len(tokens) * rate))))  # noqa: RUF046 - as the original writes it
    chosen = []
    for word in words:
        if len(chosen) >= budget:
            break
        if len(chosen) + len(word) <= budget:
            chosen += word
    return sorted(chosen)
