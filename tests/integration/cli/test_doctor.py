"""``fastvlm-ops doctor`` in an Airflow of its own, before a real S3 server: one fault after the other."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fastvlm_ops.core.backup import S3Storage, create_client, initialise_repository
from fastvlm_ops.core.backup.key_files import KeyFile
from fastvlm_ops.local.ports import free_ports
from fastvlm_ops.local.seaweedfs import SeaweedFS
from tests.fault_proxy import FaultProxy, answer_with, on
from tests.prometheus_stand_in import StandIn, healthy

pytestmark = pytest.mark.integration

PASSPHRASE = "correct horse battery staple"
# Nothing of Airflow runs here, nor a Prometheus, nor a service; test_backup_dags.py has the doctor look at an
# Airflow that does.
NOT_RUNNING = {
    "prometheus": "warning",
    "service fastvlm_service": "warning",
    "scheduler": "failed",
    "dag_processor": "failed",
    "triggerer": "failed",
    "dags": "warning",
}

POOLS = (
    "fastvlm_backup, fastvlm_maintenance, fastvlm_drills, fastvlm_drill_undo, fastvlm_device_linux-reference"
)


@dataclass
class Patient:
    """An Airflow, and what the doctor is told about it."""

    home: Path
    connection: dict[str, Any]
    variables: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("AIRFLOW", "AWS", "FASTVLM"))
        }
        kept |= {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__FASTVLM_OPS__RESTORE_DIR": str(self.home / "restores"),
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        if self.connection:
            kept["AIRFLOW_CONN_FASTVLM_S3"] = json.dumps(self.connection)
        return kept | self.variables

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(arguments, env=self.environment(), capture_output=True, text=True, timeout=120)

    def examine(self, *options: str) -> tuple[int, dict[str, dict[str, str]]]:
        """The exit code, and the findings by check."""
        result = self.run(sys.executable, "-m", "fastvlm_ops.cli", "doctor", "--json", *options)
        assert result.stdout.startswith("["), result.stdout + result.stderr
        return result.returncode, {finding["check"]: finding for finding in json.loads(result.stdout)}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An Airflow that has been given the package's files, and a folder to back up."""
    home = tmp_path_factory.mktemp("airflow")
    documents = home / "documents"
    documents.mkdir()
    (documents / "one.txt").write_text("one\n")
    patient = Patient(home, {})
    migrated = patient.run(Path(sys.executable).with_name("airflow"), "db", "migrate")
    assert migrated.returncode == 0, migrated.stderr
    command = (sys.executable, "-m", "fastvlm_ops.cli", "init", "--back-up", f"documents={documents}")
    done = patient.run(*command)
    assert done.returncode == 0, done.stderr
    assert f"pools created: {POOLS}" in done.stdout
    return home


@pytest.fixture
def patient(home: Path, seaweedfs: SeaweedFS, bucket: str) -> Patient:
    extra = {
        "bucket": bucket,
        "endpoint_url": seaweedfs.endpoint_url,
        "repository_passphrase": PASSPHRASE,
    }
    keys = {"login": seaweedfs.access_key_id, "password": seaweedfs.secret_access_key}
    return Patient(home, {"conn_type": "fastvlm_s3", **keys, "extra": extra})


def unwell(findings: dict[str, dict[str, str]]) -> dict[str, str]:
    return {check: finding["state"] for check, finding in findings.items() if finding["state"] != "ok"}


def assert_found(
    patient: Patient, check: str, found: str, remedy: str, *untried: str, state: str = "failed"
) -> None:
    """Exactly this is wrong; what could not be tried says so, and says what comes first."""
    code, findings = patient.examine()
    assert code == 1
    expected = NOT_RUNNING | {check: state} | dict.fromkeys(untried, "unknown")
    assert unwell(findings) == expected
    assert found in findings[check]["found"]
    assert remedy in findings[check]["remedy"]
    assert all(findings[name]["found"].startswith("not tried: ") for name in untried)
    assert PASSPHRASE not in json.dumps(findings)
    assert patient.connection.get("password", "no password") not in json.dumps(findings)


def test_nothing_is_wrong_but_that_nothing_runs(patient: Patient) -> None:
    code, findings = patient.examine()
    assert code == 1
    assert unwell(findings) == NOT_RUNNING
    assert findings["scheduler"]["remedy"] == "start it: airflow scheduler"
    assert "the first backup makes it" in findings["repository"]["found"]
    assert f"{POOLS} are there" in findings["pools"]["found"]


AFTER_CONNECTION = (
    "bucket",
    "clock",
    "permissions",
    "conditional writes",
    "repository",
    "lifecycle rules",
    "object lock",
)
AFTER_BUCKET = AFTER_CONNECTION[1:]


def test_no_connection(patient: Patient) -> None:
    patient.connection = {}
    assert_found(patient, "connection", "fastvlm_s3", "airflow connections add fastvlm_s3", *AFTER_CONNECTION)


def test_a_connection_of_another_type(patient: Patient) -> None:
    patient.connection["conn_type"] = "aws"
    assert_found(
        patient, "connection", "'aws', not 'fastvlm_s3'", "airflow connections delete", *AFTER_CONNECTION
    )


def test_a_misspelt_field(patient: Patient) -> None:
    patient.connection["extra"]["endpoint"] = patient.connection["extra"].pop("endpoint_url")
    assert_found(
        patient, "connection", "did you mean 'endpoint_url'?", "edit the connection", *AFTER_CONNECTION
    )


def test_a_wrong_secret(patient: Patient) -> None:
    patient.connection["password"] = "wrong-secret"
    assert_found(patient, "bucket", "SignatureDoesNotMatch", "password the secret access key", *AFTER_BUCKET)


def test_no_such_bucket(patient: Patient) -> None:
    patient.connection["extra"]["bucket"] = "no-such-bucket"
    assert_found(patient, "bucket", "'no-such-bucket' does not exist", "make the bucket", *AFTER_BUCKET)


def test_nobody_listens(patient: Patient) -> None:
    patient.connection["extra"]["endpoint_url"] = f"http://127.0.0.1:{free_ports(1)[0]}"
    assert_found(patient, "bucket", "did not answer HeadBucket", "start the server", *AFTER_BUCKET)


def test_a_server_that_hangs(patient: Patient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        patient.connection["extra"]["endpoint_url"] = f"http://127.0.0.1:{server.getsockname()[1]}"
        started = time.monotonic()
        assert_found(patient, "bucket", "did not answer HeadBucket", "start the server", *AFTER_BUCKET)
        assert time.monotonic() - started < 60  # the doctor gives it 5 s; without that it would be for ever


@pytest.mark.parametrize(
    ("operation", "remedy"), [("PutObject", "allow s3:PutObject"), ("GetObject", "allow s3:GetObject")]
)
def test_a_permission_is_missing(
    patient: Patient, seaweedfs: SeaweedFS, bucket: str, operation: str, remedy: str
) -> None:
    with (
        FaultProxy(seaweedfs.endpoint_url, "") as proxy,
        proxy.faults(on(f"{operation} probe/", answer_with(403, "AccessDenied"))),
    ):
        patient.connection["extra"]["endpoint_url"] = proxy.endpoint_url
        assert_found(patient, "permissions", f"s3:{operation} is denied", remedy, "conditional writes")


def test_backups_need_not_delete(patient: Patient, seaweedfs: SeaweedFS) -> None:
    with (
        FaultProxy(seaweedfs.endpoint_url, "") as proxy,
        proxy.faults(on("DeleteObject probe/", answer_with(403, "AccessDenied"))),
    ):
        patient.connection["extra"]["endpoint_url"] = proxy.endpoint_url
        _, findings = patient.examine()
    assert unwell(findings) == NOT_RUNNING
    assert "not delete" in findings["permissions"]["found"]


def test_a_lifecycle_rule_removes_backups(patient: Patient, seaweedfs: SeaweedFS, bucket: str) -> None:
    rule = {"ID": "tidy", "Filter": {"Prefix": ""}, "Status": "Enabled", "Expiration": {"Days": 9}}
    seaweedfs.client().put_bucket_lifecycle_configuration(
        Bucket=bucket,
        LifecycleConfiguration={"Rules": [rule]},  # type: ignore[list-item]
    )
    found = "rule tidy removes objects of the backups after 9 days"
    assert_found(patient, "lifecycle rules", found, "remove that rule")


def test_locks_that_the_bucket_does_not_take(
    patient: Patient, seaweedfs: SeaweedFS, moved: Callable[[str, bytes | None], Path], home: Path
) -> None:
    definitions = (home / "include" / "components.yaml").read_bytes()
    locking = definitions + b"\nobject_lock:\n  mode: governance\n  days: 30\n"
    file = moved("include/components.yaml", locking)
    assert_found(patient, "object lock", "takes no locked objects", "make a bucket with Object Lock")
    seaweedfs.client().create_bucket(Bucket="doctor-locked", ObjectLockEnabledForBucket=True)
    patient.connection["extra"]["bucket"] = "doctor-locked"
    _, findings = patient.examine()
    assert unwell(findings) == NOT_RUNNING
    assert "asks for 30 days, governance" in findings["object lock"]["found"]
    file.write_bytes(locking.replace(b"days: 30", b"days: 13"))
    _, findings = patient.examine()
    assert unwell(findings) == NOT_RUNNING | {"object lock": "warning"}
    assert "set object_lock.days of components.yaml to 14 or more" in findings["object lock"]["remedy"]


def test_conditional_writes_are_ignored(patient: Patient, rclone_url: str) -> None:
    patient.connection |= {"login": "key", "password": "secret"}
    patient.connection["extra"] |= {"endpoint_url": rclone_url, "bucket": "bucket"}
    code, findings = patient.examine()
    assert code == 1
    assert unwell(findings) == NOT_RUNNING | {"conditional writes": "failed"}
    assert "ignores If-None-Match" in findings["conditional writes"]["found"]
    assert "use a server that honours If-None-Match" in findings["conditional writes"]["remedy"]


def test_no_passphrase(patient: Patient) -> None:
    del patient.connection["extra"]["repository_passphrase"]
    assert_found(patient, "repository", "has no repository_passphrase", "keep a copy")


def test_a_wrong_passphrase(patient: Patient, seaweedfs: SeaweedFS, bucket: str) -> None:
    client = create_client(
        endpoint_url=seaweedfs.endpoint_url,
        access_key_id=seaweedfs.access_key_id,
        secret_access_key=seaweedfs.secret_access_key,
    )
    initialise_repository(S3Storage(client, bucket), PASSPHRASE)
    _, findings = patient.examine()
    assert unwell(findings) == NOT_RUNNING
    assert "opens with the passphrase" in findings["repository"]["found"]
    patient.connection["extra"]["repository_passphrase"] = "another one"
    assert_found(patient, "repository", "fits none of the 1 key slot", "the repository was made with")


def test_a_key_file(patient: Patient, seaweedfs: SeaweedFS, bucket: str, tmp_path: Path) -> None:
    client = create_client(
        endpoint_url=seaweedfs.endpoint_url,
        access_key_id=seaweedfs.access_key_id,
        secret_access_key=seaweedfs.secret_access_key,
    )
    path, key = tmp_path / "repository.key", KeyFile.generate()
    key.write(path)
    initialise_repository(S3Storage(client, bucket), (PASSPHRASE, key))
    patient.connection["extra"]["repository_key_file"] = str(path)
    _, findings = patient.examine()
    assert unwell(findings) == NOT_RUNNING
    assert "opens with the key file and with the passphrase" in findings["repository"]["found"]
    path.chmod(0o640)
    assert_found(patient, "repository", "can be read or written by others", "by its owner alone")


def test_a_missing_pool_which_it_can_make(patient: Patient) -> None:
    airflow = Path(sys.executable).with_name("airflow")
    assert patient.run(airflow, "pools", "delete", "fastvlm_maintenance").returncode == 0
    assert_found(patient, "pools", "missing: fastvlm_maintenance", "fastvlm-ops doctor --fix")
    _, findings = patient.examine("--fix")
    assert unwell(findings) == NOT_RUNNING
    assert findings["pools"]["found"] == "created: fastvlm_maintenance"
    _, findings = patient.examine()
    assert unwell(findings) == NOT_RUNNING


@pytest.fixture
def moved(home: Path) -> Iterator[Callable[[str, bytes | None], Path]]:
    """Replaces a file or folder of the home, or removes it, until the test is over."""
    aside: dict[Path, Path] = {}

    def move(name: str, data: bytes | None) -> Path:
        path = home / name
        aside[path] = path.with_name(f".{path.name}-aside")
        if path.exists():
            path.rename(aside[path])
        if data is not None:
            path.write_bytes(data)
        return path

    yield move
    for path, original in aside.items():
        path.unlink(missing_ok=True)
        if original.exists():
            original.rename(path)


def test_no_include_dir(patient: Patient, moved: Callable[[str, bytes | None], Path]) -> None:
    moved("include", None)
    code, findings = patient.examine()
    assert code == 1
    assert findings["include_dir"]["state"] == "failed"
    assert findings["include_dir"]["remedy"].startswith("fastvlm-ops init")
    assert (findings["definitions"]["state"], findings["components"]["state"]) == ("unknown", "unknown")


def test_broken_definitions(patient: Patient, moved: Callable[[str, bytes | None], Path]) -> None:
    moved(
        "include/components.yaml",
        b"version: 1\ncomponents:\n  - name: one\n    kind: flies\n    path: /srv\n",
    )
    untried = ("components", "lifecycle rules", "object lock")
    assert_found(patient, "definitions", "components[0]", "fastvlm-ops validate", *untried)


def test_a_component_that_is_not_there(patient: Patient, moved: Callable[[str, bytes | None], Path]) -> None:
    moved("documents", None)
    assert_found(patient, "components", "components[0] (documents): ", "edit ")


def test_a_relative_path_without_kit_dir(
    patient: Patient, moved: Callable[[str, bytes | None], Path]
) -> None:
    moved("include/components.yaml", b"version: 1\ncomponents: [{name: one, kind: files, path: models}]\n")
    assert_found(patient, "components", "kit_dir is not set", "edit ")


def test_restores_have_no_place(patient: Patient, home: Path) -> None:
    (home / "a-file").touch()
    patient.variables["AIRFLOW__FASTVLM_OPS__RESTORE_DIR"] = str(home / "a-file")
    assert_found(patient, "restore_dir", "cannot write to", "AIRFLOW__FASTVLM_OPS__RESTORE_DIR")


def test_a_dag_file_is_missing(patient: Patient, moved: Callable[[str, bytes | None], Path]) -> None:
    moved("dags/backup_create.py", None)
    assert_found(patient, "dag files", "lacks backup_create.py", "fastvlm-ops init --bring-back")


def test_a_dag_file_is_broken(patient: Patient, moved: Callable[[str, bytes | None], Path]) -> None:
    moved("dags/backup_create.py", b"from airflow.sdk import DAG\nimport no_such_module\n")
    assert_found(patient, "dag files", "no_such_module", "fastvlm-ops init --bring-back")


def test_no_plugin(patient: Patient, moved: Callable[[str, bytes | None], Path]) -> None:
    moved("plugins/fastvlm_ops_plugin.py", None)
    assert_found(patient, "plugin", "so Airflow has no Operations pages", "fastvlm-ops init")


def test_the_package_twice(patient: Patient, home: Path) -> None:
    (home / "plugins" / "fastvlm_ops").mkdir()
    try:
        assert_found(patient, "plugin", "is a second copy of the package", "remove ")
    finally:
        (home / "plugins" / "fastvlm_ops").rmdir()


def test_an_operations_database_of_a_later_version(patient: Patient, home: Path) -> None:
    path = home / "later.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        database.execute("INSERT INTO alembic_version VALUES ('9999')")
    database.close()
    patient.variables["AIRFLOW__FASTVLM_OPS__DATABASE_PATH"] = str(path)
    assert_found(patient, "operations database", "at version 9999", "install the newest fastvlm-ops")


def test_an_operations_database_that_is_none(patient: Patient, home: Path) -> None:
    (home / "text.db").write_text("no database, but more than sixteen bytes of text\n" * 100)
    patient.variables["AIRFLOW__FASTVLM_OPS__DATABASE_PATH"] = str(home / "text.db")
    assert_found(patient, "operations database", "text.db", "move the file aside")


def test_the_doctor_makes_no_database(patient: Patient, home: Path) -> None:
    patient.variables["AIRFLOW__FASTVLM_OPS__DATABASE_PATH"] = str(home / "new.db")
    _, findings = patient.examine()
    assert "does not exist yet; the first task makes it" in findings["operations database"]["found"]
    assert not (home / "new.db").exists()


def test_a_prometheus_that_does_not_answer(patient: Patient) -> None:
    (port,) = free_ports(1)
    connection = {"conn_type": "fastvlm_prometheus", "host": f"http://127.0.0.1:{port}"}
    patient.variables["AIRFLOW_CONN_FASTVLM_PROMETHEUS"] = json.dumps(connection)
    assert_found(patient, "prometheus", str(port), "edit fastvlm_prometheus")


def test_a_prometheus_that_answers(patient: Patient) -> None:
    with StandIn(healthy) as server:
        connection = {"conn_type": "fastvlm_prometheus", "host": server.url}
        patient.variables["AIRFLOW_CONN_FASTVLM_PROMETHEUS"] = json.dumps(connection)
        _, findings = patient.examine()
    assert findings["prometheus"]["state"] == "ok"
    assert "answers queries" in findings["prometheus"]["found"]


def test_a_service_that_does_not_answer(patient: Patient, home: Path) -> None:
    connection = {"conn_type": "fastvlm_service", "host": f"unix:{home / 'gone.sock'}"}
    patient.variables["AIRFLOW_CONN_FASTVLM_SERVICE"] = json.dumps(connection)
    assert_found(patient, "service fastvlm_service", "gone.sock", "edit fastvlm_service")


def test_people_get_a_table(patient: Patient) -> None:
    patient.connection["extra"]["bucket"] = "no-such-bucket"
    result = patient.run(sys.executable, "-m", "fastvlm_ops.cli", "doctor")
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    (at,) = (number for number, line in enumerate(lines) if line.startswith("FAILED  bucket"))
    assert lines[at + 1].strip().startswith("→ make the bucket")
    assert lines[-1].endswith("4 failed, 6 unknown")
    assert "\x1b" not in result.stdout
