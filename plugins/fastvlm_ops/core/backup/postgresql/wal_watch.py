"""What a run of backup_wal finds out: the window, how far the bucket is behind, and what is wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fastvlm_ops.core.backup.errors import DumpError, ObjectNotFoundError
from fastvlm_ops.core.backup.postgresql.lsn import Segment, format_lsn
from fastvlm_ops.core.backup.postgresql.wal_names import object_name
from fastvlm_ops.core.backup.postgresql.wal_server import ServerWal, ask_server, switch_wal
from fastvlm_ops.core.backup.postgresql.window import RecoverableWindow, prove_window
from fastvlm_ops.core.backup.repository import Repository

if TYPE_CHECKING:
    from sqlalchemy import URL

_LOOK_SECONDS = 1.0
_EARLY_SECONDS = 30.0  # that a run may begin before its time, so that a segment does not wait for the next
_NEAR_SEGMENTS = 8
_START = "fastvlm-ops receive-wal --component {}"


@dataclass(frozen=True)
class WalRules:
    """What ``components.yaml`` says of a component's WAL.

    :param slot: replication slot of the receiver
    :param max_lag_seconds: how far the bucket may be behind
    :param switch_after_seconds: after how long the server is asked to finish a segment
    """

    slot: str
    max_lag_seconds: float
    switch_after_seconds: float


@dataclass(frozen=True)
class WalState:
    """What was found. None is unknown.

    ``lag_bytes`` is WAL that the server has and the bucket has not; ``lag_seconds`` how old the last stored
    transaction is, 0 where none came after it. ``problems`` each say what to do.
    """

    component: str
    checked_at: datetime
    window: RecoverableWindow
    server: ServerWal | None
    switched: bool
    lag_bytes: int | None
    lag_seconds: float | None
    problems: tuple[str, ...] = ()
    unreachable: str | None = None

    def as_dict(self) -> dict[str, Any]:
        server = self.server
        return {
            **self.window.as_dict(),
            "server_lsn": None if server is None else format_lsn(server.cluster.current_lsn),
            "lag_bytes": self.lag_bytes,
            "lag_seconds": None if self.lag_seconds is None else round(self.lag_seconds, 1),
            "switched": self.switched,
            "problems": list(self.problems),
        }


def watch_wal(
    repository: Repository,
    component: str,
    url: URL,
    rules: WalRules,
    *,
    patience_seconds: float = 60,
    tell: Callable[[str], None] = lambda _: None,
) -> WalState:
    """Have a segment finished that has waited too long, prove the window, and measure the lag.

    Nothing is switched where no transaction came after the last one that is stored: a retried task changes
    nothing twice, and a server at rest makes no WAL.

    :param repository: an opened one
    :param component: its name
    :param url: address of the cluster
    :param rules: of the component
    :param patience_seconds: how long a receiver may take to come back, and to store what was finished
    :param tell: takes a line of the log
    :raises StorageError: or a subclass: the bucket cannot be read
    :raises SourceError: the server is too old
    :raises SwitchDeniedError: the user may not finish a segment
    """
    window = prove_window(repository, component)
    try:
        server = _ask_patiently(url, rules, patience_seconds)
    except DumpError as error:
        return WalState(component, datetime.now(UTC), window, None, False, None, None, unreachable=str(error))
    switched = False
    if _is_due(window, server, rules):
        lsn = switch_wal(url)
        switched = True
        tell(f"the server has finished a segment, at {format_lsn(lsn)}")
        _wait_until_stored(repository, component, server, lsn, patience_seconds)
        window, server = prove_window(repository, component), ask_server(url, rules.slot)
    lag_bytes, lag_seconds = _lag(window, server)
    problems = [
        *_system_problems(component, window, server),
        *_slot_problems(component, server, rules),
        *_lag_problems(component, lag_seconds, rules),
    ]
    return WalState(
        component, datetime.now(UTC), window, server, switched, lag_bytes, lag_seconds, tuple(problems)
    )


def _ask_patiently(url: URL, rules: WalRules, patience_seconds: float) -> ServerWal:
    """A receiver that has just lost its connection gets the time to come back."""
    deadline = time.monotonic() + patience_seconds
    while True:
        server = ask_server(url, rules.slot)
        is_there = server.slot is not None and (server.slot.active or server.slot.is_lost)
        if is_there or time.monotonic() >= deadline:
            return server
        time.sleep(_LOOK_SECONDS)


def _is_due(window: RecoverableWindow, server: ServerWal, rules: WalRules) -> bool:
    """Whether the server should finish its segment: somebody would receive it, and it holds something new."""
    if server.cluster.in_recovery or server.slot is None or not server.slot.active:
        return False
    if window.system_id != server.cluster.system_id or window.until_lsn is None:
        return False  # without a base backup, it would make nothing recoverable
    if not server.wrote_since(window.last):
        return False
    if window.last is None:
        return True
    waited = (server.cluster.now - window.last.ended_at).total_seconds()
    return waited + _EARLY_SECONDS >= rules.switch_after_seconds


def _wait_until_stored(
    repository: Repository, component: str, server: ServerWal, lsn: int, patience_seconds: float
) -> None:
    """Where it takes longer, the lag says so."""
    cluster = server.cluster
    segment = Segment.of(cluster.timeline, lsn - 1, cluster.segment_bytes)
    name = object_name(component, cluster.system_id, segment)
    deadline = time.monotonic() + patience_seconds
    while time.monotonic() < deadline:
        try:
            repository.storage.head(name)
        except ObjectNotFoundError:
            time.sleep(_LOOK_SECONDS)
        else:
            return


def _lag(window: RecoverableWindow, server: ServerWal) -> tuple[int | None, float | None]:
    if window.system_id != server.cluster.system_id or window.until_lsn is None:
        return None, None
    lag_bytes = max(0, server.cluster.current_lsn - window.until_lsn)
    if not server.wrote_since(window.last):
        return lag_bytes, 0.0
    since = window.last.ended_at if window.last is not None else window.recoverable_until
    if since is None:
        return lag_bytes, None
    return lag_bytes, max(0.0, (server.cluster.now - since).total_seconds())


def _system_problems(component: str, window: RecoverableWindow, server: ServerWal) -> list[str]:
    cluster = server.cluster
    if not window.bases:
        return [
            f"{component}: there is no base backup, so that its WAL recovers nothing. Trigger backup_full"
        ]
    if window.system_id != cluster.system_id:
        return [
            f"{component}: the server is the system {cluster.system_id}, but the newest base backup is of"
            f" {window.system_id}. If the cluster was replaced, trigger backup_full; if the connection names"
            " the wrong server, mend it"
        ]
    problems = []
    if window.is_broken:
        problems.append(
            f"{component}: {window.gap}. It cannot be mended: trigger backup_full for a new base backup, then"
            " find out from the receiver's log why the segment is missing"
        )
    elif window.until_lsn is None:
        problems.append(
            f"{component}: no base backup has the WAL yet that makes it consistent. Where it was made just"
            f" now, this passes with the next run; else see the log of {_START.format(component)}"
        )
    if window.timeline is not None and cluster.timeline > window.timeline and window.until_lsn is not None:
        problems.append(
            f"{component}: the server is on timeline {cluster.timeline}, and the bucket has WAL up to"
            f" timeline {window.timeline} only. Where it was promoted just now, this passes; else see the"
            " receiver's log"
        )
    return problems


def _slot_problems(component: str, server: ServerWal, rules: WalRules) -> list[str]:
    slot, start = server.slot, _START.format(component)
    if slot is None:
        return [
            f"{component}: the server has no replication slot {rules.slot!r}, so that it keeps no WAL for the"
            f" receiver. Start {start}, which makes it; then trigger backup_full"
        ]
    if slot.is_lost:
        return [
            f"{component}: the replication slot {rules.slot!r} has lost WAL (max_slot_wal_keep_size). Stop"
            f" the receiver, SELECT pg_drop_replication_slot('{rules.slot}'), start {start}, and trigger"
            " backup_full"
        ]
    problems = []
    if not slot.active:
        problems.append(
            f"{component}: nobody receives WAL through the slot {rules.slot!r}; the server keeps it, and its"
            f" disk fills. Start {start}, or see its log and status.json"
        )
    near = _NEAR_SEGMENTS * server.cluster.segment_bytes
    is_near = slot.safe_wal_bytes is not None and slot.safe_wal_bytes < near
    if slot.wal_status == "unreserved" or is_near:
        left = "nothing" if slot.safe_wal_bytes is None else f"{max(0, slot.safe_wal_bytes) >> 20} MiB"
        problems.append(
            f"{component}: the replication slot {rules.slot!r} is about to lose WAL: {left} may still be"
            " written. Mend the receiver at once, or raise max_slot_wal_keep_size"
        )
    return problems


def _lag_problems(component: str, lag_seconds: float | None, rules: WalRules) -> list[str]:
    if lag_seconds is None or lag_seconds <= rules.max_lag_seconds:
        return []
    return [
        f"{component}: the last stored transaction is {lag_seconds:.0f} s old, and others came after it;"
        f" wal_max_lag_seconds allows {rules.max_lag_seconds:.0f} s. See the log and status.json of"
        f" {_START.format(component)}"
    ]
