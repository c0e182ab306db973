"""Packages and devices that the tests of Core ML's backends share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.apple_kit import Bench, build_package


@pytest.fixture(scope="session")
def tiny_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small package, built once."""
    return build_package(tmp_path_factory.mktemp("packages"))


@pytest.fixture
def bench(tmp_path: Path, tiny_package: Path) -> Bench:
    """A device at a stand-in toolchain."""
    return Bench(tmp_path, tiny_package)
