"""JSON schemas of the definition files, so that editors check and complete them while one types.

``python -m fastvlm_ops.core.config.schemas`` writes them to ``include/schemas``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fastvlm_ops.core.config.capacity import Capacity
from fastvlm_ops.core.config.components import Components
from fastvlm_ops.core.config.coreml import CoreMLDefinitions
from fastvlm_ops.core.config.disaster_recovery import Scenario
from fastvlm_ops.core.config.disaster_recovery_policy import DisasterRecoveryPolicy
from fastvlm_ops.core.config.reading import DefinitionFile

SCHEMAS: dict[str, type[DefinitionFile]] = {
    "capacity.schema.json": Capacity,
    "components.schema.json": Components,
    "coreml.schema.json": CoreMLDefinitions,
    "disaster_recovery.schema.json": Scenario,
    "disaster_recovery_policy.schema.json": DisasterRecoveryPolicy,
}


def schema_text(model: type[DefinitionFile]) -> str:
    """Return a model's JSON schema as it is stored.

    :param model: top level of a definition file
    """
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
    return json.dumps(schema, indent=2) + "\n"


def write_schemas(folder: Path) -> None:
    """Write all schemas.

    :param folder: where to; made where absent
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, model in SCHEMAS.items():
        (folder / name).write_text(schema_text(model), encoding="utf-8")


def main() -> None:
    """Write all schemas to the folder given, ``include/schemas`` by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("include/schemas"))
    write_schemas(parser.parse_args().folder)


if __name__ == "__main__":
    main()
