"""Where the peer comes from, and what is said where it cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import restic


def program(folder: Path, name: str, lines: str) -> Path:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{lines}\n")
    file.chmod(0o755)
    return file


def test_on_path_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = program(tmp_path, "restic", "echo restic 9.8.7 compiled with go")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert restic.find_restic(tmp_path / "cache") == expected
    assert restic.restic_version(expected) == "9.8.7"


def test_no_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(restic.PeerUnavailableError, match="not on PATH, and there is no apt-get"):
        restic.find_restic(tmp_path / "cache")


def test_package_cannot_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "apt-get", "echo 'E: no network' >&2; exit 100")
    program(tmp_path, "dpkg-deb", "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(restic.PeerUnavailableError, match=r"not on PATH; apt-get .*: E: no network"):
        restic.find_restic(tmp_path / "cache")


def test_package_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unpack = "/bin/mkdir -p usr/bin; echo '#!/bin/sh' > usr/bin/restic; /bin/chmod +x usr/bin/restic"
    program(tmp_path, "apt-get", ": > restic_1_amd64.deb")
    program(tmp_path, "dpkg-deb", unpack)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = restic.find_restic(tmp_path / "cache")
    assert found == tmp_path / "cache" / "usr" / "bin" / "restic"
    program(tmp_path, "apt-get", "exit 1")
    assert restic.find_restic(tmp_path / "cache") == found
