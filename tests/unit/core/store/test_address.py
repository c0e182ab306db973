"""Addresses of the operations database, and the times that it takes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql, sqlite

from fastvlm_ops.core.store.address import checked_url, shown
from fastvlm_ops.core.store.errors import StoreUrlError
from fastvlm_ops.core.store.tables.columns import UtcDateTime

OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.datetimes(datetime(1000, 1, 2), datetime(9999, 12, 30), timezones=OFFSETS)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_postgresql_by_any_of_its_names(scheme: str) -> None:
    assert checked_url(f"{scheme}://u:p@h:1/d").drivername == "postgresql+psycopg"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite://", "in memory is lost with its process"),
        ("sqlite:///:memory:", "in memory is lost with its process"),
        ("mysql://u:secret@h/d", "'mysql' is not supported"),
        ("postgresql+psycopg2://u:secret@h/d", r"'postgresql\+psycopg2' is not supported"),
        ("u:secret@h", "cannot be read; it must look like"),
        ("postgresql://u:secret@h:port/d", "cannot be read; it must look like"),
    ],
)
def test_refuses_without_showing_the_password(url: str, message: str) -> None:
    with pytest.raises(StoreUrlError, match=message) as caught:
        checked_url(url)
    assert "secret" not in str(caught.value)


def test_is_shown_without_password_and_options() -> None:
    assert (
        shown(checked_url("postgresql://u:secret@h/d?sslpassword=secret")) == "postgresql+psycopg://u:***@h/d"
    )


@given(moment=MOMENTS)
def test_a_moment_stays_the_same_moment(moment: datetime) -> None:
    column = UtcDateTime()
    for dialect in (sqlite.dialect(), postgresql.dialect()):
        restored = column.process_result_value(column.process_bind_param(moment, dialect), dialect)
        assert restored == moment
        assert restored.tzinfo is UTC


@given(first=MOMENTS, second=MOMENTS)
def test_text_sorts_as_the_moments_do(first: datetime, second: datetime) -> None:
    column, dialect = UtcDateTime(), sqlite.dialect()
    texts = [column.process_bind_param(moment, dialect) for moment in (first, second)]
    assert (texts[0] < texts[1]) == (first < second)
    assert len(texts[0]) == len(texts[1]) == 32


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(ValueError, match="has no time zone"):
        UtcDateTime().process_bind_param(datetime(2026, 1, 1), sqlite.dialect())
