"""Fixtures of tests that run operators: a small kit to back up, and the connection to a real bucket."""

from __future__ import annotations

import json
import shutil
import sqlite3
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.airflow_home import AIRFLOW_HOME, ROOT

PASSPHRASE = "correct horse battery staple"
COMPONENTS = ["models", "configuration", "application_data", "uploads"]


@dataclass(frozen=True)
class Kit:
    """A small kit, and where restores go."""

    folder: Path
    restores: Path


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kit:
    """A kit that has every component of include/components.yaml, with the settings that point to it."""
    folder, restores, scratch = tmp_path / "kit", tmp_path / "restores", tmp_path / "scratch"
    scratch.mkdir()
    files = {
        "models/fastvlm_0.5b.mlpackage/Manifest.json": b"{}",
        "models/fastvlm_0.5b.mlpackage/Data/weights.bin": bytes(range(256)) * 2000,
        "configuration/service.yaml": b"port: 8080\n",
        "configuration/regions/eu.yaml": b"name: eu\n",
        "uploads/photo.jpg": b"\xff\xd8" + b"photo" * 1000,
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "data").mkdir()
    with sqlite3.connect(folder / "data" / "application.db") as database:
        database.execute("CREATE TABLE request (id INTEGER PRIMARY KEY, text TEXT)")
        database.executemany("INSERT INTO request (text) VALUES (?)", [(f"request {n}",) for n in range(500)])
    database.close()
    settings = {"kit_dir": folder, "restore_dir": restores, "scratch_dir": scratch}
    settings["include_dir"] = ROOT / "include"
    for option, value in settings.items():
        monkeypatch.setenv(f"AIRFLOW__FASTVLM_OPS__{option.upper()}", str(value))
    monkeypatch.setenv("AIRFLOW_CONN_FASTVLM_AIRFLOW_DB", f"sqlite:///{AIRFLOW_HOME}/airflow.db")
    return Kit(folder, restores)


@pytest.fixture
def connection(s3_client: Any, bucket: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The connection ``fastvlm_s3`` to an empty bucket, as a dict; :func:`set_connection` changes it."""
    credentials = s3_client._request_signer._credentials
    fields = {
        "conn_type": "fastvlm_s3",
        "login": credentials.access_key,
        "password": credentials.secret_key,
        "extra": {
            "bucket": bucket,
            "prefix": "kit",
            "endpoint_url": s3_client.meta.endpoint_url,
            "repository_passphrase": PASSPHRASE,
        },
    }
    set_connection(monkeypatch, fields)
    return fields


def set_connection(monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]) -> None:
    """Define the connection ``fastvlm_s3``.

    :param monkeypatch: of the test
    :param fields: of the connection
    """
    monkeypatch.setenv("AIRFLOW_CONN_FASTVLM_S3", json.dumps(fields))


@pytest.fixture
def second_place(
    seaweedfs: Any, connection: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """The connection ``fastvlm_s3_replica`` to another empty bucket."""
    name = seaweedfs.make_bucket(f"second-{uuid.uuid4().hex[:12]}")
    fields = {**connection, "extra": {**connection["extra"], "bucket": name, "prefix": "copy"}}
    monkeypatch.setenv("AIRFLOW_CONN_FASTVLM_S3_REPLICA", json.dumps(fields))
    return fields


@pytest.fixture
def published(kit: Kit, connection: dict[str, Any]) -> None:
    """A published backup, made without Airflow."""
    publish(repository_behind(connection), kit, 0)


def repository_behind(connection: dict[str, Any]) -> Any:
    """The repository of the connection ``fastvlm_s3``, opened without Airflow; made where there is none.

    :param connection: the fixture
    """
    from fastvlm_ops.core.backup import S3Storage, create_client, initialise_repository

    extra = connection["extra"]
    client = create_client(
        endpoint_url=extra["endpoint_url"],
        access_key_id=connection["login"],
        secret_access_key=connection["password"],
    )
    storage = S3Storage(client, extra["bucket"], extra["prefix"])
    return initialise_repository(storage, extra["repository_passphrase"])


def publish(
    repository: Any, kit: Kit, number: int, names: Sequence[str] = ("models", "configuration")
) -> str:
    """Back the kit up and publish it, without Airflow; returns the id of the set.

    :param repository: from :func:`repository_behind`
    :param kit: of the test
    :param number: of the set; it is about so many days after 4 January 2026
    :param names: of the components
    """
    from fastvlm_ops.core.backup import FolderSource, create_snapshot, publish_set

    for name in names:
        source = FolderSource(kit.folder / name)
        create_snapshot(repository, source, component=name, kind="full", run_key=f"run-{number}")
    made = publish_set(
        repository,
        set_id=f"full-{number}",
        kind="full",
        run_key=f"run-{number}",
        components=names,
        timestamp=datetime(2026, 1, 4 + number, tzinfo=UTC),
    )
    return str(made.set_id)


def keep_little(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, enabled: bool, max_share: float = 1
) -> None:
    """Set ``include_dir`` to definitions whose policy keeps only the newest backup.

    :param folder: where they are written
    :param monkeypatch: of the test
    :param enabled: whether the runs of the schedule prune
    :param max_share: of which a plan is refused that removes more
    """
    include = write_little(folder, enabled=enabled, max_share=max_share)
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__INCLUDE_DIR", str(include))


def write_little(folder: Path, *, enabled: bool = False, max_share: float = 1) -> Path:
    """Write a copy of the shipped definitions whose policy keeps only the newest backup; returns where.

    For the parameters see :func:`keep_little`.
    """
    include = folder / "include"
    shutil.copytree(ROOT / "include", include)
    file = include / "components.yaml"
    head = file.read_text().partition("\nretention:")[0]
    pruning = f"enabled: {str(enabled).lower()}, keep_unreferenced_days: 0, max_share: {max_share}"
    policy = "keep_last: 1, keep_daily: 0, keep_weekly: 0, keep_monthly: 0, keep_yearly: 0"
    file.write_text(f"{head}\nretention: {{{policy}}}\npruning: {{{pruning}}}\n")
    return include
