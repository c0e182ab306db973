"""What restores do for a PostgreSQL cluster: base backup and WAL to a target, and a start on trial."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvlm_ops import settings
from fastvlm_ops.core.config import DefinitionError, PostgreSQLComponent, load_components
from fastvlm_ops.hooks.operations_db import OperationsDatabaseError
from fastvlm_ops.hooks.postgresql import PostgreSQLClusterHook

if TYPE_CHECKING:
    from fastvlm_ops.core.backup.postgresql.recovery import RecoveryPlan, RecoveryTarget
    from fastvlm_ops.core.backup.repository import Repository

log = logging.getLogger(__name__)

_TRIAL_SECONDS = 4 * 3600.0


@dataclass(frozen=True)
class RecoveryForm:
    """The section PostgreSQL of the form, as its fields are filled in.

    :param latest: whether to recover to the end of the stored WAL, where no other target is given
    :param trial: whether the recovered cluster is started and checked
    """

    time: str | None = None
    lsn: str | None = None
    name: str | None = None
    latest: bool = False
    inclusive: bool = True
    timeline: str = "latest"
    action: str = "promote"
    trial: bool = True

    def target(self) -> RecoveryTarget | None:
        """Return where to recover to; None where the base backup alone is wanted.

        :raises RecoveryError: the fields contradict each other, or one cannot be read
        """
        from fastvlm_ops.core.backup.errors import RecoveryError
        from fastvlm_ops.core.backup.postgresql.recovery import RecoveryTarget

        given = bool(self.time or self.lsn or self.name)
        if not given and not self.latest:
            if not self.inclusive or self.timeline != "latest" or self.action != "promote":
                raise RecoveryError(
                    "how to recover is given, but not where to: give a time, an LSN or a restore point, or"
                    " turn To the newest on"
                )
            return None
        if given and self.latest:
            raise RecoveryError(
                "a recovery has one target; turn To the newest off, or empty the other fields"
            )
        return RecoveryTarget.parse(
            time=self.time,
            lsn=self.lsn,
            name=self.name,
            inclusive=self.inclusive,
            timeline=self.timeline,
            action=self.action,
        )


def plan_steps(
    repository: Repository,
    snapshots: dict[str, str],
    form: RecoveryForm,
    *,
    chosen: bool,
    paths: Sequence[str],
) -> dict[str, RecoveryPlan]:
    """Plan the recovery of the components that are clusters; empty where none is asked for.

    :param snapshots: ids by component
    :param chosen: whether a person chose the backup, so that its base backup is the one to begin with
    :param paths: patterns of the form, which cannot select part of a cluster
    :raises RecoveryError: a target cannot be reached, or there is no cluster to recover
    """
    from fastvlm_ops.core.backup.errors import RecoveryError
    from fastvlm_ops.core.backup.postgresql.recovery import plan_recovery

    target = form.target()
    if target is None:
        return {}
    clusters = [name for name, snapshot_id in snapshots.items() if is_cluster(repository, snapshot_id)]
    if not clusters:
        raise RecoveryError(
            f"there is nothing to recover: none of {', '.join(snapshots)} is a cluster of PostgreSQL; empty"
            " the fields of the section PostgreSQL"
        )
    if paths:
        raise RecoveryError("part of a cluster cannot be recovered; leave Paths empty, or the target")
    plans = {}
    for name in clusters:
        plan = plan_recovery(repository, name, target, snapshot_id=snapshots[name] if chosen else None)
        plans[name] = plan
        log.info("%s", plan)
    return plans


def is_cluster(repository: Repository, snapshot_id: str) -> bool:
    """Return whether a snapshot is a base backup of PostgreSQL."""
    from fastvlm_ops.core.backup.postgresql.bases import base_of
    from fastvlm_ops.core.backup.reading import read_manifest

    record = repository.refresh().snapshots[snapshot_id]
    return base_of(read_manifest(repository, record)) is not None


def set_of(repository: Repository, snapshot_id: str) -> str:
    """Return the id of the newest backup set with a snapshot; empty where it is in none."""
    from fastvlm_ops.core.backup.sets import list_sets

    for backup in reversed(list_sets(repository)):
        if any(member.snapshot_id == snapshot_id for member in backup.snapshots):
            return backup.set_id
    return ""


def recovery_arguments(plan: RecoveryPlan, form: RecoveryForm) -> dict[str, Any]:
    """Return what the task that recovers has to know, as small JSON.

    The timeline is settled here, so that an attempt that follows goes on where this one was stopped.
    """
    target = replace(plan.target, timeline=plan.timeline)
    return {"target": target.as_dict(), "trial": form.trial, "plan": plan.as_dict()}


def recover_step(
    repository: Repository,
    component: str,
    snapshot_id: str,
    folder: Path,
    recovery: dict[str, Any],
    *,
    dry_run: bool,
    progress: Any = None,
) -> dict[str, Any]:
    """Recover a cluster and start it on trial, or prove that both could be done.

    :param recovery: of :func:`recovery_arguments`
    :returns: as the result of a restore, with ``recovery`` and ``trial``
    """
    from fastvlm_ops.core.backup.postgresql.recovery import (
        RecoveryTarget,
        check_recovery,
        plan_recovery,
        recover,
    )
    from fastvlm_ops.core.backup.postgresql.trial import check_recovered, trial_programs

    target = RecoveryTarget.from_dict(recovery["target"])
    plan = plan_recovery(repository, component, target, snapshot_id=snapshot_id)
    # Before anything is written: hours later would be late to learn that there is no server.
    programs = trial_programs(plan.major, settings.postgresql_bin_dir()) if recovery["trial"] else None
    if dry_run:
        return {**check_recovery(repository, plan, folder).as_dict(), "trial": None}
    result = recover(repository, plan, folder, progress)
    for change in result.changes:
        log.info("Of the original's settings: %s", change)
    if programs is None:
        return {**result.as_dict(), "trial": None}
    checks = component_checks(component)
    trial = check_recovered(
        folder,
        programs=programs,
        queries=checks.queries,
        database=checks.database,
        timeout_seconds=_TRIAL_SECONDS,
    ).as_dict()
    if checks.problem is not None:
        trial["unchecked"].append(f"queries: {checks.problem}")
    for what in trial["unchecked"]:
        log.warning("Not checked, which is not the same as passed: %s", what)
    return {**result.as_dict(), "trial": trial}


@dataclass(frozen=True)
class ComponentChecks:
    """What is asked of a recovered cluster, and why nothing is."""

    queries: tuple[str, ...] = ()
    database: str = "postgres"
    problem: str | None = None


def component_checks(component: str) -> ComponentChecks:
    """Return the queries of a component. A new machine may lack them: that keeps nothing from working.

    :param component: its name
    """
    try:
        definition = load_components(settings.include_dir()).component(component)
    except (DefinitionError, settings.SettingError) as error:
        return ComponentChecks(problem=f"not asked: {error}")
    if not isinstance(definition, PostgreSQLComponent):
        return ComponentChecks(
            problem=f"not asked: {component} is of kind {definition.kind} in components.yaml"
        )
    try:
        database = PostgreSQLClusterHook(definition.connection).url().database or "postgres"
    except OperationsDatabaseError as error:  # which database they are for is not known then
        return ComponentChecks(problem=f"not asked: {error}")
    return ComponentChecks(definition.checks, database)
