"""Check of the Prometheus that capacity is forecast from. Where none is named, backups do without."""

from __future__ import annotations

from collections.abc import Iterator

from airflow.sdk.exceptions import AirflowNotFoundException

from fastvlm_ops.cli.doctor.findings import Finding, failed, ok, warning
from fastvlm_ops.hooks.prometheus import PrometheusHook

_CHECK = "prometheus"
_CONNECTION = PrometheusHook.default_conn_name
_ADD = (
    f"airflow connections add {_CONNECTION} --conn-type {PrometheusHook.conn_type} --conn-host http://…:9090"
)


def examine() -> Iterator[Finding]:
    """Ask the server that the connection names one question."""
    try:
        PrometheusHook.get_connection(_CONNECTION)
    except AirflowNotFoundException:
        found = f"there is no connection {_CONNECTION}: capacity_forecast and capacity_accuracy would fail"
        yield warning(_CHECK, found, f"leave them paused, or {_ADD}")
        return
    answers, found = PrometheusHook(_CONNECTION).test_connection()
    yield ok(_CHECK, found) if answers else failed(_CHECK, found, f"start it, or edit {_CONNECTION}")
