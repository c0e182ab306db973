"""Hook to the S3 bucket that holds the backup repository."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from fastvlm_ops.hooks.components import object_policy
from fastvlm_ops.hooks.connections import ConnectionSettingError, unknown_field

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from fastvlm_ops.core.backup.clients import Client
    from fastvlm_ops.core.backup.keys import Secret
    from fastvlm_ops.core.backup.repository import Repository
    from fastvlm_ops.core.backup.storage import S3Storage
    from fastvlm_ops.core.backup.usage import Usage

_EXTRAS = (
    "bucket",
    "prefix",
    "endpoint_url",
    "region_name",
    "repository_passphrase",
    "repository_key_file",
)


@dataclass(frozen=True)
class S3ConnectionSettings:
    """What a connection of type ``fastvlm_s3`` says.

    :param conn_id: the connection's id, for messages
    :param bucket: name of the bucket, which must exist
    :param prefix: where in the bucket the repository is; empty for all of it
    :param endpoint_url: the S3 server; None for AWS
    :param region_name: the region; None for us-east-1, which other servers ignore
    :param access_key_id: None for the worker's own AWS identity
    :param secret_access_key: None together with ``access_key_id``
    :param repository_passphrase: what opens the repository; None where it is not set
    :param repository_key_file: path on the worker of a file that opens it, instead of the passphrase or as
        well; None where it is not set
    """

    conn_id: str
    bucket: str
    prefix: str = ""
    endpoint_url: str | None = None
    region_name: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    repository_passphrase: str | None = field(default=None, repr=False)
    repository_key_file: str | None = None

    def secrets(self) -> tuple[Secret, ...]:
        """What opens the repository: the key file, the passphrase, or both.

        :raises ConnectionSettingError: there is neither
        :raises KeyFileError: the key file is missing, too short, or others than its owner can read it
        """
        from fastvlm_ops.core.backup.key_files import KeyFile

        found: list[Secret] = []
        if self.repository_key_file:
            found.append(KeyFile.read(Path(self.repository_key_file)))
        if self.repository_passphrase:
            found.append(self.repository_passphrase)
        if not found:
            raise ConnectionSettingError(
                self.conn_id,
                "the field 'repository_passphrase' is empty, and 'repository_key_file' too; enter one",
            )
        return tuple(found)

    @classmethod
    def from_connection(cls, connection: Connection) -> S3ConnectionSettings:
        """Read and check a connection.

        :param connection: of type ``fastvlm_s3``
        :raises ConnectionSettingError: a field is missing, unknown or cannot be used
        """
        conn_id = connection.conn_id
        extras = _checked_extras(conn_id, connection.extra_dejson)
        bucket, endpoint = extras.pop("bucket", None), extras.get("endpoint_url")
        if not bucket:
            raise ConnectionSettingError(conn_id, "the field 'bucket' is empty; enter the bucket's name")
        if endpoint and not endpoint.startswith(("http://", "https://")):
            raise ConnectionSettingError(
                conn_id, f"endpoint_url is {endpoint!r}; it must begin with https:// or http://"
            )
        key_file = extras.get("repository_key_file")
        if key_file and not Path(key_file).is_absolute():
            raise ConnectionSettingError(
                conn_id, f"repository_key_file is {key_file!r}; it must be an absolute path on the worker"
            )
        if bool(connection.login) != bool(connection.password):
            absent = "secret access key (password)" if connection.login else "access key id (login)"
            raise ConnectionSettingError(conn_id, f"the {absent} is missing; enter both or neither")
        return cls(
            conn_id=conn_id,
            bucket=bucket,
            prefix=(extras.pop("prefix", None) or "").strip("/"),
            access_key_id=connection.login or None,
            secret_access_key=connection.password or None,
            **extras,
        )


def _checked_extras(conn_id: str, extras: dict[str, Any]) -> dict[str, str]:
    # An unnoticed 'endpoint' for 'endpoint_url' would send the backups to AWS instead.
    if unknown := unknown_field(extras, _EXTRAS):
        raise ConnectionSettingError(conn_id, unknown)
    for key, value in extras.items():
        if value is not None and not isinstance(value, str):
            raise ConnectionSettingError(conn_id, f"the field {key!r} in extra is not text")
    return {key: value for key, value in extras.items() if value}


class BackupRepositoryHook(BaseHook):
    """Opens the backup repository behind a connection of type ``fastvlm_s3``.

    :param s3_conn_id: the connection; login is the access key id, password the secret access key (both
        empty: the worker's own AWS identity), extra has ``bucket``, ``prefix``, ``endpoint_url``,
        ``region_name``, ``repository_passphrase`` and ``repository_key_file``
    """

    conn_name_attr = "s3_conn_id"
    default_conn_name = "fastvlm_s3"
    conn_type = "fastvlm_s3"
    hook_name = "FastVLM backup repository (S3)"

    def __init__(self, s3_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.s3_conn_id = s3_conn_id
        self._clients: list[Client] = []

    @cached_property
    def settings(self) -> S3ConnectionSettings:
        """The connection's fields, checked, with its secrets masked in the logs from here on.

        :raises ConnectionSettingError: a field is missing, unknown or cannot be used
        """
        try:
            connection = self.get_connection(self.s3_conn_id)
        except AirflowNotFoundException:
            message = f"is not defined; create it with the type {self.conn_type}"
            raise ConnectionSettingError(self.s3_conn_id, message) from None
        settings = S3ConnectionSettings.from_connection(connection)
        for secret in (settings.secret_access_key, settings.repository_passphrase):
            if secret:
                mask_secret(secret)
        return settings

    def get_conn(self) -> Client:
        """Return the client; Airflow's customary name for :meth:`get_client`."""
        return self.get_client()

    def get_client(self) -> Client:
        """Return an S3 client, as boto3's, with bounded time-outs and retries.

        :raises ConnectionSettingError: a field is missing, unknown or cannot be used
        """
        from fastvlm_ops.core.backup.storage import create_client

        client = create_client(
            endpoint_url=self.settings.endpoint_url,
            region_name=self.settings.region_name,
            access_key_id=self.settings.access_key_id,
            secret_access_key=self.settings.secret_access_key,
        )
        self._clients.append(client)
        return client

    @property
    def usage(self) -> Usage | None:
        """What the clients of this hook have asked S3 for so far; None where it has made none."""
        if not self._clients:
            return None
        from fastvlm_ops.core.backup.usage import Usage

        return sum((client.meter.usage for client in self._clients), Usage())

    def get_storage(self) -> S3Storage:
        """Return the storage that the repository is kept in; what is stored is locked as configured.

        :raises ConnectionSettingError: a field is missing, unknown or cannot be used
        """
        from fastvlm_ops.core.backup.storage import S3Storage

        settings = self.settings
        return S3Storage(self.get_client(), settings.bucket, settings.prefix, policy=object_policy())

    def check_storage(self) -> S3Storage:
        """Check that the bucket answers and honours conditional writes; return the storage.

        :raises ConnectionSettingError: a field is missing, unknown or cannot be used
        :raises StorageError: or a subclass, naming what is wrong: endpoint, credentials, bucket, permission
        """
        from fastvlm_ops.core.backup.probing import probe_conditional_writes

        storage = self.get_storage()
        storage.check_bucket()
        probe_conditional_writes(storage)
        return storage

    def initialise_repository(self) -> Repository:
        """Open the repository, creating it where there is none.

        :raises ConnectionSettingError: a field is missing, unknown or cannot be used
        :raises BackupError: the bucket, the credentials or the passphrase are not right
        """
        from fastvlm_ops.core.backup.repository import initialise_repository

        return initialise_repository(self.get_storage(), self.get_secrets())

    def open_repository(self, *, chunks: bool = False) -> Repository:
        """Open the repository.

        :param chunks: whether chunks will be read or written
        :raises ConnectionSettingError: a field is missing, unknown or cannot be used
        :raises BackupError: there is none, or the bucket, the credentials or the passphrase are not right
        """
        from fastvlm_ops.core.backup.repository import open_repository

        return open_repository(self.get_storage(), self.get_secrets(), chunks=chunks)

    def test_connection(self) -> tuple[bool, str]:
        """Check what a backup needs: the bucket answers, honours conditional writes, and can be opened.

        :returns: whether all is well, and one sentence that says what is or what is not
        """
        from fastvlm_ops.core.backup.errors import BackupError

        try:
            return True, self._test_connection()
        except (BackupError, ConnectionSettingError) as error:
            return False, str(error)

    def _test_connection(self) -> str:
        from fastvlm_ops.core.backup.errors import RepositoryNotFoundError
        from fastvlm_ops.core.backup.repository import open_repository

        secrets = self.get_secrets()
        storage = self.check_storage()
        bucket = f"Bucket {self.settings.bucket!r} answers and honours conditional writes."
        try:
            for secret in secrets:  # each by itself
                open_repository(storage, secret)
        except RepositoryNotFoundError:
            return f"{bucket} It holds no repository yet; the first backup creates it."
        opened = " and with ".join(
            "the passphrase" if isinstance(one, str) else "the key file" for one in secrets
        )
        return f"{bucket} Its repository opens with {opened}."

    def get_secrets(self) -> tuple[Secret, ...]:
        """Return what opens the repository, masked in the logs from here on.

        :raises ConnectionSettingError: there is neither a passphrase nor a key file
        :raises KeyFileError: the key file cannot be used
        """
        secrets = self.settings.secrets()
        for secret in secrets:
            if not isinstance(secret, str):
                with contextlib.suppress(UnicodeDecodeError):  # bytes that are no text are in no log either
                    mask_secret(secret.data.decode().strip())
        return secrets
