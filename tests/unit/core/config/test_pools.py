"""Every device has a pool of its own."""

from __future__ import annotations

from pathlib import Path

from fastvlm_ops.core.config.pools import POOLS, pools_of
from tests.conftest import ROOT


def test_each_device_has_a_pool_of_one_slot() -> None:
    added = [pool for pool in pools_of(ROOT / "include") if pool not in POOLS]
    assert [(pool.name, pool.slots) for pool in added] == [("fastvlm_device_linux-reference", 1)]


def test_a_broken_file_takes_no_other_pool_away(tmp_path: Path) -> None:
    (tmp_path / "coreml.yaml").write_text("devices: [")
    assert pools_of(tmp_path) == POOLS
