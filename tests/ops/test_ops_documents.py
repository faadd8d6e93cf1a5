"""Every file of refbert.ops reads in the promised order: source, shapes, equation, gradient, code."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import refbert.ops

FILES = sorted(p for p in Path(refbert.ops.__file__).parent.glob("*.py") if p.stem not in ("__init__", "types"))
# These update parameters; nothing is differentiated through them.
WITHOUT_GRADIENT = {"mask_tokens", "adamw", "bert_adam", "clip_by_global_norm", "lamb"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_sections_in_order(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    document = ast.get_docstring(tree)
    sections = ["Source", "Shapes", "Equation"]
    if path.stem not in WITHOUT_GRADIENT:
        sections.append("Gradient")
    if path.stem == "shape":
        sections.remove("Equation")  # it only renames entries
    places = [document.find(section) for section in sections]
    assert -1 not in places, dict(zip(sections, places, strict=True))
    assert places == sorted(places)


def test_one_file_for_each_op():
    public = set(refbert.ops.__all__) - {"IGNORE", "reshape", "transpose", "attention_probabilities"}
    assert public == {p.stem for p in FILES} - {"shape"}
