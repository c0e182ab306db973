"""What all tests share: temporary files inside the project, and real S3 and PostgreSQL servers."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from fastvlm_ops.local.postgres import PostgreSQL
    from fastvlm_ops.local.seaweedfs import SeaweedFS

ROOT = Path(__file__).resolve().parents[1]
_FILES_SHOWN = 30
_BEGAN = pytest.StashKey[tuple[int, int]]()

# Nothing is written outside the project: neither pytest's folders nor what a test or a library makes itself.
_TEMPORARY = ROOT / ".pytest_cache" / "tmp"
_TEMPORARY.mkdir(parents=True, exist_ok=True)
os.environ["TMPDIR"] = os.environ["PYTEST_DEBUG_TEMPROOT"] = str(_TEMPORARY)
tempfile.tempdir = None


def _processor_time() -> tuple[int, int]:
    """Time that this machine's processors have worked, and all the time they had, in clock ticks."""
    first, _, _ = Path("/proc/stat").read_text().partition("\n")
    ticks = [int(field) for field in first.split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)  # without idling and waiting for disks


def pytest_configure(config: pytest.Config) -> None:
    """Begin to count, for what is said at the end."""
    if sys.platform == "linux":
        config.stash[_BEGAN] = _processor_time()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """With ``--durations``, also the seconds of each file, for a process runs a file whole and the longest
    bounds how long all of them take; and how busy the processors were: whether more processes would help.
    """
    if config.getoption("durations") is None:
        return
    seconds: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[report.nodeid.partition("::")[0]] += report.duration
    terminalreporter.section(f"files, {sum(seconds.values()):.0f} s in all")
    for file, duration in seconds.most_common(_FILES_SHOWN):
        terminalreporter.write_line(f"{duration:8.1f} s {file}")
    if _BEGAN in config.stash:
        began, ended = config.stash[_BEGAN], _processor_time()
        busy = (ended[0] - began[0]) / max(1, ended[1] - began[1])
        terminalreporter.write_line(f"processors ({os.cpu_count()}): busy {busy:.0%} of the time")


@pytest.fixture(scope="session", autouse=True)
def quick_passphrases() -> None:
    """Make keys from passphrases in less than the tenth of a second that it takes on purpose: tests open
    repositories by the thousand. How long it takes otherwise is a test of test_parts.py.
    """
    from fastvlm_ops.core.backup import keys

    keys.SCRYPT["n"] = 1 << 8


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """A real S3 server; one in each test process, started by the first test that wants it."""
    from fastvlm_ops.local.seaweedfs import SeaweedFS

    with SeaweedFS(tmp_path_factory.mktemp("seaweedfs"), die_with_parent=True) as server:
        yield server
    shutil.rmtree(server.folder / "data")  # pytest keeps the folders of three runs


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    """A real PostgreSQL server; one in each test process, started by the first test that wants it."""
    from fastvlm_ops.local.postgres import PostgreSQL

    with PostgreSQL(tmp_path_factory.mktemp("postgres"), die_with_parent=True) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Address of an operations database without tables: a test runs once in each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'operations.db'}"
        return
    server: PostgreSQL = request.getfixturevalue("postgres")
    name = f"test_{uuid.uuid4().hex[:12]}"
    yield server.make_database(name)
    server.drop_database(name)


@pytest.fixture(scope="session")
def s3_client(seaweedfs: SeaweedFS) -> S3Client:
    """A boto3 client of the server, as the engine makes it."""
    return seaweedfs.client()


@pytest.fixture
def bucket(seaweedfs: SeaweedFS, s3_client: S3Client) -> Iterator[str]:
    """Name of an empty bucket; it goes, with all that is in it, after the test."""
    name = seaweedfs.make_bucket(f"test-{uuid.uuid4().hex[:12]}")
    yield name
    with contextlib.suppress(Exception):  # a test may have stopped the server, or have removed it itself
        s3_client.delete_bucket(Bucket=name)  # this server removes what is in it too


@pytest.fixture
def rclone_url(tmp_path: Path) -> Iterator[str]:
    """A real S3 server that ignores If-None-Match: bucket ``bucket``, keys ``key`` and ``secret``."""
    from fastvlm_ops.local.ports import free_ports

    (port,) = free_ports(1)
    (tmp_path / "rclone" / "bucket").mkdir(parents=True)
    command = [
        Path(sys.executable).with_name("rclone"),
        *("serve", "s3", tmp_path / "rclone", f"--addr=127.0.0.1:{port}"),
        *("--auth-key=key,secret", f"--config={tmp_path / 'rclone.conf'}"),
    ]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(200):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
