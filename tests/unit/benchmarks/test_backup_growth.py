"""Growth: trees that do not repeat, and every step measured, compared and removed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import backup_growth
from benchmarks.backup_growth import OPERATIONS, QUICK_STEPS, STEPS, Growth, GrowthError, Measurement, Step
from benchmarks.measuring import Cost

MIB = 1 << 20


def test_weights_do_not_repeat_and_are_like_weights(tmp_path: Path) -> None:
    backup_growth.make_tree(Step("70 MiB", file_mib=70), tmp_path)
    content = (tmp_path / "models" / "weights.bin").read_bytes()
    assert len(content) == 70 * MIB
    piece = 4096
    pieces = {content[start : start + piece] for start in range(0, len(content), piece)}
    assert len(pieces) == len(content) // piece
    values = np.frombuffer(content[-MIB:], np.float16).astype(np.float32)
    assert values.std() == pytest.approx(0.02, rel=0.05)
    assert abs(values).max() < 0.2


def test_files_are_as_many_and_as_small_as_they_should_be(tmp_path: Path) -> None:
    backup_growth.make_tree(Step("1,200 files", files=1200), tmp_path)
    files = [path for path in (tmp_path / "configuration").rglob("*") if path.is_file()]
    assert len({path.read_bytes() for path in files}) == len(files) == 1200
    assert min(path.stat().st_size for path in files) >= 200
    assert max(path.stat().st_size for path in files) <= 2100


def test_disk_stays_within_30_gib() -> None:
    assert max(step.disk_bytes for step in STEPS) < 30 << 30


def test_full_disk_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_growth.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 5})())
    with pytest.raises(GrowthError, match=r"1 GiB: .* needed, 5 B free"):
        backup_growth.run_step(STEPS[0], tmp_path / "work", None)  # type: ignore[arg-type]
    assert not (tmp_path / "work").exists()


def test_figures_are_of_the_6_gib_file_and_of_all_single_files() -> None:
    growth = Growth()
    for number, step in enumerate(STEPS, 1):
        growth.measured[step.name] = {
            operation: Measurement(Cost(1, 1, (10 * number + more) * MIB), {}, 0)
            for more, operation in enumerate(OPERATIONS)
        }
    figures = backup_growth.make_figures(growth, STEPS)
    assert [figure.value for figure in figures] == [41, 42, 52]
    assert "6 GiB" in figures[0].name
    assert "1 GiB to 10 GiB" in figures[2].name


@pytest.mark.integration
def test_quick(tmp_path: Path) -> None:
    arguments = ["--quick", "--work", str(tmp_path / "work"), "--output", str(tmp_path / "out")]
    assert backup_growth.main(arguments) == 0
    assert not (tmp_path / "work").exists()
    details = json.loads((tmp_path / "out" / "details" / "backup_growth.json").read_text())
    assert list(details["runs"]) == [step.name for step in QUICK_STEPS]
    for operations in details["runs"].values():
        assert list(operations) == list(OPERATIONS)
        assert operations["full"]["sent_bytes"] > 10 * operations["unchanged"]["sent_bytes"] > 0
        assert operations["restore"]["requests"]["gets"] > 0
        assert operations["restore"]["received_bytes"] > operations["restore"]["sent_bytes"] == 0
        assert min(operation["wall_seconds"] for operation in operations.values()) > 0
