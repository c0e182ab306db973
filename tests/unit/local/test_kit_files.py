"""The kit's small files: many, deterministic, and with all that a backup must keep."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import yaml

from fastvlm_ops.local.compare import compare_trees
from fastvlm_ops.local.kit_files import (
    build_configuration,
    build_uploads,
    evolve_configuration,
    evolve_uploads,
)


def test_configuration(tmp_path: Path) -> None:
    for name in ("one", "two"):
        build_configuration(tmp_path / name, seed=7)
    assert compare_trees(tmp_path / "one", tmp_path / "two").differences == []
    files = [path for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert len(files) > 200
    assert {path.suffix for path in files} == {".yaml", ".json"}
    for path in files:
        assert (json.loads if path.suffix == ".json" else yaml.safe_load)(path.read_text())
    assert len({stat.S_IMODE(path.stat().st_mode) for path in files}) == 4
    assert list((tmp_path / "one/experiments/archive").iterdir()) == []


def test_a_day_of_configuration(tmp_path: Path) -> None:
    for name in ("before", "after"):
        build_configuration(tmp_path / name, seed=7)
    evolve_configuration(tmp_path / "after", seed=7)
    changes = {
        difference.what for difference in compare_trees(tmp_path / "before", tmp_path / "after").differences
    }
    assert changes == {"entry", "size", "mode", "modification time"}


def test_uploads(tmp_path: Path) -> None:
    for name in ("one", "two"):
        build_uploads(tmp_path / name, seed=7)
    one = tmp_path / "one"
    assert compare_trees(one, tmp_path / "two").differences == []
    assert (one / "latest").is_symlink()
    assert (one / "gone").is_symlink()
    assert not (one / "gone").exists()
    assert list((one / "incoming").iterdir()) == []
    assert (one / "empty.txt").stat().st_nlink == 2
    assert (one / "tools/convert.sh").stat().st_mode & stat.S_IXUSR
    evolve_uploads(one, seed=7)
    assert compare_trees(one, tmp_path / "two").differences
