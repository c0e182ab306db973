"""What a segment's file says of itself: whose it is, and which transaction in it was the last to end.

As in PostgreSQL's ``xlog_internal.h`` and ``xlogrecord.h``, which have not changed in this from version 14
to 18: pages with a header each, the first page's longer; between the headers a stream of records, each at a
multiple of 8 bytes. Servers of big-endian machines are refused.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from fastvlm_ops.core.backup.errors import CorruptionError
from fastvlm_ops.core.backup.postgresql.lsn import Segment, format_lsn

_LONG_PAGE = struct.Struct("<HHIQIxxxxQII")  # magic, info, timeline, address, rest, system, segment, block
_PAGE_BYTES = 24
_REST = struct.Struct("<I")
_REST_OFFSET = 16
_IS_LONG = 2
_CONTINUES = 1
_BLOCKS = frozenset(1 << bits for bits in range(10, 17))

_RECORD = struct.Struct("<IIQBBxxI")  # length, transaction, previous, info, resource manager, CRC
_TRANSACTIONS = 1  # the resource manager's number
_OPERATION = 0x70
_ENDS = frozenset({0x00, 0x20, 0x30, 0x40})  # commit, abort, and both of what was prepared
_SHORT, _LONG, _ORIGIN, _TOP_LEVEL = 255, 254, 253, 252
_TIME = struct.Struct("<q")
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_LATEST = 500 * 365 * 86400 * 10**6  # microseconds


@dataclass(frozen=True)
class SegmentFacts:
    """The header of a segment's first page. The timeline is the one that its first record was written on."""

    system_id: str
    timeline: int
    start_lsn: int
    segment_bytes: int
    block_bytes: int


def segment_facts(data: bytes, name: str) -> SegmentFacts:
    """Return what the first page says.

    :param data: the segment, or its beginning
    :param name: of the file, for messages
    :raises CorruptionError: it is not the beginning of a segment
    """
    if len(data) < _LONG_PAGE.size:
        raise CorruptionError(f"{name} is {len(data)} bytes, which is no WAL segment")
    _, info, timeline, address, _, system, segment, block = _LONG_PAGE.unpack_from(data)
    if not info & _IS_LONG or block not in _BLOCKS or not segment or segment % block:
        raise CorruptionError(f"{name} does not begin like a WAL segment of a little-endian server")
    return SegmentFacts(str(system), timeline, address, segment, block)


def check_segment(data: bytes, segment: Segment, system_id: str, name: str) -> None:
    """Check that bytes are the segment they are said to be, whole.

    :param name: of the file, for messages
    :raises CorruptionError: another system's, another segment, or of another size
    """
    facts = segment_facts(data, name)
    if facts.system_id != system_id:
        raise CorruptionError(f"{name} is WAL of system {facts.system_id}, not of {system_id}")
    if facts.segment_bytes != segment.segment_bytes or len(data) != segment.segment_bytes:
        raise CorruptionError(
            f"{name} has {len(data)} bytes and says {facts.segment_bytes}; expected {segment.segment_bytes}"
        )
    # The first segment of a new timeline begins with a copy of the old one's.
    if facts.start_lsn != segment.start_lsn or facts.timeline > segment.timeline:
        raise CorruptionError(
            f"{name} holds the WAL of timeline {facts.timeline} from {format_lsn(facts.start_lsn)};"
            f" expected timeline {segment.timeline} from {format_lsn(segment.start_lsn)}"
        )


@dataclass(frozen=True)
class LastTransaction:
    """The end of the transactions in a segment: the newest time by the server's clock, the last one's id."""

    ended_at: datetime
    transaction_id: int


def last_transaction(data: bytes, name: str) -> LastTransaction | None:
    """Return which transaction was the last that ended in a segment, by commit or abort.

    None where none did. One whose record goes on in the next segment is not counted: this segment alone
    does not hold it.

    :param data: the whole segment
    :param name: of the file, for messages
    """
    latest: int | None = None
    transaction_id = 0
    stream, at = _records(data, segment_facts(data, name).block_bytes)
    end = len(stream)
    while at + _RECORD.size <= end:
        length, transaction, _, info, manager, _ = _RECORD.unpack_from(stream, at)
        if length < _RECORD.size or at + length > end:
            break  # zeros after a switch, or a record that goes on in the next segment
        if manager == _TRANSACTIONS and info & _OPERATION in _ENDS:
            time = _time_of(stream[at : at + length])
            if time is not None and abs(time) < _LATEST:
                latest = time if latest is None else max(time, latest)
                transaction_id = transaction
        at += _aligned(length)
    if latest is None:
        return None
    return LastTransaction(_EPOCH + timedelta(microseconds=latest), transaction_id)


def _records(data: bytes, block_bytes: int) -> tuple[bytes, int]:
    """All of a segment but its page headers, and where in that the first whole record begins."""
    pages = [data[_LONG_PAGE.size : block_bytes]]
    pages += [data[at + _PAGE_BYTES : at + block_bytes] for at in range(block_bytes, len(data), block_bytes)]
    info = _LONG_PAGE.unpack_from(data)[1]
    rest = _REST.unpack_from(data, _REST_OFFSET)[0] if info & _CONTINUES else 0
    return b"".join(pages), _aligned(rest)


def _aligned(length: int) -> int:
    return (length + 7) & ~7


def _time_of(record: bytes) -> int | None:
    """Microseconds since 2000, with which the data of such a record begins; None where it has no data."""
    at = _RECORD.size
    while at < len(record):
        kind = record[at]
        if kind == _ORIGIN:
            at += 3
        elif kind == _TOP_LEVEL:
            at += 5
        else:
            data = at + {_SHORT: 2, _LONG: 5}.get(kind, len(record))
            return _TIME.unpack_from(record, data)[0] if data + _TIME.size <= len(record) else None
    return None
