"""Artefacts: in a real bucket, recorded in both databases."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import delete

from fastvlm_ops.core.store import Store
from fastvlm_ops.core.store.artefacts import ArtefactStore
from fastvlm_ops.core.store.errors import (
    ArtefactConflictError,
    ArtefactDamagedError,
    ArtefactStorageError,
)
from fastvlm_ops.core.store.tables.shared import artefacts

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

pytestmark = pytest.mark.integration

RUN = "coreml_benchmark/scheduled__2026-03-01T00:00:00+00:00"


@pytest.fixture
def shelf(store: Store, s3_client: S3Client, bucket: str) -> ArtefactStore:
    """An artefact store in an empty bucket."""
    return ArtefactStore(store, s3_client, bucket=bucket, prefix="/kit/")


def keys(client: S3Client, bucket: str) -> list[str]:
    return [entry["Key"] for entry in client.list_objects_v2(Bucket=bucket).get("Contents", [])]


def forget_rows(store: Store) -> None:
    with store.write() as connection:
        connection.execute(delete(artefacts))


def test_stored_once_and_read_back(shelf: ArtefactStore, s3_client: S3Client, bucket: str) -> None:
    data = bytes(range(256)) * 100
    stored = shelf.put(RUN, "samples/a.parquet", data, content_type="application/octet-stream")
    assert shelf.put(RUN, "samples/a.parquet", data, content_type="application/octet-stream") == stored
    assert (stored.sha256, stored.size_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    assert shelf.get(stored) == data
    assert shelf.list(RUN) == [stored]
    assert shelf.find(RUN, "other") is None
    (key,) = keys(s3_client, bucket)
    assert stored.uri == f"s3://{bucket}/{key}"
    assert key.startswith("kit/artefacts/coreml_benchmark%2Fscheduled__")


def test_other_bytes_are_refused_by_the_row(shelf: ArtefactStore) -> None:
    stored = shelf.put(RUN, "a.json", b"{}", content_type="application/json")
    with pytest.raises(ArtefactConflictError, match=r"a\.json holds other bytes than run 'coreml_benchmark/"):
        shelf.put(RUN, "a.json", b"[]", content_type="application/json")
    assert shelf.get(stored) == b"{}"


def test_a_run_killed_between_object_and_row_goes_on(shelf: ArtefactStore, store: Store) -> None:
    stored = shelf.put(RUN, "a.json", b"{}", content_type="application/json")
    forget_rows(store)
    assert shelf.put(RUN, "a.json", b"{}", content_type="application/json").sha256 == stored.sha256
    forget_rows(store)
    with pytest.raises(ArtefactConflictError):
        shelf.put(RUN, "a.json", b"[]", content_type="application/json")
    assert shelf.get(stored) == b"{}"
    assert shelf.list(RUN) == []


def test_a_write_that_another_overtakes_is_refused_by_s3(
    shelf: ArtefactStore, s3_client: S3Client, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The other's write arrives between our look and our write.
    put = s3_client.put_object

    def overtake(**arguments: Any) -> Any:
        key = f"kit/artefacts/{RUN.replace('/', '%2F').replace(':', '%3A').replace('+', '%2B')}/a.json"
        put(Bucket=bucket, Key=key, Body=b"theirs")
        return put(**arguments)

    monkeypatch.setattr(s3_client, "put_object", overtake)
    with pytest.raises(ArtefactConflictError):
        shelf.put(RUN, "a.json", b"ours", content_type="application/json")
    assert shelf.find(RUN, "a.json") is None
    assert len(keys(s3_client, bucket)) == 1


def test_damage_is_told(shelf: ArtefactStore, s3_client: S3Client, bucket: str) -> None:
    stored = shelf.put(RUN, "a.json", b"{}", content_type="application/json")
    (key,) = keys(s3_client, bucket)
    s3_client.put_object(Bucket=bucket, Key=key, Body=b"[]")
    with pytest.raises(ArtefactDamagedError, match="its SHA-256 differs"):
        shelf.get(stored)
    s3_client.delete_object(Bucket=bucket, Key=key)
    with pytest.raises(ArtefactDamagedError, match="does not exist"):
        shelf.get(stored)


def test_no_bucket_is_an_error_and_records_nothing(store: Store, s3_client: S3Client) -> None:
    shelf = ArtefactStore(store, s3_client, bucket="there-is-none")
    with pytest.raises(ArtefactStorageError, match="s3://there-is-none/artefacts/"):
        shelf.put(RUN, "a.json", b"{}", content_type="application/json")
    assert shelf.find(RUN, "a.json") is None


@pytest.mark.parametrize("name", ["", "../a", "a//b", "/a", "a/", "a b", "ä"])
def test_names_that_cannot_be_are_refused(shelf: ArtefactStore, name: str) -> None:
    with pytest.raises(ValueError, match="cannot name an artefact"):
        shelf.put(RUN, name, b"", content_type="text/plain")
