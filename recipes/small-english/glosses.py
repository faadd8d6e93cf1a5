"""A dictionary's entry to sentences: "cat: feline mammal …" becomes "A cat is a feline mammal …".

    noun        A cat, or true cat, is a feline mammal usually having thick soft fur. A cat is a kind of feline.
    name        Paris is the capital and largest city of France.
    verb        To anticipate is to be excited or anxious about.
    adjective   Hoary means ancient, as in hoary jokes. The opposite of young is old.
    example     a sentence stands by itself; a phrase follows its definition with "as in"

Where a noun takes an article is not in WordNet. It is read off the gloss ("a …": it does; "the act of …": it does not)
and off the lexicographer's file (animals, artifacts, persons and plants are counted; acts, states and substances are
not). Some sentences come out wrong; that is the price of having 100,000 that are right.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from wordnet import Key, Synset

# Lexicographer files (lexnames(5WN)): animal, artifact, body, group, location, object, person, plant, shape.
_COUNTED = {5, 6, 8, 14, 15, 17, 18, 20, 25}
_PERSON = 18
_ALIVE = {5, 18, 20}
_WITH_PARTS = {5, 6, 8, 20}
_FOOD = 13
_CAPITAL = {5, 13, 18, 20}  # "a Viking", "a Granny Smith"
_MASS = {"fabric", "material", "ware", "substance", "paper", "clothing", "footwear", "equipment", "software"}
_SINGULAR = (
    "ss",
    "us",
    "is",
    "ics",
    "as",
    "chaos",
    "cosmos",
    "ethos",
    "asbestos",
    "rhinoceros",
    "news",
    "series",
    "species",
)
_THE_ONE = {"most", "first", "last", "only", "chief", "principal", "main", "best", "worst", "least", "same"}
_MOST = 6  # parts or kinds in one sentence
_NOT_A_FIELD = re.compile(
    r"usually|often|sometimes|plural|followed|used|slang|informal|formal|trade|Yiddish|archaic|obsolete|dialect|former|"
    r"British|American|Scottish|Irish|French|Latin|German|Australian|colloquial|postpositive|prenominal|nonstandard|"
    r"euphemism|comparative|superlative|literary|old-fashioned|intensifier|^of |^or |^as |^in |^by |^for |^with |^to "
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Of a sentence, rather than of a phrase: verbs in it, and words that begin it.
_FINITE = _words("""
    is are was were am has had does did do will would can could may might must should shall won't can't don't
    doesn't didn't isn't aren't wasn't weren't wouldn't couldn't I'm he's she's it's that's
""")
_SUBJECTS = _words("""
    I he she it they we you who there what how why where when let don't please this that
""")
# A definition that begins so needs no article.
_DETERMINED = _words("""
    a an the any one some all each either something someone anything anyone your his their two three several
    many that what whatever whoever those these most no it you people
""")
# What ends the noun phrase that a definition begins with.
_STOPS = _words("""
    of that which used with having for in from to who whom whose where when made or and on at by as into than
    is are usually especially between without under about during over through per like consisting containing
    being characterized resembling found native against worn given produced formed caused done designed
    located
""")


class Teller:
    """Sentences from the synsets of one WordNet."""

    def __init__(self, synsets: Mapping[Key, Synset]) -> None:
        self.synsets = synsets
        self.countable = _Countable(synset.gloss for synset in synsets.values())

    def __call__(self, synset: Synset) -> list[str]:
        """About one synset: definition and examples."""
        domain, definition, examples = parts(synset.gloss)
        if not definition or not synset.words:
            return []
        phrases = [example for example in examples if not is_sentence(example)]
        first = self._define(synset, domain, definition)
        if phrases and len(first.split()) < 30:
            first = f"{first}, as in {_list(phrases[:2], 'or')}"
        return [finished(sentence) for sentence in [first, *filter(is_sentence, examples)]]

    def related(self, synset: Synset) -> list[str]:
        """Its next kind, its parts or its opposite: sentences in which the definition would give the answer away."""
        if not synset.words or not parts(synset.gloss)[1]:
            return []
        if synset.key[0] == "noun":
            return [finished(sentence) for sentence in self._kinds(synset, parts(synset.gloss)[0])]
        return [finished(f"the opposite of {synset.words[0]} is {o}") for o in self._words(synset, "!")[:1]]

    def counted(self, synset: Synset) -> bool:
        """Whether one says "a" before its first word."""
        return self._counted(synset, parts(synset.gloss)[0])

    def _words(self, synset: Synset, *symbols: str) -> list[str]:
        return [_common(self.synsets[key])[0] for key in synset.to(*symbols) if key in self.synsets]

    def _define(self, synset: Synset, domain: str, definition: str) -> str:
        words = _common(synset)
        within = f"in {domain}, " if domain else ""
        if synset.key[0] == "verb":
            return f"{within}{_list([f'to {word}' for word in words[:3]], 'or')} is {_verbs(definition)}"
        if synset.key[0] != "noun":
            return f"{within}{_list(words[:3], 'or')} means {definition}"
        if _is_name(synset, domain):
            return f"{within}{self._name(synset, words, definition)}"
        if definition[0].isdigit():  # "100 groschen equal 1 schilling in Austria"
            return definition
        subject = words[0]
        also = f", or {words[1]}," if len(words) > 1 and words[1].lower() != subject.lower() else ""
        if _plural(subject) and not definition.startswith(("a ", "an ")):
            return f"{within}{subject}{also} are {definition}"
        counted = self._counted(synset, domain)
        if counted and definition.startswith("the "):
            subject = f"the {subject}"
        elif counted:
            subject = with_article(subject)
        # "once thought to be …", "in some classifications …": no noun phrase, and taken as it is.
        return f"{within}{subject}{also} is {self._complement(definition, counted, synset.lexicographer in _ALIVE)}"

    def _name(self, synset: Synset, words: list[str], definition: str) -> str:
        """ "Ahab was a king of …": someone, or somewhere, of whom there is one."""
        person = synset.lexicographer == _PERSON
        dead = person and bool(re.search(r"\d-\d{2,}[^()]*\)|\bdied\b|century|\bBC\b", synset.gloss))
        definition = re.sub(r"\s*\([^()]*\d[^()]*\)", "", definition)
        # "Einstein, Albert Einstein": the fuller name, if it ends in the first.
        subject = next((word for word in words if word.endswith(f" {words[0]}")), words[0])
        several = not person and re.match(r"[a-z -]*(?:islands|mountains|wars|lakes)\b", definition) is not None
        verb = "was" if dead else "are" if several else "is"
        return f"{subject} {verb} {self._complement(definition, True, True)}"

    def _complement(self, definition: str, counted: bool, always: bool) -> str:
        """The definition, with an article if it needs one; ``always``: also where the texts say that it does not."""
        head = head_of(definition)
        if definition.split()[0] in _DETERMINED or not head or _plural(head) or definition.split()[0].endswith("ing"):
            return definition
        first = definition.split()[0]
        if re.match(r"\d+(?:st|nd|rd|th)\b", first) or (first.endswith("est") and len(first) > 5) or first in _THE_ONE:
            return f"the {definition}"
        return with_article(definition) if (always and counted) or self.countable(head, counted) else definition

    def _counted(self, synset: Synset, domain: str) -> bool:
        """Whether one says "a" before the synset's first word."""
        word = _common(synset)[0]
        named = word[0].isupper() and synset.lexicographer not in _CAPITAL
        if _is_name(synset, domain) or _plural(word) or named:
            return False
        if synset.lexicographer in _ALIVE:
            return True
        usual = synset.lexicographer in _COUNTED and not _MASS.intersection(self.above(synset))
        if usual and parts(synset.gloss)[1].startswith(("a ", "an ")):
            return True
        return self.countable(word.split()[-1], usual)

    def above(self, synset: Synset) -> list[str]:
        """The words of what it is a kind of, upwards."""
        out: list[str] = []
        while len(out) < 100 and (above := [key for key in synset.to("@") if key in self.synsets]):
            synset = self.synsets[above[0]]
            out += synset.words
        return out

    def _kinds(self, synset: Synset, domain: str) -> list[str]:
        word = _common(synset)[0]
        if _is_name(synset, domain) or _plural(word):
            return []
        subject = with_article(word) if self._counted(synset, domain) else word
        out = [f"{subject} is a kind of {kind}" for kind in self._words(synset, "@")[:1] if synset.to("~")]
        kinds = self._words(synset, "~")  # of those without any the definition says it
        if len(kinds) > 1:
            out.append(f"kinds of {word} include {_list(kinds[:_MOST], 'and')}")
        below = [self.synsets[key] for key in synset.to("%p") if key in self.synsets]
        have = [f"the {_common(part)[0]}" for part in below if part.lexicographer != _FOOD][:_MOST]
        if have and synset.lexicographer in _WITH_PARTS:
            out.append(f"the parts of {subject} include {_list(have, 'and')}")
        return out


class _Countable:
    """What takes "a", as the glosses and examples themselves use the words."""

    _AFTER = r"(?= (?:of|that|which|in|for|with|to|is|was|from|on|and|or|who|by|used|having)\b|[.,;\"]|$)"
    _WITH = re.compile(rf"\b(?:an?|each|every|another) (?:[a-z-]+ )?([a-z]+){_AFTER}")

    def __init__(self, texts: Iterable[str]) -> None:
        self._all: Counter[str] = Counter()
        self._with: Counter[str] = Counter()
        for text in texts:
            self._all.update(re.findall(r"[a-z]+", text))
            self._with.update(self._WITH.findall(text))

    def __call__(self, word: str, usual: bool) -> bool:
        """Whether ``word`` is counted; ``usual`` where the texts do not say."""
        if self._all[word] < 5:
            return usual
        return self._with[word] >= (0.04 if usual else 0.12) * self._all[word]


def _common(synset: Synset) -> list[str]:
    """The words that people use: no "2-dimensional", no "Rana catesbeiana" after "bullfrog"."""
    words = [word for word in synset.words if not word[0].isdigit()] or synset.words
    if synset.lexicographer in (5, 20) and not synset.to("@i"):
        words = [word for word in words if not re.match(r"[A-Z][a-z]+ [a-z]", word)] or words
    return words


def _is_name(synset: Synset, domain: str) -> bool:
    return bool(synset.to("@i")) or (
        synset.words[0][0].isupper() and re.search("mytholog|Testament", domain) is not None
    )


def parts(gloss: str) -> tuple[str, str, list[str]]:
    """(field or "", definition, examples) of a gloss such as '(law) a promise; "he kept it"'."""
    gloss = re.sub(r"`([^`']*(?:'(?=\w)[^`']*)*)'", r"'\1'", gloss).replace("`", "'")
    examples = [text.strip(" ;,") for text in re.findall(r'"([^"]+)"', gloss)]
    definition = re.sub(r'(?:[;:,]?\s*(?:or |and |e\.g\.,? )?"[^"]*"?(?:\s*-\s*[A-Z][^;"]*)?)+', "", gloss)
    found = re.match(r"\(([^()]*)\)\s*(.+)$", definition)
    domain = ""
    if found:
        definition = found[2]
        if not _NOT_A_FIELD.search(found[1]):
            domain = found[1]
    definition = re.sub(r"\s*[({][^(){}]*[)}]\s*$", "", definition.strip(" ;:,-.")).strip(" ;:,-.")
    return domain, definition, [example for example in examples if re.search(r"[a-z]", example)]


def is_sentence(example: str) -> bool:
    """Whether an example reads as a sentence rather than as "hoary jokes"; by its words alone."""
    words = example.split()
    if len(words) < 3:
        return False
    if example[-1] in ".?!" or words[0][0].isupper() or words[0] in _SUBJECTS or _FINITE.intersection(words):
        return True
    begins = words[0] in {"the", "a", "an", "his", "her", "my", "our", "their", "these", "those", "some", "no"}
    return begins and len(words) > 5 and any(word.endswith("ed") for word in words[1:5])


def _verbs(definition: str) -> str:
    """ "to draw air into, and …"; definitions joined by ";" each get their "to"."""
    own = ("to ", "of ", "used ", "in ", "often ", "usually ")
    pieces = [piece.strip() for piece in definition.split(";")]
    return ", ".join(
        piece if piece.startswith(own) else f"to {piece}" for piece in pieces if piece and "usage" not in piece
    )


def head_of(definition: str) -> str:
    """The noun that a definition turns on: the last word before a preposition, a participle or a mark."""
    head = ""
    for word in definition.split():
        if word in _STOPS or not word[0].isalnum():
            break
        head = word
        if word[-1] in ",;:":
            break
    return head.strip(",;:")


def _plural(word: str) -> bool:
    return (word.endswith("s") and not word.endswith(_SINGULAR)) or word.endswith(("people", "folk"))


def with_article(word: str) -> str:
    """The word with "a" or "an"."""
    vowel = re.match(
        r"(?:[aio]|e(?!u|we)|u(?!n[ia]|s[ea]|ti|r[aeio]|b[io]|k)|h(?:our|onest|onor|eir))(?!ne\b|nce\b|u[r]o)",
        word,
        re.IGNORECASE,
    )
    return f"{'an' if vowel else 'a'} {word}"


def _list(items: list[str], word: str) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {word} {items[-1]}"


def finished(sentence: str) -> str:
    """With a capital and a full stop."""
    sentence = sentence[0].upper() + sentence[1:]
    return sentence if sentence[-1] in ".?!" or sentence[-2:] in ('."', '!"', '?"') else f"{sentence}."
