"""``backup_manifest`` and ``backup_label``, as PostgreSQL writes them, and damaged."""

from __future__ import annotations

import hashlib

import pytest

from fastvlm_ops.core.backup.errors import SourceError
from fastvlm_ops.core.backup.postgresql.backup_manifest import BackupLabel, ManifestReader, WalRange

_FILE = '{{ "{}": "{}", "Size": {}, "Last-Modified": "2026-11-30 21:10:28 GMT" }}'
LINES = [
    '{ "PostgreSQL-Backup-Manifest-Version": 2,',
    '"System-Identifier": 7714074977925951617,',
    '"Files": [',
    _FILE.format("Path", "backup_label", 227) + ",",
    _FILE.format("Encoded-Path", "62617365ff", 8192) + ",",
    _FILE.format("Path", "pg_wal/archive_status/000000010000000000000008.done", 0),
    "],",
    '"WAL-Ranges": [',
    '{ "Timeline": 1, "Start-LSN": "0/800028", "End-LSN": "1/800120" }',
    "],",
]
LABEL = b"""\
START WAL LOCATION: 0/800028 (file 000000010000000000000008)
CHECKPOINT LOCATION: 0/800080
BACKUP METHOD: streamed
BACKUP FROM: primary
START TIME: 2026-11-30 21:10:28 UTC
LABEL: fastvlm-ops 12
START TIMELINE: 3
"""


def manifest(lines: list[str] = LINES) -> bytes:
    body = "".join(line + "\n" for line in lines).encode()
    return body + f'"Manifest-Checksum": "{hashlib.sha256(body).hexdigest()}"}}\n'.encode()


def read(data: bytes, piece: int = 1 << 20) -> ManifestReader:
    reader = ManifestReader()
    for start in range(0, len(data), piece):
        reader.feed(data[start : start + piece])
    return reader


@pytest.mark.parametrize("piece", [1, 7, 64, 1 << 20])
def test_what_it_says_of_the_base(piece: int) -> None:
    found = read(manifest(), piece).finish()
    assert (found.files, found.size_bytes) == (2, 227 + 8192)  # without what is in pg_wal
    assert found.ranges == (WalRange(1, 0x800028, 0x100800120),)
    assert found.system_id == "7714074977925951617"


def test_before_17_it_names_no_system() -> None:
    lines = [LINES[0].replace("2", "1"), *LINES[2:]]
    assert read(manifest(lines)).finish().system_id is None


def test_every_damaged_byte_is_found() -> None:
    data = manifest()
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1
        with pytest.raises(SourceError):
            read(bytes(damaged)).finish()


def test_every_truncation_is_found() -> None:
    data = manifest()
    for length in range(len(data)):
        with pytest.raises(SourceError):
            read(data[:length]).finish()


@pytest.mark.parametrize(
    "lines",
    [
        [LINES[0].replace("2,", "3,"), *LINES[1:]],
        LINES[:7],
        [*LINES[:3], '{ "Path": "a", "Size": "1" }', *LINES[6:]],
        [*LINES[:8], '{ "Timeline": 1 }', "],"],
    ],
    ids=["version", "no WAL", "size", "range"],
)
def test_what_is_not_understood_is_refused(lines: list[str]) -> None:
    with pytest.raises(SourceError, match="backup_manifest is"):
        read(manifest(lines)).finish()


def test_a_line_without_end_does_not_fill_memory() -> None:
    with pytest.raises(SourceError, match="a line of it does not end"):
        read(b"x" * (1 << 20), 1 << 12)


def test_where_a_base_begins() -> None:
    assert BackupLabel.parse(LABEL) == BackupLabel(0x800028, 3, "fastvlm-ops 12")


@pytest.mark.parametrize("line", [0, 5, 6])
def test_a_label_without_it_is_refused(line: int) -> None:
    lines = LABEL.splitlines(keepends=True)
    with pytest.raises(SourceError, match="backup_label is malformed"):
        BackupLabel.parse(b"".join(lines[:line] + lines[line + 1 :]))
