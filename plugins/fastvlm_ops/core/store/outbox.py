"""Messages to the world outside, written in the transaction that they are about, and sent later.

A message is handled at least once: a worker that is killed leaves its claim to expire, and another gets the
message. It is acknowledged once, and enqueued once by its dedup key; a receiver that must not see it twice
gets ``Message.dedup_key`` to tell.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, func, literal, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from fastvlm_ops.core.store.clock import now
from fastvlm_ops.core.store.engine import Store
from fastvlm_ops.core.store.errors import ClaimLostError
from fastvlm_ops.core.store.tables.shared import messages

_FIRST_DELAY = timedelta(seconds=10)
_LONGEST_DELAY = timedelta(hours=1)


@dataclass(frozen=True)
class Message:
    """A message, claimed by one worker.

    :param id: its number
    :param topic: what kind of message it is
    :param dedup_key: the same each time it is handled
    :param payload: small JSON
    :param attempt: how often it was claimed, this time included
    :param claim_token: of this claim
    :param claimed_until: when others can claim it, in UTC
    """

    id: int
    topic: str
    dedup_key: str
    payload: dict[str, Any]
    attempt: int
    claim_token: str
    claimed_until: datetime


@dataclass(frozen=True)
class Backlog:
    """How many messages of a topic are where.

    :param waiting: to be claimed, now or after a delay
    :param claimed: by a worker whose time is not over
    :param acknowledged: done, and not removed yet
    :param given_up: failed too often; they wait for a person, and :func:`revive`
    """

    waiting: int
    claimed: int
    acknowledged: int
    given_up: int


def enqueue(
    connection: Connection,
    *,
    topic: str,
    dedup_key: str,
    payload: Mapping[str, Any],
    delay: timedelta = timedelta(),
    max_attempts: int = 10,
) -> bool:
    """Write a message, unless its topic has one with this key, be it done already.

    :param connection: of the transaction that writes what it is about
    :param delay: before it can be claimed
    :param max_attempts: how often it is tried before it is given up
    :returns: whether it is new
    """
    if max_attempts < 1:
        raise ValueError(f"max_attempts must be 1 or more, not {max_attempts}")
    moment = now(connection)
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(messages).values(
        topic=topic,
        dedup_key=dedup_key,
        payload=dict(payload),
        created_at=moment,
        available_at=moment + delay,
        attempts=0,
        max_attempts=max_attempts,
    )
    statement = statement.on_conflict_do_nothing(index_elements=["topic", "dedup_key"])
    return connection.execute(statement.returning(messages.c.id)).first() is not None


def claim(
    store: Store, topic: str, *, limit: int = 1, visibility: timedelta = timedelta(minutes=5)
) -> list[Message]:
    """Claim messages, the oldest first; none where there are none.

    :param store: the operations database; a transaction of its own is made and committed
    :param limit: how many at most
    :param visibility: after which others can claim them, unless acknowledged: longer than handling takes
    """
    if visibility <= timedelta():
        raise ValueError(f"the visibility time must be positive, not {visibility}")
    with store.write() as connection:
        moment = now(connection)
        _give_up_on_killers(connection, topic, moment)
        rows = connection.execute(
            select(messages)
            .where(messages.c.topic == topic, messages.c.available_at <= moment, _claimable(moment))
            .order_by(messages.c.available_at, messages.c.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        ).all()
        claimed = [
            Message(
                id=row.id,
                topic=row.topic,
                dedup_key=row.dedup_key,
                payload=row.payload,
                attempt=row.attempts + 1,
                claim_token=uuid.uuid4().hex,
                claimed_until=moment + visibility,
            )
            for row in rows
        ]
        for message in claimed:
            connection.execute(
                update(messages)
                .where(messages.c.id == message.id)
                .values(
                    attempts=message.attempt,
                    claim_token=message.claim_token,
                    claimed_until=message.claimed_until,
                )
            )
    return claimed


def acknowledge(connection: Connection, message: Message) -> None:
    """Say that a message is done. Late is fine while nobody else has claimed it.

    :param connection: of a writing transaction; that of what handling it wrote, so that both happen or none
    :param message: as claimed
    :raises ClaimLostError: another claimed it since, or it is done: what handling it wrote must not stay
    """
    _settle(connection, message, acknowledged_at=now(connection), claim_token=None, claimed_until=None)


def fail(
    connection: Connection,
    message: Message,
    error: str,
    *,
    first_delay: timedelta = _FIRST_DELAY,
    longest_delay: timedelta = _LONGEST_DELAY,
) -> None:
    """Say that handling a message failed: it is tried again after a delay that doubles, or is given up.

    :param connection: of a writing transaction
    :param message: as claimed
    :param error: what went wrong, for people; without secrets
    :param first_delay: before the second attempt
    :param longest_delay: before any
    :raises ClaimLostError: another claimed it since, or it is done
    """
    moment = now(connection)
    doubled = min(message.attempt - 1, 30)
    delay = min(first_delay * 2**doubled, longest_delay)
    used_up = messages.c.attempts >= messages.c.max_attempts
    _settle(
        connection,
        message,
        available_at=moment + delay,
        gave_up_at=case((used_up, _moment(moment)), else_=None),
        last_error=error[:4000],
        claim_token=None,
        claimed_until=None,
    )


def revive(connection: Connection, topic: str, dedup_key: str) -> bool:
    """Give a message that was given up all its attempts again.

    :param connection: of a writing transaction
    :returns: whether there was such a message
    """
    revived = connection.execute(
        update(messages)
        .where(
            messages.c.topic == topic, messages.c.dedup_key == dedup_key, messages.c.gave_up_at.is_not(None)
        )
        .values(attempts=0, gave_up_at=None, available_at=now(connection))
    )
    return revived.rowcount == 1


def backlog(connection: Connection, topic: str) -> Backlog:
    """Count the messages of a topic.

    :param connection: of any transaction
    """
    moment = now(connection)
    done = messages.c.acknowledged_at.is_not(None)
    given_up = messages.c.gave_up_at.is_not(None)
    held = and_(~done, ~given_up, messages.c.claimed_until > _moment(moment))
    row = connection.execute(
        select(
            func.count(), *(func.count(case((condition, 1))) for condition in (held, done, given_up))
        ).where(messages.c.topic == topic)
    ).one()
    total, claimed, acknowledged, gave_up = tuple(row)
    return Backlog(
        waiting=total - claimed - acknowledged - gave_up,
        claimed=claimed,
        acknowledged=acknowledged,
        given_up=gave_up,
    )


def _claimable(moment: datetime) -> ColumnElement[bool]:
    free = or_(messages.c.claimed_until.is_(None), messages.c.claimed_until <= moment)
    return and_(messages.c.acknowledged_at.is_(None), messages.c.gave_up_at.is_(None), free)


def _give_up_on_killers(connection: Connection, topic: str, moment: datetime) -> None:
    # Whoever handled it never came back to say so: a message that kills its workers would do so for ever.
    spent = (
        select(messages.c.id)
        .where(
            messages.c.topic == topic,
            messages.c.attempts >= messages.c.max_attempts,
            _claimable(moment),
        )
        .with_for_update(skip_locked=True)
    )
    connection.execute(
        update(messages)
        .where(messages.c.id.in_(spent))
        .values(
            gave_up_at=moment,
            claim_token=None,
            claimed_until=None,
            last_error="its workers ended, or took too long, without saying how it went",
        )
    )


def _settle(connection: Connection, message: Message, **values: Any) -> None:
    settled = connection.execute(
        update(messages)
        .where(
            messages.c.id == message.id,
            messages.c.claim_token == message.claim_token,
            messages.c.acknowledged_at.is_(None),
        )
        .values(**values)
    )
    if settled.rowcount != 1:
        raise ClaimLostError(
            f"message {message.dedup_key!r} of {message.topic!r} (attempt {message.attempt}) was claimed by"
            " another worker since, or is done: claim with a longer visibility time"
        )


def _moment(value: datetime) -> ColumnElement[datetime]:
    return literal(value, messages.c.gave_up_at.type)
