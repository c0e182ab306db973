"""What a drill leaves: files in S3, named by its run, and a summary in its row.

Everything here is made from what is recorded already, so that a retried task makes the same bytes. What was
stored is never replaced: where a later attempt has found something else, as that the fault is undone by now,
its files stand beside the earlier ones, in ``again-2``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvlm_ops.core.disaster_recovery.ledger import (
    PROBES_FILE,
    WRITES_FILE,
    LedgerError,
    ProbeRecord,
    WriteRecord,
    read_probes,
    read_writes,
)
from fastvlm_ops.core.disaster_recovery.measuring import Measures
from fastvlm_ops.core.disaster_recovery.reporting.document import File, make_document
from fastvlm_ops.core.disaster_recovery.reporting.improvements import Improvement, find_improvements
from fastvlm_ops.core.disaster_recovery.reporting.journal import make_journal
from fastvlm_ops.core.disaster_recovery.reporting.record import DrillRecord, read_record
from fastvlm_ops.core.disaster_recovery.reporting.report import render_html, render_markdown
from fastvlm_ops.core.disaster_recovery.reporting.timeline import Timeline, make_timeline

if TYPE_CHECKING:
    from fastvlm_ops.core.store import Store
    from fastvlm_ops.core.store.artefacts import Artefact, ArtefactStore

DOCUMENT, REPORT, REPORT_TEXT, JOURNAL = "evidence.json", "report.html", "report.md", "journal.json"
HASHES, SUMS = "hashes.txt", "SHA256SUMS"
HASHES_FOLDER = "hashes"
"""In a drill's folder: a file ``<what>.txt`` for each thing that was restored, as ``sha256sum`` writes it."""

_CONTENT_TYPES = {
    ".json": "application/json",
    ".html": "text/html; charset=utf-8",
    ".md": "text/markdown; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
}
_MOST_LISTED = 200
_MOST_ATTEMPTS = 100


@dataclass(frozen=True)
class EvidenceFile:
    """One file, with all of its bytes."""

    name: str
    data: bytes

    @property
    def content_type(self) -> str:
        """As in ``application/json``."""
        return _CONTENT_TYPES.get(Path(self.name).suffix, "text/plain; charset=utf-8")

    @property
    def sha256(self) -> str:
        """Of its bytes, in hex."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class Evidence:
    """What a drill leaves.

    :param files: in the order in which they are stored: what names others comes after them
    :param timeline: what its pictures are drawn from
    :param improvements: most urgent first
    """

    files: tuple[EvidenceFile, ...]
    timeline: Timeline
    improvements: tuple[Improvement, ...]
    measures: Measures | None

    @property
    def summary(self) -> dict[str, Any]:
        """What the drill's row keeps of it, for the Operations page."""
        found = self.measures or Measures()
        return {
            "timeline": self.timeline.as_json(),
            "improvements": [one.model_dump() for one in self.improvements],
            "lost": [one.model_dump() for one in (*found.lost, *found.lost_later)][:_MOST_LISTED],
            "problems": list(found.problems),
            "unknowns": list(found.unknowns),
            "notes": list(found.notes),
        }


def report_drill(
    store: Store,
    artefacts: ArtefactStore,
    run_key: str,
    *,
    measures: Measures | None = None,
    fault_ns: int | None = None,
) -> list[Artefact]:
    """Write the report of a drill whose verdict is recorded, store all evidence, and note it in its row.

    Call it once verdict, reason and figures stand in the drill's row: it reads them there. What the row's
    summary has already stays.

    :param store: the operations database
    :param artefacts: where evidence is kept
    :param run_key: ``<dag id>/<run id>``
    :param measures: what was measured; None where nothing was
    :param fault_ns: when the fault was injected, on the observer's monotonic clock; None where it was not
    :returns: what was stored
    :raises DrillError: the drill is not recorded
    :raises StoreError: the evidence cannot be stored
    """
    record = read_record(store, run_key)
    evidence = make_evidence(record, folder=Path(record.plan.folder), measures=measures, fault_ns=fault_ns)
    # The row first: the page shows the drill, also where S3 is what is broken.
    _note(store, run_key, {**(record.drill.summary or {}), **evidence.summary})
    folder = _free_folder(artefacts, run_key, evidence)
    return [
        artefacts.put(run_key, folder + one.name, one.data, content_type=one.content_type)
        for one in evidence.files
    ]


def make_evidence(
    record: DrillRecord,
    *,
    folder: Path,
    measures: Measures | None = None,
    fault_ns: int | None = None,
) -> Evidence:
    """Make all files of evidence of a drill.

    :param record: of the drill
    :param folder: of the drill: where the observer's ledger is
    :param measures: what was measured
    :param fault_ns: when the fault was injected, on the observer's monotonic clock
    """
    probes, writes, problems = _read_ledger(folder)
    timeline = make_timeline(record, probes, writes, measures=measures, fault_ns=fault_ns)
    improvements = find_improvements(record, (*(measures.unknowns if measures else ()), *problems))
    page = render_html(record, timeline, improvements, measures)
    files = [
        EvidenceFile(REPORT, page.encode()),
        EvidenceFile(REPORT_TEXT, render_markdown(record, improvements, measures).encode()),
        EvidenceFile(JOURNAL, _json(make_journal(record))),
        *_ledger_files(folder),
        EvidenceFile(HASHES, _hashes(record, folder)),
    ]
    named = tuple(File(name=one.name, sha256=one.sha256, size_bytes=len(one.data)) for one in files)
    document = make_document(record, measures=measures, improvements=improvements, files=named)
    files.append(EvidenceFile(DOCUMENT, _json(document.model_dump(mode="json"))))
    sums = "".join(f"{one.sha256}  {one.name}\n" for one in sorted(files, key=lambda one: one.name))
    files.append(EvidenceFile(SUMS, sums.encode()))
    return Evidence(tuple(files), timeline, improvements, measures)


def _read_ledger(folder: Path) -> tuple[list[ProbeRecord], list[WriteRecord], list[str]]:
    """Requests and writes, and why some are not known. A drill without an observer has no ledger."""
    probes: list[ProbeRecord] = []
    writes: list[WriteRecord] = []
    problems: list[str] = []
    if (folder / PROBES_FILE).exists():
        try:
            probes = read_probes(folder)
        except LedgerError as error:
            problems.append(str(error))
    if (folder / WRITES_FILE).exists():
        try:
            writes = read_writes(folder)
        except LedgerError as error:
            problems.append(str(error))
    return probes, writes, problems


def _ledger_files(folder: Path) -> Iterator[EvidenceFile]:
    for name in (PROBES_FILE, WRITES_FILE):
        if (folder / name).is_file():
            yield EvidenceFile(name, (folder / name).read_bytes())


def _hashes(record: DrillRecord, folder: Path) -> bytes:
    """The SHA-256 of each file that was restored and compared, as ``sha256sum`` writes it."""
    parts = [
        f"# {file.stem}\n".encode() + file.read_bytes().rstrip(b"\n") + b"\n"
        for file in sorted((folder / HASHES_FOLDER).glob("*.txt"))
    ]
    for step, check in record.checks():
        hashes = (check.get("evidence") or {}).get("hashes")
        if isinstance(hashes, Mapping) and hashes:
            lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items()))
            parts.append(f"# {step}: {check.get('name')}\n{lines}".encode())
    return b"".join(parts) or b"# nothing was compared by hash\n"


def _free_folder(artefacts: ArtefactStore, run_key: str, evidence: Evidence) -> str:
    """Where these very files are, or can be."""
    for attempt in range(1, _MOST_ATTEMPTS):
        folder = "" if attempt == 1 else f"again-{attempt}/"
        stored = {one.name: one.sha256 for one in artefacts.list(run_key)}
        if all(stored.get(folder + one.name, one.sha256) == one.sha256 for one in evidence.files):
            return folder
    return f"again-{_MOST_ATTEMPTS}/"  # which then is refused as taken


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True).encode() + b"\n"


def _note(store: Store, run_key: str, summary: dict[str, Any]) -> None:
    from fastvlm_ops.core.store.tables.disaster_recovery import drills

    with store.write() as connection:
        connection.execute(drills.update().where(drills.c.run_key == run_key).values(summary=summary))
