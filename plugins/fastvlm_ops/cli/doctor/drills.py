"""Check of the services that disaster-recovery drills break. Where none is named, backups do without."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from airflow.sdk.exceptions import AirflowNotFoundException

from fastvlm_ops.cli.doctor.findings import Finding, failed, ok, warning
from fastvlm_ops.cli.places import Places
from fastvlm_ops.core.config import DefinitionError
from fastvlm_ops.core.config.disaster_recovery import ServiceTarget, load_scenario, scenario_files
from fastvlm_ops.hooks.service import ServiceHook

_ADD = (
    f"airflow connections add {{}} --conn-type {ServiceHook.conn_type} --conn-host unix:/path/of/control.sock"
)


def examine(places: Places) -> Iterator[Finding]:
    """Ask each service that a scenario names what it is: it has to answer on the workers of drills."""
    for name, scenarios in sorted(_connections(places).items()):
        check = f"service {name}"
        try:
            ServiceHook.get_connection(name)
        except AirflowNotFoundException:
            found = f"there is no connection {name}, so these drills would fail: {', '.join(scenarios)}"
            yield warning(check, found, f"leave them paused, or {_ADD.format(name)}")
            continue
        answers, found = ServiceHook(name).test_connection()
        yield ok(check, found) if answers else failed(check, found, f"start it, or edit {name}")


def _connections(places: Places) -> dict[str, list[str]]:
    """The scenarios that use a connection to a service; a file that is wrong is among the definitions."""
    used = defaultdict(list)
    for file in scenario_files(places.include):
        try:
            target = load_scenario(file).target
        except DefinitionError:
            continue
        if isinstance(target, ServiceTarget):
            used[target.connection].append(file.stem)
    return used
