"""The connection to the backup repository: what it accepts, and what its test says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Connection

from fastvlm_ops.core.backup.errors import KeyFileError
from fastvlm_ops.core.backup.key_files import KeyFile
from fastvlm_ops.core.backup.key_slots import add_slot
from fastvlm_ops.core.backup.object_policy import ObjectPolicy
from fastvlm_ops.hooks.connections import ConnectionSettingError
from fastvlm_ops.hooks.s3 import BackupRepositoryHook, S3ConnectionSettings
from tests.airflow_home import ROOT
from tests.airflow_kit import set_connection

GOOD = {"bucket": "b", "repository_passphrase": "long enough"}


def settings_of(extra: dict[str, Any], **fields: Any) -> S3ConnectionSettings:
    import json

    return S3ConnectionSettings.from_connection(
        Connection(conn_id="fastvlm_s3", conn_type="fastvlm_s3", extra=json.dumps(extra), **fields)
    )


def test_reads_all_fields() -> None:
    extra = {**GOOD, "prefix": "/kit/", "endpoint_url": "http://localhost:1", "region_name": "eu-central-1"}
    settings = settings_of(extra, login="id", password="secret")
    assert settings == S3ConnectionSettings(
        conn_id="fastvlm_s3",
        bucket="b",
        prefix="kit",
        endpoint_url="http://localhost:1",
        region_name="eu-central-1",
        access_key_id="id",
        secret_access_key="secret",
        repository_passphrase="long enough",
    )
    assert "secret" not in repr(settings)
    assert "long enough" not in repr(settings)


def test_a_key_file_comes_with_the_passphrase_or_alone(tmp_path: Path) -> None:
    path = tmp_path / "key"
    KeyFile(b"k" * 40).write(path)
    both = settings_of({**GOOD, "repository_key_file": str(path)})
    assert both.secrets() == (KeyFile(b"k" * 40), "long enough")
    assert settings_of({"bucket": "b", "repository_key_file": str(path)}).secrets() == (KeyFile(b"k" * 40),)
    assert settings_of(GOOD).secrets() == ("long enough",)
    with pytest.raises(ConnectionSettingError, match="'repository_passphrase' is empty, and"):
        settings_of({"bucket": "b"}).secrets()
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="can be read or written by others"):  # also with a passphrase
        both.secrets()


def test_empty_fields_of_the_form_count_as_absent() -> None:
    settings = settings_of(
        {**GOOD, "prefix": "", "endpoint_url": None, "region_name": ""}, login="", password=""
    )
    assert settings.prefix == ""
    assert settings.endpoint_url is settings.region_name is settings.access_key_id is None


@pytest.mark.parametrize(
    ("extra", "fields", "message"),
    [
        ({}, {}, "the field 'bucket' is empty"),
        ({"bucket": 7}, {}, "the field 'bucket' in extra is not text"),
        ({**GOOD, "endpoint": "http://x"}, {}, "unknown field 'endpoint'; did you mean 'endpoint_url'?"),
        ({**GOOD, "endpoint_url": "localhost:9000"}, {}, "it must begin with https:// or http://"),
        ({**GOOD, "repository_key_file": "key"}, {}, "it must be an absolute path on the worker"),
        (GOOD, {"login": "id"}, r"the secret access key \(password\) is missing"),
        (GOOD, {"password": "secret"}, r"the access key id \(login\) is missing"),
    ],
)
def test_refuses(extra: dict[str, Any], fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConnectionSettingError, match=rf"Connection 'fastvlm_s3': .*{message}") as caught:
        settings_of(extra, **fields)
    assert caught.value.retryable is False


def test_an_absent_connection_is_named() -> None:
    with pytest.raises(ConnectionSettingError, match="Connection 'absent': is not defined; create it"):
        _ = BackupRepositoryHook("absent").settings


def test_masks_its_secrets(connection: dict[str, Any]) -> None:
    from airflow.sdk._shared.secrets_masker import redact

    _ = BackupRepositoryHook().settings
    line = f"{connection['password']} {connection['extra']['repository_passphrase']}"
    assert redact(line) == "*** ***"


def test_masks_what_is_in_the_key_file(
    connection: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from airflow.sdk._shared.secrets_masker import redact

    key = KeyFile.generate()
    key.write(tmp_path / "key")
    extra = {**connection["extra"], "repository_key_file": str(tmp_path / "key")}
    set_connection(monkeypatch, {**connection, "extra": extra})
    assert BackupRepositoryHook().get_secrets()[0] == key
    assert redact(f"it is {key.data.decode()}") == "it is ***"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "answers and honours conditional writes. It holds no repository yet"),
        ({"bucket": "absent-bucket"}, "bucket 'absent-bucket' does not exist"),
        ({"password": "wrong"}, "refuses the credentials (SignatureDoesNotMatch)"),
        ({"login": "wrong"}, "refuses the credentials (InvalidAccessKeyId)"),
        (
            {"repository_passphrase": ""},
            "the field 'repository_passphrase' is empty",
        ),
        ({"endpoint_url": "http://127.0.0.1:9"}, "http://127.0.0.1:9 did not answer"),
    ],
    ids=["good", "bucket", "secret", "key id", "passphrase", "endpoint"],
)
def test_the_test_button(
    change: dict[str, str],
    message: str,
    connection: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if change.keys() & connection.keys():
        set_connection(monkeypatch, {**connection, **change})
    else:
        set_connection(monkeypatch, {**connection, "extra": {**connection["extra"], **change}})
    good, said = BackupRepositoryHook().test_connection()
    assert message in said
    assert good is not bool(change)


def test_the_test_button_tries_the_passphrase(
    connection: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    BackupRepositoryHook().initialise_repository()
    good, said = BackupRepositoryHook().test_connection()
    assert good
    assert said.endswith("Its repository opens with the passphrase.")
    set_connection(
        monkeypatch, {**connection, "extra": {**connection["extra"], "repository_passphrase": "another"}}
    )
    good, said = BackupRepositoryHook().test_connection()
    assert not good
    assert "passphrase fits none" in said


def test_the_test_button_tries_each_secret_by_itself(
    connection: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    repository = BackupRepositoryHook().initialise_repository()
    path, key = tmp_path / "key", KeyFile.generate()
    key.write(path)
    extra = {**connection["extra"], "repository_key_file": str(path)}
    set_connection(monkeypatch, {**connection, "extra": extra})
    assert BackupRepositoryHook().open_repository().ring == repository.ring, "one of them is enough to work"
    good, said = BackupRepositoryHook().test_connection()
    assert not good
    assert "the key file fits none of the 1 key slot(s)" in said
    add_slot(repository, key)
    good, said = BackupRepositoryHook().test_connection()
    assert good
    assert said.endswith("Its repository opens with the key file and with the passphrase.")
    path.chmod(0o644)
    good, said = BackupRepositoryHook().test_connection()
    assert not good
    assert f"(mode 0644): chmod 600 {path}" in said


def test_refuses_an_endpoint_that_ignores_conditions(
    connection: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from fastvlm_ops.core.backup import S3Storage

    honest = S3Storage.claim

    def claim(self: S3Storage, name: str, data: bytes) -> bool:
        honest(self, name, data)
        return True

    monkeypatch.setattr(S3Storage, "claim", claim)
    good, said = BackupRepositoryHook().test_connection()
    assert not good
    assert "ignores If-None-Match" in said


@pytest.mark.parametrize(
    ("section", "policy"),
    [
        ("", ObjectPolicy()),
        ("object_lock: {mode: governance, days: 7}\n", ObjectPolicy("GOVERNANCE", 7)),
        ("object_lock: {mode: compliance, days: 30}\n", ObjectPolicy("COMPLIANCE", 30)),
        ("object_lock: {mode: compliance}\n", ObjectPolicy()),
    ],
    ids=["none", "governance", "compliance", "broken"],
)
def test_what_is_stored_is_locked_as_the_file_says(
    section: str,
    policy: ObjectPolicy,
    connection: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shipped = (ROOT / "include" / "components.yaml").read_text()
    (tmp_path / "components.yaml").write_text(shipped + section)
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__INCLUDE_DIR", str(tmp_path))
    assert BackupRepositoryHook().get_storage().policy == policy
    assert ("object_lock.days: is missing" in caplog.text) is ("{mode: compliance}" in section)


def test_a_machine_that_only_restores_needs_no_definitions(
    connection: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__INCLUDE_DIR", str(tmp_path / "nowhere"))
    assert BackupRepositoryHook().get_storage().policy == ObjectPolicy()
