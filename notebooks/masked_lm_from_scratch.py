"""Masked LM from scratch: a one-layer BERT out of refbert.ops, with its backward, trained on two dozen facts."""

# %% [markdown]
# # Masked LM from scratch
#
# A corpus so small that one can see everything. Twelve cities and their countries, in two sentences each. Whole words
# are the tokens. The model will learn to say which word stood behind `[MASK]`.

# %%
import math

import numpy as np

from refbert import ops

CITIES = {
    "paris": ("france", "europe"), "rome": ("italy", "europe"), "madrid": ("spain", "europe"),
    "berlin": ("germany", "europe"), "cairo": ("egypt", "africa"), "nairobi": ("kenya", "africa"),
    "accra": ("ghana", "africa"), "tunis": ("tunisia", "africa"), "tokyo": ("japan", "asia"),
    "hanoi": ("vietnam", "asia"), "delhi": ("india", "asia"), "beijing": ("china", "asia"),
}  # fmt: skip
sentences = [f"{city} is the capital of {country}" for city, (country, _) in CITIES.items()]
sentences += [f"{country} is a country in {continent}" for country, continent in CITIES.values()]
words = sorted({word for sentence in sentences for word in sentence.split()})
vocabulary = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", *words]
number = {word: i for i, word in enumerate(vocabulary)}
MASK, SPECIALS = number["[MASK]"], 3
ids = np.array([[number[w] for w in ["[CLS]", *s.split(), "[SEP]"]] for s in sentences])
B, S = ids.shape
V = len(vocabulary)
print(f"{B} sentences of {S} tokens, {V} words")

# %% [markdown]
# ## The model
#
# Embeddings of words and positions, LayerNorm, one self-attention with residual and LayerNorm, and the tied word
# matrix on top. (No feed-forward, no segments: the facts do not need them.)

# %%
H, A = 32, 4
rng = np.random.default_rng(0)
p = {"words": rng.normal(0, 0.1, (V, H)), "positions": rng.normal(0, 0.1, (S, H)), "bias": np.zeros(V)}
for name in ("q", "k", "v", "o"):
    p[f"w_{name}"], p[f"b_{name}"] = rng.normal(0, 0.15, (H, H)), np.zeros(H)
for name in ("norm_1", "norm_2"):
    p[f"{name}_gain"], p[f"{name}_shift"] = np.ones(H), np.zeros(H)
print(sum(array.size for array in p.values()), "parameters")


# %% [markdown]
# The backward stands under the forward, in reverse. Three things to look for: the residual adds two cotangents, x is
# used by q, k and v as well, and the word matrix gets two gradients, one from the lookup and one from the output.


# %%
def loss_and_gradients(ids, labels):
    """(loss, gradients by name, logits [B, S, V])."""
    places = np.broadcast_to(np.arange(S), ids.shape)
    e_words, words_back = ops.embedding(p["words"], ids)
    e_places, places_back = ops.embedding(p["positions"], places)
    x, norm_1_back = ops.layer_norm(e_words + e_places, p["norm_1_gain"], p["norm_1_shift"], eps=1e-12)
    q, q_back = ops.linear(x, p["w_q"], p["b_q"])
    k, k_back = ops.linear(x, p["w_k"], p["b_k"])
    v, v_back = ops.linear(x, p["w_v"], p["b_v"])
    a, attention_back = ops.attention(q, k, v, mask=np.ones(ids.shape), heads=A, mask_value=-math.inf)
    o, o_back = ops.linear(a, p["w_o"], p["b_o"])
    t, norm_2_back = ops.layer_norm(x + o, p["norm_2_gain"], p["norm_2_shift"], eps=1e-12)
    logits, logits_back = ops.linear(t, p["words"], p["bias"])
    loss, loss_back = ops.cross_entropy(logits, labels, denominator=int((labels != ops.IGNORE).sum()))

    g = {}
    (dlogits,) = loss_back(np.array(1.0))
    dt, g["words"], g["bias"] = logits_back(dlogits)
    dsum, g["norm_2_gain"], g["norm_2_shift"] = norm_2_back(dt)
    da, g["w_o"], g["b_o"] = o_back(dsum)
    dq, dk, dv = attention_back(da)
    dx = dsum  # the residual
    for name, back, d in (("q", q_back, dq), ("k", k_back, dk), ("v", v_back, dv)):
        dx_part, g[f"w_{name}"], g[f"b_{name}"] = back(d)
        dx = dx + dx_part
    de, g["norm_1_gain"], g["norm_1_shift"] = norm_1_back(dx)
    g["words"] = g["words"] + words_back(de)[0]  # tied: both uses count
    (g["positions"],) = places_back(de)
    return float(loss), g, logits


# %% [markdown]
# ## Is the backward right?
#
# Before training anything: the slope along a random direction of all parameters, by finite differences.


# %%
def corrupt(ids, rate=0.15):
    """BERT's 80/10/10 (Devlin et al. 2019 §3.1)."""
    draws = {"select": rng.random(ids.shape), "action": rng.random(ids.shape)}
    random_ids = rng.integers(SPECIALS + 1, V, ids.shape)
    return ops.mask_tokens(ids, ids < SPECIALS, random_ids=random_ids, rate=rate, mask_id=MASK, **draws)


corrupted, labels = corrupt(ids)
_, g, _ = loss_and_gradients(corrupted, labels)
direction = {name: rng.standard_normal(array.shape) for name, array in p.items()}
ends = []
for sign in (1, -1):
    for name in p:
        p[name] = p[name] + sign * 1e-6 * direction[name]
    ends.append(loss_and_gradients(corrupted, labels)[0])
    for name in p:
        p[name] = p[name] - sign * 1e-6 * direction[name]
slope = sum(float((g[name] * direction[name]).sum()) for name in p)
print(f"slope {slope:.6f}, by finite differences {(ends[0] - ends[1]) / 2e-6:.6f}")
assert abs(slope - (ends[0] - ends[1]) / 2e-6) < 1e-6 * max(1, abs(slope)) + 1e-6

# %% [markdown]
# ## Training
#
# Adam as in Google's code, linear warmup and decay. The loss begins near ln V. (It jumps from step to step: a batch has
# only some two dozen chosen tokens, and some, such as a country before "is a country in asia", can only be guessed.)

# %%
m = {name: np.zeros_like(array) for name, array in p.items()}
v = {name: np.zeros_like(array) for name, array in p.items()}
STEPS, PEAK, WARMUP = 1200, 5e-3, 100
history = []
for step in range(STEPS):
    lr = PEAK * min(step / WARMUP, (STEPS - step) / (STEPS - WARMUP))
    corrupted, labels = corrupt(ids)
    loss, g, _ = loss_and_gradients(corrupted, labels)
    history.append(loss)
    for name in p:
        p[name], m[name], v[name] = ops.bert_adam(
            p[name], g[name], m[name], v[name], lr=lr, beta1=0.9, beta2=0.999, eps=1e-6, weight_decay=0.0
        )
    if step % 200 == 0:
        print(f"step {step:4}  loss {loss:.2f}")
print(f"ln V = {math.log(V):.2f}; first ten steps {np.mean(history[:10]):.2f}, last ten {np.mean(history[-10:]):.2f}")
assert np.mean(history[-10:]) < 0.5 * np.mean(history[:10])


# %% [markdown]
# ## Filling in


# %%
def fill(text, top=3):
    """The likeliest words for [MASK]."""
    row = np.array([[number[w] for w in ["[CLS]", *text.split(), "[SEP]"]]])
    _, _, logits = loss_and_gradients(row, np.full(row.shape, ops.IGNORE))
    probabilities, _ = ops.softmax(logits[0, text.split().index("[MASK]") + 1])
    return [(vocabulary[i], float(probabilities[i])) for i in np.argsort(-probabilities)[:top]]


for text in ("paris is the capital of [MASK]", "[MASK] is the capital of japan", "kenya is a country in [MASK]"):
    print(text, "->", ", ".join(f"{word} {score:.2f}" for word, score in fill(text)))
countries = cities = 0
for city, (country, _) in CITIES.items():
    countries += fill(f"{city} is the capital of [MASK]", 1)[0][0] == country
    cities += fill(f"[MASK] is the capital of {country}", 1)[0][0] == city
print(f"{countries} of 12 countries, {cities} of 12 cities")
assert min(countries, cities) >= 10

# %% [markdown]
# ## Exercises
#
# 1. Fill "[MASK] is the capital of europe". The sentence is nonsense; what does the model do, and what does that say
#    about what it has learned?
# 2. Which positions does [MASK] look at in "paris is the capital of [MASK]"? Print the attention weights of each head.
# 3. How low can the loss get without looking at the neighbours? Compute it for a model that gives every word its
#    frequency in the corpus, and compare with the last losses above.
# 4. Hide the sentence "tokyo is the capital of japan" from training. Can the model still answer? Should it?
# 5. Untie the output matrix from the word embeddings. How many parameters more? Which line of the backward goes?

# %% [markdown]
# ## Solutions

# %%
guesses = ", ".join(f"{word} {score:.2f}" for word, score in fill("[MASK] is the capital of europe"))
print("1.", guesses, "- some answer always comes: associations of words, not knowledge of the world")

# %% [markdown]
# 2. At least one head looks at paris: from there comes the answer. The others look at words that are the same in all
#    sentences of this kind; they say what kind of sentence it is.

# %%
tokens = ["[CLS]", "paris", "is", "the", "capital", "of", "[MASK]", "[SEP]"]
row = np.array([[number[w] for w in tokens]])
x, _ = ops.layer_norm(p["words"][row] + p["positions"], p["norm_1_gain"], p["norm_1_shift"], eps=1e-12)
q, k = (ops.linear(x, p[f"w_{name}"], p[f"b_{name}"])[0] for name in ("q", "k"))
weights, _ = ops.attention_probabilities(q, k, mask=np.ones(row.shape), heads=A, mask_value=-math.inf)
for head in range(A):
    looks = zip(tokens, weights[0, head, 6], strict=True)
    print(f"2. head {head}:", " ".join(f"{token} {w:.2f}" for token, w in looks))

# %%
counts = np.bincount(ids[ids >= SPECIALS + 1], minlength=V)
frequencies = counts[counts > 0] / counts.sum()
entropy = -float((frequencies * np.log(frequencies)).sum())
print(f"3. {entropy:.2f} by frequencies alone, {np.mean(history[-50:]):.2f} in the last fifty steps")
assert np.mean(history[-50:]) < entropy

# %% [markdown]
# 4. No sentence in training links the two then, so nothing in the data says that tokyo belongs to japan rather than
#    to any other country. It should not be able to.
# 5. V·H more. The line marked "tied" goes, and the gradient of the new matrix is what `logits_back` returns.
