"""Restore tests of clusters of PostgreSQL: recovered, compared, started, checked."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fastvlm_ops.core.backup import Repository, publish_set
from fastvlm_ops.core.backup.catalogue import Catalogue
from fastvlm_ops.core.backup.postgresql.programs import Programs, run_as
from fastvlm_ops.core.backup.postgresql.recovery import RecoveryNote
from fastvlm_ops.core.backup.postgresql.trial_server import TrialServer, give_to
from fastvlm_ops.core.store import Store, open_store
from tests.integration.postgresql.conftest import clients, make_server
from tests.integration.postgresql.recovery_kit import (
    COMPONENT,
    SETTINGS,
    Original,
    folder_for_servers,
    new_repository,
    server_programs,
)
from tests.restore_kit import Drill

if TYPE_CHECKING:
    from fastvlm_ops.local.seaweedfs import SeaweedFS

__all__ = ["clients", "make_server"]
pytestmark = pytest.mark.integration

COUNT = "SELECT count(*) FROM item"


@pytest.fixture(scope="module")
def repository(seaweedfs: Any, s3_client: Any) -> Iterator[Repository]:
    with new_repository(seaweedfs, s3_client) as opened:
        yield opened


@pytest.fixture(scope="module")
def original(make_server: Any, repository: Repository, clients: Programs) -> Original:
    """A cluster with a base backup in a full backup set, and rows that only its WAL has."""
    found = Original(make_server(settings=SETTINGS), repository, clients)
    found.sql("CREATE TABLE item (id serial PRIMARY KEY, text text)")
    found.sql("INSERT INTO item (text) SELECT 'row ' || n FROM generate_series(1, 500) n")
    base = found.base()
    record = repository.refresh().snapshots[base]
    publish_set(
        repository,
        set_id="full-1",
        kind="full",
        run_key=record["run_key"],
        components=[COMPONENT],
        timestamp=datetime.now(UTC),
    )
    return found


@pytest.fixture
def folder() -> Iterator[Path]:
    with folder_for_servers() as found:
        yield found


@pytest.fixture
def drill(seaweedfs: SeaweedFS, original: Original, folder: Path) -> Iterator[Drill]:
    """A drill whose folder a server's account can reach."""
    include = folder / "include"
    include.mkdir()
    (include / "components.yaml").write_text(
        f"version: 1\ncomponents:\n  - name: {COMPONENT}\n    kind: postgresql\n    checks: [{COUNT}]\n"
    )
    address = f"sqlite:///{folder / 'operations.db'}"
    with open_store(address, migrate_first=True) as store:
        yield Drill(
            seaweedfs,
            original.repository.storage.bucket,
            folder,
            store,
            programs=server_programs(original.server.major).folder,
            database=lambda _: "postgres",
        )


def restored(drill: Drill) -> Path:
    found = drill.act("restore_to_scratch")
    assert found["status"] == "passed", found["detail"]
    return drill.restored / COMPONENT


def refused(drill: Drill) -> str:
    found = drill.check("components_sound")
    assert found["status"] == "failed", found["detail"]
    return str(found["detail"])


def test_a_base_backup_alone_is_started_and_a_damaged_one_is_not(drill: Drill, original: Original) -> None:
    place = restored(drill)
    table = original.sql("SELECT pg_relation_filepath('item')")[0][0]
    good = drill.folder / "good"
    shutil.copytree(place, good, symlinks=True)

    with (place / "data" / table).open("r+b") as file:
        file.seek(8000)
        byte = file.read(1)
        file.seek(8000)
        file.write(bytes([byte[0] ^ 1]))
    assert f"{table} has other contents" in refused(drill)
    shutil.copy2(good / "data" / table, place / "data" / table)

    settings = place / "data" / "postgresql.auto.conf"
    settings.write_text(settings.read_text() + "work_mem = '1GB'\n")
    assert "data/postgresql.auto.conf has other contents" in refused(drill)
    shutil.copy2(good / "data" / "postgresql.auto.conf", settings)

    found = drill.check("components_sound")
    assert found["status"] == "passed", found["detail"]
    (one,) = found["evidence"]["validated"]
    assert one["trial"]["queries"] == [{"query": COUNT, "row": ["500"]}]
    assert one["trial"]["amcheck"] == "passed"
    store: Store = drill.store
    catalogued = Catalogue(store).set("full-1")
    assert catalogued is not None
    assert catalogued.last_restore_tested is not None
    assert catalogued.last_restore_tested.ok
    assert not drill.restored.exists()


def test_a_missing_row_is_found(drill: Drill, original: Original) -> None:
    place = restored(drill)
    account = run_as()
    give_to(place, account)
    server = TrialServer(
        place / "data",
        programs=server_programs(original.server.major),
        account=account,
        log=place / "trial.log",
        hot_standby=False,
        superuser=original.server.user,
    )
    import time

    import psycopg

    with server:
        deadline = time.monotonic() + 60
        while True:
            try:
                with server.connected("postgres", seconds=30) as connection:
                    if connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,):
                        connection.execute("DELETE FROM item WHERE id = 250")
                        break
            except psycopg.OperationalError:
                assert time.monotonic() < deadline
            time.sleep(0.1)
    assert "differs from backup" in refused(drill)

    # A server changes what is compared: what was found before counts, and without that nothing is known.
    RecoveryNote(place).write(state="started")
    give_to(place, account)
    assert "differs from backup" in refused(drill)
    (place / "compared.json").unlink()
    found = drill.check("components_sound")
    assert found["status"] == "inconclusive", found["detail"]
    assert "was not compared" in found["detail"]


def test_wal_is_replayed_to_its_end_and_damage_in_it_is_found(drill: Drill, original: Original) -> None:
    original.sql("INSERT INTO item (text) SELECT 'later ' || n FROM generate_series(1, 50) n")
    original.ship()
    original.sql("INSERT INTO item (text) VALUES ('last')")
    original.ship()
    place = restored(drill)
    segments = sorted((place / "wal_restore").iterdir())
    assert len(segments) >= 2
    data = bytearray(segments[-2].read_bytes())
    good = bytes(data)
    data[len(data) // 3] ^= 1
    segments[-2].write_bytes(bytes(data))
    assert f"wal_restore/{segments[-2].name} has other contents" in refused(drill)
    segments[-2].write_bytes(good)
    found = drill.check("components_sound")
    assert found["status"] == "passed", found["detail"]
    assert found["evidence"]["validated"][0]["trial"]["queries"][0]["row"] == ["551"]

    # Without its hash: a server takes the damage for the end of the WAL, and goes on with an older state.
    again = Drill(
        drill.seaweedfs,
        drill.bucket,
        drill.folder,
        drill.store,
        programs=drill.programs,
        database=drill.database,
    )
    place = restored(again)
    import hashlib
    import json

    data[: len(good)] = good
    data[0:4096] = bytes(4096)
    (place / "wal_restore" / segments[-2].name).write_bytes(bytes(data))
    note = again.restored / "restored.json"
    content = json.loads(note.read_text())
    made = content["components"][0]["made"]
    made[f"wal_restore/{segments[-2].name}"] = hashlib.sha256(bytes(data)).hexdigest()
    note.write_text(json.dumps(content))
    detail = refused(again)
    assert "was recovered to" in detail or "cannot be used" in detail
