"""Whether a cluster can be backed up by pg_basebackup, and what to do where it cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastvlm_ops.core.backup.errors import DumpError, SourceError
from fastvlm_ops.core.backup.postgresql.address import shown
from fastvlm_ops.core.backup.postgresql.cluster import Cluster, connected, identify_on

if TYPE_CHECKING:
    from psycopg import Connection
    from sqlalchemy import URL

# One sends the base; one holds the slot that keeps the WAL which the base needs.
_WAL_SENDERS = 2
_STATE = """
SELECT current_user,
       (SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user),
       current_setting('wal_level'), current_setting('max_wal_senders')::int,
       current_setting('full_page_writes')::bool, current_setting('block_size')::int,
       current_setting('data_directory_mode')
"""


def check_ready(url: URL) -> Cluster:
    """Check that a base backup of a cluster can begin; return which it is.

    :param url: address of one of its databases
    :raises DumpError: it does not answer
    :raises SourceError: it cannot be backed up; the message names every reason, and what to do about each
    """
    with connected(url) as connection:
        cluster = identify_on(connection)
        problems = [*_tablespaces(cluster), *_settings(connection, cluster)]
    if problems:
        raise SourceError(f"{shown(url)} cannot be backed up: " + "; ".join(problems))
    _check_replication(url, cluster)
    return cluster


def require_no_tablespaces(url: URL, cluster: Cluster) -> None:
    """:raises SourceError: it has some, which the message names"""
    if problems := _tablespaces(cluster):
        raise SourceError(f"{shown(url)} cannot be backed up: {problems[0]}")


def layout_of(connection: Connection[Any]) -> tuple[int, int]:
    """Return the size of a cluster's pages in bytes, and the mode of its data folder."""
    row = connection.execute(_STATE).fetchone()
    assert row is not None  # noqa: S101 - a SELECT without FROM gives a row
    return row[5], int(row[6], 8)


def _tablespaces(cluster: Cluster) -> list[str]:
    if not cluster.tablespaces:
        return []
    names = ", ".join(cluster.tablespaces)
    return [
        f"it has tablespaces of its own ({names}), and a stream holds one folder only: move what is in them"
        " (ALTER DATABASE … SET TABLESPACE pg_default, ALTER TABLE ALL IN TABLESPACE …), and drop them"
    ]


def _settings(connection: Connection[Any], cluster: Cluster) -> list[str]:
    row = connection.execute(_STATE).fetchone()
    assert row is not None  # noqa: S101 - a SELECT without FROM gives a row
    user, may_replicate, wal_level, senders, full_pages, *_ = row
    problems = []
    if not may_replicate:
        problems.append(f"its user {user} lacks the right to replicate: ALTER ROLE {user} REPLICATION")
    if wal_level == "minimal":
        problems.append("its wal_level is minimal: set it to replica, and restart the server")
    if senders < _WAL_SENDERS:
        problems.append(f"its max_wal_senders is {senders}: set it to 10, and restart the server")
    if cluster.in_recovery and not full_pages:
        problems.append("it is a standby with full_page_writes = off: set it on, on the primary")
    return problems


def _check_replication(url: URL, cluster: Cluster) -> None:
    """Whether it lets its user replicate from here, and is the same server then."""
    try:
        with connected(url, replication=True) as connection:
            row = connection.execute("IDENTIFY_SYSTEM").fetchone()
    except DumpError as error:
        raise DumpError(
            f"{error}. Statements are accepted, but not replication: pg_hba.conf needs a line such as"
            f" 'hostssl replication {url.username} <address of this worker> scram-sha-256', then SELECT"
            " pg_reload_conf(); a pooler between them does not pass replication on"
        ) from None
    assert row is not None  # noqa: S101 - the command gives a row
    system_id = row[0].decode() if isinstance(row[0], bytes) else str(row[0])
    if system_id != cluster.system_id:
        raise SourceError(
            f"{shown(url)} leads to two clusters: statements to system {cluster.system_id}, replication to"
            f" {system_id}; name one server"
        )
