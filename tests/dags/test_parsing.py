"""Parsing a DAG file needs no connection and no network, imports nothing heavy, and is quick."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.airflow_home import ROOT

DAG_FILES = sorted((ROOT / "dags").rglob("*.py"))
BUDGET_SECONDS = 0.3


@pytest.fixture(scope="module")
def probes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What parse_probe.py found, by file. Its Airflow has no database, so a look-up of anything fails."""
    home = tmp_path_factory.mktemp("airflow")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_CONN_")}
    result = subprocess.run(
        [sys.executable, "-m", "tests.dags.parse_probe", *map(str, DAG_FILES)],
        cwd=ROOT,
        env={**environment, "AIRFLOW_HOME": str(home), "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture(params=DAG_FILES, ids=lambda path: path.stem)
def probe(request: pytest.FixtureRequest, probes: dict[str, Any]) -> dict[str, Any]:
    """What parse_probe.py found for one file."""
    return probes[str(request.param)]


def test_imports_without_connection_and_network(probe: dict[str, Any]) -> None:
    assert probe["import_errors"] == {}
    assert probe["contacted"] == []
    assert probe["dags"]


def test_stays_within_the_budget(probe: dict[str, Any]) -> None:
    assert probe["seconds"] < BUDGET_SECONDS


def test_imports_nothing_heavy(probe: dict[str, Any]) -> None:
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]
    heavy = set(ruff["lint"]["flake8-tidy-imports"]["banned-module-level-imports"])
    heavy_of_ours = {"fastvlm_ops.core.backup"}
    found = [name for name in probe["imported"] if name.partition(".")[0] in heavy or name in heavy_of_ours]
    assert found == []


def test_airflow_executes_no_file_of_the_package_as_a_plugin() -> None:
    from airflow._shared.module_loading import find_path_from_directory

    files = {Path(path) for path in find_path_from_directory(ROOT / "plugins", ".airflowignore")}
    assert not [path for path in files if path.is_relative_to(ROOT / "plugins" / "fastvlm_ops")]
