"""From a scenario and what the target says of itself to a plan: this process, this file, this link."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastvlm_ops.core.config.disaster_recovery import Scenario
from fastvlm_ops.core.config.disaster_recovery_steps import (
    CorruptFile,
    DeletePath,
    DisturbLink,
    FillDisk,
    KillContainer,
    KillProcess,
    MakeReadOnly,
    RestartProcess,
    StopContainer,
    StopProcess,
    TruncateFile,
)
from fastvlm_ops.core.disaster_recovery.errors import DrillRefusedError
from fastvlm_ops.core.disaster_recovery.fault_types import (
    ContainerFault,
    DatabaseFault,
    Fault,
    FileFault,
    LinkFault,
    ProcessFault,
)
from fastvlm_ops.core.disaster_recovery.plan import DrillPlan
from fastvlm_ops.core.programs.proc import boot_id
from fastvlm_ops.core.services.instances import ContainerIdentity, Instance, ProcessIdentity, ServiceView

#: Roles that stand in for each other: a standby is what is left when the primary is hit.
DATABASES = ("database_primary", "database_standby")


@dataclass(frozen=True)
class Resolved:
    """What a scenario's fault hits.

    :param fault: None where nothing is broken
    :param hit: names of the instances that it takes out
    :param is_shared: whether it is what all instances of a kind read, so that none may be left healthy
    """

    fault: Fault | None
    hit: tuple[str, ...] = ()
    is_shared: bool = False


@dataclass(frozen=True)
class Origin:
    """Where and when a plan is made.

    :param run_key: ``<dag id>/<run id>``
    :param dry_run: whether nothing will be broken
    :param control: address of the service's control; None where the backups are the target
    :param drill_dir: of all drills of this worker
    :param host: name of this worker
    :param include_hash: of all of ``include/``
    :param moment: now, aware
    """

    run_key: str
    dry_run: bool
    control: str | None
    drill_dir: Path
    host: str
    include_hash: str
    moment: datetime


def fault_id(run_key: str) -> str:
    """Return the id of a run's only fault, which nothing but the run is needed for.

    :param run_key: ``<dag id>/<run id>``
    """
    return f"drill-{hashlib.sha256(run_key.encode()).hexdigest()[:16]}"


def drill_folder(drill_dir: Path, run_key: str) -> Path:
    """Return the folder of a run's observer and evidence.

    :param drill_dir: of all drills of this worker
    :param run_key: ``<dag id>/<run id>``
    """
    return drill_dir / "runs" / fault_id(run_key)


def make_plan(scenario: Scenario, origin: Origin, view: ServiceView | None, resolved: Resolved) -> DrillPlan:
    """Return a plan.

    :param scenario: as it was read
    :param origin: where and when
    :param view: of the service; None where it did not answer, or the backups are the target
    :param resolved: what the scenario's fault hits
    """
    fault = scenario.steps.simulate_failure
    healthy = [one.name for one in view.instances if one.healthy] if view else []
    environment = view.marker.environment if view else "unknown"
    return DrillPlan(
        run_key=origin.run_key,
        fault_id=fault_id(origin.run_key),
        scenario=scenario.name,
        definition=scenario.model_dump(mode="json"),
        definition_hash=hashlib.sha256(scenario.file.read_bytes()).hexdigest(),
        include_hash=origin.include_hash,
        dry_run=origin.dry_run,
        environment=environment if scenario.target.kind == "service" else scenario.environment,
        control=origin.control,
        url=view.url if view else None,
        fault=resolved.fault,
        time_to_live_seconds=fault.time_to_live_seconds if fault else 0.0,
        instances_before=tuple(healthy),
        folder=str(drill_folder(origin.drill_dir, origin.run_key)),
        host=origin.host,
        planned_at=origin.moment.astimezone(UTC).isoformat(),
    )


def scenario_of(plan: DrillPlan) -> Scenario:
    """Return the scenario as it was when the drill was planned, whatever has become of its file.

    :param plan: of the drill
    """
    scenario = Scenario.model_validate(plan.definition)
    return scenario.read_from(Path(f"{plan.scenario}.yaml"))


def resolve(scenario: Scenario, origin: Origin, view: ServiceView | None) -> Resolved:
    """Find what a scenario's fault hits, here and now.

    :param scenario: as it was read
    :param origin: where and when
    :param view: of the service; None where the backups are the target
    :raises DrillRefusedError: there is no such instance, link, place or file, or it may not be hit
    """
    step = scenario.steps.simulate_failure
    if step is None:
        return Resolved(None)
    if view is None or origin.control is None:
        raise DrillRefusedError("there is no service to break anything of")
    return _RESOLVERS[type(step)](step, origin, view)


def planned_target(plan: DrillPlan, view: ServiceView | None) -> Resolved:
    """Return what a plan's fault hits, as the service is now.

    :param plan: of the drill
    :param view: of the service; None where the backups are the target
    """
    fault = plan.fault
    if fault is None or view is None:
        return Resolved(fault)
    if isinstance(fault, ProcessFault | ContainerFault | DatabaseFault):
        return Resolved(fault, (fault.instance,))
    if isinstance(fault, LinkFault):
        return Resolved(fault, tuple(one.name for one in view.instances if one.name == fault.link))
    return Resolved(fault, _readers(view), is_shared=True)


def _process(step: Any, origin: Origin, view: ServiceView) -> Resolved:
    instance = _chosen(step, view)
    if not isinstance(instance.identity, ProcessIdentity):
        raise DrillRefusedError(
            f"{instance.name} is no process but a container; the fault for it is kill_container or"
            " stop_container"
        )
    if instance.identity.boot != boot_id():
        raise DrillRefusedError(
            f"{instance.name} runs on another machine than this worker, {origin.host}; set [fastvlm_ops]"
            " drill_queue to the queue of a worker beside it"
        )
    how = {"kill_process": "kill", "stop_process": "stop", "restart_process": "restart"}[step.fault]
    common: dict[str, Any] = {
        "control": origin.control,
        "instance": instance.name,
        "identity": instance.identity,
    }
    if how == "kill" and instance.role == "database_primary":
        return Resolved(DatabaseFault(**common), (instance.name,))
    return Resolved(ProcessFault(how=how, **common), (instance.name,))  # type: ignore[arg-type]


def _container(step: Any, origin: Origin, view: ServiceView) -> Resolved:
    instance = _chosen(step, view)
    if not isinstance(instance.identity, ContainerIdentity):
        raise DrillRefusedError(f"{instance.name} is no container but a process; the fault is kill_process")
    fault = ContainerFault(
        how="kill" if step.fault == "kill_container" else "stop",
        control=origin.control or "",
        instance=instance.name,
        identity=instance.identity,
    )
    return Resolved(fault, (instance.name,))


def _link(step: DisturbLink, origin: Origin, view: ServiceView) -> Resolved:
    if step.link not in view.links:
        raise DrillRefusedError(
            f"the service has no link {step.link!r}; it has {', '.join(sorted(view.links)) or 'none'}"
        )
    fault = LinkFault(
        control=origin.control or "",
        link=step.link,
        disturbance=step.disturbance,
        latency_ms=step.latency_ms,
    )
    # A link in front of an instance bears its name.
    return Resolved(fault, tuple(one.name for one in view.instances if one.name == step.link))


def _file(step: Any, origin: Origin, view: ServiceView) -> Resolved:
    place = _place(step.place, view)
    path = step.path or ""
    target = place / path
    if target.is_symlink() or not target.resolve().is_relative_to(place):
        raise DrillRefusedError(f"{path!r} in the place {step.place!r} leads elsewhere by a link")
    is_file = target.is_file()
    if not (is_file if step.fault != "delete_path" else target.exists()):
        raise DrillRefusedError(f"the place {step.place!r} has no {'file' if path else ''} {path!r} to hit")
    fault = FileFault(
        how={"corrupt_file": "corrupt", "truncate_file": "truncate", "delete_path": "delete"}[step.fault],  # type: ignore[arg-type]
        place=str(place),
        path=path,
        kept=str(place.parent / f".{fault_id(origin.run_key)}"),
        bytes=getattr(step, "bytes", 1),
    )
    return Resolved(fault, _readers(view), is_shared=True)


def _disk(step: Any, origin: Origin, view: ServiceView) -> Resolved:
    from fastvlm_ops.core.disaster_recovery.faults.disk import disk_fault
    from fastvlm_ops.core.disaster_recovery.faults.errors import FaultError

    try:
        fault = disk_fault(_place(step.place, view), "full" if step.fault == "fill_disk" else "read_only")
    except FaultError as error:
        raise DrillRefusedError(f"the place {step.place!r} may not be hit: {error}") from None
    return Resolved(fault, _readers(view), is_shared=True)


_RESOLVERS: dict[type, Callable[[Any, Origin, ServiceView], Resolved]] = {
    KillProcess: _process,
    StopProcess: _process,
    RestartProcess: _process,
    StopContainer: _container,
    KillContainer: _container,
    DisturbLink: _link,
    CorruptFile: _file,
    TruncateFile: _file,
    DeletePath: _file,
    FillDisk: _disk,
    MakeReadOnly: _disk,
}


def _chosen(step: Any, view: ServiceView) -> Instance:
    """Return the instance that is named, or the first healthy one of the role."""
    candidates = view.of_role(step.role)
    if step.instance is not None:
        candidates = [one for one in candidates if one.name == step.instance]
        if not candidates:
            raise DrillRefusedError(f"the service has no instance {step.instance!r} of role {step.role}")
    for one in candidates:
        if one.healthy and one.identity is not None:
            return one
    found = "; ".join(f"{one.name}: {one.detail or 'not healthy'}" for one in candidates) or "there is none"
    raise DrillRefusedError(f"no {step.role} is known to be healthy ({found}): what is broken is not drilled")


def _place(name: str, view: ServiceView) -> Path:
    if name not in view.places:
        raise DrillRefusedError(
            f"the service has no place {name!r}; it has {', '.join(sorted(view.places)) or 'none'}"
        )
    place = Path(view.places[name])
    if not place.is_absolute() or not place.is_dir():
        raise DrillRefusedError(f"the place {name!r} is {place}, which is no folder of this worker")
    return place.resolve()


def _readers(view: ServiceView) -> tuple[str, ...]:
    """Return the instances that read the service's files: its healthy replicas."""
    return tuple(one.name for one in view.of_role("replica") if one.healthy)
