"""Pages for the documentation: Markdown, and the docstrings' mathematics as TeX."""

from __future__ import annotations

import json
import re

import pytest

from refbert_inspection import explain
from refbert_inspection.explain.documents import Section
from refbert_inspection.explain.pages import _section
from refbert_inspection.explain.tex import is_formula, tex

NAMES = [e.name for e in explain.entries()]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("y = x wᵀ + b", r"y = x w^{\top} + b"),
        ("x̂  = (x − μ) r", r"\hat{x} = (x - \mu ) r"),
        ("σ² = 1/H Σ_j (x_j − μ)²", r"\sigma ^{2} = 1/H \sum _{j} (x_{j} - \mu )^{2}"),
        ("r  = 1 / √(σ² + ε)", r"r = 1 / \sqrt{\sigma ^{2} + \varepsilon}"),
        ("y = e^{−x_j} v̂/√v̂", r"y = e^{-x_{j}} \hat{v}/\sqrt{\hat{v}}"),
        ("dE_word_v = 0", r"dE_{\mathrm{word},v} = 0"),
        ("p_i = softmax_j(s_ij + mask term)", r"p_{i} = \operatorname{softmax}_{j}(s_{ij} +\ \text{mask term})"),
        ("y = a         the rest in words", r"y = a \qquad \text{the rest in words}"),
        ("z = LN's pullback of dy", r"z =\ \text{LN's pullback of}\ dy"),
        ("dW₁ = xᵀ dz,   ε = 1e-6", r"dW_{1} = x^{\top} dz, \qquad \varepsilon = 1 \cdot 10^{-6}"),
        ("id' = random_ids where 0.8 ≤ a", r"\text{id}' = \texttt{random\_ids}\ \text{where}\ 0.8 \le a"),
        ("a = w_i   =>   b_{n+1} = 2", r"a = w_{i} \qquad \Rightarrow \qquad b_{n+1} = 2"),
    ],
)
def test_tex(line, expected):
    assert re.sub(r"(?<!\\) +", " ", tex(line)) == re.sub(r"(?<!\\) +", " ", expected)


@pytest.mark.parametrize("line", ["y = x ⊗ z", "y = e^{x", "y = √(x"])
def test_tex_does_not_guess(line):
    with pytest.raises(ValueError):
        tex(line)


@pytest.mark.parametrize(
    ("line", "formula"),
    [
        ("y = x + z", True),
        ("m ← β₁ m + (1 − β₁) g", True),
        ("chosen = select < rate and not special", True),
        ("So dx is q without its mean: Σ_j dx_j = 0 always", False),
        ("The sums over n run over all N rows.", False),
        ("Contract with q:", False),
    ],
)
def test_what_is_a_formula(line, formula):
    assert is_formula(line) == formula


def formulas(page):
    return re.findall(r"\$\$\n\\begin\{aligned\}\n(.*?)\n\\end\{aligned\}\n\$\$", page, re.DOTALL)


def test_every_page_and_its_tex():
    """Balanced, of known commands, and nothing left that TeX does not know. (All of it was read by KaTeX, strictly.)"""
    commands = set()
    for name in NAMES:
        page = explain.markdown(name, [])
        assert page.startswith(f"# `{name}`\n")
        assert page.count("```") % 2 == 0
        assert formulas(page), name
        assert "$$" not in re.sub(r"\$\$\n.*?\n\$\$", "", page, flags=re.DOTALL)
        for block in formulas(page):
            assert block.isascii(), block
            plain = re.sub(r"\\[{}]", "", block)
            assert plain.count("{") == plain.count("}"), block
            assert not re.search(r"[_^]\{[^{}]*\}_\{", plain), block  # a double subscript
            commands |= set(re.findall(r"\\([A-Za-z]+)", block))
    assert commands <= {
        "leftarrow", "le", "partial", "sum", "infty", "Vert", "dots", "equiv", "ell", "tfrac", "gamma", "beta", "mu",
        "sigma", "varepsilon", "delta", "lambda", "Phi", "varphi", "pi", "cdot", "sqrt", "hat", "tilde", "text",
        "texttt", "operatorname", "mathrm", "qquad", "top", "Rightarrow", "sim", "times", "eta",
    }  # fmt: skip


def test_a_section_of_words_and_formulas():
    text = "For *all* x_i:\n\n    y = x_i\n    longer = z\n\nSo a_b stays."
    assert list(_section(Section("gradient", "Gradient", text))) == [
        r"For \*all\* x\_i:",
        "$$\n\\begin{aligned}\ny &= x_{i} \\\\\n\\text{longer}\\ &= z\n\\end{aligned}\n$$",
        r"So a\_b stays.",
    ]


def test_a_source_is_no_formula():
    assert list(_section(Section("source", "Source", "L = 12\nH = 768"))) == ["L = 12\\\nH = 768"]


def test_a_whole_page():
    page = explain.markdown("tanh")
    headings = re.findall(r"^## (.*)$", page, re.MULTILINE)
    assert headings == ["Source", "Shapes", "Equation", "Gradient", "Code", "Where in BERT", "Example"]
    assert "```python\ndef tanh(x: Array)" in page
    assert "[`pooler`](pooler.md) | 1 forward |" in page
    assert "by differences" in page
    assert max(map(len, page.split("```text")[1].splitlines())) <= 88


def test_data():
    found = explain.as_data("layer_norm")
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert set(found) == {
        "format", "name", "kind", "summary", "file", "signature", "says", "sections", "code", "appears", "made_of",
        "examples",
    }  # fmt: skip
    (example,) = found["examples"]
    assert example["inputs"]["x"] == [[1, 2, 6]]
    assert [g["name"] for g in example["gradients"]] == ["x", "gamma", "beta"]
    assert all(g["agrees"] for g in example["gradients"])
    assert explain.as_data("attention_probabilities")["examples"][0]["inputs"]["mask_value"] == "-inf"
