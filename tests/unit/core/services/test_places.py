"""What a place says it belongs to."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastvlm_ops.core.services.control import ServiceControlError
from fastvlm_ops.core.services.instances import Marker
from fastvlm_ops.core.services.places import MARKER_FILE, read_place_marker, write_place_marker


def test_says_what_was_written(tmp_path: Path) -> None:
    marker = Marker(service="shop", environment="staging")
    write_place_marker(tmp_path, marker)
    assert read_place_marker(tmp_path) == marker


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"demo",
        b"{}",
        b'{"service": "a"}',
        b'{"service": "a", "environment": 1}',
        b'{"service": "a", "environment": "demo", "more": 1}',
        b'{"service": "a", "environment": "demo"}' + b" " * 5000,
        b"\xff\xfe",
    ],
)
def test_anything_else_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MARKER_FILE).write_bytes(content)
    with pytest.raises(ServiceControlError, match="does not say what it belongs to"):
        read_place_marker(tmp_path)


def test_an_absent_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ServiceControlError, match="cannot be read: No such file"):
        read_place_marker(tmp_path)
    with pytest.raises(ServiceControlError, match="does not say"):
        read_place_marker(tmp_path / "absent")
