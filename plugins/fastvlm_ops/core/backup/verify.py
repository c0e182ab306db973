"""Verifying a repository, or the snapshots of one run. Damage never stops a check: it is its result.

Levels, each with all that stand before it:

* ``log``: configuration, key slots, every entry of the log from the first, every live snapshot's manifest;
* ``listing``: index segments, the listing of packs, and that every chunk of every live snapshot is in a
  pack that is there;
* ``head``: the checksum that S3 keeps of every pack; one that differs is read in full;
* ``share``: the packs and WAL of one share of n in full; each share once is all of them;
* ``full``: all packs and WAL in full, and manifests that no snapshot has. Finds any flipped bit.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from blake3 import blake3

from fastvlm_ops.core.backup.commit_log import LogState
from fastvlm_ops.core.backup.errors import BackupNotFoundError, CorruptionError, RestoreTargetError
from fastvlm_ops.core.backup.index import ChunkIndex
from fastvlm_ops.core.backup.progress import ProgressCallback, ProgressMeter
from fastvlm_ops.core.backup.reading import ChunkReader
from fastvlm_ops.core.backup.repository import Repository
from fastvlm_ops.core.backup.sources import show
from fastvlm_ops.core.backup.tree import Entry
from fastvlm_ops.core.backup.verify_log import (
    check_configuration,
    check_log,
    check_other_manifests,
    read_manifests,
)
from fastvlm_ops.core.backup.verify_packs import (
    MeteredStorage,
    check_heads,
    in_share,
    note_index,
    read_packs,
)
from fastvlm_ops.core.backup.verify_result import (
    LISTED,
    Findings,
    HitSnapshot,
    Level,
    SampledFile,
    Share,
    VerifyResult,
)
from fastvlm_ops.core.backup.verify_trees import Needs, TreeLoss, note_loss
from fastvlm_ops.core.backup.verify_wal import check_wal

LEVELS: tuple[Level, ...] = ("log", "listing", "head", "share", "full")

_HASH_BYTES, _ATTEMPTS = 1 << 20, 3
Records = list[dict[str, Any]]
Manifests = dict[str, dict[str, Any]]


class _Run:
    """One verification: a view of the repository that counts what it reads, and what was found."""

    def __init__(
        self, repository: Repository, level: Level, share: Share | None, progress: ProgressCallback | None
    ) -> None:
        self.level = level
        self.share = share
        self.meter = ProgressMeter("verify", level, progress, unit="objects")
        self.before = repository.storage.usage
        self.storage = MeteredStorage(repository.storage, self.meter)
        self.repository = Repository(self.storage, repository.ring, repository.config_line)
        self.repository.log.state = repository.log.state
        self.findings = Findings()
        self.remember()

    def remember(self) -> None:
        """What the log says before anything is listed or read: see :meth:`was_overtaken`."""
        state = self.repository.log.state
        self._snapshots, self._condemned = set(state.snapshots), state.condemned_names("packs")

    def was_overtaken(self, result: VerifyResult) -> bool:
        """Whether what is missing may have been forgotten or moved by a collection meanwhile."""
        if not result.problem_count and not result.snapshot_count:
            return False
        try:
            state = self.repository.refresh()
        except CorruptionError:  # which is among the problems
            return False
        forgotten = self._snapshots - state.snapshots.keys()
        return bool(forgotten) or state.condemned_names("packs") != self._condemned

    def reaches(self, level: Level) -> bool:
        return LEVELS.index(self.level) >= LEVELS.index(level)

    def manifests(self, records: Records) -> Manifests:
        """By snapshot id, those that are intact; the others are noted."""
        found: Manifests = {}
        for record, manifest in read_manifests(self.repository, records, self.findings):
            if manifest is None:
                what = "its manifest is damaged"
                self._hit_whole(record, what)
            else:
                found[record["snapshot_id"]] = manifest
        return found

    def load_index(self) -> ChunkIndex:
        index = self.repository.load_index(lambda problem: None)
        note_index(index, self.findings)
        self.storage.count(objects=len(index.listed), object_bytes=sum(index.listed.values()))
        return index

    def walk_trees(self, records: Records, manifests: Manifests, index: ChunkIndex) -> None:
        """Note what the damage to packs hits; equal trees are walked once."""
        needs = Needs(self.repository, index, self.findings)
        losses: dict[str, TreeLoss] = {}
        found = {}
        for record in records:
            manifest = manifests.get(record["snapshot_id"])
            if manifest is not None:
                key = json.dumps([manifest["tree"], manifest["totals"]])
                if key not in losses:
                    losses[key] = needs.walk(manifest)
                found[record["snapshot_id"]] = losses[key]
        self.note_losses(records, found, needs, index)

    def note_losses(
        self, records: Records, losses: dict[str, TreeLoss], needs: Needs, index: ChunkIndex
    ) -> None:
        for record in records:
            loss = losses.get(record["snapshot_id"])
            if loss is not None and loss.what:
                note_loss(self.findings, record, loss)
        self._note_index_damage(index, needs)

    def _note_index_damage(self, index: ChunkIndex, needs: Needs) -> None:
        """Segments that are damaged or gone matter until their packs are named by another."""
        findings = self.findings
        unindexed = findings.needed_packs & {pack.name for pack in index.adopted}
        for name in unindexed - findings.packs.keys():
            what = "no index segment names it; its footer is read instead, and the next backup indexes it"
            findings.problem(name, what)
        for name, what in index.damaged.items():
            if name not in index.listed:
                findings.problem(name, what, needed=bool(unindexed) or needs.unexplained_loss)
            elif needs.unexplained_loss:
                findings.needed_packs.add(name)

    def _hit_whole(self, record: dict[str, Any], what: str) -> None:
        hit = HitSnapshot(record["snapshot_id"], record["component"], record["files"], what)
        self.findings.hit(hit)

    def finish(self, records: Records, intact: dict[str, str | None]) -> VerifyResult:
        findings = self.findings
        self.meter.report()
        if not any(problem.needed for problem in findings.problems()):
            for record in records:  # found by reading a tree, at a level that reads no whole pack
                if record["snapshot_id"] in findings.snapshots:
                    findings.problem(record["manifest"], findings.snapshots[record["snapshot_id"]].what)
        problems, hits = findings.problems(), list(findings.snapshots.values())
        return VerifyResult(
            ok=not hits and not any(problem.needed for problem in problems),
            level=self.level,
            share=self.share,
            checked_snapshots=len(records),
            checked_objects=self.storage.objects,
            checked_bytes=self.storage.object_bytes,
            read_bytes=self.storage.read_bytes,
            packs_without_checksum=findings.packs_without_checksum,
            duration_seconds=round(self.meter.elapsed_seconds, 3),
            problem_count=len(problems),
            problems=tuple(problems[:LISTED]),
            snapshot_count=len(hits),
            snapshots=tuple(hits[-LISTED:]),
            file_count=sum(hit.files for hit in hits),
            files=tuple(findings.files[:LISTED]),
            nearest_intact=intact,
            sampled=tuple(findings.sampled[:LISTED]),
            usage=self.storage.usage.since(self.before),
        )

    def note_blocked(self, records: Iterable[dict[str, Any]]) -> None:
        """Where something is damaged that every restore reads first, every snapshot is hit."""
        for record in records if self.findings.blocked else ():
            self._hit_whole(record, f"cannot be opened: {self.findings.blocked[0]} is damaged")


# -- the repository ------------------------------------------------------------------------------------


def verify_repository(
    repository: Repository,
    *,
    level: Level,
    share: Share | None = None,
    progress: ProgressCallback | None = None,
) -> VerifyResult:
    """Verify all snapshots that count.

    :param share: ``(i, n)`` with 0 ≤ i < n, for the level ``share``.
    :raises StorageError: the endpoint did not answer, or refused: nothing is known then.
    """
    if level not in LEVELS:
        raise ValueError(f"unknown level {level!r}: one of {', '.join(LEVELS)}")
    if (share is not None) != (level == "share") or (share is not None and not 0 <= share[0] < share[1]):
        raise ValueError(f"level {level!r} with share {share!r}: (i, n) with 0 <= i < n, and for share only")
    for _ in range(_ATTEMPTS):
        run = _Run(repository, level, share, progress)
        result = _verify(run)
        if not run.was_overtaken(result):
            break
    return result


def _verify(run: _Run) -> VerifyResult:
    check_configuration(run.repository, run.findings)
    run.repository.log.state = state = check_log(run.repository, run.findings)
    run.remember()
    records = list(state.snapshots.values())
    manifests = run.manifests(records)
    if run.reaches("listing"):
        index = run.load_index()
        if run.reaches("head"):
            _check_packs(run, index)
        run.walk_trees(records, manifests, index)
    if run.reaches("share"):
        check_wal(run.repository, run.share, run.findings)
    if run.level == "full":
        check_other_manifests(run.repository, {record["manifest"] for record in records}, run.findings)
    run.note_blocked(records)
    return run.finish(records, _nearest_intact(records, run.findings))


def _check_packs(run: _Run, index: ChunkIndex) -> None:
    known = {pack.name: pack.size_bytes for pack in index.packs()}
    wanted = set(check_heads(run.storage, known, run.findings))
    if run.share is not None:
        wanted |= {name for name in known if in_share(name, run.share)}
    elif run.level == "full":
        wanted |= index.listed.keys()
    run.meter.total_bytes = run.storage.read_bytes + sum(index.listed[name] for name in wanted)
    read_packs(run.repository, index, wanted - run.findings.packs.keys(), run.findings)


def _nearest_intact(records: Records, findings: Findings) -> dict[str, str | None]:
    nearest: dict[str, str | None] = {}
    for record in records:
        intact = record["snapshot_id"] not in findings.snapshots
        if intact or record["component"] not in nearest:
            nearest[record["component"]] = record["snapshot_id"] if intact else None
    return nearest


# -- the members of a set ------------------------------------------------------------------------------


def verify_set_members(
    repository: Repository,
    snapshot_ids: Sequence[str],
    *,
    scratch_dir: Path,
    progress: ProgressCallback | None = None,
    choose: random.Random | None = None,
) -> VerifyResult:
    """Verify some snapshots before they are published.

    Every chunk of theirs is in a pack that is there, every such pack has the size and the SHA-256 it must
    have as S3 keeps them, and of each snapshot one file, chosen at random among those that are not empty,
    is restored into ``scratch_dir``, compared by hash, and removed.

    :raises BackupNotFoundError: no such snapshot.
    :raises RestoreTargetError: the sampled file cannot be written to ``scratch_dir``.
    :raises StorageError: the endpoint did not answer, or refused: nothing is known then.
    """
    for _ in range(_ATTEMPTS):
        run = _Run(repository, "members", None, progress)
        result = _verify_members(run, snapshot_ids, scratch_dir, choose or random.SystemRandom())
        if not run.was_overtaken(result):
            break
    return result


def _verify_members(
    run: _Run, snapshot_ids: Sequence[str], scratch_dir: Path, choose: random.Random
) -> VerifyResult:
    try:
        state = run.repository.refresh()
    except CorruptionError as error:
        run.findings.problem("log/", str(error), blocks=True)
        state = run.repository.log.state
    run.remember()
    records = _records(state, snapshot_ids, run.repository)
    manifests = run.manifests(records)
    index = run.load_index()
    needs = Needs(run.repository, index, run.findings)
    chosen, losses = _choose_files(needs, records, manifests, choose)
    known_damage = len(run.findings.packs)
    known = {pack.name: pack.size_bytes for pack in index.packs() if pack.name in needs.used_packs}
    suspects = set(check_heads(run.storage, known, run.findings))
    failed = {}
    for snapshot_id, entry in chosen.items():
        if (what := _sample(run, needs, snapshot_id, entry, scratch_dir)) is not None:
            failed[snapshot_id] = what
            suspects |= _packs_of(needs, index, entry)
    read_packs(run.repository, index, suspects - run.findings.packs.keys(), run.findings)
    if len(run.findings.packs) == known_damage:
        run.note_losses(records, losses, needs, index)
    else:
        run.walk_trees(records, manifests, index)
    for snapshot_id, what in failed.items():
        path = show(chosen[snapshot_id].path)
        note_loss(run.findings, state.snapshots[snapshot_id], TreeLoss(1, [(path, what)], what))
    run.note_blocked(records)
    return run.finish(records, _search_intact(run, state, records, index))


def _records(state: LogState, snapshot_ids: Sequence[str], repository: Repository) -> Records:
    for snapshot_id in snapshot_ids:
        if snapshot_id not in state.snapshots:
            raise BackupNotFoundError(f"there is no snapshot {snapshot_id!r} in {repository.storage}")
    return [state.snapshots[snapshot_id] for snapshot_id in snapshot_ids]


def _choose_files(
    needs: Needs, records: Records, manifests: Manifests, choose: random.Random
) -> tuple[dict[str, Entry], dict[str, TreeLoss]]:
    """One file of each snapshot that is not empty, every one as likely as another; and what is lost."""
    chosen: dict[str, Entry] = {}
    losses: dict[str, TreeLoss] = {}
    for record in records:
        snapshot_id = record["snapshot_id"]
        seen = 0

        def visit(entry: Entry, snapshot_id: str = snapshot_id) -> None:
            nonlocal seen
            if entry.stored_bytes and entry.hard_link is None:
                seen += 1
                if choose.randrange(seen) == 0:
                    chosen[snapshot_id] = entry

        if snapshot_id in manifests:
            losses[snapshot_id] = needs.walk(manifests[snapshot_id], visit)
    return chosen, losses


def _sample(run: _Run, needs: Needs, snapshot_id: str, entry: Entry, scratch_dir: Path) -> str | None:
    """Restore a file on trial; what went wrong, if anything did."""
    try:
        _restore_on_trial(needs.reader, entry, scratch_dir)
    except CorruptionError as error:
        return str(error)
    run.findings.sampled.append(SampledFile(show(entry.path), snapshot_id, entry.size))
    return None


def _packs_of(needs: Needs, index: ChunkIndex, entry: Entry) -> set[str]:
    """The packs a file lies in, as far as its lists of ids can be read."""
    packs = {place.pack for chunk_id in entry.contents.ids for place in index.locations(chunk_id)}
    try:
        ids = list(needs.reader.ids(entry.contents))
    except CorruptionError:
        return packs
    return packs | {place.pack for chunk_id in ids for place in index.locations(chunk_id)}


def _restore_on_trial(reader: ChunkReader, entry: Entry, scratch_dir: Path) -> None:
    """:raises CorruptionError: when the file does not come back as it was backed up."""
    try:
        scratch_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=scratch_dir, prefix="fastvlm-verify-") as file:
            for chunk_id in reader.ids(entry.contents):
                file.write(reader.get(chunk_id))
            file.seek(0)
            hasher = blake3()
            while data := file.read(_HASH_BYTES):
                hasher.update(data)
    except OSError as error:
        raise RestoreTargetError(
            f"{scratch_dir} cannot be used for a trial restore: {error.strerror}"
        ) from error
    if hasher.hexdigest() != entry.blake3:
        raise CorruptionError(f"{show(entry.path)} does not have the hash it was backed up with")


def _search_intact(run: _Run, state: LogState, records: Records, index: ChunkIndex) -> dict[str, str | None]:
    """For each component the newest intact snapshot: the one verified, or the first good one before it."""
    nearest = _nearest_intact(records, run.findings)
    if run.findings.blocked:
        return nearest
    findings = Findings()
    findings.packs = run.findings.packs
    needs = Needs(run.repository, index, findings)
    for record in reversed(state.snapshots.values()):
        component = record["component"]
        if nearest.get(component, "") is None and record["snapshot_id"] not in run.findings.snapshots:
            for _, manifest in read_manifests(run.repository, [record], findings):
                if manifest is not None and not needs.walk(manifest).what:
                    nearest[component] = record["snapshot_id"]
    return nearest
