"""What time it is, for everybody who uses one database.

PostgreSQL: the database server's clock, so that machines whose clocks differ agree. SQLite: this machine's,
which all users of the file share. A clock that jumps can end a lease early or late; that two work under one
lease is kept out by its fencing token, not by any clock.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Connection, text


def now(connection: Connection) -> datetime:
    """Return the time, in UTC. Ask after taking a lock: waiting for one takes time.

    :param connection: of any transaction
    """
    if connection.dialect.name == "sqlite":
        return datetime.now(UTC)
    moment: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return moment.astimezone(UTC)
