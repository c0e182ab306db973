"""The shorter way to S3 says and does what boto3's client does, with a real server and a broken one."""

from __future__ import annotations

import base64
import hashlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
)

from fastvlm_ops.core.backup import create_client
from fastvlm_ops.core.backup.clients import Client
from fastvlm_ops.local.ports import HOST, free_ports
from tests.certificates import Authority

if TYPE_CHECKING:
    from fastvlm_ops.local.seaweedfs import SeaweedFS

pytestmark = pytest.mark.integration

KEYS = {"access_key_id": "an id", "secret_access_key": "a secret"}
#: What boto3 says besides, and no caller asks for.
UNSAID = {"RetryAttempts", "RequestId", "HostId", "HTTPHeaders"}
NAMES = ["plain", "a b+c%d", "ü/ñ/漢", "quote'\"<&>", "~tilde", "..dots", "new\tline"]


@pytest.fixture
def client(s3_client: Client) -> Client:
    """One that takes the shorter way, or nothing would be compared."""
    assert s3_client._requests is not None
    return s3_client


def same(one: Any) -> Any:
    """An answer without what depends on the moment."""
    if isinstance(one, dict):
        found = {name: same(value) for name, value in one.items() if name not in UNSAID | {"Body"}}
        return {name: value for name, value in found.items() if value not in ({}, None)}
    return [same(value) for value in one] if isinstance(one, list) else one


@pytest.mark.parametrize("name", NAMES)
def test_an_object_is_stored_and_read_alike(client: Client, bucket: str, name: str) -> None:
    body = f"what is in {name}".encode() * 1000
    where = {"Bucket": bucket, "Key": f"some/{name}"}
    checksum = base64.b64encode(hashlib.sha256(body).digest()).decode()
    client.put_object(**where, Body=body, ChecksumSHA256=checksum, ContentType="text/x-kit")
    assert client.boto.get_object(**where)["Body"].read() == body
    for ask in (
        lambda one: one.head_object(**where, ChecksumMode="ENABLED"),
        lambda one: one.get_object(**where),
        lambda one: one.get_object(**where, Range="bytes=10-19"),
        lambda one: one.get_object(**where, Range="bytes=-7"),
    ):
        ours, theirs = ask(client), ask(client.boto)
        said = {**same(ours)}
        expected = {member: value for member, value in same(theirs).items() if member in said}
        assert said == expected
        assert expected["ContentLength"] == theirs["ContentLength"]
        if "Body" in theirs and ask(client)["ContentLength"] != len(body):
            assert ours["Body"].read() == theirs["Body"].read() != body
    listed = client.list_objects_v2(Bucket=bucket, Prefix="some/")
    assert [item["Key"] for item in listed["Contents"]] == [where["Key"]]
    client.delete_object(**where)
    assert "Contents" not in client.list_objects_v2(Bucket=bucket, Prefix="some/")


def test_pages_of_listings_are_alike(client: Client, bucket: str) -> None:
    for number in range(25):
        client.put_object(Bucket=bucket, Key=f"list/{number:02d} ü+%", Body=b"x" * number)
    token: dict[str, str] = {}
    pages = 0
    while True:
        arguments = {"Bucket": bucket, "Prefix": "list/", "MaxKeys": 10, "StartAfter": "list/03", **token}
        ours, theirs = (one.list_objects_v2(**arguments) for one in (client, client.boto))
        wanted = ("Key", "Size", "LastModified", "ETag")
        found, expected = (
            [tuple(item[name] for name in wanted) for item in one["Contents"]] for one in (ours, theirs)
        )
        assert found == expected
        assert ours["IsTruncated"] == theirs["IsTruncated"]
        pages += 1
        if not ours["IsTruncated"]:
            break
        token = {"ContinuationToken": ours["NextContinuationToken"]}
    assert pages == 3


def test_one_connection_serves_what_is_asked_in_turn(client: Client, bucket: str) -> None:
    assert client._requests is not None
    client.close()
    for _ in range(3):
        client.put_object(Bucket=bucket, Key="a", Body=b"1" * 100_000)
        with client.get_object(Bucket=bucket, Key="a")["Body"] as body:
            assert len(body.read()) == 100_000
        client.head_object(Bucket=bucket, Key="a")
        client.list_objects_v2(Bucket=bucket)
        with pytest.raises(ClientError):
            client.get_object(Bucket=bucket, Key="absent")
        client.delete_object(Bucket=bucket, Key="a")
    assert client._requests._connections.num_connections == 1


@pytest.mark.parametrize(
    "ask",
    [
        lambda one, bucket: one.get_object(Bucket=bucket, Key="absent"),
        lambda one, bucket: one.head_object(Bucket=bucket, Key="absent"),
        lambda one, bucket: one.get_object(Bucket="no-such-bucket", Key="absent"),
        lambda one, bucket: one.list_objects_v2(Bucket="no-such-bucket"),
        lambda one, bucket: one.get_object(Bucket=bucket, Key="small", Range="bytes=100-200"),
        lambda one, bucket: one.put_object(Bucket=bucket, Key="small", Body=b"", IfNoneMatch="*"),
        lambda one, bucket: one.put_object(Bucket=bucket, Key="x", Body=b"", ChecksumSHA256="AAAA"),
    ],
)
def test_refusals_are_alike(client: Client, bucket: str, ask: Callable[[Client, str], Any]) -> None:
    client.put_object(Bucket=bucket, Key="small", Body=b"small")
    said = []
    for one in (client, client.boto):
        with pytest.raises(ClientError) as caught:
            ask(one, bucket)  # type: ignore[arg-type]
        response = caught.value.response
        status = response["ResponseMetadata"]["HTTPStatusCode"]
        said.append((response["Error"]["Code"], status, caught.value.operation_name))
    assert said[0] == said[1]


def test_wrong_keys_are_refused_alike(seaweedfs: SeaweedFS, bucket: str) -> None:
    one = create_client(endpoint_url=seaweedfs.endpoint_url, **KEYS)
    codes = []
    for each in (one, one.boto):
        with pytest.raises(ClientError) as caught:
            each.list_objects_v2(Bucket=bucket)
        codes.append(caught.value.response["Error"]["Code"])
    assert codes == ["InvalidAccessKeyId"] * 2


def test_the_lock_of_an_object_arrives(client: Client) -> None:
    bucket = "test-clients-locked"
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    client.put_object(
        Bucket=bucket,
        Key="locked",
        Body=b"x",
        ChecksumSHA256=base64.b64encode(hashlib.sha256(b"x").digest()).decode(),
        ObjectLockMode="GOVERNANCE",
        ObjectLockRetainUntilDate=until,
    )
    for one in (client, client.boto):
        found = one.head_object(Bucket=bucket, Key="locked")
        assert (found["ObjectLockMode"], found["ObjectLockRetainUntilDate"]) == ("GOVERNANCE", until)


@pytest.mark.parametrize(
    "arguments",
    [
        {"Bucket": "some-bucket", "Key": ""},
        {"Bucket": "", "Key": "x"},
        {"Bucket": "a/b", "Key": "x"},
        {"Bucket": "some-bucket"},
        {"Bucket": "some-bucket", "Key": "x", "Unheard": 1},
    ],
)
def test_what_botocore_refuses_is_not_asked_for(client: Client, arguments: dict[str, Any]) -> None:
    before = client.meter.usage
    for ask in (client.get_object, client.delete_object, lambda **a: client.put_object(Body=b"x", **a)):
        with pytest.raises(BotoCoreError):
            ask(**arguments)
    assert client.meter.usage == before


@pytest.mark.parametrize(
    ("endpoint_url", "environment"),
    [
        (None, {}),
        ("http://127.0.0.1:9", {"HTTPS_PROXY": "http://127.0.0.1:9"}),
        ("http://127.0.0.1:9", {"http_proxy": "http://127.0.0.1:9"}),
        ("http://127.0.0.1:9", {"AWS_CONFIG_FILE": __file__}),
        ("http://user:password@127.0.0.1:9", {}),
        ("http://127.0.0.1:9/?a=b", {}),
    ],
)
def test_what_botocore_alone_understands_is_left_to_it(
    endpoint_url: str | None, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert create_client(endpoint_url="http://127.0.0.1:9", **KEYS)._requests is not None
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert create_client(endpoint_url=endpoint_url, **KEYS)._requests is None


def test_keys_may_stand_in_the_environment(
    seaweedfs: SeaweedFS, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweedfs.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweedfs.secret_access_key)
    one = create_client(endpoint_url=seaweedfs.endpoint_url)
    assert one._requests is not None
    assert one.list_objects_v2(Bucket=bucket)["IsTruncated"] is False
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert create_client(endpoint_url=seaweedfs.endpoint_url)._requests is None


# -- endpoints that break --------------------------------------------------------------------------


@contextmanager
def answering(
    *answers: bytes, hang: bool = False, tls: ssl.SSLContext | None = None
) -> Iterator[tuple[str, list[bytes]]]:
    """A server that gives each connection the next answer, and what it was asked."""
    (port,) = free_ports(1)
    asked: list[bytes] = []
    held: list[socket.socket] = []
    with socket.create_server((HOST, port)) as listener:

        def serve() -> None:
            for answer in answers:
                try:
                    connection, _ = listener.accept()
                    connection = tls.wrap_socket(connection, server_side=True) if tls else connection
                except OSError:
                    return
                asked.append(connection.recv(100_000))
                connection.sendall(answer)
                if hang:
                    held.append(connection)
                else:
                    connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http{'s' if tls else ''}://{HOST}:{port}", asked


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
BROKEN = b"HTTP/1.1 503 Slow\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
CUT = b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\nConnection: close\r\n\r\nhello"


def asking(url: str, attempts: int = 1) -> Client:
    return create_client(endpoint_url=url, **KEYS, read_timeout_seconds=0.5, attempts=attempts)


def test_what_breaks_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastvlm_ops.core.backup.s3_requests._WAIT_SECONDS", 0.001)
    with answering(b"", BROKEN, OK) as (url, asked):
        one = asking(url, attempts=3)
        assert one.get_object(Bucket="bucket", Key="key")["Body"].read() == b"hello"
    assert len(asked) == 3
    assert one.meter.usage.gets == 3


def test_what_goes_on_breaking_is_told() -> None:
    with answering(BROKEN) as (url, _), pytest.raises(ClientError) as caught:
        asking(url).get_object(Bucket="bucket", Key="key")
    assert caught.value.response["Error"] == {"Code": "503", "Message": "Slow"}
    with answering(b"") as (url, _), pytest.raises(ConnectionClosedError):
        asking(url).get_object(Bucket="bucket", Key="key")
    with answering(b"", hang=True) as (url, _), pytest.raises(ReadTimeoutError):
        asking(url).get_object(Bucket="bucket", Key="key")
    with pytest.raises(EndpointConnectionError):
        asking(f"http://{HOST}:{free_ports(1)[0]}").get_object(Bucket="bucket", Key="key")


def test_a_body_that_breaks_off_is_told() -> None:
    with answering(CUT) as (url, _), pytest.raises(ResponseStreamingError):
        asking(url).get_object(Bucket="bucket", Key="key")["Body"].read()
    with answering(CUT, hang=True) as (url, _), pytest.raises(ReadTimeoutError):
        asking(url).get_object(Bucket="bucket", Key="key")["Body"].read()
    with answering(CUT) as (url, _), pytest.raises(ResponseStreamingError):
        asking(url).list_objects_v2(Bucket="bucket")


def test_a_listing_that_is_none_is_told() -> None:
    with answering(OK) as (url, _), pytest.raises(ResponseStreamingError, match="no XML"):
        asking(url).list_objects_v2(Bucket="bucket")


def test_https_needs_a_certificate_of_an_authority_that_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    where = {"Bucket": "bucket", "Key": "key"}
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.bundle))
    with answering(OK, tls=authority.server_context()) as (url, asked):
        assert asking(url).get_object(**where)["Body"].read() == b"hello"
    assert f"host: {url.removeprefix('https://')}".encode() in asked[0].lower()
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    with answering(OK, tls=authority.server_context()) as (url, asked), pytest.raises(SSLError):
        asking(url).get_object(**where)
    assert asked == []


MOVED = b"HTTP/1.1 301 Moved\r\nContent-Length: 0\r\nConnection: close\r\nx-amz-bucket-region: eu\r\n\r\n"
OTHER_REGION = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Length: 83\r\nConnection: close\r\n\r\n"
    b"<Error><Code>AuthorizationHeaderMalformed</Code><Message>not here</Message></Error>"
)


@pytest.mark.parametrize("answer", [MOVED, OTHER_REGION])
def test_a_bucket_that_is_elsewhere_is_asked_for_by_boto3(answer: bytes) -> None:
    with answering(answer, OK, OK) as (url, asked):
        one = asking(url)
        for _ in range(2):
            assert one.get_object(Bucket="bucket", Key="key")["Body"].read() == b"hello"
    assert one._requests is None
    agents = [b"botocore" in request.lower() for request in asked]
    assert agents == [False, True, True]


def test_it_can_be_used_on_after_it_was_closed(client: Client, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key="a", Body=b"1")
    client.close()
    assert client.get_object(Bucket=bucket, Key="a")["Body"].read() == b"1"
