"""The first backend of docs/writing-a-backend.md does what the text says."""

from __future__ import annotations

import json
import re
from pathlib import Path

from test_conform import conform

DOCUMENT = Path(__file__).parents[2] / "docs" / "writing-a-backend.md"


def test_the_first_backend(tmp_path):
    text = DOCUMENT.read_text(encoding="utf-8")
    (code,) = re.findall(r"<!-- first-backend -->\n```python\n(.*?)```", text, flags=re.DOTALL)
    (tmp_path / "my_backend.py").write_text(code, encoding="utf-8")
    passes = conform("--backend", "my_backend:MyBackend", "--only", "*/add/*", "--effort", "quick", cwd=tmp_path)
    assert passes.returncode == 0, passes.stdout + passes.stderr
    report = tmp_path / "r.json"
    missing = conform("--backend", "my_backend:MyBackend", "--effort", "quick", "--json", report, cwd=tmp_path)
    assert missing.returncode == 1
    rows = {row["id"]: row for row in json.loads(report.read_text(encoding="utf-8"))["properties"]}
    assert "lacks reshape, transpose" in rows["contract/backend/required operations"]["message"]
    assert rows["forward/linear/accuracy"]["outcome"] == "unsupported"
    assert [i for i, row in rows.items() if row["outcome"] == "failed"] == ["contract/backend/required operations"]


def test_every_link_leads_somewhere():
    for name in ("writing-a-backend.md", "conformance.md", "architecture.md"):
        path = DOCUMENT.parent / name
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{name}: {target}"
