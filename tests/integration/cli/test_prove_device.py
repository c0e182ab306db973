"""``fastvlm-ops prove-device``, against the stand-in for Apple's toolchain."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fastvlm_ops.cli import main
from fastvlm_ops.local.apple import AppleScript, AppleToolchain, Fault, FaultKind


@pytest.fixture
def toolchain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AppleToolchain:
    """The stand-in, first on PATH; the runner's builds go into the test's folder."""
    for name in ("_AIRFLOW_PROCESS_CONTEXT", "AIRFLOW__LOGGING__LOGGING_LEVEL"):  # which main sets
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setenv("HOME", str(tmp_path))
    found = AppleToolchain(tmp_path / "apple")
    for name, value in found.install().items():
        monkeypatch.setenv(name, value)
    return found


def names(report: Path) -> dict[str, bool]:
    return {step["name"]: step["passed"] for step in json.loads(report.read_text())["steps"]}


@pytest.mark.parametrize("kind", ["iphone", "this-mac"])
def test_proves_a_device(
    toolchain: AppleToolchain, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    report = tmp_path / "report.json"
    code = main(["prove-device", "--kind", kind, "--team", "ABCDE12345", "--report", str(report)])
    said = capsys.readouterr().out
    assert code == 0, said
    assert "proved: the backend works on this device" in said
    assert names(report) == dict.fromkeys(
        (
            "toolchain",
            "device is found",
            "device is ready",
            "session, CPU_ONLY",
            "outputs, CPU_ONLY",
            "placement, CPU_ONLY",
            "session, CPU_AND_NE",
            "outputs, CPU_AND_NE",
            "placement, CPU_AND_NE",
            "cleaned up",
        ),
        True,
    )
    assert "00008130" not in report.read_text()  # no UDID
    assert toolchain.apps() == []


def test_says_what_failed(
    toolchain: AppleToolchain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toolchain.install(AppleScript(faults=(Fault(FaultKind.NAN_OUTPUTS),)))
    report = tmp_path / "report.json"
    assert main(["prove-device", "--report", str(report)]) == 1
    assert not names(report)["outputs, CPU_ONLY"]
    assert names(report)["session, CPU_ONLY"]
    toolchain.install(AppleScript(devices=()))
    assert main(["prove-device"]) == 1
    assert "FAILED  device is found: device_missing: no iphone; connect one" in capsys.readouterr().out


def test_reads_a_declared_device(
    toolchain: AppleToolchain,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    include = tmp_path / "include"
    include.mkdir()
    (include / "coreml.yaml").write_text(
        "version: 1\n"
        "models: [{name: M, path: 'M-v{version}.mlpackage'}]\n"
        "devices: [{name: phone, backend: connected-device, connection: my_phone}]\n"
    )
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__INCLUDE_DIR", str(include))
    monkeypatch.setenv(
        "AIRFLOW_CONN_MY_PHONE", json.dumps({"conn_type": "fastvlm_apple_device", "host": "x;y"})
    )
    assert main(["prove-device", "phone"]) == 1
    assert "Connection 'my_phone': the device's identifier has a wrong form" in capsys.readouterr().err
    assert main(["prove-device", "phon"]) == 1
    assert "phon" in capsys.readouterr().err
    monkeypatch.setenv("AIRFLOW_CONN_MY_PHONE", json.dumps({"conn_type": "fastvlm_apple_device"}))
    toolchain.install(AppleScript(devices=()))
    assert main(["prove-device", "phone"]) == 1
    assert "device_missing" in capsys.readouterr().out
