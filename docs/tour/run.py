"""Run the tour: every code block of every page, in order, and compare with what the pages show.

    python docs/tour/run.py                   all pages; exit status 1 if one shows something else than its code
    python docs/tour/run.py layer-norm        the pages whose names hold that; exit status 2 if there are none
    python docs/tour/run.py --write           write what the code prints and draws into the pages instead

A page is a Markdown file. Its ```python blocks run from top to bottom in one namespace. What a block prints is the
```text block under the comment ``<!-- output -->`` that follows it. What it draws is in figures/. ``--write`` also
hands the blocks of each page to its Chinese translation. ``<!-- needs: NAME -->`` marks a page that runs only where
NAME is there.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
TRANSLATION = HERE.parent / "zh" / "tour"
FENCED = re.compile(r"^(?:<!-- output -->\n)?```.*?^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"-?\d+\.\d*(?:e[+-]\d+)?")


@dataclass
class Shown:
    """A difference between a page and its code."""

    page: str
    where: str
    shown: str
    computed: str

    def __str__(self) -> str:
        return f"{self.page}: {self.where}\n--- the page shows\n{self.shown}\n--- the code gives\n{self.computed}"


def pages(folder: Path = HERE) -> list[Path]:
    """The pages in reading order."""
    return sorted(folder.glob("*.md"))


def missing(page: Path) -> str | None:
    """What the page needs and this machine lacks: a model that comes with refbert, or an importable package."""
    from refbert.models import shipped

    for name in re.findall(r"<!-- needs: (\S+) -->", page.read_text(encoding="utf-8")):
        if shipped(name) is None and importlib.util.find_spec(name) is None:
            return str(name)
    return None


def same(shown: str, computed: str) -> bool:
    """Whether two texts are equal, numbers with a decimal point up to one unit of their last digit.

    Libraries add in different orders, so a last digit may differ from machine to machine; whole numbers may not.
    """
    if NUMBER.sub("#", shown).split() != NUMBER.sub("#", computed).split():
        return False
    pairs = zip(NUMBER.findall(shown), NUMBER.findall(computed), strict=True)
    return all(abs(float(a) - float(b)) <= 1.01 * max(_unit(a), _unit(b)) for a, b in pairs)


def run(page: Path, figures: Path) -> tuple[str, list[Shown]]:
    """(the page as its code has it, the differences). Figures are written to ``figures``."""
    import drawing

    drawing.FOLDER = figures
    figures.mkdir(exist_ok=True)
    text = page.read_text(encoding="utf-8")
    namespace: dict[str, object] = {"__name__": page.stem}
    printed, where, differences, out, end = "", "", [], [], 0
    for block in FENCED.finditer(text):
        out.append(text[end : block.start()])
        end = block.end()
        body = block[0]
        if body.startswith("```python\n"):
            if printed:
                differences.append(Shown(page.name, f"the block of {where} prints, and nothing is shown", "", printed))
            where = f"line {text[: block.start()].count(chr(10)) + 2}"
            code = body.removeprefix("```python\n").removesuffix("```")
            stream = io.StringIO()
            with contextlib.redirect_stdout(stream):
                before = text[: block.end() - len(code) - 3].count("\n")  # so that a traceback has the page's lines
                exec(compile("\n" * before + code, str(page), "exec"), namespace)
            printed = stream.getvalue().rstrip("\n")
        elif body.startswith("<!-- output -->"):
            shown = body.removeprefix("<!-- output -->\n```text\n").removesuffix("\n```")
            if not same(shown, printed):
                differences.append(Shown(page.name, f"output of {where}", shown, printed))
                body = f"<!-- output -->\n```text\n{printed}\n```"
            printed = ""
        out.append(body)
    if printed:
        differences.append(Shown(page.name, f"the block of {where} prints, and nothing is shown", "", printed))
    return "".join(out) + text[end:], differences


def check(page: Path, *, write: bool = False) -> list[Shown]:
    """Run a page and compare text and figures; with ``write`` also bring the files up to date."""
    with _at(HERE), tempfile.TemporaryDirectory() as folder:
        new, differences = run(page, Path(folder))
        for drawn in sorted(Path(folder).iterdir()):
            kept = HERE / "figures" / drawn.name
            old = kept.read_text(encoding="utf-8") if kept.exists() else ""
            if not same(old, drawn.read_text(encoding="utf-8")):
                differences.append(
                    Shown(page.name, f"figures/{drawn.name}", f"{len(old)} characters", "another drawing")
                )
                if write:
                    kept.write_text(drawn.read_text(encoding="utf-8"), encoding="utf-8")
        used = set(re.findall(r"\(figures/([^)]+)\)", new))
        if used != {drawn.name for drawn in Path(folder).iterdir()}:
            differences.append(Shown(page.name, "figures", ", ".join(sorted(used)), "others are drawn"))
    if write:
        page.write_text(new, encoding="utf-8")
        translate(page)
    return differences


def translate(page: Path) -> None:
    """Hand the page's blocks to its translation, one for one."""
    other = TRANSLATION / page.name
    if other.exists():
        blocks = iter(FENCED.findall(page.read_text(encoding="utf-8")))
        text = FENCED.sub(lambda old: next(blocks, old[0]), other.read_text(encoding="utf-8"))
        other.write_text(text, encoding="utf-8")


def _unit(number: str) -> float:
    mantissa, _, exponent = number.partition("e")
    return float(10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2])))


@contextlib.contextmanager
def _at(folder: Path) -> Iterator[None]:
    """In that folder, with its modules importable."""
    before = Path.cwd()
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        os.chdir(before)
        sys.path.remove(str(folder))


def main(arguments: list[str]) -> int:
    """For the command line."""
    write = "--write" in arguments
    names = [word for word in arguments if not word.startswith("--")]
    wrong = [f"{word}: the only option is --write" for word in arguments if word.startswith("--") and word != "--write"]
    wrong += [f"{name}: no page has that in its name" for name in names if not any(name in p.name for p in pages())]
    if wrong:
        print(f"run.py: {wrong[0]}", file=sys.stderr)
        return 2
    status = 0
    for page in pages():
        if names and not any(name in page.name for name in names):
            continue
        lacking = missing(page)
        if lacking is not None:
            print(f"{page.name}: unavailable, this machine lacks {lacking}")
            continue
        differences = check(page, write=write)
        print(f"{page.name}: {'written' if write and differences else 'differs' if differences else 'as shown'}")
        if not write:
            for difference in differences:
                print(difference)
            status |= bool(differences)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
