"""What a drill leaves: files in S3, named by its run, and a summary in its row.

Everything here is made from what is recorded already, so that a retried task makes the same bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvlm_ops.core.disaster_recovery.reporting.record import DrillRecord, read_record

if TYPE_CHECKING:
    from fastvlm_ops.core.disaster_recovery.measuring import Measures
    from fastvlm_ops.core.store import Store
    from fastvlm_ops.core.store.artefacts import Artefact, ArtefactStore

#: What the observer leaves in the drill's folder, and is stored as it is.
LEDGER_FILES = ("probes.csv", "writes.csv")


@dataclass(frozen=True)
class EvidenceFile:
    """One file, with all of its bytes."""

    name: str
    content_type: str
    data: bytes


@dataclass(frozen=True)
class Evidence:
    """What a drill leaves.

    :param files: in the order in which they are stored
    :param summary: what the drill's row keeps of it, for the Operations page
    """

    files: tuple[EvidenceFile, ...]
    summary: dict[str, Any]


def report_drill(
    store: Store,
    artefacts: ArtefactStore,
    run_key: str,
    *,
    measures: Measures | None = None,
    fault_ns: int | None = None,
) -> list[Artefact]:
    """Write the report of a drill whose verdict is recorded, store all evidence, and note it in its row.

    Call it once verdict, reason and figures stand in the drill's row: it reads them there.

    :param store: the operations database
    :param artefacts: where evidence is kept
    :param run_key: ``<dag id>/<run id>``
    :param measures: what was measured; None where there was no fault, or nothing was measured
    :param fault_ns: when the fault was injected, on the observer's monotonic clock; None where it was not
    :returns: what was stored
    :raises DrillError: the drill is not recorded
    :raises StoreError: the evidence cannot be stored
    """
    record = read_record(store, run_key)
    evidence = make_evidence(record, folder=Path(record.plan.folder), measures=measures, fault_ns=fault_ns)
    stored = [
        artefacts.put(run_key, one.name, one.data, content_type=one.content_type) for one in evidence.files
    ]
    _note(store, run_key, evidence.summary)
    return stored


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
    files = [
        EvidenceFile(name, "text/csv; charset=utf-8", (folder / name).read_bytes())
        for name in LEDGER_FILES
        if (folder / name).is_file()
    ]
    return Evidence(tuple(files), {})


def _note(store: Store, run_key: str, summary: dict[str, Any]) -> None:
    from fastvlm_ops.core.store.tables.disaster_recovery import drills

    with store.write() as connection:
        connection.execute(
            drills.update().where(drills.c.run_key == run_key).values(summary=json.loads(json.dumps(summary)))
        )
