"""Steps of a drill in which S3 cannot be reached: a backup fails as it should, and the next one is whole."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fastvlm_ops.core.config.disaster_recovery_steps import BackupFails, BackupsRestore, RunBackup
from fastvlm_ops.core.disaster_recovery.errors import DrillError, InconclusiveError
from fastvlm_ops.core.disaster_recovery.fault_types import LinkFault, Recorded
from fastvlm_ops.core.disaster_recovery.plan import DrillPlan
from fastvlm_ops.core.disaster_recovery.restoring import (
    Deadline,
    OverTimeError,
    make_folder,
    remove_restored,
)
from fastvlm_ops.core.disaster_recovery.steps import CheckResult
from fastvlm_ops.core.disaster_recovery.steps.backups import joined, open_repository, result_of
from fastvlm_ops.core.disaster_recovery.steps.places import ignored_in_places, place_of
from fastvlm_ops.core.disaster_recovery.surroundings import Surroundings
from fastvlm_ops.core.disaster_recovery.validating import HASHES_FOLDER, describe_differences, noting_hashes

if TYPE_CHECKING:
    from fastvlm_ops.core.backup.create import SnapshotResult
    from fastvlm_ops.core.backup.repository import Repository

_MADE = "made.json"
_TRIED = "backups"
_LOOK_SECONDS = 0.2


class Made(Recorded):
    """A backup that was made in the drill."""

    place: str
    component: str
    snapshot_id: str


@dataclass
class _Attempt:
    """A backup that was tried: what became of it, once it ended."""

    result: SnapshotResult | None = None
    error: Exception | None = None


def check_backup_fails(step: BackupFails, plan: DrillPlan, at: Surroundings) -> CheckResult:
    """See that a backup made now fails, in bounded time, with a message that names the storage."""
    from fastvlm_ops.core.backup.errors import StorageError

    deadline, began = Deadline(step.within_seconds), time.monotonic()
    direct = open_repository(at)
    name = _backed_up_place(plan)
    place = place_of(name, plan, at)
    endpoint = _endpoint(plan, at, direct)
    run_key = f"{plan.run_key}/unreachable"
    attempt = _Attempt()
    trying = threading.Thread(
        target=_try_backup, args=(attempt, at, endpoint, place, name, run_key), daemon=True
    )
    trying.start()
    at.did(f"began a backup of {place} through {endpoint}")
    while trying.is_alive() and not deadline.is_over:
        at.pause(_LOOK_SECONDS)
    seconds = round(time.monotonic() - began, 3)
    evidence: dict[str, Any] = {"endpoint": endpoint, "place": str(place), "ended_after_seconds": seconds}
    if trying.is_alive():
        detail = f"the backup through {endpoint} still tries after {step.within_seconds:g} s"
        return result_of(step.check, "failed", began, detail, evidence)
    if attempt.error is None:
        detail = f"the backup through {endpoint} completed: what was broken is not on its way"
        return result_of(step.check, "failed", began, detail, evidence)
    message = " ".join(str(attempt.error).split())
    evidence |= {"error": type(attempt.error).__name__, "message": message[:500]}
    problems = []
    if not isinstance(attempt.error, StorageError):
        problems.append(f"it failed for another reason than the storage: {message}")
    if not any(named in message for named in _names(direct, endpoint)):
        problems.append(f"its message does not name the storage: {message}")
    if direct.refresh().snapshot_of_run(_component(name), run_key) is not None:
        problems.append("it failed, and left a snapshot in the log all the same")
    if problems:
        return result_of(step.check, "failed", began, joined(problems), evidence)
    return result_of(step.check, "passed", began, f"failed after {seconds:.1f} s: {message}", evidence)


def do_run_backup(step: RunBackup, plan: DrillPlan, at: Surroundings) -> CheckResult:
    """Back a place up, on the way that was broken before."""
    deadline, began = Deadline(step.within_seconds), time.monotonic()
    place = place_of(step.place, plan, at)
    direct = open_repository(at)
    repository, way = direct, str(direct.storage)
    if isinstance(plan.fault, LinkFault):
        way = _endpoint(plan, at, direct)
        repository = _open_through(at, way)
    try:
        made = _back_up(repository, place, step.place, plan.run_key, deadline)
    except OverTimeError as error:
        return result_of(step.action, "failed", began, str(error), {"way": way})
    at.did(f"backed {place} up through {way}")
    at.scratch.mkdir(parents=True, exist_ok=True)
    note = Made(place=step.place, component=_component(step.place), snapshot_id=made.snapshot_id)
    (at.scratch / _MADE).write_text(note.model_dump_json())
    evidence = {**note.model_dump(), "files": made.files, "size_bytes": made.size_bytes, "way": way}
    detail = f"{made.files} files of {place} are in snapshot {made.snapshot_id}"
    return result_of(step.action, "passed", began, detail, evidence)


def check_backups_restore(step: BackupsRestore, plan: DrillPlan, at: Surroundings) -> CheckResult:
    """Restore the newest backup of before and the one made in the drill, and compare both by hash."""
    deadline, began = Deadline(step.within_seconds), time.monotonic()
    try:
        made = Made.model_validate_json((at.scratch / _MADE).read_bytes())
    except FileNotFoundError:
        raise InconclusiveError(
            "no backup was made in the drill: the action run_backup comes before"
        ) from None
    repository = open_repository(at)
    earlier_id, wanted = _earlier(repository, plan)
    wanted[f"made-{made.component}"] = made.snapshot_id
    folder = at.scratch / _TRIED
    make_folder(folder)
    problems, compared = [], []
    try:
        for name, snapshot_id in wanted.items():
            at.pause(0)
            problem, found = _restore_and_compare(repository, snapshot_id, folder / name, plan, deadline)
            problems += [problem] if problem else []
            compared.append({"name": name, **found})
        problems += _place_differences(repository, made, plan, at)
    except OverTimeError as error:
        problems.append(str(error))
    finally:
        remove_restored(folder)
    evidence = {"set_id": earlier_id, "made": made.snapshot_id, "compared": compared}
    if problems:
        return result_of(step.check, "failed", began, joined(problems), evidence)
    files = sum(int(one["files"]) for one in compared)
    detail = f"{earlier_id} of before and {made.snapshot_id} restore: {files} files, equal by hash"
    return result_of(step.check, "passed", began, detail, evidence)


def _earlier(repository: Repository, plan: DrillPlan) -> tuple[str, dict[str, str]]:
    """The newest backup with all components that was published before the drill was planned.

    :raises InconclusiveError: there is none
    """
    from datetime import datetime

    from fastvlm_ops.core.backup.sets import COMPLETE_KINDS, list_sets

    planned = datetime.fromisoformat(plan.planned_at)
    records = repository.refresh().snapshots
    for backup in reversed(list_sets(repository)):
        finished = [datetime.fromisoformat(records[one.snapshot_id]["finished"]) for one in backup.snapshots]
        if backup.kind in COMPLETE_KINDS and max(finished) <= planned:
            return backup.set_id, {one.component: one.snapshot_id for one in backup.snapshots}
    raise InconclusiveError(
        f"{repository.storage} holds no backup of before the drill, which could be shown to restore still;"
        " run backup_full first"
    )


def _restore_and_compare(
    repository: Repository, snapshot_id: str, target: Path, plan: DrillPlan, deadline: Deadline
) -> tuple[str | None, dict[str, Any]]:
    """Restore a snapshot and compare it; returns what is wrong, and evidence."""
    from fastvlm_ops.core.backup.errors import CorruptionError
    from fastvlm_ops.core.backup.folder_comparison import compare_folder
    from fastvlm_ops.core.backup.restore import restore_snapshot

    target.mkdir(mode=0o700)
    try:
        restore_snapshot(repository, snapshot_id, target, progress=deadline.check)
    except CorruptionError as error:
        return f"{target.name} does not restore: {error}", {"snapshot_id": snapshot_id, "files": 0}
    with noting_hashes(Path(plan.folder) / HASHES_FOLDER / f"{target.name}.txt") as note_file:
        comparison = compare_folder(repository, snapshot_id, target, note_file=note_file)
    if comparison.is_equal:
        return None, comparison.as_dict()
    return describe_differences(repository, comparison, target, target.name), comparison.as_dict()


def _place_differences(repository: Repository, made: Made, plan: DrillPlan, at: Surroundings) -> list[str]:
    """How the place differs from the backup that was made of it."""
    from fastvlm_ops.core.backup.folder_comparison import compare_folder

    place, ignored = place_of(made.place, plan, at), ignored_in_places()
    comparison = compare_folder(repository, made.snapshot_id, place, ignored=ignored)
    if comparison.is_equal:
        return []
    return [describe_differences(repository, comparison, place, f"the place {made.place}", ignored=ignored)]


def _backed_up_place(plan: DrillPlan) -> str:
    """The place whose backup has to fail: the one that is backed up afterwards."""
    from fastvlm_ops.core.config.disaster_recovery import Steps

    steps = Steps.model_validate(plan.definition["steps"])
    for action in steps.restore_service:
        if isinstance(action, RunBackup):
            return action.place
    raise DrillError("backup_fails needs an action run_backup, which names the place that is backed up")


def _component(place: str) -> str:
    """A component of drills only, so that no real backup takes it for what it goes on from."""
    return f"drill_{place.replace('-', '_')}"


def _endpoint(plan: DrillPlan, at: Surroundings, direct: Repository) -> str:
    """The address of S3 over the link that is disturbed.

    :raises InconclusiveError: the service does not say where the link listens
    """
    if not isinstance(plan.fault, LinkFault) or at.control is None:
        raise InconclusiveError("nothing is between the backups and S3 here: the fault is on no link")
    address = at.control.view().link_addresses.get(plan.fault.link)
    if address is None:
        raise InconclusiveError(f"the service does not say where its link {plan.fault.link} listens")
    scheme = urlsplit(direct.storage.client.endpoint_url).scheme or "http"
    return f"{scheme}://{address}"


def _open_through(at: Surroundings, endpoint: str) -> Repository:
    if at.open_repository_through is None:
        raise InconclusiveError("the backups cannot be opened by another address here")
    return at.open_repository_through(endpoint)


def _names(direct: Repository, endpoint: str) -> set[str]:
    return {str(direct.storage), direct.storage.bucket, urlsplit(endpoint).netloc}


def _try_backup(
    attempt: _Attempt, at: Surroundings, endpoint: str, place: Path, name: str, run_key: str
) -> None:
    try:
        attempt.result = _back_up(_open_through(at, endpoint), place, name, run_key, None)
    except Exception as error:  # which is looked at by who waits for it
        attempt.error = error


def _back_up(
    repository: Repository, place: Path, name: str, run_key: str, deadline: Deadline | None
) -> SnapshotResult:
    from fastvlm_ops.core.backup.create import create_snapshot
    from fastvlm_ops.core.backup.sources import FolderSource

    exclude = [path.decode() for path in ignored_in_places()]
    return create_snapshot(
        repository,
        FolderSource(place, exclude=exclude, on_change="fail"),
        component=_component(name),
        kind="full",
        run_key=run_key,
        progress=None if deadline is None else deadline.check,
    )
