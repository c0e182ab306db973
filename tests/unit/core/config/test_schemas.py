"""The schemas in include/schemas, which editors use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastvlm_ops.core.config.schemas import SCHEMAS, schema_text, write_schemas

STORED = Path(__file__).parents[4] / "include" / "schemas"


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_stored_schema_is_current(name: str) -> None:
    assert (STORED / name).read_text(encoding="utf-8") == schema_text(SCHEMAS[name]), (
        "stored schema is out of date; renew it with: .venv/bin/python -m fastvlm_ops.core.config.schemas"
    )


def test_no_other_schema_is_stored() -> None:
    assert {path.name for path in STORED.iterdir()} == set(SCHEMAS)


def test_every_field_is_described(tmp_path: Path) -> None:
    write_schemas(tmp_path)
    for name in SCHEMAS:
        schema = json.loads((tmp_path / name).read_text())
        for definition in [schema, *schema["$defs"].values()]:
            for field, content in definition["properties"].items():
                assert content.get("description"), f"{name}: {field}"
