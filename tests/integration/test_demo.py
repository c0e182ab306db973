"""`make demo` as a person has it: through a running scheduler, after a crash, and down again.

The round trip of the kit through Airflow is shown here: byte for byte, mode for mode.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fastvlm_ops.local.airflow_api import AirflowClient
from fastvlm_ops.local.compare import compare_trees
from fastvlm_ops.local.ports import HOST, answers
from fastvlm_ops.local.state import DemoState
from fastvlm_ops.local.writer import check_database, digest_at
from tests.listening import addresses_of, unix_sockets_of

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("models", "configuration", "uploads")


class Demo:
    """One state folder, and the commands on it."""

    def __init__(self, folder: Path) -> None:
        self.state = DemoState(folder / "demo")
        self.output = folder / "output.txt"

    def start(self) -> subprocess.Popen[bytes]:
        arguments = [sys.executable, "-m", "fastvlm_ops.local.demo", "--state-dir", str(self.state.folder)]
        with self.output.open("wb") as output:
            return subprocess.Popen(arguments, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)

    def down(self) -> str:
        arguments = [sys.executable, "-m", "fastvlm_ops.local.down", "--state-dir", str(self.state.folder)]
        done = subprocess.run(arguments, check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def wait_for(self, text: str, driver: subprocess.Popen[bytes], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.output.read_text():
            assert driver.poll() is None, self.output.read_text()
            assert time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.1)

    def left(self) -> list[str]:
        """Return what carries the state folder in its environment, found without our own code."""
        wanted, found = f"FASTVLM_OPS_DEMO_STATE={self.state.folder}".encode(), []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if wanted in (process / "environ").read_bytes().split(b"\0"):
                    found.append(f"{process.name} {(process / 'cmdline').read_bytes()!r}")
            except OSError:
                continue
        return found


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A demo that is up: the driver before it was killed while Airflow was starting."""
    made = Demo(tmp_path_factory.mktemp("demo"))
    try:
        crashed = made.start()
        made.wait_for("Airflow: waiting", crashed, seconds=90)
        crashed.send_signal(signal.SIGKILL)
        crashed.wait()
        assert len(made.left()) >= 8, "four parts of SeaweedFS and four of Airflow outlive it"
        driver = made.start()
        assert driver.wait(timeout=400) == 0, made.output.read_text()
        yield made
    finally:
        made.state.stop(patience_seconds=0)
        for big in ("kit", "restored", "s3/data"):  # pytest keeps the folders of three runs
            shutil.rmtree(made.state.folder / big, ignore_errors=True)


@pytest.fixture(scope="module")
def report(demo: Demo) -> str:
    """What it printed."""
    return demo.output.read_text()


def checksums(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def test_it_cleans_up_after_a_crash(report: str) -> None:
    assert "cleaning up what an earlier demo left" in report


@pytest.mark.parametrize("component", FOLDERS)
def test_what_is_restored_equals_its_source(demo: Demo, component: str) -> None:
    source, restored = demo.state.kit / component, demo.state.restored / "demo" / component
    assert checksums(restored) == checksums(source)
    assert compare_trees(source, restored).differences == []


def test_the_restored_database_is_a_past_state_of_the_live_one(demo: Demo) -> None:
    live = demo.state.kit / "data/application.db"
    restored = check_database(demo.state.restored / "demo/application_data/application.db")
    assert 24_000 < restored.events < check_database(live).events, "it was written to before and after"
    assert digest_at(live, restored.events) == restored.digest


def test_the_report(report: str) -> None:
    for row in ("backup_full", "backup_incremental", "restore_backup", *(f"  {name}" for name in FOLDERS)):
        assert re.search(rf"^{row} +\d+\.\d +[\d.]+ [KM]?i?B +[\d.]+ [KM]?i?B$", report, re.MULTILINE), row
    assert re.search(r"^backup_full +full-\d{8}T\d{6}Z-\w{8}$", report, re.MULTILINE)
    assert re.search(r"^backup_incremental +incremental-\d{8}T\d{6}Z-\w{8}$", report, re.MULTILINE)
    assert "The restored tree equals its source" in report
    assert "make down" in report


def test_it_takes_less_than_four_minutes_and_says_something_all_along(report: str) -> None:
    moments = [float(found) for found in re.findall(r"^\[ *([\d.]+) s\]", report, re.MULTILINE)]
    assert moments[-1] < 240
    assert max(later - earlier for earlier, later in itertools.pairwise(moments)) < 15


def test_one_run_of_each_dag(demo: Demo, report: str) -> None:
    names = ("Airflow's UI", "user", "password")
    facts = [re.search(rf"^{name} +(\S+)$", report, re.MULTILINE) for name in names]
    with AirflowClient(*(found[1] for found in facts if found)) as airflow:
        for dag_id in ("backup_full", "backup_incremental", "restore_backup"):
            # Within a tenth of its interval after a scheduled time, Airflow adds a run of the schedule.
            by_hand = [run["state"] for run in airflow.runs(dag_id) if run["run_type"] == "manual"]
            assert by_hand == ["success"]


def test_the_login_is_needed(demo: Demo, report: str) -> None:
    url = re.search(r"http://\S+", report)
    assert url
    answer = httpx.get(f"{url[0]}/api/v2/dags", trust_env=False)
    assert answer.status_code == httpx.codes.UNAUTHORIZED


def test_it_listens_on_loopback_only(demo: Demo) -> None:
    pids = [process.pid for process in demo.state.processes.alive()]
    addresses = addresses_of(pids)
    assert len(addresses) == 9, "eight of SeaweedFS, one of Airflow"
    assert {host for host, _ in addresses} == {HOST}
    assert not [name for name in unix_sockets_of(pids) if name.startswith("/") and str(ROOT) not in name]


def test_secrets_are_kept(demo: Demo, report: str) -> None:
    credentials = (demo.state.folder / "s3/credentials.json").read_text()
    secret = re.search(r'"secretKey": "(.+?)"', credentials)
    assert secret
    assert secret[1] not in report
    logs = [*demo.state.logs.rglob("*.log"), *(demo.state.folder / "airflow/logs").rglob("*.log")]
    assert len(logs) > 20
    assert not [log for log in logs if secret[1] in log.read_text(errors="replace")]
    open_to_others = os.stat(demo.state.folder).st_mode & 0o077
    assert not open_to_others


def test_a_second_one_says_that_it_is_up(demo: Demo) -> None:
    arguments = [sys.executable, "-m", "fastvlm_ops.local.demo", "--state-dir", str(demo.state.folder)]
    done = subprocess.run(arguments, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60)
    assert "up already" in done.stdout
    assert "http://127.0.0.1:" in done.stdout


def test_down_leaves_nothing_and_can_be_repeated(demo: Demo) -> None:
    ports = [port for _, port in addresses_of(process.pid for process in demo.state.processes.alive())]
    assert demo.down().startswith("Stopped ")
    assert demo.left() == []
    assert not [port for port in ports if answers(port)]
    assert demo.down() == "Nothing was running.\n"


def test_down_during_the_start_stops_that_too(demo: Demo) -> None:
    driver = demo.start()
    demo.wait_for("S3 server: ready;", driver, seconds=60)
    assert demo.down().startswith("Stopped ")
    assert driver.wait(10) == 130
    assert demo.left() == []
