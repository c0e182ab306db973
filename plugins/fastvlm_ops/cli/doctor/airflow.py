"""Checks of Airflow itself: its database, pools, processes, and what it knows of our DAGs."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy.exc import SQLAlchemyError

from fastvlm_ops.cli.doctor.findings import Finding, failed, not_tried, ok, warning
from fastvlm_ops.cli.pools import create_pools, missing_pools, needed_pools

_PROCESSES = {
    "scheduler": "airflow scheduler",
    "dag_processor": "airflow dag-processor",
    "triggerer": "airflow triggerer",
}
_NEEDED_FOR = {"triggerer": "backup_configuration, coreml_benchmark and approvals wait for it"}
_TAG = "fastvlm-ops"


def pools(*, fix: bool) -> Iterator[Finding]:
    """The pools that DAGs name: a task whose pool is missing never starts."""
    try:
        missing = missing_pools()
        names = ", ".join(pool.name for pool in missing)
        if missing and fix:
            create_pools(missing)
            yield ok("pools", f"created: {names}")
        elif missing:
            yield failed("pools", f"missing: {names}", "fastvlm-ops doctor --fix")
        else:
            yield ok("pools", f"{', '.join(pool.name for pool in needed_pools())} are there")
    except SQLAlchemyError as error:
        yield failed("pools", f"Airflow's database: {str(error).splitlines()[0]}", "airflow db migrate")


def processes() -> Iterator[Finding]:
    """Heartbeats of Airflow's processes."""
    from airflow.api.common.airflow_health import get_airflow_health

    health = get_airflow_health()
    if health["metadatabase"]["status"] != "healthy":
        yield failed("airflow database", "it does not answer", "airflow db check; airflow db migrate")
        yield from (not_tried(name, "airflow database") for name in _PROCESSES)
        return
    for name, command in _PROCESSES.items():
        state, last = health[name]["status"], health[name][f"latest_{name}_heartbeat"]
        if state == "healthy":
            yield ok(name, f"runs; last heartbeat {last}")
            continue
        said = f"last heartbeat {last}" if last else "it has never run"
        needed = f"; {_NEEDED_FOR[name]}" if name in _NEEDED_FOR else ""
        yield failed(name, f"does not run: {said}{needed}", f"start it: {command}")


def dags() -> Iterator[Finding]:
    """Whether Airflow has seen our DAGs, and which of them are paused."""
    from airflow.models.dag import DagModel, DagTag
    from airflow.utils.session import create_session
    from sqlalchemy import select

    try:
        with create_session() as session:
            query = select(DagModel.dag_id, DagModel.is_paused).join(DagTag, DagTag.dag_id == DagModel.dag_id)
            rows = session.execute(query.where(DagTag.name == _TAG, ~DagModel.is_stale)).all()
    except SQLAlchemyError as error:
        yield failed("dags", f"Airflow's database: {str(error).splitlines()[0]}", "airflow db migrate")
        return
    paused = sorted(dag_id for dag_id, is_paused in rows if is_paused)
    if not rows:
        yield warning(
            "dags", "Airflow has none of ours yet", "wait for the DAG processor, or airflow dags reserialize"
        )
    elif paused:
        remedy = f"airflow dags unpause {paused[0]}, and so on for those that are to run"
        yield warning("dags", f"paused: {', '.join(paused)}", remedy)
    else:
        yield ok("dags", f"{len(rows)} DAGs, none paused")
