r"""The docstrings' Unicode mathematics as TeX, for pages that typeset it.

The notation that it knows is the docstrings' own: letters with combining hats and tildes, _{…} and ^{…} or the
characters right after _ and ^, superscript and subscript characters, √(…) and √x, ½, Greek, Σ, ∂, ‖…‖. A word of two
letters or more is text or the name of a function, except a cotangent's (dx, dW); three spaces or more are a \qquad.
Raises ValueError for a character that it does not know, so that no page is typeset wrongly.
"""

from __future__ import annotations

import re
import unicodedata

_FUNCTIONS = {
    "softmax", "log", "exp", "tanh", "erf", "erfc", "lse", "max", "min", "mean", "dropout", "act", "Var", "Concat",
    "LN", "FFN", "Attention", "SelfAttention", "Embed", "Encoder", "Pooler", "Head", "Loss",
}  # fmt: skip
_SYMBOLS = {
    "−": "-", "·": r" \cdot ", "←": r" \leftarrow ", "≤": r" \le ", "≥": r" \ge ", "∈": r" \in ", "∂": r" \partial ",
    "Σ": r" \sum ", "∞": r" \infty ", "‖": r" \Vert ", "~": r" \sim ", "×": r" \times ", "…": r" \dots ",
    "≡": r" \equiv ", "ℓ": r" \ell ", "½": r" \tfrac{1}{2} ", "¼": r" \tfrac{1}{4} ", "¾": r" \tfrac{3}{4} ",
    "′": "'", "γ": r" \gamma ", "β": r" \beta ", "μ": r" \mu ", "σ": r" \sigma ", "ε": r" \varepsilon ",
    "δ": r" \delta ", "λ": r" \lambda ", "Φ": r" \Phi ", "φ": r" \varphi ", "π": r" \pi ", "η": r" \eta ",
    "≠": r" \ne ", "{": r" \{ ", "}": r" \} ", "%": r"\%", "≈": r" \approx ",
}  # fmt: skip
_ACCENTS = {"\N{COMBINING CIRCUMFLEX ACCENT}": r"\hat", "\N{COMBINING TILDE}": r"\tilde"}
_PLAIN = set("+=()[],;:.!|<>/'")
_GAP = re.compile(r"(?<=\S) {3,}(?=\S)")
_TOKEN = re.compile(
    r"[A-Za-z]{3,}(?:[._][a-z]{3,})+_?|[A-Za-z]+(?:'s\b)?|[0-9]+(?:\.[0-9]+)?(?:e-?[0-9]+)?|=>|\s+|.", re.DOTALL
)
_SPACE, _WIDE = " ", r"\ "  # between symbols, which TeX spaces itself; beside words, which it does not


def tex(line: str) -> str:
    """One line of mathematics; raises ValueError for what is not in the notation."""
    line = re.sub(r"\s+(?=[=←≡](?!>))", " ", line.strip())  # columns before a sign: `aligned` makes them again
    return r" \qquad ".join(_segment(part) for part in _GAP.split(line))


def is_formula(line: str) -> bool:
    """Whether a line is mathematics rather than a sentence: it defines something, and no words come before that."""
    start = re.split(r"[=←≡]", line)[0]
    words = [w for w in re.findall(r"(?<![A-Za-z_])[A-Za-z]{3,}", start) if w not in _FUNCTIONS]
    return start != line and len(words) <= 1 and len(start) < 30


def _segment(text: str) -> str:
    text = unicodedata.normalize("NFD", text)
    if not re.search(r"[=←≡+−·/^_Σ√≤≥∈<>]", text):
        return _text(unicodedata.normalize("NFC", text))
    return _pieces(_TOKEN.findall(text))


def _pieces(tokens: list[str]) -> str:
    out: list[str] = []
    i = 0
    while i < len(tokens):
        piece, i = _piece(tokens, i)
        if piece.startswith("_{") and out and out[-1].startswith("_{"):  # E_word_v: one subscript, not two
            piece = f"{out.pop()[:-1]},{piece[2:]}"
        if _is_text(piece):
            if out[-4:-3] and _is_text(out[-4]) and out[-3:] == [_WIDE, "a", _SPACE]:  # the article
                out[-3:] = [_WIDE, _text("a"), _WIDE]
                piece = out.pop(-4)[:-1] + " a " + piece.removeprefix(r"\text{")
                del out[-3:]
            elif len(out) > 1 and out[-1] in (_SPACE, _WIDE) and _is_text(out[-2]):  # words in a row
                piece = out[-2][:-1] + " " + piece.removeprefix(r"\text{")
                del out[-2:]
            elif out and out[-1] == _SPACE:
                out[-1] = _WIDE
        elif piece == _SPACE and out and _is_text(out[-1]):
            piece = _WIDE
        out.append(piece)
    return re.sub(r"(?<!\\) {2,}", " ", "".join(out)).strip()


def _is_text(piece: str) -> bool:
    return piece.startswith(r"\text{")


def _piece(tokens: list[str], i: int) -> tuple[str, int]:
    """The TeX of what starts at i, and where the next starts."""
    token = tokens[i]
    if token in "_^":
        inside, after = _script(tokens, i + 1)
        return f"{token}{{{inside}}}", after
    if token == "√":
        inside, after = _argument(tokens, i + 1)
        return rf"\sqrt{{{inside}}}", after
    raised = _raised(token)
    if raised:
        mark = raised[0]
        inside = ""
        while i < len(tokens) and _raised(tokens[i]).startswith(mark):
            inside += _raised(tokens[i])[1:]
            i += 1
        return f"{mark}{{{inside}}}", i
    accent = _ACCENTS.get(tokens[i + 1] if i + 1 < len(tokens) else "")
    if accent:  # it belongs to the last letter before it
        return f"{_letters(token[:-1]) if token[:-1] else ''}{accent}{{{token[-1]}}}", i + 2
    return _simple(token), i + 1


def _script(tokens: list[str], i: int) -> tuple[str, int]:
    """What is raised or lowered: a group in braces, or letters and digits; with a minus before them."""
    if tokens[i] == "{":
        end = _closing(tokens, i, "{", "}")
        return _pieces(tokens[i + 1 : end]), end + 1
    if tokens[i] == "−":
        inside, after = _script(tokens, i + 1)
        return f"-{inside}", after
    plain = ""
    while i < len(tokens) and tokens[i].isascii() and tokens[i].isalnum():
        plain += tokens[i]
        i += 1
    if not plain:
        return _simple(tokens[i]).strip(), i + 1
    return (rf"\mathrm{{{plain}}}" if len(plain) > 3 and plain.isalpha() else plain), i


def _argument(tokens: list[str], i: int) -> tuple[str, int]:
    """What a root is drawn over: a group in parentheses, or one letter or number with its marks."""
    if tokens[i] == "(":
        end = _closing(tokens, i, "(", ")")
        return _pieces(tokens[i + 1 : end]), end + 1
    return _piece(tokens, i)


def _closing(tokens: list[str], i: int, opening: str, closing: str) -> int:
    depth = 0
    for j in range(i, len(tokens)):
        depth += (tokens[j] == opening) - (tokens[j] == closing)
        if depth == 0:
            return j
    raise ValueError(f"{opening} without {closing} in {''.join(tokens)}")


def _simple(token: str) -> str:
    if len(token) > 3 and re.search(r"[._]", token) and token[0].isalpha():
        return rf"\texttt{{{token}}}".replace("_", r"\_")
    if token.isascii() and token[0].isalpha():
        return _letters(token)
    if token == "=>":
        return r" \Rightarrow "
    if token in _SYMBOLS:
        return _SYMBOLS[token]
    if token[0].isdigit() and token.isascii():
        return re.sub(r"e(-?\d+)$", r" \\cdot 10^{\1}", token)
    if token.isspace():
        return " "
    if token in _PLAIN:
        return token
    raise ValueError(f"no TeX for {token!r} ({unicodedata.name(token[0], 'unnamed')})")


def _letters(word: str) -> str:
    if len(word) == 1 or re.fullmatch(r"d[A-Za-z]", word):
        return word
    if word in _FUNCTIONS:
        return rf"\operatorname{{{word}}}"
    return _text(word)


def _raised(token: str) -> str:
    """The TeX of a raised or lowered character, such as ^2 for ² and _1 for ₁; "" for what is on the line."""
    if token == "ᵀ":
        return r"^\top"
    kind, _, plain = unicodedata.decomposition(token[0]).partition(" ")
    if len(token) != 1 or kind not in ("<super>", "<sub>"):
        return ""
    return ("^" if kind == "<super>" else "_") + chr(int(plain, 16)).replace("−", "-")


def _text(words: str) -> str:
    return rf"\text{{{words}}}"


def aligned(lines: list[str]) -> str:
    """Several formulas as one block, standing at their first sign of definition."""
    return "$$\n\\begin{aligned}\n" + " \\\\\n".join(_at_sign(tex(line)) for line in lines) + "\n\\end{aligned}\n$$"


def _at_sign(line: str) -> str:
    """The line with a mark in front of its first sign of definition that is in no group."""
    depth = 0
    for found in re.finditer(r"\\[{}]|[{}]|=|\\leftarrow|\\equiv|\\sim", line):
        if found[0] in "{}":
            depth += 1 if found[0] == "{" else -1
        elif depth == 0 and found[0] not in (r"\{", r"\}"):
            return line[: found.start()] + "&" + line[found.start() :]
    return "& " + line
