"""Steps that restore backups, to scratch and into places of the service, and prove what came back."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvlm_ops.core.config.disaster_recovery_steps import (
    ComponentsSound,
    RestoreToScratch,
)
from fastvlm_ops.core.disaster_recovery.errors import InconclusiveError
from fastvlm_ops.core.disaster_recovery.plan import DrillPlan
from fastvlm_ops.core.disaster_recovery.restore_tests import (
    FULL,
    RESTORED,
    asked_set,
    mark_tested,
    older_than_asked,
    recorded_test,
    remove_earlier,
)
from fastvlm_ops.core.disaster_recovery.restoring import (
    Deadline,
    OverTimeError,
    RestoredSet,
    begin_set,
    read_note,
    remove_restored,
    restore_component,
    small,
    write_note,
)
from fastvlm_ops.core.disaster_recovery.steps import CheckResult, Status
from fastvlm_ops.core.disaster_recovery.surroundings import Surroundings
from fastvlm_ops.core.disaster_recovery.validating import (
    HASHES_FOLDER,
    Means,
    Validated,
    validate_component,
)

if TYPE_CHECKING:
    from fastvlm_ops.core.backup.repository import Repository
    from fastvlm_ops.core.backup.sets import BackupSet

SHOWN = 5


def do_restore_to_scratch(step: RestoreToScratch, plan: DrillPlan, at: Surroundings) -> CheckResult:
    """Restore every component of the newest full backup into a folder of its own."""
    from fastvlm_ops.core.backup.errors import BackupNotFoundError
    from fastvlm_ops.core.backup.sets import select_set

    deadline, began = Deadline(step.within_seconds), time.monotonic()
    repository = open_repository(at)
    folder = at.scratch / RESTORED
    for gone in remove_earlier(folder):
        at.say(f"{gone}, of an earlier restore test, is removed")
    try:
        backup = select_set(repository, f"latest-{FULL}")
    except BackupNotFoundError as error:
        return result_of(step.action, "failed", began, f"there is nothing to restore: {error}", {})
    note, failed = _restore_all(repository, backup, folder, deadline, at)
    evidence = small(note)
    if failed:
        tests = {one.snapshot_id: recorded_test(one, 0.0) for one in failed if one.snapshot_id}
        evidence["marked"] = mark_tested(
            repository, at.store, backup.set_id, tests, run_key=plan.run_key, say=at.say
        )
        problems = [problem for one in failed for problem in one.problems]
        return result_of(step.action, "failed", began, "; ".join(problems), evidence)
    files = sum(one.files for one in note.components)
    detail = f"{len(note.components)} components of {backup.set_id}, {files} files, are in {folder}"
    return result_of(step.action, "passed", began, detail, evidence)


def _restore_all(
    repository: Repository, backup: BackupSet, folder: Path, deadline: Deadline, at: Surroundings
) -> tuple[RestoredSet, list[Validated]]:
    """Restore what is not there yet; returns the note, and what does not restore."""
    from fastvlm_ops.core.backup.errors import CorruptionError, RecoveryError

    note = begin_set(repository, backup, folder)
    write_note(folder, note)
    failed: list[Validated] = []
    for member in backup.snapshots:
        at.pause(0)
        done = note.component(member.component)
        if done is not None and done.snapshot_id == member.snapshot_id:
            continue
        try:
            deadline.check()
            done = restore_component(repository, member, folder, deadline.check)
        except (CorruptionError, RecoveryError) as error:
            problem = f"{member.component} does not restore: {error}"
            failed.append(Validated(member.component, member.snapshot_id, problems=[problem]))
            continue
        except OverTimeError as error:
            problem = f"{member.component} was not restored: {error}"
            return note, [*failed, Validated(member.component, "", problems=[problem])]
        note = note.model_copy(update={"components": (*note.components, done)})
        write_note(folder, note)
        at.did(f"restored {member.component} of {backup.set_id} to {folder / member.component}")
    return note, failed


def check_components_sound(step: ComponentsSound, plan: DrillPlan, at: Surroundings) -> CheckResult:
    """Compare what was restored with the backup that was asked for, use it, and mark the backup."""
    deadline, began = Deadline(step.within_seconds), time.monotonic()
    folder = at.scratch / RESTORED
    note = read_note(folder)
    if note is None:
        raise InconclusiveError("nothing was restored to scratch: the action restore_to_scratch comes before")
    repository = open_repository(at)
    asked = asked_set(repository, note)
    older = older_than_asked(repository, note, asked, at.store)
    found = _validate_all(repository, asked, note, folder, deadline, plan, at, step.only_compared)
    problems = [older] if older else []
    problems += [problem for one in found for problem in one.problems]
    if deadline.is_over:
        problems.append(f"it took longer than {step.within_seconds:g} s")
    unchecked = [what for one in found for what in one.unchecked]
    tests = {}
    for one in found:
        restored = note.component(one.component)
        # Of what was not restored, or of another backup, nothing is known.
        if restored is not None and restored.snapshot_id == one.snapshot_id and one.ok is not None:
            tests[one.snapshot_id] = recorded_test(one, restored.seconds)
    marked = not older and mark_tested(
        repository, at.store, asked.set_id, tests, run_key=plan.run_key, say=at.say
    )
    evidence = {
        **small(note),
        "asked_for": asked.set_id,
        "validated_at": datetime.now(UTC).isoformat(),
        "marked": marked,
        "validated": [one.as_dict() for one in found],
    }
    if problems or unchecked:
        status: Status = "failed" if problems else "inconclusive"
        at.say(f"what was restored stands in {folder} until the next restore test")
        return result_of(step.check, status, began, joined(problems or unchecked), evidence)
    remove_restored(folder)
    at.did(f"removed {folder}")
    files = sum(one.files for one in found)
    detail = f"{len(found)} components of {asked.set_id} are as backed up, {files} files by hash, and usable"
    return result_of(
        step.check, "passed", began, detail if marked else f"{detail}; it could not be marked", evidence
    )


def _validate_all(
    repository: Repository,
    asked: BackupSet,
    note: RestoredSet,
    folder: Path,
    deadline: Deadline,
    plan: DrillPlan,
    at: Surroundings,
    only_compared: tuple[str, ...],
) -> list[Validated]:
    means = Means(
        inspect_package=at.inspect_package,
        postgresql_bin_dir=at.postgresql_bin_dir,
        queries=_queries(at),
        only_compared=only_compared,
        hashes=Path(plan.folder) / HASHES_FOLDER,
    )
    found = []
    for member in asked.snapshots:
        at.pause(0)
        restored = note.component(member.component)
        one = validate_component(repository, member, restored, folder, means, seconds_left=deadline.left)
        at.say(f"{one.component}: {'; '.join(one.problems or one.unchecked) or 'sound'}")
        found.append(one)
    names = {member.component for member in asked.snapshots}
    for extra in (one for one in note.components if one.component not in names):
        problem = f"{extra.component} was restored, and {asked.set_id} has no such component"
        found.append(Validated(extra.component, extra.snapshot_id, problems=[problem]))
    return found


def _queries(at: Surroundings) -> Callable[[str], tuple[tuple[str, ...], str | None]]:
    """The checks of a component, and the database that they are for."""
    from fastvlm_ops.core.config import DefinitionError, PostgreSQLComponent

    def of(component: str) -> tuple[tuple[str, ...], str | None]:
        try:
            definition = at.components().component(component)
        except DefinitionError:  # a backup may have components that are defined no more
            return (), None
        if not isinstance(definition, PostgreSQLComponent) or not definition.checks:
            return (), None
        if at.cluster_database is None:
            return definition.checks, None
        try:
            return definition.checks, at.cluster_database(definition.connection)
        except Exception as error:  # of many kinds, by what is wrong with the connection
            at.say(f"which database the checks of {component} are for is not known: {error}")
            return definition.checks, None

    return of


def open_repository(at: Surroundings) -> Repository:
    """Return the backup repository.

    :param at: surroundings of a drill
    :raises InconclusiveError: none is known
    """
    if at.open_repository is None:
        raise InconclusiveError("there is no connection to the backups")
    return at.open_repository()


def joined(problems: list[str]) -> str:
    """Return the first problems as one text.

    :param problems: for people
    """
    more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return "; ".join(problems[:SHOWN]) + more


def result_of(name: str, status: Status, began: float, detail: str, evidence: dict[str, Any]) -> CheckResult:
    """Return what a check or an action has found.

    :param name: of it
    :param status: of it
    :param began: when it began, by the monotonic clock
    :param detail: for people
    :param evidence: small JSON
    """
    return CheckResult(name, status, round(time.monotonic() - began, 3), detail, evidence)
