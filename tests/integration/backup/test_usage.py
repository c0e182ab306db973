"""What is counted is exactly what a proxy before the server has seen, retries included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastvlm_ops.core.backup import (
    Repository,
    S3Storage,
    create_client,
    open_repository,
    restore_snapshot,
)
from fastvlm_ops.core.backup.usage import Usage
from fastvlm_ops.core.backup.verify import verify_repository
from fastvlm_ops.local.seaweedfs import SeaweedFS
from tests.fault_proxy import FaultProxy, Request, first_try, internal_error, on, truncate
from tests.integration.backup.conftest import PASSPHRASE, back_up
from tests.trees import make_plain_tree

pytestmark = pytest.mark.integration

VERBS = {
    "PutObject": "puts",
    "GetObject": "gets",
    "HeadObject": "heads",
    "HeadBucket": "heads",
    "ListObjectsV2": "lists",
    "DeleteObject": "deletes",
}


@pytest.fixture
def proxy(seaweedfs: SeaweedFS, storage: S3Storage) -> Iterator[FaultProxy]:
    with FaultProxy(seaweedfs.endpoint_url, storage.prefix) as proxy:
        yield proxy


@pytest.fixture
def watched(proxy: FaultProxy, seaweedfs: SeaweedFS, storage: S3Storage) -> S3Storage:
    """The storage behind the proxy, with a client that nobody else uses."""
    client = create_client(
        endpoint_url=proxy.endpoint_url,
        access_key_id=seaweedfs.access_key_id,
        secret_access_key=seaweedfs.secret_access_key,
    )
    return S3Storage(client, storage.bucket, storage.prefix)


def seen(requests: list[Request]) -> dict[str, int]:
    counts = Counter(VERBS[request.operation] for request in requests)
    return {name: counts[name] for name in VERBS.values()}


def require_equal(usage: Usage | None, requests: list[Request]) -> None:
    assert usage is not None
    found = usage.as_dict()
    assert {name: found[name] for name in VERBS.values()} == seen(requests)
    assert usage.sent_bytes == sum(request.body_bytes for request in requests)
    assert usage.requests == len(requests)


def test_a_backup_a_verification_and_a_restore(
    repository: Repository, watched: S3Storage, proxy: FaultProxy, tmp_path: Path
) -> None:
    tree = make_plain_tree(tmp_path / "source", files=8, large_bytes=400_000)
    with proxy.faults(None) as requests:
        opened = open_repository(watched, PASSPHRASE)
    require_equal(watched.usage, list(requests))
    with proxy.faults(None) as requests:
        made = back_up(opened, tree, "run-1")
    require_equal(made.usage, list(requests))
    assert made.usage is not None
    assert made.usage.sent_bytes >= made.new_bytes
    with proxy.faults(None) as requests:
        verified = verify_repository(opened, level="full")
    require_equal(verified.usage, list(requests))
    assert verified.usage is not None
    assert verified.usage.received_bytes >= verified.read_bytes
    with proxy.faults(None) as requests:
        restored = restore_snapshot(opened, made.snapshot_id, tmp_path / "restored")
    require_equal(restored.usage, list(requests))
    assert restored.usage is not None
    assert restored.usage.received_bytes > restored.fetched_bytes > 400_000
    assert "usage" in restored.as_dict()


def test_every_retry_is_a_request(repository: Repository, watched: S3Storage, proxy: FaultProxy) -> None:
    with proxy.faults(first_try(internal_error)) as requests:
        watched.put("packs/x", b"0123456789")
        watched.get("packs/x", limit_bytes=100)
        watched.head("packs/x")
        list(watched.list("packs/"))
        watched.delete("packs/x")
    require_equal(watched.usage, list(requests))
    assert seen(list(requests)) == dict.fromkeys(VERBS.values(), 2)
    assert watched.usage.sent_bytes == 20


def test_a_body_that_breaks_off_is_a_request_without_bytes(
    repository: Repository, watched: S3Storage, proxy: FaultProxy
) -> None:
    repository.storage.put("packs/x", b"0123456789")
    with proxy.faults(on("GetObject", truncate, only=1)):
        assert watched.get("packs/x", limit_bytes=100) == b"0123456789"
    assert watched.usage.gets == 2
    assert watched.usage.received_bytes == 10


def test_storages_on_one_client_share_the_count_and_differences_are_exact(storage: S3Storage) -> None:
    before = storage.usage
    S3Storage(storage.client, storage.bucket, "elsewhere").put("x", b"123")
    used = storage.usage.since(before)
    assert used == Usage(puts=1, sent_bytes=3)
    assert used + used == Usage(puts=2, sent_bytes=6)
