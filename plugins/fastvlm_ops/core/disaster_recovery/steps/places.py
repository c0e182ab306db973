"""Steps that restore a backup into a place of the service, and compare the place with it."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from fastvlm_ops.core.config.disaster_recovery_steps import PlaceEqualsBackup, RestoreBackup
from fastvlm_ops.core.disaster_recovery.errors import DrillError, InconclusiveError
from fastvlm_ops.core.disaster_recovery.fault_types import FileFault, Recorded
from fastvlm_ops.core.disaster_recovery.plan import DrillPlan
from fastvlm_ops.core.disaster_recovery.restore_tests import newest_before
from fastvlm_ops.core.disaster_recovery.restoring import Deadline, OverTimeError
from fastvlm_ops.core.disaster_recovery.steps import CheckResult
from fastvlm_ops.core.disaster_recovery.steps.backups import SHOWN, joined, open_repository, result_of
from fastvlm_ops.core.disaster_recovery.surroundings import Surroundings
from fastvlm_ops.core.disaster_recovery.validating import (
    HASHES_FOLDER,
    describe_differences,
    noting_hashes,
)


class Placed(Recorded):
    """A component that was restored into a place.

    :param log_sequence: end of the repository's log when the backup was chosen
    """

    set_id: str
    snapshot_id: str
    log_sequence: int


def do_restore_backup(step: RestoreBackup, plan: DrillPlan, at: Surroundings) -> CheckResult:
    """Restore a component from the newest published backup of before the drill into a place."""
    from fastvlm_ops.core.backup.errors import CorruptionError
    from fastvlm_ops.core.backup.restore import restore_snapshot

    deadline, began = Deadline(step.within_seconds), time.monotonic()
    place = place_of(step.place, plan, at)
    repository = open_repository(at)
    chosen = newest_before(repository, step.component, plan.planned_at)
    if chosen is None:
        detail = f"no published backup of before the drill has the component {step.component}"
        return result_of(step.action, "failed", began, detail, {})
    backup, member = chosen
    placed = Placed(
        set_id=backup.set_id, snapshot_id=member.snapshot_id, log_sequence=repository.log.state.seq
    )
    evidence: dict[str, Any] = placed.model_dump()
    replaced = _replaced_folder(place, plan)
    try:
        result = restore_snapshot(
            repository,
            member.snapshot_id,
            place,
            overwrite=True,
            keep_replaced=replaced,
            progress=deadline.check,
        )
    except (CorruptionError, OverTimeError) as error:
        return result_of(
            step.action, "failed", began, f"{step.component} does not restore: {error}", evidence
        )
    at.did(f"restored {step.component} of {backup.set_id} into {place}")
    at.scratch.mkdir(parents=True, exist_ok=True)
    _placed_file(at, step.place).write_text(placed.model_dump_json())
    others = _forget_replaced(replaced, plan)
    evidence |= {"files": result.files, "kept_files": result.kept_files, "replaced_besides": others[:SHOWN]}
    detail = f"{result.files} files of {backup.set_id} are in {place}, {result.kept_files} were there already"
    if others:
        detail += (
            f"; {len(others)} that the drill had not broken were replaced too, and stand in {replaced}:"
            f" {', '.join(others[:SHOWN])}"
        )
    return result_of(step.action, "passed", began, detail, evidence)


def check_place_equals_backup(step: PlaceEqualsBackup, plan: DrillPlan, at: Surroundings) -> CheckResult:
    """Compare a place with the backup, file by file."""
    from fastvlm_ops.core.backup.folder_comparison import compare_folder

    began = time.monotonic()
    place = place_of(step.place, plan, at)
    repository = open_repository(at)
    placed = _read_placed(at, step.place)
    sequence = None if placed is None else placed.log_sequence
    chosen = newest_before(repository, step.component, plan.planned_at, sequence)
    if chosen is None:
        raise InconclusiveError(f"no published backup of before the drill has {step.component}")
    backup, member = chosen
    with noting_hashes(Path(plan.folder) / HASHES_FOLDER / f"{step.place}.txt") as note_file:
        comparison = compare_folder(
            repository, member.snapshot_id, place, ignored=ignored_in_places(), note_file=note_file
        )
    evidence = {"set_id": backup.set_id, "place": str(place), **comparison.as_dict()}
    problems = []
    if placed is not None and placed.snapshot_id != member.snapshot_id:
        problems.append(
            f"backup {placed.set_id} was restored, and {backup.set_id} of {backup.timestamp} is the newest"
        )
    if not comparison.is_equal:
        what = f"the place {step.place}"
        problems.append(
            describe_differences(repository, comparison, place, what, ignored=ignored_in_places())
        )
    if time.monotonic() - began > step.within_seconds:
        problems.append(f"it took longer than {step.within_seconds:g} s")
    if problems:
        return result_of(step.check, "failed", began, joined(problems), evidence)
    detail = f"{place} is what {backup.set_id} holds: {comparison.files} files, by hash, and no other"
    return result_of(step.check, "passed", began, detail, evidence)


def place_of(name: str, plan: DrillPlan, at: Surroundings) -> Path:
    """Return a place of the service, which has to say itself that it belongs to what is drilled.

    :param name: as the scenario gives it
    :param plan: of the drill
    :param at: its surroundings
    :raises DrillError: there is no such place, or it belongs to something else
    """
    from fastvlm_ops.core.services.places import read_place_marker

    if at.control is None:
        raise DrillError(f"the scenario names the place {name}, but its target is no service")
    view = at.control.view()
    if name not in view.places:
        raise DrillError(f"the service has no place {name!r}; it has {', '.join(sorted(view.places))}")
    path = Path(view.places[name]).resolve()
    marker = read_place_marker(path)
    if marker != view.marker or marker.environment != plan.environment:
        raise DrillError(
            f"{path} says that it belongs to {marker.service} in {marker.environment}, and the service that"
            f" it is {view.marker.service} in {view.marker.environment}; the drill is for {plan.environment}"
        )
    return path


def ignored_in_places() -> frozenset[bytes]:
    """Return what of a place is no part of what it holds."""
    from fastvlm_ops.core.services.places import MARKER_FILE

    return frozenset({MARKER_FILE.encode()})


def _replaced_folder(place: Path, plan: DrillPlan) -> Path:
    """Where replaced files go: on the place's file system, so that moving them is one step."""
    name = f".{place.name}.replaced-{plan.fault_id}"
    is_mounted = place.stat().st_dev != place.parent.stat().st_dev
    return (place if is_mounted else place.parent) / name


def _forget_replaced(folder: Path, plan: DrillPlan) -> list[str]:
    """Remove what the drill itself had broken; returns what else was replaced, which stays."""
    if not folder.is_dir():
        return []
    broken = plan.fault.path if isinstance(plan.fault, FileFault) else None
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    )
    others = [name for name in names if broken is None or not _is_within(name, broken)]
    if not others:
        shutil.rmtree(folder)
    return others


def _is_within(name: str, path: str) -> bool:
    return not path or name == path or name.startswith(f"{path}/")


def _placed_file(at: Surroundings, place: str) -> Path:
    return at.scratch / f"placed-{place}.json"


def _read_placed(at: Surroundings, place: str) -> Placed | None:
    try:
        return Placed.model_validate_json(_placed_file(at, place).read_bytes())
    except FileNotFoundError:
        return None
