"""Alters rows in the data folder of a standby, as a fault of its disk would: behind the server's back."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from typing import Any

import psycopg

from fastvlm_ops.core.disaster_recovery.postgresql.state import wait_until_streaming
from fastvlm_ops.local.postgres_starting import account, environment
from fastvlm_ops.local.service.database_pair import DatabasePair

_PAGE_BYTES = 8192
_HEADER_BYTES = 24
_INFOMASK_AT = 20
_XMIN_COMMITTED, _XMIN_INVALID = 0x0100, 0x0200


def alter_row(pair: DatabasePair) -> str:
    """Alter one byte of the payload of a row of the table record, on the standby only; returns the row's key.

    :param pair: whose standby streams
    """

    def change(page: bytearray, start: int, length: int) -> None:
        page[start + length - 1] ^= 1

    return _tamper(pair, change)


def hide_row(pair: DatabasePair) -> str:
    """Make a row of the table record invisible on the standby, as if it had never been committed; returns its
    key.

    :param pair: whose standby streams
    """

    def change(page: bytearray, start: int, length: int) -> None:
        (mask,) = struct.unpack_from("<H", page, start + _INFOMASK_AT)
        struct.pack_into("<H", page, start + _INFOMASK_AT, mask & ~_XMIN_COMMITTED | _XMIN_INVALID)

    return _tamper(pair, change)


def _tamper(pair: DatabasePair, change: Any) -> str:
    primary, standby = pair.primary(), pair.standby()
    with psycopg.connect(pair.dsn(primary), autocommit=True) as connection:
        # Whatever the primary does to the page later would come to the standby as a whole page, and heal it.
        connection.execute("VACUUM record")
        connection.execute("CHECKPOINT")
        path, key, place = connection.execute(
            "SELECT pg_relation_filepath('record'), id, ctid::text FROM record ORDER BY ctid LIMIT 1 OFFSET 2"
        ).fetchone() or ("", "", "")
    wait_until_streaming(lambda: pair.read(primary), lambda: pair.read(standby), seconds=30)
    with psycopg.connect(pair.dsn(standby), autocommit=True) as connection:
        connection.execute("CHECKPOINT")  # all is in the files then, and nothing of it is replayed again
    pair.stop_instance(standby)
    _without_checksums(pair, standby)
    block, item = (int(part) for part in place.strip("()").split(","))
    _change(pair.data(standby) / path, block, item, change)
    pair.start_instance(standby)
    wait_until_streaming(lambda: pair.read(primary), lambda: pair.read(standby), seconds=30)
    return str(key)


def _change(file: Path, block: int, item: int, change: Any) -> None:
    with file.open("r+b") as relation:
        relation.seek(block * _PAGE_BYTES)
        page = bytearray(relation.read(_PAGE_BYTES))
        (line,) = struct.unpack_from("<I", page, _HEADER_BYTES + 4 * (item - 1))
        change(page, line & 0x7FFF, line >> 17)
        relation.seek(block * _PAGE_BYTES)
        relation.write(page)


def _without_checksums(pair: DatabasePair, name: str) -> None:
    """Turn the checksums of pages off, which would tell of what is changed here."""
    subprocess.run(
        [pair.programs / "pg_checksums", "--disable", "--no-sync", "-D", pair.data(name)],
        env=environment(pair.scratch),
        cwd=pair.scratch,
        capture_output=True,
        check=True,
        **account().popen_options(),
    )
