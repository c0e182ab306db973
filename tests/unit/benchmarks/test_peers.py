"""Where the peers come from, and what is said where one cannot be had."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import peers


def program(folder: Path, name: str, lines: str) -> Path:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{lines}\n")
    file.chmod(0o755)
    return file


def test_on_path_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = program(tmp_path, "restic", "echo restic 9.8.7 compiled with go")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert peers.find_restic(tmp_path / "cache") == expected
    assert peers.restic_version(expected) == "9.8.7"


def test_no_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(peers.PeerUnavailableError, match="not on PATH, and there is no apt-get"):
        peers.find_restic(tmp_path / "cache")


def test_package_cannot_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "apt-get", "echo 'E: no network' >&2; exit 100")
    program(tmp_path, "dpkg-deb", "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(peers.PeerUnavailableError, match=r"not on PATH; apt-get .*: E: no network"):
        peers.find_restic(tmp_path / "cache")


def test_package_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unpack = "/bin/mkdir -p usr/bin; echo '#!/bin/sh' > usr/bin/restic; /bin/chmod +x usr/bin/restic"
    program(tmp_path, "apt-get", ": > restic_1_amd64.deb")
    program(tmp_path, "dpkg-deb", unpack)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = peers.find_restic(tmp_path / "cache")
    assert found == tmp_path / "cache" / "usr" / "bin" / "restic"
    program(tmp_path, "apt-get", "exit 1")
    assert peers.find_restic(tmp_path / "cache") == found


def test_rclone_is_the_one_beside_the_interpreter() -> None:
    found = peers.find_rclone()
    assert found.parent == Path(sys.executable).parent
    assert peers.rclone_version(found)[0].isdigit()


def test_no_rclone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(peers.PeerUnavailableError, match=r"neither in \.venv nor on PATH"):
        peers.find_rclone()


def test_aws_gets_an_environment_of_its_own_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bin_folder = tmp_path / "cache" / peers.AWS_VERSION / "bin"
    install = f"/bin/mkdir -p {bin_folder}; echo 'echo aws-cli/9.8 Python/3' > {bin_folder}/aws"
    lines = f"case $1 in pip) {install}; echo '#!/bin/sh' | /bin/cat - {bin_folder}/aws > {bin_folder}/a"
    program(
        tmp_path,
        "uv",
        f"{lines}; /bin/mv {bin_folder}/a {bin_folder}/aws; /bin/chmod +x {bin_folder}/aws;; esac",
    )
    monkeypatch.setattr(peers.sys, "executable", str(tmp_path / "python"))
    found = peers.find_aws(tmp_path / "cache")
    assert peers.aws_version(found) == "9.8"
    program(tmp_path, "uv", "exit 1")
    assert peers.find_aws(tmp_path / "cache") == found


def test_aws_cannot_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "uv", "echo 'error: no network' >&2; exit 2")
    monkeypatch.setattr(peers.sys, "executable", str(tmp_path / "python"))
    with pytest.raises(
        peers.PeerUnavailableError, match=r"aws could not be run: uv venv .*: error: no network"
    ):
        peers.find_aws(tmp_path / "cache")
