"""Fixtures of tests that run coreml_benchmark: a kit with small models, and this machine as a device."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastvlm_ops.core.config.coreml import load_coreml
from fastvlm_ops.core.coreml.golden import write_golden
from fastvlm_ops.core.coreml.packages import digest
from fastvlm_ops.core.coreml.reference import ReferenceModel
from fastvlm_ops.local.coreml_models import NAMES, Name, Variant, example_inputs
from tests.airflow_home import ROOT
from tests.airflow_kit import Kit
from tests.coreml_kit import Build

#: Small figures, so that a run takes seconds.
SESSIONS = {"count": 2, "warm_up": 1, "iterations": 3, "warm_loads": 1, "cooldown_seconds": 0, "max_rerun": 0}


@dataclass(frozen=True)
class Models:
    """The models of a kit.

    :param folder: that the packages are in
    :param include: folder of the definition files
    """

    folder: Path
    include: Path
    build: Build

    def put(self, name: Name, version: int, variant: Variant = "good") -> Path:
        """Put a version of a model there."""
        package = self.folder / f"{name}-v{version}.mlpackage"
        return Path(shutil.copytree(self.build(name, variant), package))

    def define(self, **changes: Any) -> None:
        """Write ``coreml.yaml``."""
        models = [
            {
                "name": name,
                "path": f"models/{name}-v{{version}}.mlpackage",
                "compute_units": ["CPU_AND_NE"],
            }
            for name in NAMES
        ]
        devices = [{"name": "linux-reference", "backend": "linux-reference"}]
        values = {"version": 1, "models": models, "devices": devices, "sessions": SESSIONS} | changes
        (self.include / "coreml.yaml").write_text(yaml.safe_dump(values))
        load_coreml(self.include)


@pytest.fixture(scope="session")
def golden_folders(coreml_package: Build, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Golden inputs and outputs of each model: what the original gives in single precision."""
    folders = {}
    for name in NAMES:
        original = coreml_package(name, "original")
        folders[name] = tmp_path_factory.mktemp("golden") / f"{name}.golden"
        inputs = example_inputs(name)
        outputs = ReferenceModel(original).predict(inputs)
        made_by = "linux-reference fp32"
        write_golden(folders[name], inputs, outputs, model=name, made_by=made_by, digest=digest(original))
    return folders


@pytest.fixture
def models(
    kit: Kit,
    connection: dict[str, Any],
    coreml_package: Build,
    golden_folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Models:
    """A kit whose models are at version 1, with definitions and an operations database of the test's own."""
    include = Path(shutil.copytree(ROOT / "include", tmp_path / "include"))
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__INCLUDE_DIR", str(include))
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__DATABASE_PATH", str(tmp_path / "operations.db"))
    made = Models(kit.folder / "models", include, coreml_package)
    for name, folder in golden_folders.items():
        shutil.copytree(folder, made.folder / folder.name)
        made.put(name, 1)  # type: ignore[arg-type]
    made.define()
    return made
