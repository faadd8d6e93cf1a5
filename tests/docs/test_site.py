"""The documentation's site: every link leads somewhere, every page is in the navigation, nothing is fetched."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "website"))


import build  # noqa: E402


def test_links_as_the_site_needs_them(tmp_path, monkeypatch):
    (tmp_path / "docs" / "deep").mkdir(parents=True)
    (tmp_path / "code.py").touch()
    (tmp_path / "CHANGELOG.md").touch()
    (tmp_path / "docs" / "a.md").touch()
    page = tmp_path / "docs" / "deep" / "b.md"
    page.write_text(
        "[a](../a.md#x) [code](../../code.py) [out](https://example.org) [changes](../../CHANGELOG.md) [here](#y)\n"
        "```python\nx[0](nowhere)\n```\n", encoding="utf-8",
    )  # fmt: skip
    monkeypatch.setattr(build, "ROOT", tmp_path)
    monkeypatch.setattr(build, "SOURCE", tmp_path / "source")
    assert build.relinked(page) == (
        f"[a](../a.md#x) [code]({build.REPOSITORY}code.py) [out](https://example.org) [changes](../changelog.md) "
        "[here](#y)\n```python\nx[0](nowhere)\n```\n"
    )
    page.write_text("[a](c.md)", encoding="utf-8")
    with pytest.raises(build.Broken, match=r"c\.md leads nowhere"):
        build.relinked(page)


def test_every_link_of_the_documentation():
    for file in (ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")):
        build.relinked(file)


def test_a_notebook_as_a_page():
    source = "# licence\n# %% [markdown]\n# # Title\n#\n# Text.\n# %%\nx = 1\n\n# %% [markdown]\n# More.\n"
    assert build.convert.markdown(source) == "# Title\n\nText.\n\n```python\nx = 1\n```\n\nMore.\n"


def test_what_would_be_fetched_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "SITE", tmp_path)
    page = tmp_path / "page.html"
    page.write_text('<a href="https://example.org">x</a><link rel="canonical" href="https://example.org/x">')
    build._refuse_what_is_fetched()
    for bad in (
        '<script src="https://cdn.example/x.js"></script>', '<link rel="stylesheet" href="https://fonts.example/x.css">',
        "<img src=//example.org/x.png>", "<style>body{background:url(https://example.org/x)}</style>",
    ):  # fmt: skip
        page.write_text(bad)
        with pytest.raises(build.Broken, match="fetches"):
            build._refuse_what_is_fetched()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("zensical") is None, reason="zensical is not installed")
def test_the_site_builds():
    if shutil.which("npm") is None and not (ROOT / "build" / f"katex-{build.KATEX}.tgz").is_file():
        pytest.skip("KaTeX comes through npm, which is not installed")
    done = subprocess.run([sys.executable, ROOT / "website" / "build.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    site = ROOT / "build" / "site"
    for page in (
        "index",
        "tour/01-tokens",
        "zh/tour/01-tokens",
        "ops/layer_norm",
        "notebooks/attention_by_hand",
        "audit",
    ):
        text = (site / f"{page}.html").read_text(encoding="utf-8")
        assert "katex/katex.min.js" in text
    assert (site / "katex" / "fonts").is_dir()
