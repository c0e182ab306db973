"""A demo service that drills can break, with the connections and settings that lead to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.airflow_home import ROOT

if TYPE_CHECKING:
    from fastvlm_ops.local.seaweedfs import SeaweedFS
    from fastvlm_ops.local.service import DemoService


@dataclass(frozen=True)
class Drilled:
    """A demo service, and where its drills keep their things."""

    service: DemoService
    drill_dir: Path
    include: Path

    def left(self) -> list[str]:
        """What is left of faults; nothing where all is taken back."""
        from fastvlm_ops.core.disaster_recovery.fault_entries import entry_files, read_entry
        from fastvlm_ops.core.disaster_recovery.faults import is_left

        found = []
        for entry in map(read_entry, entry_files(self.drill_dir)):
            what = is_left(entry.fault, entry.hit)
            if what or not entry.is_closed:
                found.append(f"{entry.fault_id}: {entry.state}, {what}")
        return found


@pytest.fixture(scope="module")
def demo_service(tmp_path_factory: pytest.TempPathFactory, seaweedfs: SeaweedFS) -> Iterator[DemoService]:
    """The demo service; it ends with the file that wants it, for it keeps a tenth of a processor busy."""
    from fastvlm_ops.local.service.demo_service import DemoService

    folder = tmp_path_factory.mktemp("service")
    with DemoService(folder, object_store_url=seaweedfs.endpoint_url, die_with_parent=True) as service:
        yield service


@pytest.fixture
def drilled(
    demo_service: DemoService, kit: Any, connection: dict[str, Any], tmp_path: Path, monkeypatch: Any
) -> Drilled:
    """The demo service, healthy, with what it takes to drill it, and to back its places up."""
    demo_service.wait_until_healthy()
    include = tmp_path / "include"
    include.mkdir()
    for entry in (ROOT / "include").iterdir():
        (include / entry.name).symlink_to(entry)
    definitions = yaml.safe_load((include / "components.yaml").read_text())
    for component in definitions["components"]:
        if component["name"] == "models":
            component["path"] = str(demo_service.places["model_store"])
        if component["name"] == "configuration":
            component["path"] = str(demo_service.places["configuration"])
    (include / "components.yaml").unlink()
    (include / "components.yaml").write_text(yaml.safe_dump(definitions))
    drill_dir = tmp_path / "drills"
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__INCLUDE_DIR", str(include))
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__DRILL_DIR", str(drill_dir))
    for name, fields in service_connections(demo_service).items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(fields))
    return Drilled(demo_service, drill_dir, include)


def service_connections(service: DemoService) -> dict[str, dict[str, Any]]:
    """The connections that lead to a demo service, by id.

    :param service: the demo service
    """
    return {
        "fastvlm_service": {
            "conn_type": "fastvlm_service",
            "host": service.control_address,
            "extra": {"database_conn_id": "fastvlm_service_db"},
        },
        "fastvlm_service_db": {
            "conn_type": "postgres",
            "host": "127.0.0.1",
            "login": service.database_user,
            "password": service.database_password,
            "schema": service.database_name,
        },
    }
