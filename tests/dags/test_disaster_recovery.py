"""Every drill that is shipped, for real: on a service that is really broken, and backups in a real bucket."""

from __future__ import annotations

from typing import Any

import pytest

from tests.drill_stack import Drilled


def test_a_killed_process(drilled: Drilled, published: None, run_dag: Any) -> None:
    run = run_dag("disaster_recovery_service_process_killed", {"dry_run": False})
    print(run.tasks)
    print(run.xcoms)
    assert run.state == "success"
