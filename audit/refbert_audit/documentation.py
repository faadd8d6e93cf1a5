"""The table of claims in docs/audit.md, between two markers; made from the register, without running anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from refbert.errors import InputError
from refbert.files.reading import read_text
from refbert_audit.findings import VERDICTS
from refbert_audit.formatting import INFERRED, parts
from refbert_audit.registry import Claim, all_claims
from refbert_audit.sources import DOCUMENTS, KINDS

BEGIN = "<!-- claims: written by `refbert audit --write-docs docs/audit.md` -->"
END = "<!-- end of claims -->"


def table(claims: Sequence[Claim]) -> str:
    """The claims as Markdown, one table a document, and how many there are of each kind and recorded verdict."""
    lines = [f"{len(claims)} claims, those of each kind of document counted apart:", ""]
    for kind, what in KINDS.items():
        found = Counter(c.expects for c in claims if c.kind == kind)
        lines.append(f"* {what}: {parts({verdict: found[verdict] for verdict in VERDICTS}).strip()}")
    lines += ["", f"{sum(c.inferred for c in claims)} are *inferred*: {INFERRED}."]
    for prefix, document in DOCUMENTS.items():
        here = [c for c in claims if c.id.startswith(f"{prefix}.")]
        files = ", ".join(f"`{file}`" for file in dict.fromkeys(c.file for c in here))
        read = f" [The document]({document.url})." if document.url else ""
        lines += ["", f"### {document.title}", "", f"In {files}.{read}", ""]
        lines += ["| claim | where | says | verdict |", "| --- | --- | --- | --- |"]
        lines += [f"| `{c.id}` | {_where(c)} | {_cell(c.says)} | {c.expects} |" for c in here]
    return "\n".join(lines)


def write(path: Path) -> int:
    """Put the table between the markers of a file; returns how many claims it lists.

    Raises `InputError` if the file cannot be read or written, or has no markers.
    """
    from refbert.cli.output import write_text

    text = read_text(path)
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"{path}: no place for the table: it goes between the lines {BEGIN} and {END}")
    claims = all_claims()
    write_text(path, f"{before}{BEGIN}\n\n{table(claims)}\n\n{END}{after}")
    return len(claims)


def _where(one: Claim) -> str:
    where = "".join(f"[{_cell(text)}]({url})" if url else _cell(text) for text, url in one.links)
    return f"{where} *(inferred)*" if one.inferred else where


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("[", "\\[").replace("_", "\\_").replace("*", "\\*")
