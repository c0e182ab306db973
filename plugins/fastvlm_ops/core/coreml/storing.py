"""Runs in the operations database, and their raw samples beside them: recorded once, however often tried."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import Connection, Table, and_, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from fastvlm_ops.core.coreml.devices.interface import SCHEMA_VERSION, Failure, FailureCode
from fastvlm_ops.core.coreml.records import RunRecord, session_value
from fastvlm_ops.core.coreml.verdicts import Judgement, Metric
from fastvlm_ops.core.store.clock import now
from fastvlm_ops.core.store.errors import ArtefactDamagedError
from fastvlm_ops.core.store.tables.coreml import models, runs, sessions, verdicts
from fastvlm_ops.core.store.upsert import upsert

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

    from fastvlm_ops.core.coreml.devices.interface import SessionResult
    from fastvlm_ops.core.store import Store
    from fastvlm_ops.core.store.artefacts import ArtefactStore

#: Columns that tell the runs apart.
KEY = ("run_key", "device", "model", "compute_unit")
#: Every session that was asked for gave a result, or so many that the run went on without the others.
COMPLETE = "complete"
#: Some sessions gave a result, and then it ended.
PARTIAL = "partial"
#: No session gave a result.
FAILED = "failed"

_PARITY = {
    "psnr_db": "psnr_db",
    "cosine": "cosine",
    "max_abs_difference": "max_abs",
    "argmax_agree": "argmax_agree",
    "nan_count": "nan",
    "inf_count": "inf",
}
_UNITS = ("ane", "gpu", "cpu")


@dataclass(frozen=True)
class RunId:
    """What a run is found by.

    :param run_key: ``<dag id>/<run id>``
    :param device: as in ``coreml.yaml``
    :param model: likewise
    :param compute_unit: that Core ML was allowed to use
    """

    run_key: str
    device: str
    model: str
    compute_unit: str

    @classmethod
    def of(cls, record: RunRecord) -> RunId:
        """Return that of a record."""
        return cls(record.run_key, record.device_name, record.model, record.compute_unit)

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> RunId:
        """Return that of a row of any table with these columns."""
        return cls(*(row[name] for name in KEY))

    def values(self) -> dict[str, str]:
        """By the names of the columns."""
        return {name: getattr(self, name) for name in KEY}

    def where(self, table: Table) -> ColumnElement[bool]:
        """Return the condition for a table's rows of this run."""
        return and_(*(table.c[name] == value for name, value in self.values().items()))


def status_of(record: RunRecord) -> str:
    """Return ``complete``, ``partial`` or ``failed``."""
    if not record.good_sessions:
        return FAILED
    return PARTIAL if record.failure else COMPLETE


def record_model(
    store: Store, *, name: str, version: str, digest: str, inspection: Mapping[str, Any]
) -> None:
    """Record what a package is; the same package again changes nothing but its inspection.

    :param store: the operations database
    :param name: of the model, as in ``coreml.yaml``
    :param version: of the package
    :param digest: of its files
    :param inspection: an :class:`Inspection` as JSON
    """
    row = {
        "digest": digest,
        "name": name,
        "version": version,
        **{
            key: inspection.get(key)
            for key in ("spec_version", "size_bytes", "parameters", "flops", "compressed_share")
        },
        "structure_hash": inspection.get("structure_hash"),
        "inspection": dict(inspection),
    }
    with store.write() as connection:
        row["first_seen_at"] = now(connection)
        upsert(connection, models, [row], key=("digest",), keep=("name", "version", "first_seen_at"))


def find_inspection(store: Store, digest: str) -> dict[str, Any] | None:
    """Return what is known of a package, or None where it was never inspected.

    :param store: the operations database
    :param digest: of its files
    """
    query = select(models.c.inspection).where(models.c.digest == digest)
    with store.read() as connection:
        return connection.execute(query).scalar_one_or_none()


def find_run(store: Store, run: RunId) -> dict[str, Any] | None:
    """Return the row of a run, or None.

    :param store: the operations database
    :param run: which
    """
    with store.read() as connection:
        row = connection.execute(select(runs).where(run.where(runs))).mappings().first()
    return None if row is None else dict(row)


def record_run(store: Store, artefacts: ArtefactStore, record: RunRecord, *, golden_id: str = "") -> bool:
    """Record a run, unless it was already.

    What a run has measured in full stands. One that was cut short is replaced, as when a person has put the
    cable back and clears the task.

    :param store: the operations database
    :param artefacts: where the raw samples go
    :param record: what was measured
    :param golden_id: of the outputs that its own were compared with; empty for none
    :returns: whether it is new; if not, what there was stands
    """
    run = RunId.of(record)
    found = find_run(store, run)
    if found is not None and found["status"] == COMPLETE:
        return False
    # The samples come first: a row never points to nothing. Their hash is in their name, so that what an
    # attempt left that died before its row is in nobody's way.
    name, uri = _store_samples(artefacts, record) if record.sessions else (None, None)
    row = {**_run_row(record), "golden_id": golden_id or None, "artefact_name": name, "artefact_uri": uri}
    with store.write() as connection:
        return _insert(connection, run, row, [_session_row(run, row, one) for one in record.sessions])


def _insert(
    connection: Connection, run: RunId, row: dict[str, Any], rows: Sequence[Mapping[str, Any]]
) -> bool:
    query = select(runs.c.status).where(run.where(runs)).with_for_update()
    status = connection.execute(query).scalar_one_or_none()
    if status == COMPLETE:
        return False  # another attempt of this task was faster
    if status is not None:
        for table in (sessions, verdicts, runs):
            connection.execute(delete(table).where(run.where(table)))
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(runs).values(**row).on_conflict_do_nothing(index_elements=list(KEY))
    if connection.execute(statement.returning(runs.c.run_key)).first() is None:
        return False
    upsert(connection, sessions, rows, key=(*KEY, "session_index"))
    return True


def _store_samples(artefacts: ArtefactStore, record: RunRecord) -> tuple[str, str]:
    values = {**record.as_dict(), "inspection": None}  # it is in coreml_model
    text = json.dumps({"schema": SCHEMA_VERSION, "run": values}, sort_keys=True, allow_nan=False)
    data = text.encode()
    digest = sha256(data).hexdigest()[:16]
    name = f"coreml/{record.device_name}/{record.model}/{record.compute_unit}-{digest}.json"
    artefact = artefacts.put(record.run_key, name, data, content_type="application/json")
    return name, artefact.uri


def _run_row(record: RunRecord) -> dict[str, Any]:
    device, parity = record.device, record.parity or {}
    return {
        **RunId.of(record).values(),
        "measured_at": _moment(record.started_at),
        "version": record.version,
        "digest": record.digest,
        "status": status_of(record),
        "failure_code": str(record.failure.code) if record.failure else None,
        "failure_detail": record.failure.detail if record.failure else None,
        "hardware_class": record.hardware_class or None,
        "device_model": device.get("model") or None,
        **{name: device.get(name) or None for name in ("os_version", "os_build", "identifier_hash")},
        "epoch": record.epoch,
        "toolchain": dict(record.toolchain),
        "sessions": len(record.sessions),
        "sessions_failed": len(record.sessions) - len(record.good_sessions),
        **_times(record),
        "size_bytes": (record.inspection or {}).get("size_bytes"),
        **{column: _finite(parity.get(name)) for column, name in _PARITY.items()},
        **_cost_shares(record),
    }


def _times(record: RunRecord) -> dict[str, float | None]:
    good = [one.samples_ms for one in record.good_sessions if one.samples_ms]
    memory = _median(record.values(Metric.PEAK_MEMORY))
    return {
        "latency_p50_ms": _median(record.values(Metric.LATENCY_P50)),
        "latency_p90_ms": _median(record.values(Metric.LATENCY_P90)),
        "latency_p99_ms": _median([_quantile(samples, 0.99) for samples in good]),
        "latency_min_ms": min((min(samples) for samples in good), default=None),
        "load_cold_ms": _median(record.values(Metric.LOAD_COLD)),
        "load_warm_ms": _median(record.values(Metric.LOAD_WARM)),
        "peak_memory_bytes": None if memory is None else round(memory),
    }


def _cost_shares(record: RunRecord) -> dict[str, float | None]:
    """By unit, of the last session that has a plan; NULL where the plan has no costs."""
    names = [f"cost_share_{unit}" for unit in (*_UNITS, "unknown")]
    placement = next((one.placement for one in reversed(record.good_sessions) if one.placement), ())
    if not any(one.cost_share is not None for one in placement):
        return dict.fromkeys(names)
    shares: dict[str, float | None] = dict.fromkeys(names, 0.0)
    for one in placement:
        name = f"cost_share_{one.unit if one.unit in _UNITS else 'unknown'}"
        shares[name] = (shares[name] or 0.0) + (one.cost_share or 0.0)
    return shares


def _session_row(run: RunId, row: Mapping[str, Any], session: SessionResult) -> dict[str, Any]:
    failure, conditions, samples = session.failure, session.conditions, session.samples_ms
    good = failure is None
    return {
        **run.values(),
        "session_index": session.index,
        "measured_at": _moment(session.started_at) if session.started_at else row["measured_at"],
        "failure_code": str(failure.code) if failure else None,
        "failure_detail": failure.detail if failure else None,
        "predictions": len(samples),
        "p50_ms": session_value(session, Metric.LATENCY_P50) if good else None,
        "p90_ms": session_value(session, Metric.LATENCY_P90) if good else None,
        "p99_ms": _quantile(samples, 0.99) if good and samples else None,
        "min_ms": min(samples) if good and samples else None,
        "load_cold_ms": session.load_cold_ms,
        "load_warm_ms": session_value(session, Metric.LOAD_WARM),
        "peak_memory_bytes": session.peak_memory_bytes,
        **{
            name: getattr(conditions, name)
            for name in ("thermal_start", "thermal_end", "low_power", "battery_percent", "charging")
        },
        "cooldown_seconds": conditions.cooldown_seconds,
    }


def load_run(store: Store, artefacts: ArtefactStore, row: Mapping[str, Any]) -> RunRecord:
    """Return a run with its raw samples.

    :param store: the operations database
    :param artefacts: where the samples are
    :param row: of ``coreml_run``
    :raises ArtefactDamagedError: its samples are missing or are not what was stored
    """
    inspection = find_inspection(store, row["digest"])
    if row["artefact_name"] is None:
        return replace(_record_of(row), inspection=inspection)
    artefact = artefacts.find(row["run_key"], row["artefact_name"])
    if artefact is None:
        raise ArtefactDamagedError(f"{row['artefact_uri']} is named by a run, but is not recorded")
    values = json.loads(artefacts.get(artefact))
    if values.get("schema") != SCHEMA_VERSION:
        raise ArtefactDamagedError(
            f"{artefact.uri} has schema {values.get('schema')!r}, and this code reads {SCHEMA_VERSION}"
        )
    return replace(RunRecord.from_dict(values["run"]), inspection=inspection)


def runs_of(store: Store, run_key: str) -> list[dict[str, Any]]:
    """Return the rows of all that was measured in one run of the DAG, in order.

    :param store: the operations database
    :param run_key: ``<dag id>/<run id>``
    """
    query = select(runs).where(runs.c.run_key == run_key).order_by(*(runs.c[name] for name in KEY))
    with store.read() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def record_verdicts(store: Store, run_key: str, judgements: Sequence[Judgement]) -> None:
    """Put the verdicts of a run in place of all that it had.

    :param store: the operations database
    :param run_key: ``<dag id>/<run id>``
    :param judgements: of all devices, models and compute units
    """
    with store.write() as connection:
        connection.execute(delete(verdicts).where(verdicts.c.run_key == run_key))
        moment = now(connection)
        rows = [{"run_key": run_key, "judged_at": moment, **one.as_dict()} for one in judgements]
        for row in rows:
            for name in ("baseline_value", "value", "change", "p_value", "confidence"):
                row[name] = _finite(row[name])
        upsert(connection, verdicts, rows, key=(*KEY, "metric"))


def _record_of(row: Mapping[str, Any]) -> RunRecord:
    """A run without sessions has no samples: its row is all there is."""
    device = {"name": row["device"]}
    if row["hardware_class"]:
        device |= {"hardware_class": row["hardware_class"], "model": row["device_model"] or ""}
        device |= {name: row[name] or "" for name in ("os_version", "os_build", "identifier_hash")}
    code = row["failure_code"]
    return RunRecord(
        run_key=row["run_key"],
        device=device,
        model=row["model"],
        version=row["version"],
        digest=row["digest"],
        compute_unit=row["compute_unit"],
        epoch=row["epoch"],
        hardware_class=row["hardware_class"] or "",
        failure=Failure(FailureCode(code), row["failure_detail"]) if code else None,
        toolchain=row["toolchain"],
        started_at=row["measured_at"].isoformat(),
    )


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _median(values: Sequence[float]) -> float | None:
    return float(median(values)) if values else None


def _quantile(samples: Sequence[float], share: float) -> float:
    return float(np.quantile(samples, share))


def _finite(value: Any) -> Any:
    """NULL in place of what is no number: SQLite would store it so, and PostgreSQL would not."""
    if not isinstance(value, float):
        return value
    return float(value) if math.isfinite(value) else None  # NumPy's are no type of the database's
