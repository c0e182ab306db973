"""Checks of the connection ``fastvlm_s3`` and the bucket behind it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from fastvlm_ops import settings as airflow_settings
from fastvlm_ops.cli.doctor.findings import Finding, failed, not_tried, ok, warning
from fastvlm_ops.core.backup.errors import (
    AccessDeniedError,
    BackupError,
    BucketNotFoundError,
    CredentialsError,
    KeyFileError,
    ObjectLockError,
    RepositoryNotFoundError,
    StorageError,
    UnsafeEndpointError,
    WrongKeyError,
)
from fastvlm_ops.core.backup.lifecycle import compare, dangers, read_rules
from fastvlm_ops.core.backup.probing import probe_conditional_writes
from fastvlm_ops.core.backup.repository import open_repository
from fastvlm_ops.core.backup.storage import S3Storage, create_client
from fastvlm_ops.core.config import ConfigError, load_components
from fastvlm_ops.hooks.connections import ConnectionSettingError
from fastvlm_ops.hooks.s3 import BackupRepositoryHook, S3ConnectionSettings

if TYPE_CHECKING:
    from fastvlm_ops.core.backup.clients import Client

_CONNECTION, _BUCKET, _PERMISSIONS = "connection", "bucket", "permissions"
_AFTER = ("clock", _PERMISSIONS, "conditional writes", "repository", "lifecycle rules", "object lock")
_SKEW_SECONDS = 300
_ADD = (
    "airflow connections add fastvlm_s3 --conn-type fastvlm_s3 --conn-login ACCESS_KEY_ID"
    " --conn-password SECRET_ACCESS_KEY"
    ' --conn-extra \'{"bucket": "…", "repository_passphrase": "…"}\''
)
_LEAST_LOCK_DAYS = 14  # what has less than half left is renewed once a week
_EDIT = "edit the connection fastvlm_s3 (Admin, Connections)"


def examine() -> Iterator[Finding]:
    """The connection, then the bucket; each of these as far as those before it allow."""
    connection = BackupRepositoryHook.default_conn_name
    try:
        found = BackupRepositoryHook.get_connection(connection)
    except Exception as error:  # Airflow has several for "not defined", and backends raise their own
        yield failed(_CONNECTION, f"{connection} cannot be had: {str(error).splitlines()[0]}", _ADD)
        yield from (not_tried(check, _CONNECTION) for check in (_BUCKET, *_AFTER))
        return
    if found.conn_type != BackupRepositoryHook.conn_type:
        message = f"{connection} is of type {found.conn_type!r}, not {BackupRepositoryHook.conn_type!r}"
        yield failed(_CONNECTION, message, f"airflow connections delete {connection}, then {_ADD}")
        yield from (not_tried(check, _CONNECTION) for check in (_BUCKET, *_AFTER))
        return
    try:
        settings = S3ConnectionSettings.from_connection(found)
    except ConnectionSettingError as error:
        yield failed(_CONNECTION, str(error), _EDIT)
        yield from (not_tried(check, _CONNECTION) for check in (_BUCKET, *_AFTER))
        return
    yield ok(_CONNECTION, f"{connection} names the bucket {settings.bucket!r}")
    yield from _examine_bucket(settings)


def _examine_bucket(settings: S3ConnectionSettings) -> Iterator[Finding]:
    # One short attempt each: a person is waiting, and a server that hangs has failed.
    client = create_client(
        endpoint_url=settings.endpoint_url,
        region_name=settings.region_name,
        access_key_id=settings.access_key_id,
        secret_access_key=settings.secret_access_key,
        connect_timeout_seconds=3,
        read_timeout_seconds=5,
        attempts=1,
    )
    storage = S3Storage(client, settings.bucket, settings.prefix)
    try:
        storage.check_bucket()
    except StorageError as error:
        yield failed(_BUCKET, str(error), _bucket_remedy(error, settings))
        yield from (not_tried(check, _BUCKET) for check in _AFTER)
        return
    yield ok(_BUCKET, f"{settings.bucket!r} answers at {client.endpoint_url}")
    yield from _clock(client, storage)
    permissions = list(_permissions(storage))
    yield from permissions
    if any(finding.state == "failed" for finding in permissions):
        yield not_tried("conditional writes", _PERMISSIONS)
    else:
        yield _conditional_writes(storage)
    yield _repository(storage, settings)
    yield _lifecycle(storage)
    yield _object_lock(storage)


def _bucket_remedy(error: StorageError, settings: S3ConnectionSettings) -> str:
    if isinstance(error, BucketNotFoundError):
        return f"make the bucket: aws s3 mb s3://{settings.bucket}; or {_EDIT}"
    if isinstance(error, CredentialsError):
        return f"{_EDIT}: login is the access key id, password the secret access key"
    if isinstance(error, AccessDeniedError):
        return f"allow s3:ListBucket on {settings.bucket!r} for these credentials"
    return f"start the server, or {_EDIT}: endpoint_url is {settings.endpoint_url or 'that of AWS'}"


def _clock(client: Client, storage: S3Storage) -> Iterator[Finding]:
    """S3 refuses requests whose time is off by more than a quarter of an hour."""
    # Of a request that a role which may list below its prefix alone is allowed too.
    answer = client.list_objects_v2(Bucket=storage.bucket, Prefix=f"{storage.prefix}config.json", MaxKeys=1)
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    there = headers.get("date")
    if there is None:
        yield warning("clock", "the server does not say what time it is", "compare the clocks by hand")
        return
    skew = abs((datetime.now(UTC) - parsedate_to_datetime(there)).total_seconds())
    if skew > _SKEW_SECONDS:
        yield warning(
            "clock", f"this clock and the server's differ by {skew:.0f} s", "set the clock (chrony)"
        )
    else:
        yield ok("clock", f"within {max(1, round(skew))} s of the server's")


def _permissions(storage: S3Storage) -> Iterator[Finding]:
    """Each verb that the engine uses, on an object of its own below ``probe/``."""
    name = f"probe/{uuid.uuid4().hex}"
    tries: list[tuple[str, Callable[[], object]]] = [
        ("s3:ListBucket", lambda: list(storage.list("config.json"))),
        ("s3:PutObject", lambda: storage.put(name, b"probe")),
        ("s3:GetObject", lambda: storage.get(name, limit_bytes=1 << 10)),
    ]
    for action, attempt in tries:
        try:
            attempt()
        except StorageError as error:
            yield failed(
                _PERMISSIONS, str(error), f"allow {action} below s3://{storage.bucket}/{storage.prefix}"
            )
            return
    try:
        storage.delete(name)
    except AccessDeniedError as error:  # a backup role may do without
        yield ok(_PERMISSIONS, f"list, read and write; not delete, which backups do not need ({error})")
        return
    except StorageError as error:
        yield failed(_PERMISSIONS, str(error), "look at the server's log")
        return
    yield ok(_PERMISSIONS, "list, read, write and delete")


def _conditional_writes(storage: S3Storage) -> Finding:
    check = "conditional writes"
    try:
        probe_conditional_writes(storage)
    except UnsafeEndpointError as error:
        remedy = "use a server that honours If-None-Match, as AWS, MinIO and SeaweedFS do"
        return failed(check, str(error), remedy)
    except StorageError as error:
        return failed(check, str(error), "look at the server's log")
    return ok(check, "a second write to one name is refused")


def _repository(storage: S3Storage, settings: S3ConnectionSettings) -> Finding:
    check = "repository"
    if not settings.repository_passphrase and not settings.repository_key_file:
        missing = "the connection has no repository_passphrase and no repository_key_file"
        return failed(check, missing, f"{_EDIT} and keep a copy of it")
    try:
        secrets = settings.secrets()
    except KeyFileError as error:
        remedy = f"make it readable by its owner alone, on every worker, or {_EDIT}"
        return failed(check, str(error), remedy)
    opened = []
    for secret in secrets:  # each by itself: one of them may be all that a worker has
        what = "the passphrase" if isinstance(secret, str) else "the key file"
        try:
            repository = open_repository(storage, secret)
        except RepositoryNotFoundError:
            return ok(check, f"{storage} holds none yet; the first backup makes it")
        except WrongKeyError as error:
            remedy = (
                f"{_EDIT}: enter the passphrase that the repository was made with, or the key file's path"
            )
            return failed(check, str(error), remedy)
        except BackupError as error:
            return failed(check, str(error), "see docs/runbooks/backup_maintenance.md")
        opened.append(what)
    return ok(check, f"{repository.repository_id} at {storage} opens with {' and with '.join(opened)}")


def _lifecycle(storage: S3Storage) -> Finding:
    """No rule of the bucket removes backups, and ours is as the file says."""
    check = "lifecycle rules"
    try:
        rules = read_rules(storage).rules
    except AccessDeniedError as error:  # a backup role may do without
        what = f"whether a rule removes backups is unknown: {error}"
        return warning(check, what, f"allow s3:GetLifecycleConfiguration on {storage.bucket!r}")
    except StorageError as error:
        return failed(check, str(error), "look at the server's log")
    if found := dangers(storage, rules):
        remedy = f"remove that rule, or limit it to what is not below {storage}"
        return failed(check, "; ".join(found), remedy)
    try:
        classes = load_components(airflow_settings.include_dir()).storage_classes
    except (ConfigError, airflow_settings.SettingError):
        return not_tried(check, "definitions")  # which says what is wrong with the file
    difference = compare(storage, rules, classes)
    if difference != "equal":
        return failed(check, f"our rule is {difference}", "fastvlm-ops storage-classes apply")
    return ok(check, "none removes backups" + ("; packs move as components.yaml says" if classes else ""))


def _object_lock(storage: S3Storage) -> Finding:
    """Where what is stored is to be locked, the bucket takes locks."""
    check = "object lock"
    try:
        lock = load_components(airflow_settings.include_dir()).object_lock
    except (ConfigError, airflow_settings.SettingError):
        return not_tried(check, "definitions")  # which says what is wrong with the file
    if lock is None:
        return ok(check, "components.yaml asks for none")
    bucket = storage.bucket
    try:
        storage.about_bucket(
            "GetBucketObjectLockConfiguration",
            lambda: storage.client.get_object_lock_configuration(Bucket=bucket),
        )
    except ObjectLockError as error:
        command = "aws s3api create-bucket --object-lock-enabled-for-bucket --bucket …"
        remedy = f"make a bucket with Object Lock ({command}) and {_EDIT}"
        return failed(check, str(error), f"{remedy}; or remove object_lock from components.yaml")
    except AccessDeniedError as error:  # a backup role may do without
        what = f"whether the bucket takes locks is unknown: {error}"
        return warning(check, what, f"allow s3:GetBucketObjectLockConfiguration on {bucket!r}")
    except StorageError as error:
        return failed(check, str(error), "look at the server's log")
    found = f"the bucket takes locks; components.yaml asks for {lock.days} days, {lock.mode}"
    if lock.days < _LEAST_LOCK_DAYS:
        what = f"{found}: they run out before backup_maintenance renews them"
        return warning(check, what, f"set object_lock.days of components.yaml to {_LEAST_LOCK_DAYS} or more")
    return ok(check, found)
