"""The append-only commit log (docs/backup-format.md §8).

Only what an entry of the log names exists. Entries are claimed by conditional writes, so that two
writers never take the same place; order is the sequence, and no clock decides anything.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from fastvlm_ops.core.backup.errors import CorruptionError, ObjectNotFoundError, StorageError
from fastvlm_ops.core.backup.keys import KeyRing
from fastvlm_ops.core.backup.sealing import sign_line, verify_line
from fastvlm_ops.core.backup.storage import ObjectInfo, S3Storage

CHECKPOINT_EVERY = 100
_NO_ENTRY = "0" * 64
_ENTRY_LIMIT_BYTES = 64 << 20
_CLAIM_SECONDS = 300
_REFUSALS = 4  # a listing costs as much as a few of them
_READERS = 4
_KEYS_KEPT = 500
_VERIFICATIONS_KEPT = 100  # two a week: of about a year
_INHERITED = {"manifest", "sha256", "files", "size_bytes", "warnings"}

CONDEMNED = ("packs", "indexes", "manifests", "wal")
"""The lists of names that a `condemn` entry has."""

# Levels of verification that look at what packs hold: only they let a snapshot count as verified.
_CONTENT_LEVELS = frozenset({"members", "head", "share", "full"})
_DEPTH = {"log": 0, "listing": 1, "head": 2}


@dataclass
class LogState:
    """What the log says exists, folded up to ``seq`` (0: an empty log).

    ``snapshots`` and ``sets`` map ids to the bodies of their entries, with ``seq``; in log order.
    ``checks`` maps ids of snapshots to the last entry of each kind about them: ``verified`` (found intact),
    ``damaged`` (until a check that looks where it was found finds nothing), ``restored``, ``restore_tested``
    and ``restore_failed`` (until a restore test of it passes). ``recorded`` maps the keys of the newest 500
    such entries, and of those that forget and condemn, to their seq, so that a retried task adds none twice.
    ``verifications`` are the newest 100 ``verified`` entries, oldest first, with counts in place of ids.

    ``condemned`` holds the condemn entries of which not everything is known to be deleted, see
    :meth:`_fold_swept`. ``remembered`` is of this reader alone, in no checkpoint: every name in a condemn
    entry that it has folded. Who listed a pack before it was condemned must still know when the log has
    dropped the name.
    """

    seq: int = 0
    digest: str = _NO_ENTRY
    snapshots: dict[str, dict[str, Any]] = field(default_factory=dict)
    sets: dict[str, dict[str, Any]] = field(default_factory=dict)
    condemned: list[dict[str, Any]] = field(default_factory=list)
    checks: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    recorded: dict[str, int] = field(default_factory=dict)
    verifications: list[dict[str, Any]] = field(default_factory=list)
    remembered: dict[str, set[str]] = field(
        default_factory=lambda: {member: set() for member in CONDEMNED}, compare=False, repr=False
    )

    def condemned_names(self, member: str) -> set[str]:
        """Names of ``packs``, ``indexes``, ``manifests`` or ``wal`` that must be taken as gone."""
        return self.remembered[member].union(*(entry.get(member, ()) for entry in self.condemned))

    def snapshot_of_run(self, component: str, run_key: str) -> dict[str, Any] | None:
        """The snapshot this run made of a component, if it made one."""
        for body in reversed(self.snapshots.values()):
            if body["component"] == component and body["run_key"] == run_key:
                return body
        return None

    def latest_snapshot(self, component: str) -> dict[str, Any] | None:
        for body in reversed(self.snapshots.values()):
            if body["component"] == component:
                return body
        return None

    def checkpoint(self) -> dict[str, Any]:
        return {
            "snapshots": self.snapshots,
            "sets": self.sets,
            "condemned": self.condemned,
            "checks": self.checks,
            "recorded": self.recorded,
            "verifications": self.verifications,
        }

    def fold(self, entry: dict[str, Any], digest: str) -> None:
        """Apply the entry that follows."""
        kind, body, seq = entry["type"], entry["body"], entry["seq"]
        if kind == "checkpoint":
            self._fold_checkpoint(body)
        elif kind == "snapshot":
            self._fold_snapshot({**body, "seq": seq})
        elif kind == "backup-set":
            self._fold_set({**body, "seq": seq})
        elif kind == "forget":
            self._fold_forget({**body, "seq": seq})
        elif kind == "condemn":
            self._fold_condemn({**body, "seq": seq})
        elif kind == "swept":
            self._fold_swept({**body, "seq": seq})
        elif kind in ("verified", "restored"):
            self._fold_check(kind, {**body, "seq": seq, "time": entry["time"]})
        elif kind == "restore-tested":
            self._fold_restore_test({**body, "seq": seq, "time": entry["time"]})
        # Unknown types are for later versions, and change nothing here.
        self.seq, self.digest = seq, digest

    def _fold_snapshot(self, body: dict[str, Any]) -> None:
        """:raises CorruptionError: it has what its parent has, but the log has no such parent."""
        parent = self.snapshots.get(body.get("parent") or "", {})
        inherited = {name: parent[name] for name in _INHERITED if name in parent}
        if body.get("parent") and not {**inherited, **body}.keys() >= _INHERITED:
            raise CorruptionError(f"the log lacks the parent of snapshot {body['snapshot_id']}")
        self.snapshots[body["snapshot_id"]] = {"new_bytes": 0, **inherited, **body}

    def _fold_set(self, body: dict[str, Any]) -> None:
        if self.snapshots.keys() >= set(body["snapshots"].values()):  # else one was forgotten meanwhile
            self.sets[body["set_id"]] = body

    def _fold_checkpoint(self, body: dict[str, Any]) -> None:
        self.snapshots, self.sets = dict(body["snapshots"]), dict(body["sets"])
        self.condemned = list(body["condemned"])
        for entry in self.condemned:  # a reader that begins here may have listed what is not swept yet
            for member, names in self.remembered.items():
                names.update(entry.get(member, ()))
        # Earlier versions wrote neither: what was checked before is then unknown to every reader alike.
        self.checks = {snapshot_id: dict(kinds) for snapshot_id, kinds in body.get("checks", {}).items()}
        self.recorded = dict(body.get("recorded", {}))
        self.verifications = list(body.get("verifications", []))

    def _fold_forget(self, body: dict[str, Any]) -> None:
        self._record(body)
        for snapshot_id in body["snapshots"]:
            self.snapshots.pop(snapshot_id, None)
            self.checks.pop(snapshot_id, None)
        for set_id in body["sets"]:
            self.sets.pop(set_id, None)
        self.sets = {
            set_id: entry
            for set_id, entry in self.sets.items()
            if self.snapshots.keys() >= set(entry["snapshots"].values())
        }

    def _fold_condemn(self, body: dict[str, Any]) -> None:
        self._record(body)
        names = {member: list(body.get(member, ())) for member in CONDEMNED}
        self.condemned.append({"seq": body["seq"], **names})
        for member, condemned in names.items():
            self.remembered[member].update(condemned)

    def _fold_swept(self, body: dict[str, Any]) -> None:
        """What was deleted leaves the state, but for what is still locked (``left``: name to date).

        Entries that this collector took over from others are ``finished``, but their own collector may be
        paused before a DELETE yet. Their packs stay condemned until it says itself that it is through: a
        paused upload might bring a pack back under its name, and nobody may then come to need it.
        """
        self._record(body)
        left: dict[str, Any] = body.get("left", {})
        kept = []
        for entry in self.condemned:
            if entry["seq"] == body["condemn"]:
                if left:
                    names = {member: [n for n in entry.get(member, ()) if n in left] for member in CONDEMNED}
                    kept.append({"seq": entry["seq"], **names, "left": left})
            elif entry["seq"] not in body.get("finished", ()):
                kept.append(entry)
            elif "left" not in entry:
                kept.append({"seq": entry["seq"], "packs": entry.get("packs", []), "finished": True})
        self.condemned = kept

    def _record(self, body: dict[str, Any]) -> None:
        if "key" in body:
            self.recorded[body["key"]] = body["seq"]
        while len(self.recorded) > _KEYS_KEPT:
            del self.recorded[next(iter(self.recorded))]

    def _fold_check(self, kind: str, body: dict[str, Any]) -> None:
        self._record(body)
        common = ("seq", "time", "run_key")
        if kind == "restored":
            about = {name: body[name] for name in (*common, "where", "files", "bytes", "duration")}
            self._note(body["snapshot_id"], kind, about)
            return
        about = {name: body[name] for name in (*common, "level", "share")}
        damaged = set(body["damaged"])
        self._fold_verification(about, body)
        for snapshot_id in body["damaged"]:
            self._note(snapshot_id, "damaged", about)
        for snapshot_id in body["snapshots"]:
            if snapshot_id in damaged:
                continue
            found = self.checks.get(snapshot_id, {}).get("damaged")
            if found is not None and looks_where(about, found):
                del self.checks[snapshot_id]["damaged"]
            if body["level"] in _CONTENT_LEVELS:
                self._note(snapshot_id, "verified", about)

    def _fold_verification(self, about: dict[str, Any], body: dict[str, Any]) -> None:
        counts = {"snapshots": len(body["snapshots"]), "damaged": len(body["damaged"])}
        row = {**about, **counts, "ok": body["ok"], "result": body.get("result")}
        self.verifications = [*self.verifications, row][-_VERIFICATIONS_KEPT:]

    def _fold_restore_test(self, body: dict[str, Any]) -> None:
        """A test that passed shows that what another had found is gone; one that failed keeps the date of
        the last that passed.
        """
        self._record(body)
        # An earlier version that begins at a checkpoint looks for a level in every check that is no restore.
        common = {name: body[name] for name in ("seq", "time", "run_key")} | {"level": "test", "share": None}
        for snapshot_id, found in body["snapshots"].items():
            about = {**common, **{name: found[name] for name in ("files", "bytes", "duration")}}
            if found["ok"]:
                self.checks.get(snapshot_id, {}).pop("restore_failed", None)
            self._note(snapshot_id, "restore_tested" if found["ok"] else "restore_failed", about)

    def _note(self, snapshot_id: str, kind: str, about: dict[str, Any]) -> None:
        if snapshot_id in self.snapshots:  # else it was forgotten meanwhile
            self.checks.setdefault(snapshot_id, {})[kind] = about


def looks_where(later: dict[str, Any], found: dict[str, Any]) -> bool:
    """Whether a check that finds nothing shows that damage found by an earlier one is gone.

    Packs read in full by a share are only read again by that share, or by the level ``full``.
    """
    if later["level"] == "full":
        return True
    if found["level"] in _DEPTH:
        return _DEPTH.get(later["level"], _DEPTH["head"]) >= _DEPTH[found["level"]]
    return bool(found["level"] == later["level"] == "share" and later["share"] == found["share"])


def entry_name(seq: int) -> str:
    return f"log/{seq:020d}.json"


def seq_of(name: str) -> int:
    """The seq of an entry's name, whose form the reader has checked."""
    return int(name[len("log/") : -len(".json")])


class CommitLog:
    """Reads and extends the log of one repository."""

    def __init__(self, storage: S3Storage, ring: KeyRing) -> None:
        self._storage = storage
        self._key = ring.log_key
        self.state = LogState()

    def condemned_names(self, member: str) -> set[str]:
        """See :meth:`LogState.condemned_names`."""
        return self.state.condemned_names(member)

    def entry(self, seq: int) -> dict[str, Any]:
        """An entry of the log, read again, as ``{"type": …, "body": …}`` and more."""
        name = entry_name(seq)
        entry: dict[str, Any] = verify_line(self._get(name), self._key, name)
        return entry

    def refresh(self, listed: list[ObjectInfo] | None = None) -> LogState:
        """Fold the entries that are new since the last call, verified and in order.

        :param listed: all entries, where they have been listed just now
        :raises CorruptionError: an entry is missing, damaged or out of its chain.
        """
        after = entry_name(self.state.seq) if self.state.seq else ""
        found = self._storage.list("log/", start_after=after) if listed is None else listed
        names = [info.name for info in found if info.name > after]
        first = self.state.seq + 1
        if self.state.seq == 0 and len(names) >= CHECKPOINT_EVERY:
            first = len(names) // CHECKPOINT_EVERY * CHECKPOINT_EVERY  # the newest checkpoint
            names = names[first - 1 :]
        for seq, name in enumerate(names, first):
            if name != entry_name(seq):
                raise CorruptionError(f"{self._storage}{entry_name(seq)} is missing from the log")
        with ThreadPoolExecutor(_READERS) as pool:
            for name, data in zip(names, pool.map(self._get, names), strict=True):
                self._fold(name, data)
        return self.state

    def _get(self, name: str) -> bytes:
        return self._storage.get(name, limit_bytes=_ENTRY_LIMIT_BYTES)

    def _fold(self, name: str, data: bytes) -> dict[str, Any]:
        entry = verify_line(data, self._key, name)
        if entry_name(entry["seq"]) != name:
            raise CorruptionError(f"{name} holds entry {entry['seq']}")
        starts_here = self.state.seq == 0 and entry["seq"] > 1
        if not starts_here and entry["prev"] != self.state.digest:
            raise CorruptionError(f"{name} does not follow the entry before it")
        self.state.fold(entry, hashlib.sha256(data).hexdigest())
        return entry

    def append(
        self,
        kind: str,
        body: dict[str, Any],
        *,
        still_valid: Callable[[LogState], Any] | None = None,
    ) -> int:
        """Claim the next entry; returns its seq.

        :param still_valid: called with the state before each try for a place. What it raises ends the
            attempt: nothing has been claimed then.
        """
        deadline = time.monotonic() + _CLAIM_SECONDS
        refused = 0
        while time.monotonic() < deadline:
            if still_valid is not None:
                still_valid(self.state)
            seq = self.state.seq + 1
            if seq % CHECKPOINT_EVERY == 0 and kind != "checkpoint":
                self.append("checkpoint", self.state.checkpoint(), still_valid=still_valid)
                continue
            if kind == "checkpoint" and seq % CHECKPOINT_EVERY:
                return seq - 1  # another writer has written it
            if self._claim(seq, kind, body):
                return seq
            refused += 1
            if refused % _REFUSALS == 0:
                self.refresh()  # others came first, and many of them
        raise StorageError(f"{self._storage}log: every place went to other writers for {_CLAIM_SECONDS} s")

    def _claim(self, seq: int, kind: str, body: dict[str, Any]) -> bool:
        """Try for one place. When it is taken, the entry there is folded; was it ours, we have it."""
        nonce = secrets.token_hex(8)
        entry = {
            "seq": seq,
            "prev": self.state.digest,
            "type": kind,
            "nonce": nonce,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "body": body,
        }
        data = sign_line(entry, self._key)
        name = entry_name(seq)
        if self._storage.claim(name, data):
            self.state.fold(json.loads(data.split(b"\n", 1)[0]), hashlib.sha256(data).hexdigest())
            return True
        try:
            found = self._fold(name, self._get(name))
        except ObjectNotFoundError as error:
            raise StorageError(f"{self._storage}{name}: refused as existing, but it is not there") from error
        return bool(found["nonce"] == nonce)
