"""The graph of all DAGs is the stored one, so that a change of it is seen in review."""

from __future__ import annotations

import json
from typing import Any

from tests.dags.graph import STORED, UPDATE, graph_of, text_of


def test_the_graph_is_the_stored_one(airflow_dags: dict[str, Any]) -> None:
    graph = json.loads(text_of(graph_of(airflow_dags)))
    assert graph == json.loads(STORED.read_text()), f"if this is meant, renew it with: {UPDATE}"
