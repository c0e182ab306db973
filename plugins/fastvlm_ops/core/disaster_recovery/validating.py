"""Whether what was restored is what the backup holds, and can be used: component by component."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvlm_ops.core.disaster_recovery.restoring import (
    FILES,
    RestoredComponent,
    hash_made,
    rewritten_files,
)

if TYPE_CHECKING:
    from fastvlm_ops.core.backup.folder_comparison import FolderComparison, NoteFile
    from fastvlm_ops.core.backup.repository import Repository
    from fastvlm_ops.core.backup.sets import SetMember

HASHES_FOLDER = "hashes"
_EARLIER = 10
_SHOWN = 5


@dataclass(frozen=True)
class Means:
    """What checks work with.

    :param inspect_package: raises what is wrong with a package; None where nothing here can tell
    :param postgresql_bin_dir: the only folder of PostgreSQL's programs; None for the usual places
    :param queries: that must succeed on a cluster, and the database that they are for, by component; None for
        queries whose database is not known
    :param only_compared: components whose files are not parsed
    :param hashes: folder for the SHA-256 of each file
    """

    inspect_package: Callable[[Path], object] | None
    postgresql_bin_dir: Path | None
    queries: Callable[[str], tuple[tuple[str, ...], str | None]]
    only_compared: tuple[str, ...]
    hashes: Path


@dataclass
class Validated:
    """What was found of a component.

    :param problems: where it differs from the backup, or cannot be used
    :param unchecked: what could not be told, and why
    """

    component: str
    snapshot_id: str
    files: int = 0
    size_bytes: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    evidence: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool | None:
        """Whether it is sound; None where that could not be told."""
        if self.problems:
            return False
        return None if self.unchecked else True

    def as_dict(self) -> dict[str, Any]:
        """As small JSON."""
        return {
            "component": self.component,
            "snapshot_id": self.snapshot_id,
            "ok": self.ok,
            "files": self.files,
            "size_bytes": self.size_bytes,
            "seconds": round(self.seconds, 3),
            "problems": self.problems,
            "unchecked": self.unchecked,
            **self.evidence,
        }


def validate_component(
    repository: Repository,
    member: SetMember,
    restored: RestoredComponent | None,
    folder: Path,
    means: Means,
    *,
    seconds_left: float,
) -> Validated:
    """Compare a component with the backup, file by file, then use it.

    :param repository: that the backup is in
    :param member: what was asked for
    :param restored: what was restored; None where it was not
    :param folder: of the restores of a drill
    :param means: of the checks
    :param seconds_left: for a server on trial
    """
    found = Validated(member.component, member.snapshot_id)
    if restored is None:
        found.problems.append(f"{member.component} was not restored")
        return found
    began = time.monotonic()
    if restored.snapshot_id != member.snapshot_id:
        found.problems.append(
            f"{member.component} was restored from snapshot {restored.snapshot_id}, not from"
            f" {member.snapshot_id}, which was asked for"
        )
    place = folder / member.component
    if restored.kind == "cluster":
        from fastvlm_ops.core.disaster_recovery.validating_cluster import validate_cluster

        validate_cluster(repository, restored, place, means, found, seconds_left)
    else:
        compare_with_backup(repository, place / FILES, means, found)
        if not found.problems and member.component not in means.only_compared:
            _use_files(place / FILES, member.component, repository, means, found)
    found.seconds = time.monotonic() - began
    return found


def compare_with_backup(
    repository: Repository,
    folder: Path,
    means: Means,
    found: Validated,
    *,
    ignored: frozenset[bytes] = frozenset(),
) -> None:
    """Compare a folder with the snapshot that was asked for; adds what differs, and the hashes.

    :param repository: that the snapshot is in
    :param folder: that was restored
    :param means: of the checks
    :param found: where it is added
    :param ignored: paths in the folder that are looked at on neither side
    """
    from fastvlm_ops.core.backup.folder_comparison import compare_folder

    with noting_hashes(means.hashes / f"{found.component}.txt") as note_file:
        comparison = compare_folder(
            repository, found.snapshot_id, folder, ignored=ignored, note_file=note_file
        )
    found.files, found.size_bytes = comparison.files, comparison.size_bytes
    found.evidence["comparison"] = comparison.as_dict()
    if not comparison.is_equal:
        found.problems.append(
            describe_differences(repository, comparison, folder, found.component, ignored=ignored)
        )


def describe_differences(
    repository: Repository,
    comparison: FolderComparison,
    folder: Path,
    what: str,
    *,
    ignored: frozenset[bytes] = frozenset(),
) -> str:
    """Say where a folder differs from a snapshot, and which earlier backup it is equal to, if to any.

    :param repository: that the snapshot is in
    :param comparison: that found differences
    :param folder: that was compared
    :param what: it is, for people
    :param ignored: paths in the folder that are looked at on neither side
    """
    if comparison.difference_count == 0:
        return f"{what}: the backup {comparison.snapshot_id} has nothing that could be compared"
    shown = "; ".join(comparison.differences[:_SHOWN])
    more = comparison.difference_count - min(_SHOWN, len(comparison.differences))
    text = f"{what} differs from backup {comparison.snapshot_id}: {shown}"
    text += f"; and {more} more" if more else ""
    earlier = _equal_other(repository, comparison, folder, ignored)
    return f"{text}. It is what the other backup {earlier} holds" if earlier else text


def _equal_other(
    repository: Repository, comparison: FolderComparison, folder: Path, ignored: frozenset[bytes]
) -> str | None:
    """The newest of the other snapshots of the component that a folder is equal to."""
    from fastvlm_ops.core.backup.folder_comparison import compare_folder

    others = [
        snapshot_id
        for snapshot_id, record in repository.log.state.snapshots.items()
        if record["component"] == comparison.component and snapshot_id != comparison.snapshot_id
    ]
    for snapshot_id in others[: -_EARLIER - 1 : -1]:
        if compare_folder(repository, snapshot_id, folder, ignored=ignored, stop_after=1).is_equal:
            return snapshot_id
    return None


@contextlib.contextmanager
def noting_hashes(file: Path) -> Iterator[NoteFile]:
    """Write the SHA-256 of each file that is read, as ``sha256sum`` does.

    :param file: that is replaced
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as lines:
        # What sha256sum writes, and reads, for a name with a line's end or a backslash in it.
        def note(path: bytes, sha256: str) -> None:
            escaped = path.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
            lines.write((b"\\" if escaped != path else b"") + f"{sha256}  ".encode() + escaped + b"\n")

        yield note


def _use_files(folder: Path, component: str, repository: Repository, means: Means, found: Validated) -> None:
    from fastvlm_ops.core.backup.reading import read_manifest
    from fastvlm_ops.core.disaster_recovery.soundness.dumps import check_dump, is_dump
    from fastvlm_ops.core.disaster_recovery.soundness.files import check_files
    from fastvlm_ops.core.disaster_recovery.soundness.sqlite import check_sqlite, is_sqlite

    soundness = check_files(folder, means.inspect_package)
    record = repository.log.state.snapshots[found.snapshot_id]
    kind = read_manifest(repository, record)["source"]["kind"]
    if kind == "sqlite" and not soundness.problems:
        # Whatever its name is: check_files goes by names.
        for path in sorted(folder.iterdir()):
            if path.name not in soundness.evidence.get("rows", {}):
                if is_sqlite(path):
                    check_sqlite(path, path.name, soundness)
                else:
                    soundness.problems.append(f"{path.name} is no SQLite database")
    if is_dump(folder / "dump"):
        check_dump(folder / "dump", soundness, means.postgresql_bin_dir)
    found.problems += [f"{component}: {problem}" for problem in soundness.problems]
    found.unchecked += [f"{component}: {what}" for what in soundness.unchecked]
    found.evidence["soundness"] = soundness.as_dict()


def made_differences(restored: RestoredComponent, place: Path) -> list[str]:
    """Say what of a recovery's own files is not as it was made.

    :param restored: with the hashes of them
    :param place: folder of the recovery
    """
    there = hash_made(place)
    found = [
        f"{path} is missing" if path not in there else f"{path} has other contents: SHA-256 {there[path]}"
        for path, sha256 in sorted(restored.made.items())
        if there.get(path) != sha256
    ]
    return found + [
        f"{path} was not made by the restore" for path in sorted(there.keys() - restored.made.keys())
    ]


def ignored_in_cluster() -> frozenset[bytes]:
    """Return the paths of a data folder that a recovery has changed, whose own hashes are compared."""
    return frozenset(name.encode() for name in rewritten_files())
