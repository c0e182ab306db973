"""README and docs say what was measured, and nothing else."""

from __future__ import annotations

import pytest

from benchmarks.report import MarkerError, sections, with_sections
from benchmarks.running import ROOT


def test_the_documents_say_what_the_results_say() -> None:
    for document, found in sections().items():
        text = (ROOT / document).read_text()
        assert with_sections(text, found) == text, f"make bench-report renews {document}"


def test_a_document_without_the_marker_is_refused() -> None:
    with pytest.raises(MarkerError, match="there 0 times"):
        with_sections("no marker here", {"benchmark": "figures"})
