"""The state folder is cleared only if the demo made it, and one process at a time works on it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastvlm_ops.local.ports import HOST, answers, bypass_proxies, free_ports
from fastvlm_ops.local.state import DemoState, StateError


def test_an_occupied_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(StateError, match="is not empty"), DemoState(tmp_path).claim():
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_its_own_folder_is_cleared(tmp_path: Path) -> None:
    state = DemoState(tmp_path / "demo")
    for _ in range(2):
        with state.claim():
            (state.folder / "kit").mkdir()
            (state.folder / "kit/file").touch()
            (state.folder / "link").symlink_to(tmp_path)
            state.clear()
            assert not state.kit.exists()
    assert tmp_path.exists()
    assert state.folder.stat().st_mode & 0o777 == 0o700


def test_one_at_a_time(tmp_path: Path) -> None:
    with (
        DemoState(tmp_path / "demo").claim(),
        pytest.raises(StateError, match="at work"),
        DemoState(tmp_path / "demo").claim(),
    ):
        pass


def test_up_is_only_what_runs(tmp_path: Path) -> None:
    state = DemoState(tmp_path / "demo")
    with state.claim():
        assert state.running() is None
        process = state.processes.start(
            "service", ["sleep", "60"], environment=dict(os.environ), log=tmp_path / "log"
        )
        state.processes.note(ready={"services": ["service"]})
        assert state.running() == {"services": ["service"]}
        process.id.signal(9)
        state.processes.wait(process)
        assert state.running() is None
        state.stop()


def test_down_stops_the_driver_first(tmp_path: Path) -> None:
    state = DemoState(tmp_path / "demo")
    with state.claim():
        state.note_driver()
    code = (
        "import sys, time; from pathlib import Path; from fastvlm_ops.local.state import DemoState;"
        "DemoState(Path(sys.argv[1])).note_driver(); print('noted', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(state.folder)], stdout=subprocess.PIPE) as driver:
        assert driver.stdout is not None
        driver.stdout.readline()
        # The driver is this test's child, so that it stays as a zombie until it is waited for.
        state.stop()
        assert driver.wait(10) == -15


def test_down_needs_only_the_standard_library(tmp_path: Path) -> None:
    plugins = Path(__file__).resolve().parents[3] / "plugins"
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); import fastvlm_ops.local.down as down; down.main()"
    )
    arguments = [sys.executable, "-I", "-S", "-c", code, str(plugins), "--state-dir", str(tmp_path)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "Nothing was running.\n"), done.stderr


def test_free_ports() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert not any(answers(port) for port in ports)


def test_this_machine_is_asked_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "example.org")
    monkeypatch.delenv("NO_PROXY", raising=False)
    bypass_proxies()
    bypass_proxies()
    assert os.environ["no_proxy"] == f"example.org,{HOST},localhost"
    assert os.environ["NO_PROXY"] == f"{HOST},localhost"
