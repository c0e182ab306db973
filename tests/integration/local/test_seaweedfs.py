"""The S3 server of demo and tests, as others rely on it."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError

from fastvlm_ops.core.backup.storage import create_client
from fastvlm_ops.local.ports import HOST, answers
from fastvlm_ops.local.seaweedfs import SeaweedFS
from tests.listening import addresses_of, unix_sockets_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

pytestmark = pytest.mark.integration


def test_listens_on_loopback_only(seaweedfs: SeaweedFS) -> None:
    processes = [member.pid for member in seaweedfs.processes.alive()]
    addresses = addresses_of(processes)
    assert len(addresses) == 8, "HTTP and gRPC of master, volume server, filer and gateway"
    assert {host for host, _ in addresses} == {HOST}


def test_its_sockets_are_in_its_folder(seaweedfs: SeaweedFS) -> None:
    sockets = unix_sockets_of([member.pid for member in seaweedfs.processes.alive()])
    assert sockets == {"filer.sock", "s3.sock"}, "relative to the folder of each process"
    assert {path.name for path in seaweedfs.folder.rglob("*.sock")} == {"filer.sock", "s3.sock"}


def test_credentials_are_for_the_owner_only(seaweedfs: SeaweedFS) -> None:
    for name in ("credentials.json", "state.json"):
        assert stat.S_IMODE((seaweedfs.folder / name).stat().st_mode) == 0o600
    for log in seaweedfs.folder.glob("logs/*.log"):
        assert seaweedfs.secret_access_key not in log.read_text()


def test_credentials_are_enforced(seaweedfs: SeaweedFS, bucket: str) -> None:
    for access_key_id, secret_access_key in (
        (seaweedfs.access_key_id, "wrong"),
        ("UNKNOWN", seaweedfs.secret_access_key),
    ):
        client = create_client(
            endpoint_url=seaweedfs.endpoint_url,
            access_key_id=access_key_id,
            secret_access_key=secret_access_key,
        )
        with pytest.raises(ClientError) as refused:
            client.put_object(Bucket=bucket, Key="a", Body=b"1")
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_conditional_writes_are_honoured(s3_client: S3Client, bucket: str) -> None:
    s3_client.put_object(Bucket=bucket, Key="log/1", Body=b"first", IfNoneMatch="*")
    with pytest.raises(ClientError) as refused:
        s3_client.put_object(Bucket=bucket, Key="log/1", Body=b"second", IfNoneMatch="*")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    assert s3_client.get_object(Bucket=bucket, Key="log/1")["Body"].read() == b"first"


def test_an_absent_bucket_is_not_made(s3_client: S3Client) -> None:
    with pytest.raises(ClientError) as refused:
        s3_client.put_object(Bucket="absent-bucket", Key="a", Body=b"1")
    assert refused.value.response["Error"]["Code"] == "NoSuchBucket"


def test_stopping_leaves_nothing(tmp_path: Path) -> None:
    with SeaweedFS(tmp_path, die_with_parent=True) as server:
        server.make_bucket("some-bucket")
        port = int(server.endpoint_url.rsplit(":", 1)[1])
        assert answers(port)
    assert not server.processes.alive()
    assert not answers(port)
