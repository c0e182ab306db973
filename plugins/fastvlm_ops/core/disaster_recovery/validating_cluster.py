"""Whether a restored cluster of PostgreSQL is what the backup holds, starts, and is whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvlm_ops.core.disaster_recovery.restoring import RestoredComponent
from fastvlm_ops.core.disaster_recovery.validating import (
    Means,
    Validated,
    compare_with_backup,
    ignored_in_cluster,
    made_differences,
)

if TYPE_CHECKING:
    from fastvlm_ops.core.backup.repository import Repository

#: What the comparison found, beside the data: a server changes these files as soon as it starts.
_COMPARED = "compared.json"


def validate_cluster(
    repository: Repository,
    restored: RestoredComponent,
    place: Path,
    means: Means,
    found: Validated,
    seconds_left: float,
) -> None:
    """Compare a cluster with its base backup, start it on trial, and check it; adds to what was found.

    :param repository: that the backup is in
    :param restored: what was restored
    :param place: folder of the recovery
    :param means: of the checks
    :param found: where it is added
    :param seconds_left: for the server
    """
    from fastvlm_ops.core.backup.errors import RecoveryError, RestoreTargetError, SourceError, TrialError
    from fastvlm_ops.core.backup.postgresql.recovery import RecoveryNote
    from fastvlm_ops.core.backup.postgresql.trial import check_recovered, trial_programs

    told = RecoveryNote(place).read()
    if told.get("state") not in ("ready", "started"):
        found.problems.append(f"{found.component} holds no complete recovery")
        return
    if told["state"] == "started":
        _recall_comparison(place, found)
    else:
        _compare(repository, restored, place, means, found)
    if found.problems:
        return
    queries, database = means.queries(found.component)
    try:
        programs = trial_programs(told["major"], means.postgresql_bin_dir)
        trial = check_recovered(
            place,
            programs=programs,
            queries=queries if database is not None else (),
            database=database or "postgres",
            timeout_seconds=seconds_left,
        )
    except (RecoveryError, TrialError) as error:
        found.problems.append(f"{found.component} cannot be used: {error}")
        return
    except (SourceError, RestoreTargetError) as error:
        found.unchecked.append(f"{found.component} was not started: {error}")
        return
    found.evidence["trial"] = trial.as_dict()
    if queries and database is None:
        found.unchecked.append(f"{found.component}: its checks were not asked, the database is not known")
    # That its files are those of the backup, the comparison by hash has shown.
    found.unchecked += [
        f"{found.component}: {what}" for what in trial.unchecked if not what.startswith("files:")
    ]
    _check_reach(restored, trial.reached_lsn, found)


def _compare(
    repository: Repository, restored: RestoredComponent, place: Path, means: Means, found: Validated
) -> None:
    from fastvlm_ops.core.backup.postgresql.recovery_settings import DATA

    compare_with_backup(repository, place / DATA, means, found, ignored=ignored_in_cluster())
    if differences := made_differences(restored, place):
        found.problems.append(f"{found.component} is not as it was restored: {'; '.join(differences[:5])}")
    kept: dict[str, Any] = {
        "files": found.files,
        "size_bytes": found.size_bytes,
        "problems": found.problems,
        "evidence": found.evidence,
    }
    (place / _COMPARED).write_text(json.dumps(kept))


def _recall_comparison(place: Path, found: Validated) -> None:
    """What an attempt before has found, which started a server then."""
    try:
        kept = json.loads((place / _COMPARED).read_bytes())
        found.files, found.size_bytes = int(kept["files"]), int(kept["size_bytes"])
        found.problems += kept["problems"]
        found.evidence |= kept["evidence"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        found.unchecked.append(
            f"{found.component} was not compared: a server was started on it before ({error!r})"
        )


def _check_reach(restored: RestoredComponent, reached: str | None, found: Validated) -> None:
    """A server takes damaged WAL for the end of it, and goes on with an older state."""
    from fastvlm_ops.core.backup.postgresql.lsn import parse_lsn

    if restored.reaches is None or reached is None:
        return
    if parse_lsn(reached) < parse_lsn(restored.reaches):
        found.problems.append(
            f"{found.component} was recovered to {reached} only; its WAL goes on beyond {restored.reaches}"
        )
