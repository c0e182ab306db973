"""What a drill leaves: its files, that they agree, and that nothing unknown is written as a figure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fastvlm_ops.core.disaster_recovery.evidence import Evidence, make_evidence
from fastvlm_ops.core.disaster_recovery.ledger import PROBES_FILE
from fastvlm_ops.core.disaster_recovery.reporting.document import SCHEMA, EvidenceDocument, schema_text
from fastvlm_ops.core.disaster_recovery.reporting.record import read_record
from fastvlm_ops.core.disaster_recovery.reporting.timeline import Timeline
from fastvlm_ops.core.store import Store, open_store
from tests import drill_kit as kit

ROOT = Path(__file__).resolve().parents[4]
HOSTILE = "<script>alert(1)</script>|`x`\u202e\n# no heading"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path}/operations.db", migrate_first=True) as opened:
        yield opened


def evidence_of(store: Store, story: kit.Story, folder: Path, **options: object) -> Evidence:
    key, measures, fault_ns = kit.run(store, story, kit.NOW, folder)
    given = {"measures": measures, "fault_ns": fault_ns, **options}
    return make_evidence(read_record(store, key), folder=folder, **given)  # type: ignore[arg-type]


def files_of(evidence: Evidence) -> dict[str, bytes]:
    return {one.name: one.data for one in evidence.files}


def text_of(page: bytes) -> str:
    """What a person reads of a page."""
    parts: list[str] = []

    class Reader(HTMLParser):
        def handle_data(self, data: str) -> None:
            parts.append(data)

    Reader(convert_charrefs=True).feed(page.decode())
    return " ".join(" ".join(parts).split())


@pytest.mark.parametrize("story", kit.STORIES, ids=[story.scenario for story in kit.STORIES])
def test_evidence_is_whole_and_agrees(store: Store, tmp_path: Path, story: kit.Story) -> None:
    files = files_of(evidence_of(store, story, tmp_path / "drill"))
    document = EvidenceDocument.model_validate_json(files["evidence.json"])
    assert document.verdict == story.verdict
    assert document.reason == story.reason
    named = {one.name: one.sha256 for one in document.files}
    assert named == {
        name: hashlib.sha256(data).hexdigest()
        for name, data in files.items()
        if name not in ("evidence.json", "SHA256SUMS")
    }
    sums = dict(reversed(line.split("  ")) for line in files["SHA256SUMS"].decode().splitlines())
    assert sums == {
        name: hashlib.sha256(data).hexdigest() for name, data in files.items() if name != "SHA256SUMS"
    }
    for name in ("report.html", "report.md"):
        assert str(story.verdict) in files[name].decode()
    assert story.reason in text_of(files["report.html"])
    injected = document.fault_at is not None
    assert ("probes.csv" in files) == ("writes.csv" in files) == injected
    assert ("What users saw" in text_of(files["report.html"])) == injected


def test_a_retried_report_is_the_same_bytes(store: Store, tmp_path: Path) -> None:
    key, measures, fault_ns = kit.run(store, kit.PRIMARY, kit.NOW, tmp_path)
    first, second = (
        files_of(
            make_evidence(read_record(store, key), folder=tmp_path, measures=measures, fault_ns=fault_ns)
        )
        for _ in range(2)
    )
    assert first == second


def test_the_report_needs_nothing_else(store: Store, tmp_path: Path) -> None:
    page = files_of(evidence_of(store, kit.PRIMARY, tmp_path))["report.html"].decode()
    assert not re.search(r"""(src|href|url)\s*[=(]\s*["']?(?!#)\S""", page)
    assert page.count("<svg") >= 4


def test_figures_stand_in_the_report_with_their_objectives(store: Store, tmp_path: Path) -> None:
    files = files_of(evidence_of(store, kit.PRIMARY, tmp_path))
    said = text_of(files["report.html"])
    assert "61.4 s of 60 s" in said
    assert "1.6 s of 1 s" in said
    assert "32 acknowledged writes of 80 lost" in said
    assert "| RTO | 61.4 s | 60 s |" in files["report.md"].decode()
    assert said.count("missing") >= 32  # each lost row by its id
    assert "pg_rewind --target-pgdata database-1" in said


def test_what_was_not_measured_is_not_written_as_zero(store: Store, tmp_path: Path) -> None:
    evidence = evidence_of(store, kit.HUNG, tmp_path)
    files = files_of(evidence)
    assert "| RPO | not measured | 5 s |" in files["report.md"].decode()
    assert "not measured of 5 s" in text_of(files["report.html"])
    measures = json.loads(files["evidence.json"])["measures"]
    assert measures["rpo_seconds"] is None
    assert any("canary" in one.what for one in evidence.improvements)


def test_a_broken_ledger_is_said_and_kept_as_it_is(store: Store, tmp_path: Path) -> None:
    key, measures, fault_ns = kit.run(store, kit.KILLED, kit.NOW, tmp_path)
    (tmp_path / PROBES_FILE).write_bytes(b"garbage\n1,2\n")
    evidence = make_evidence(read_record(store, key), folder=tmp_path, measures=measures, fault_ns=fault_ns)
    assert files_of(evidence)[PROBES_FILE] == b"garbage\n1,2\n"
    assert any("probes.csv" in one.what and one.urgency == "now" for one in evidence.improvements)
    assert evidence.timeline.requests == ()


def test_markup_in_what_was_found_stays_text(store: Store, tmp_path: Path) -> None:
    odd = replace(
        kit.KILLED,
        title=f"T {HOSTILE}",
        reason=f"R {HOSTILE}",
        commands=(("simulate_failure", 0.0, f"C {HOSTILE}"),),
        steps={
            **kit.KILLED.steps,
            "verify_failover": ("failed", (("requests_succeed", "failed", f"D {HOSTILE}"),)),
        },
    )
    files = files_of(evidence_of(store, odd, tmp_path))
    page, markdown = files["report.html"].decode(), files["report.md"].decode()
    assert "<script>alert" not in page
    assert text_of(files["report.html"]).count("<script>alert(1)</script>") >= 4
    assert "\u202e" not in page + markdown
    outside_code = re.sub(r"`[^`\n]*`", "", markdown)
    assert "script\\>" in outside_code
    assert "<script>" not in outside_code.replace("\\<", "").replace("\\>", "")
    assert "\n# no heading" not in markdown


def test_hashes_of_what_was_restored_are_kept(store: Store, tmp_path: Path) -> None:
    hashes = tmp_path / "hashes"
    hashes.mkdir()
    (hashes / "models.txt").write_text(f"{'a' * 64}  VisionEncoder.mlpackage/Manifest.json\n")
    files = files_of(evidence_of(store, kit.RESTORE, tmp_path))
    assert files["hashes.txt"].decode() == f"# models\n{'a' * 64}  VisionEncoder.mlpackage/Manifest.json\n"


def test_the_summary_holds_what_pictures_need(store: Store, tmp_path: Path) -> None:
    evidence = evidence_of(store, kit.PRIMARY, tmp_path)
    summary = json.loads(json.dumps(evidence.summary))
    assert Timeline.from_json(summary["timeline"]) == evidence.timeline
    assert len(json.dumps(summary)) < 100_000  # a row, not a file
    assert len(summary["lost"]) == 32
    assert Timeline.from_json({"requests": []}) is None
    assert Timeline.from_json(None) is None


def test_the_journal_is_one_of_chaos_toolkit(store: Store, tmp_path: Path) -> None:
    journal = json.loads(files_of(evidence_of(store, kit.CONFIGURATION, tmp_path))["journal.json"])
    assert (journal["status"], journal["deviated"]) == ("aborted", True)
    assert journal["steady_states"]["before"]["steady_state_met"] is True
    assert journal["steady_states"]["after"] is None
    assert {"activity", "status", "start", "end", "duration"} <= set(journal["run"][0])
    assert journal["experiment"]["method"][0]["name"] == "service.yaml altered"
    assert [one["status"] for one in journal["rollbacks"]] == ["succeeded"]


def test_a_failed_step_is_no_success_in_the_journal(store: Store, tmp_path: Path) -> None:
    passed = json.loads(files_of(evidence_of(store, kit.KILLED, tmp_path))["journal.json"])
    assert (passed["status"], passed["deviated"]) == ("completed", False)
    later = replace(kit.PRIMARY, scenario="another")
    failed = json.loads(files_of(evidence_of(store, later, tmp_path / "b"))["journal.json"])
    assert (failed["status"], failed["deviated"]) == ("failed", True)
    assert failed["steady_states"]["after"]["steady_state_met"] is False


def test_earlier_drills_are_those_of_the_scenario_that_were_real(store: Store, tmp_path: Path) -> None:
    at = kit.NOW - timedelta(days=30)
    kit.run(store, replace(kit.PRIMARY, verdict="PASS"), at, tmp_path / "1")
    kit.run(store, replace(kit.PRIMARY, dry_run=True), at + timedelta(days=1), tmp_path / "2")
    kit.run(store, kit.KILLED, at, tmp_path / "3")
    document = json.loads(files_of(evidence_of(store, kit.PRIMARY, tmp_path / "4"))["evidence.json"])
    assert [(one["planned_at"][:10], one["verdict"]) for one in document["earlier"]] == [
        ("2026-10-31", "PASS")
    ]


def test_the_schema_is_committed() -> None:
    assert (ROOT / "docs" / SCHEMA).read_text() == schema_text(), (
        "run: python -m fastvlm_ops.core.disaster_recovery.reporting.document"
    )
