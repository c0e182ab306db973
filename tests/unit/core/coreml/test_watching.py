"""Another package, or other files in it, is seen without reading them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastvlm_ops.core.config.coreml import CoreMLDefinitions
from fastvlm_ops.core.coreml.watching import packages_signature

DEFINITIONS = CoreMLDefinitions.model_validate(
    {
        "version": 1,
        "models": [{"name": "Encoder", "path": "models/Encoder-v{version}.mlpackage"}],
        "devices": [{"name": "linux-reference", "backend": "linux-reference"}],
    }
)


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    put(tmp_path, "1")
    return tmp_path


def put(kit: Path, version: str) -> Path:
    file = kit / "models" / f"Encoder-v{version}.mlpackage" / "Data" / "weight.bin"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    return file


def test_the_same_is_the_same(kit: Path) -> None:
    before = packages_signature(DEFINITIONS, kit)
    (kit / "models" / "notes.txt").write_text("other")
    assert packages_signature(DEFINITIONS, kit) == before


def test_a_new_version_is_seen_and_an_older_one_is_not(kit: Path) -> None:
    before = packages_signature(DEFINITIONS, kit)
    put(kit, "0.9")
    assert packages_signature(DEFINITIONS, kit) == before
    put(kit, "2")
    assert packages_signature(DEFINITIONS, kit) != before


@pytest.mark.parametrize("change", ["content", "time", "more"])
def test_other_files_in_the_newest_are_seen(kit: Path, change: str) -> None:
    file = put(kit, "2")
    before = packages_signature(DEFINITIONS, kit)
    if change == "content":
        file.write_bytes(b"longer than it was")
    elif change == "time":
        os.utime(file, ns=(1, 1))
    else:
        (file.parent / "added").touch()
    assert packages_signature(DEFINITIONS, kit) != before


def test_without_any_package_there_is_a_signature(tmp_path: Path, kit: Path) -> None:
    assert packages_signature(DEFINITIONS, tmp_path / "nowhere") != packages_signature(DEFINITIONS, kit)
