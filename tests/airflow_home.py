"""Gives the tests an Airflow of their own; imported by conftest files before anything imports Airflow.

Airflow reads its configuration once, when it is first imported, and writes to its home then.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def _enter() -> Path:
    if "airflow" in sys.modules:
        raise RuntimeError("Airflow was imported before tests.airflow_home, and has another home by now")
    home = Path(tempfile.mkdtemp(prefix="fastvlm-ops-airflow-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    for variable in [name for name in os.environ if name.startswith(("AIRFLOW_", "AWS_"))]:
        del os.environ[variable]
    os.environ |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        # No look-up of the machine's identity in the cloud when credentials are missing.
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    return home


AIRFLOW_HOME = _enter()
