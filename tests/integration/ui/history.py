"""Backups for the pages to show: real ones in the bucket, and rows of many more."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import insert, update

from fastvlm_ops.core.backup import (
    FolderSource,
    S3Storage,
    create_snapshot,
    initialise_repository,
    publish_set,
    verify_set_members,
)
from fastvlm_ops.core.backup.catalogue import refresh_catalogue
from fastvlm_ops.core.backup.journal import (
    RestoreTest,
    record_restore_tested,
    record_restored,
    record_verified,
)
from fastvlm_ops.core.store import open_store
from fastvlm_ops.core.store.tables import backup as tables
from tests.integration.ui.rig import BUCKET, PASSPHRASE, Rig

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from fastvlm_ops.core.backup.repository import Repository

NAMES = ("models", "configuration", "application_data", "uploads")
HOSTILE = (
    b"<script>alert(1)</script>.bin",
    b"line\nend.txt",
    b"no utf-8 \xff\xfe.jpg",
    "turned \u202egpj.exe".encode(),
    b"'\"><img src=x onerror=alert(2)>",
    b"..%2f..%2fpasswd",
)
REAL_SET = "full-20261124T020000Z-0a1b2c3d"
RUN = "backup_full/scheduled__2026-11-24T02:00:00+00:00"
_MIB = 1 << 20


def make_kit(folder: Path) -> None:
    """Write a small kit, with names in it that somebody chose with care."""
    files: dict[bytes, int] = {
        b"models/fastvlm_0.5b.mlpackage/Manifest.json": 700,
        b"models/fastvlm_0.5b.mlpackage/Data/com.apple.CoreML/model.mlmodel": 90_000,
        b"models/fastvlm_0.5b.mlpackage/Data/com.apple.CoreML/weights/weight.bin": 3_000_000,
        b"configuration/service.yaml": 800,
        b"configuration/regions/eu.yaml": 300,
        b"application_data/application.db": 500_000,
    }
    files |= {b"uploads/" + name.replace(b"/", b""): 2_000 + n for n, name in enumerate(HOSTILE)}
    files[b"uploads/<b>folder\n\xff/inner.txt"] = 77
    generator = random.Random(4)
    for name, size in files.items():
        path = os.path.join(os.fsencode(folder), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(generator.randbytes(size))


def repository_of(rig: Rig) -> Repository:
    """Open the rig's repository, which is made where there is none."""
    return initialise_repository(S3Storage(rig.s3.client(), bucket=BUCKET), PASSPHRASE)


def back_up(rig: Rig, set_id: str = REAL_SET, kind: str = "full", run_key: str = RUN) -> None:
    """Back the kit up, verify it, restore one component as a record, and refresh the catalogue."""
    make_kit(rig.folder / "kit")
    repository = repository_of(rig)
    _back_up_earlier(rig, repository)
    for name in NAMES:
        source = FolderSource(rig.folder / "kit" / name)
        create_snapshot(repository, source, component=name, kind=kind, run_key=run_key)
    backup = publish_set(
        repository,
        set_id=set_id,
        kind=kind,
        run_key=run_key,
        components=NAMES,
        timestamp=datetime(2026, 11, 24, 2, tzinfo=UTC),
    )
    members = [member.snapshot_id for member in backup.snapshots]
    scratch = rig.folder / "scratch" / "verify"
    scratch.mkdir(exist_ok=True)
    result = verify_set_members(repository, members, scratch_dir=scratch)
    record_verified(repository, result, members, run_key=run_key)
    record_restored(
        repository,
        members[1],
        set_id=set_id,
        run_key="restore_backup/manual__2026-11-24T03:00:00+00:00",
        where="new folder",
        files=2,
        size_bytes=1100,
        duration_seconds=1.4,
    )
    record_restore_tested(
        repository,
        set_id,
        {members[1]: RestoreTest(ok=True, files=2, size_bytes=1100, duration_seconds=2.6)},
        run_key="disaster_recovery_restore_test/manual__2026-11-24T04:00:00+00:00",
    )
    with open_store(f"sqlite:///{rig.database}", migrate_first=True) as store:
        refresh_catalogue(store, repository)


def _back_up_earlier(rig: Rig, repository: Repository) -> None:
    """Store most of the model, as an earlier run that ended before it was published would have."""
    weights = rig.folder / "kit/models/fastvlm_0.5b.mlpackage/Data/com.apple.CoreML/weights/weight.bin"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:2_200_000])
    source = FolderSource(rig.folder / "kit" / "models")
    create_snapshot(repository, source, component="models", kind="full", run_key="backup_full/manual__0")
    weights.write_bytes(whole)


def add_rows(rig: Rig, count: int) -> None:
    """Add rows of older backups to the catalogue, one a day, as if they were in the bucket.

    The real ones are given sequences after them. The next refresh takes the added ones away.
    """
    generator = random.Random(7)
    today = datetime.now(UTC).replace(hour=3, minute=0, second=0, microsecond=0)
    with open_store(f"sqlite:///{rig.database}", migrate_first=True) as store, store.write() as connection:
        for table in (tables.sets, tables.snapshots):
            connection.execute(update(table).values(sequence=table.c.sequence + 1_000_000))
        for number in range(count):
            moment = today - timedelta(days=count - number)
            _add_set(connection, number, moment, generator)


def _add_set(connection: Connection, number: int, moment: datetime, generator: random.Random) -> None:
    kind = "full" if moment.weekday() == 6 else "incremental"
    stamp = f"{moment:%Y%m%dT%H%M%SZ}"
    set_id = f"{kind}-{stamp}-{generator.getrandbits(32):08x}"
    run_key = f"backup_{kind}/scheduled__{moment.isoformat()}"
    started = moment
    sizes = {
        "models": 2_900_000 + number * 1_700,
        "configuration": 900 + number,
        "application_data": 380_000 + number * 2_000,
        "uploads": 8_000 + number * 60 + int(2_000 * math.sin(number / 9)),
    }
    shares = {"models": 0.02 if number % 9 else 0.6, "configuration": 0.1, "application_data": 0.3}
    connection.execute(
        insert(tables.sets).values(
            set_id=set_id,
            kind=kind,
            timestamp=moment,
            published_at=moment + timedelta(minutes=6),
            sequence=number * 10 + 9,
            run_key=run_key,
        )
    )
    for position, (component, size) in enumerate(sizes.items()):
        new = int(size * shares.get(component, 0.012) * generator.uniform(0.4, 1.3))
        took = timedelta(seconds=0.1 + new / _MIB / 20 + (0.1 if kind == "full" else 0) * generator.random())
        _add_member(
            connection, set_id, kind, run_key, number * 10 + position, component, started, took, size, new
        )
        started += took / 2


def _add_member(
    connection: Connection,
    set_id: str,
    kind: str,
    run_key: str,
    sequence: int,
    component: str,
    started: datetime,
    took: timedelta,
    size: int,
    new: int,
) -> None:
    snapshot_id = f"{component}-{sequence}"
    row: Mapping[str, object] = {
        "snapshot_id": snapshot_id,
        "component": component,
        "kind": kind,
        "run_key": run_key,
        "sequence": sequence,
        "started_at": started,
        "finished_at": started + took,
        "files": 7 if component == "uploads" else 3,
        "size_bytes": size,
        "new_bytes": new,
        "warnings": 0,
    }
    connection.execute(insert(tables.snapshots).values(**row))
    member = {"set_id": set_id, "component": component, "snapshot_id": snapshot_id}
    connection.execute(insert(tables.members).values(position=sequence % 10, **member))
    if kind == "full":
        check = {"snapshot_id": snapshot_id, "kind": "verified", "sequence": sequence, "run_key": run_key}
        at = started + took + timedelta(minutes=2)
        connection.execute(insert(tables.checks).values(at=at, level_or_where="head", **check))
