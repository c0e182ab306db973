"""The wheel, built and installed into clean environments at the versions of the lock."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UV = Path(sys.executable).parent / "uv"
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "PYTHON"))}
IMPORT_CORE = (
    "import importlib.util, fastvlm_ops, fastvlm_ops.core.backup, fastvlm_ops.core.config;"
    "assert importlib.util.find_spec('airflow') is None"
)


def run(*command: str | Path, **environment: str) -> str:
    result = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT | environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def install(wheel: Path, extras: str, folder: Path, python: str | Path = sys.executable) -> Path:
    """Install the wheel into a new environment; return its folder of programs."""
    run(UV, "venv", "--quiet", "--python", python, folder)
    options = ["--quiet", "--python", folder, "--constraint", "requirements.lock"]
    run(UV, "pip", "install", *options, f"fastvlm-ops{extras} @ {wheel.as_uri()}")
    return folder / "bin"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    run(UV, "build", "--quiet", "--wheel", "--no-build-isolation", "--python", sys.executable, "-o", folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def with_airflow(wheel, tmp_path_factory):
    """Programs of an environment with Airflow, and the variables it needs."""
    programs = install(wheel, "[airflow]", tmp_path_factory.mktemp("airflow") / "venv")
    return programs, {"AIRFLOW_HOME": str(tmp_path_factory.mktemp("home"))}


def find_python(version: str) -> Path | None:
    found = subprocess.run(
        [UV, "python", "find", "--system", "--no-python-downloads", version], capture_output=True, text=True
    )
    if found.returncode == 0:
        return Path(found.stdout.strip())
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    return next(iter(sorted(pyenv.glob(f"versions/{version}.*/bin/python"))), None)


def test_wheel_holds_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"fastvlm_ops", f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"}
    assert "fastvlm_ops/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_core_works_without_airflow(wheel, tmp_path):
    run(install(wheel, "[backup]", tmp_path / "venv") / "python", "-c", IMPORT_CORE)


def test_config_works_with_the_base_alone(wheel, tmp_path):
    programs = install(wheel, "", tmp_path / "venv")
    run(programs / "python", "-c", "import fastvlm_ops.core.config")


@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_other_pythons(wheel, tmp_path, version):
    options = ["--quiet", "--python-version", version, "--only-binary", ":all:", "--all-extras"]
    resolved = run(UV, "pip", "compile", "pyproject.toml", *options, "--constraint", "requirements.lock")
    assert "apache-airflow==3.3" in resolved
    python = find_python(version)
    if python is None:
        pytest.skip(f"no Python {version} here: its dependencies were resolved, the package not run")
    run(install(wheel, "[backup]", tmp_path / "venv", python) / "python", "-c", IMPORT_CORE)


def test_airflow_lists_the_provider(with_airflow):
    programs, environment = with_airflow
    listed = json.loads(run(programs / "airflow", "providers", "list", "--output", "json", **environment))
    (provider,) = (row for row in listed if row["package_name"] == "fastvlm-ops")
    assert (
        provider["version"]
        == run(programs / "python", "-c", "import fastvlm_ops as f; print(f.__version__)").strip()
    )


def test_airflow_knows_the_connection_type(with_airflow):
    programs, environment = with_airflow
    hooks = json.loads(run(programs / "airflow", "providers", "hooks", "--output", "json", **environment))
    (hook,) = (row for row in hooks if row["connection_type"] == "fastvlm_s3")
    assert hook["class"] == "fastvlm_ops.hooks.s3.BackupRepositoryHook"
    assert hook["package_name"] == "fastvlm-ops"


def test_airflow_knows_the_settings(with_airflow):
    programs, environment = with_airflow
    listed = run(programs / "airflow", "config", "list", "--section", "fastvlm_ops", **environment)
    for option in ("include_dir", "kit_dir", "restore_dir", "scratch_dir"):
        assert option in listed
    environment["AIRFLOW__FASTVLM_OPS__INCLUDE_DIR"] = "/srv/include"
    value = run(programs / "airflow", "config", "get-value", "fastvlm_ops", "include_dir", **environment)
    assert value.strip() == "/srv/include"
