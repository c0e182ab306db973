"""A new version of a model costs what has changed in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fastvlm_ops.core.backup import Repository, S3Storage, open_repository, restore_snapshot
from tests.fault_proxy import FaultProxy
from tests.integration.backup.conftest import PASSPHRASE, back_up
from tests.integration.backup.test_network_faults import through
from tests.trees import describe

if TYPE_CHECKING:
    from fastvlm_ops.local.seaweedfs import SeaweedFS

SIZE_BYTES = 64 << 20
REGIONS = 2  # layers that were trained further, of 1.6 MiB each
INSERTED_BYTES = 4097  # odd, so that all behind it moves off its alignment


def weights(seed: int, count: int) -> np.ndarray:
    """As of a trained network: half precision, normally distributed."""
    values = np.random.default_rng(seed).standard_normal(count, dtype=np.float32) * np.float32(0.02)
    return values.astype(np.float16)


@pytest.fixture
def proxy(seaweedfs: SeaweedFS, storage: S3Storage) -> Iterator[FaultProxy]:
    with FaultProxy(seaweedfs.endpoint_url, storage.prefix) as proxy:
        yield proxy


def test_a_version_that_differs_by_a_twentieth_sends_at_most_half_more_than_that(
    proxy: FaultProxy, seaweedfs: SeaweedFS, repository: Repository, storage: S3Storage, tmp_path: Path
) -> None:
    """Counted on the wire: data, index, manifest and log, headers of HTTP aside."""
    remote = open_repository(through(proxy, seaweedfs, storage, timeout_seconds=30, attempts=2), PASSPHRASE)
    tree = tmp_path / "models"
    tree.mkdir()
    first = weights(1, SIZE_BYTES // 2)
    (tree / "fastvlm-v1.bin").write_bytes(first.tobytes())
    with proxy.faults(None) as requests:
        back_up(remote, tree, "v1")
    assert sum(request.body_bytes for request in requests) > 0.75 * SIZE_BYTES

    second = first.copy()
    region = len(second) // 20 // REGIONS
    for number in range(REGIONS):
        start = (2 * number + 1) * len(second) // (2 * REGIONS)
        second[start : start + region] = weights(2 + number, region)
    data = second.tobytes()
    middle = len(data) // 2
    (tree / "fastvlm-v2.bin").write_bytes(data[:middle] + b"\1" * INSERTED_BYTES + data[middle:])
    changed_bytes = 2 * region * REGIONS + INSERTED_BYTES
    assert changed_bytes == pytest.approx(SIZE_BYTES / 20, rel=0.01)
    with proxy.faults(None) as requests:
        result = back_up(remote, tree, "v2", "incremental")
    sent_bytes = sum(request.body_bytes for request in requests)
    print(f"{sent_bytes / changed_bytes:.2f} bytes sent for each that has changed")
    assert result.new_bytes <= sent_bytes <= 1.5 * changed_bytes
    restore_snapshot(repository, result.snapshot_id, tmp_path / "target")
    assert describe(tmp_path / "target") == describe(tree)
