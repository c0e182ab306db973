"""A drill's surroundings for tests of steps that restore: a real repository, real folders."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import uuid
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from fastvlm_ops.core.backup import (
    FolderSource,
    Repository,
    S3Storage,
    SQLiteSource,
    create_client,
    create_snapshot,
    open_repository,
    publish_set,
)
from fastvlm_ops.core.config import Components, load_components
from fastvlm_ops.core.config.disaster_recovery_steps import RecoveryCheck, RestoreAction
from fastvlm_ops.core.coreml.inspecting import inspect_package
from fastvlm_ops.core.disaster_recovery.fault_types import Fault
from fastvlm_ops.core.disaster_recovery.plan import DrillPlan
from fastvlm_ops.core.disaster_recovery.steps import run_action, run_check
from fastvlm_ops.core.disaster_recovery.surroundings import Surroundings
from fastvlm_ops.core.services.control import ServiceControl
from fastvlm_ops.core.store import Store
from fastvlm_ops.local.seaweedfs import SeaweedFS

PASSPHRASE = "a passphrase of the tests"
_ACTIONS: TypeAdapter[Any] = TypeAdapter(RestoreAction)
_CHECKS: TypeAdapter[Any] = TypeAdapter(RecoveryCheck)


@dataclass
class Drill:
    """One drill on a repository.

    :param folder: of the kit, of all drills, and of this one
    """

    seaweedfs: SeaweedFS
    bucket: str
    folder: Path
    store: Store
    control: ServiceControl | None = None
    fault: Fault | None = None
    inspect: Callable[[Path], object] | None = inspect_package
    programs: Path | None = None
    database: Callable[[str], str] | None = None
    definition: dict[str, Any] = field(default_factory=dict)
    planned_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    said: list[str] = field(default_factory=list)
    repository: Any = None
    run_key: str = field(default_factory=lambda: f"disaster_recovery_test/{uuid.uuid4().hex}")

    @property
    def fault_id(self) -> str:
        return hashlib.sha256(self.run_key.encode()).hexdigest()[:16]

    @property
    def own(self) -> Path:
        """Folder of this drill."""
        return self.folder / "drills" / self.fault_id

    @property
    def restored(self) -> Path:
        """What was restored to scratch."""
        return self.own / "scratch" / "restored"

    def open(self, endpoint: str | None = None) -> Repository:
        """Open the repository, by another address where one is given."""
        client = self.seaweedfs.client()
        if endpoint is not None:
            client = create_client(
                endpoint_url=endpoint,
                access_key_id=self.seaweedfs.access_key_id,
                secret_access_key=self.seaweedfs.secret_access_key,
                connect_timeout_seconds=1,
                read_timeout_seconds=1,
                attempts=2,
            )
        return open_repository(S3Storage(client, self.bucket, "some/prefix"), PASSPHRASE, chunks=True)

    def plan(self) -> DrillPlan:
        return DrillPlan(
            run_key=self.run_key,
            fault_id=self.fault_id,
            scenario="test",
            definition=self.definition,
            definition_hash="0" * 64,
            include_hash="0" * 64,
            dry_run=False,
            environment="demo",
            control=None if self.control is None else self.control.address,
            url=None,
            fault=self.fault,
            time_to_live_seconds=60,
            instances_before=(),
            folder=str(self.own),
            host="here",
            planned_at=self.planned_at.isoformat(),
        )

    def around(self) -> Surroundings:
        return Surroundings(
            control=self.control,
            store=self.store,
            open_repository=self.open,
            open_repository_through=self.open,
            database_dsn=None,
            components=self.components,
            kit_dir=self.folder / "kit",
            postgresql_bin_dir=self.programs,
            scratch=self.own / "scratch",
            drill_dir=self.folder / "drills",
            say=self.said.append,
            as_of=datetime.now(UTC),
            inspect_package=self.inspect,
            cluster_database=self.database,
        )

    def components(self) -> Components:
        include = self.folder / "include"
        return load_components(include)

    def act(self, action: str, **values: Any) -> dict[str, Any]:
        """Run an action of a scenario."""
        step = _ACTIONS.validate_python({"action": action, "within_seconds": 120.0, **values})
        return run_action(step, self.plan(), self.around())

    def check(self, check: str, **values: Any) -> dict[str, Any]:
        """Run a check of a scenario."""
        step = _CHECKS.validate_python({"check": check, "within_seconds": 120.0, **values})
        return run_check(step, self.plan(), self.around())


def make_kit(folder: Path, package: Path) -> dict[str, Any]:
    """Write a small kit; returns its sources, by component.

    :param package: a model that is copied into it
    """
    import shutil

    kit = folder / "kit"
    shutil.copytree(package, kit / "models" / "TextDecoder-v1.mlpackage")
    configuration = kit / "configuration"
    (configuration / "nested").mkdir(parents=True)
    (configuration / "service.yaml").write_text(yaml.safe_dump({"model": "TextDecoder-v1", "timeout": 3}))
    (configuration / "nested" / "limits.json").write_text(json.dumps({"rps": 100}))
    (configuration / "current").symlink_to("service.yaml")
    (configuration / "hard").hardlink_to(configuration / "service.yaml")
    with (configuration / "sparse.bin").open("wb") as file:
        file.write(b"begin")
        file.seek(1 << 20)
        file.write(b"end")
    (kit / "uploads").mkdir()
    (kit / "uploads" / "broken.json").write_text("{ not JSON")
    (kit / "uploads" / "empty").touch()
    database = kit / "application.db"
    with closing(sqlite3.connect(database)) as opened, opened:
        opened.execute("CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT)")
        opened.executemany("INSERT INTO customer (name) VALUES (?)", [(f"name {n}",) for n in range(500)])
    folders = {name: FolderSource(kit / name) for name in ("models", "configuration", "uploads")}
    return {**folders, "application_data": SQLiteSource(database, scratch_dir=folder / "scratch")}


def back_up(repository: Repository, sources: dict[str, Any], set_id: str, kind: Any = "full") -> str:
    """Publish a backup of all sources; returns its id."""
    for name, source in sources.items():
        create_snapshot(repository, source, component=name, kind=kind, run_key=set_id)
    publish_set(
        repository,
        set_id=set_id,
        kind=kind,
        run_key=set_id,
        components=list(sources),
        timestamp=datetime.now(UTC),
    )
    return set_id
