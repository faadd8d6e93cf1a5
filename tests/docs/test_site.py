"""The documentation's site: every link leads somewhere, every page is in the navigation, nothing is fetched."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT / "website"), str(ROOT / "tests")]


from chromium import WIDTHS, Browser, needs_chromium  # noqa: E402

import build  # noqa: E402


def test_links_as_the_site_needs_them(tmp_path, monkeypatch):
    (tmp_path / "docs" / "deep").mkdir(parents=True)
    (tmp_path / "code.py").touch()
    (tmp_path / "CHANGELOG.md").touch()
    (tmp_path / "docs" / "a.md").touch()
    page = tmp_path / "docs" / "deep" / "b.md"
    page.write_text(
        "[a](../a.md#x) [code](../../code.py) [out](https://example.org) [changes](../../CHANGELOG.md) [here](#y) "
        "`f[1](x)` [`a`](../a.md)\n"
        "```python\nx[0](nowhere)\n```\n", encoding="utf-8",
    )  # fmt: skip
    monkeypatch.setattr(build, "ROOT", tmp_path)
    monkeypatch.setattr(build, "SOURCE", tmp_path / "source")
    assert build.relinked(page) == (
        f"[a](../a.md#x) [code]({build.REPOSITORY}code.py) [out](https://example.org) [changes](../changelog.md) "
        "[here](#y) `f[1](x)` [`a`](../a.md)\n```python\nx[0](nowhere)\n```\n"
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


@pytest.fixture(scope="module")
def site():
    if importlib.util.find_spec("zensical") is None:
        pytest.skip("zensical is not installed")
    kept = [ROOT / "build" / f"{package}-{version}.tgz" for package, version in build.PACKAGES.items()]
    if shutil.which("npm") is None and not all(file.is_file() for file in kept):
        pytest.skip("KaTeX and the search's worker come through npm, which is not installed")
    done = subprocess.run([sys.executable, ROOT / "website" / "build.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return ROOT / "build" / "site"


PAGES = (
    "index", "tour/01-tokens", "tour/13-attention-backward", "zh/tour/01-tokens", "ops/layer_norm",
    "notebooks/attention_by_hand", "performance", "audit",
)  # fmt: skip


@pytest.mark.slow
def test_the_site_builds(site):
    for page in PAGES:
        text = (site / f"{page}.html").read_text(encoding="utf-8")
        assert "katex/katex.min.js" in text
    assert (site / "katex" / "fonts").is_dir()


class Links(HTMLParser):
    """What a page can be entered at, and where it leads."""

    def __init__(self, file):
        super().__init__()
        self.ids, self.links = set(), set()
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids.add(attributes.get("id"))
        if tag in ("a", "link", "script", "img"):
            self.links.add(attributes.get("href") or attributes.get("src") or "")


@pytest.mark.slow
def test_every_link_and_anchor_of_the_site(site):
    pages = {file: Links(file) for file in site.rglob("*.html")}
    lost = []
    for file, page in pages.items():
        for link in page.links:
            there = urlsplit(link)
            if there.scheme or there.netloc:
                continue
            target = (file.parent / unquote(there.path)).resolve() if there.path else file
            known = pages[target].ids if target in pages else set()
            if not target.is_file() or (there.fragment and unquote(there.fragment) not in known):
                lost.append(f"{file.relative_to(site)}: {link}")
    assert lost == []
    assert len(pages) > 50


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize("width", WIDTHS)
def test_in_a_browser(site, tmp_path, width):
    """From file:// and without a network: formulas are set, nothing is asked for or wider than the window; search."""
    with Browser(tmp_path / "profile") as browser:
        for page in PAGES:
            browser.open((site / f"{page}.html").as_uri(), width)
            browser.wait("document.querySelectorAll('.arithmatex:not(:has(.katex))').length === 0")
            assert browser.evaluate("[...document.querySelectorAll('.katex-error')].map((e) => e.title)") == [], page
            assert browser.too_wide() == [], page
            shown = "[...document.querySelectorAll('article .arithmatex .katex-display')]"
            left = browser.evaluate(f"{shown}.map((e) => e.getBoundingClientRect().left)")
            edge = browser.evaluate("document.querySelector('h1').getBoundingClientRect().left")
            assert min(left, default=edge) >= edge - 1, page
            assert browser.complaints == [], page
            assert [address for address in browser.requests if not address.startswith(("file:", "blob:"))] == [], page
        browser.evaluate("document.querySelector('label[for=__search]').click()")  # of its buttons one is shown
        found = "[...document.querySelectorAll('*')].flatMap((e) => e.shadowRoot ? [e.shadowRoot] : [])"
        browser.wait(f"{found}.some((e) => e.activeElement?.tagName === 'INPUT')")
        browser.type("layer norm")
        browser.wait(f"{found}.some((e) => e.querySelector('a[href*=layer_norm]'))")
        assert browser.complaints == []
