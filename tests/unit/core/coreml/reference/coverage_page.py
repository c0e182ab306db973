"""Writes the table of operations into docs/coreml-reference.md.

.venv/bin/python -m tests.unit.core.coreml.reference.coverage_page
"""

from __future__ import annotations

from pathlib import Path

from fastvlm_ops.core.coreml.reference.coverage import coverage, coverage_table

PAGE = Path(__file__).resolve().parents[5] / "docs" / "coreml-reference.md"
_START, _END = "<!-- operations -->\n", "<!-- /operations -->"


def page() -> str:
    """The page with the table as it is now."""
    operations = coverage()
    runs = sum(one.runs for one in operations)
    fastvlm = [one for one in operations if one.in_fastvlm]
    summary = (
        f"{runs} of {len(operations)} operations run; "
        f"of FastVLM's {len(fastvlm)}, {sum(one.runs for one in fastvlm)}."
    )
    before, _, rest = PAGE.read_text().partition(_START)
    _, _, after = rest.partition(_END)
    return f"{before}{_START}{summary}\n\n{coverage_table(operations)}\n{_END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page())
